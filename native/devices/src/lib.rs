//! casemate-devices
