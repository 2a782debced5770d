//! Why an app could not be started: a code that is the contract, and a sentence for people.

use std::fmt;

use casemate_wire::payload::ErrorCode;

/// One failed step of starting an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind of step.
    pub code: ErrorCode,
    /// What was tried, and what the kernel or the image answered.
    pub text: String,
}

impl Failure {
    /// A failure of kind `code`.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code.name(), self.text)
    }
}

impl std::error::Error for Failure {}

/// Turns an error into a [`Failure`].
pub trait OrFailure<T> {
    /// `what` says what was tried, as in "mount the image".
    ///
    /// # Errors
    /// The error as a failure of kind `code`, "cannot `what`: cause".
    fn or_failure(self, code: ErrorCode, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFailure<T> for Result<T, E> {
    fn or_failure(self, code: ErrorCode, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(code, format!("cannot {what}: {cause}")))
    }
}
