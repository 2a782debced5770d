//! How this process says why it ends: a reason from a closed table and a short sentence.

use std::fmt;

use casemate_wire::control::Reason;

/// Why a VM was not started, or ended. Sent to spawn as a FAILURE message; the text is cut to the message's limit.
#[derive(Debug)]
pub struct Failure {
    /// The stable code.
    pub reason: Reason,
    /// One sentence for people.
    pub text: String,
}

/// A failure with its sentence.
#[must_use]
pub fn failure(reason: Reason, text: fmt::Arguments<'_>) -> Failure {
    Failure { reason, text: text.to_string() }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.reason, self.text)
    }
}

impl std::error::Error for Failure {}
