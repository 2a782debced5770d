//! casemate-ticket
