//! casemate-wire
