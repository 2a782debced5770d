//! What spawn says when it does not do what it was asked.

use std::fmt;

/// A refusal: a stable code for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Upper-case words; the contract.
    pub code: &'static str,
    /// What was refused, why, and what to do.
    pub message: String,
}

impl Refusal {
    /// Makes one.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

/// `Ok`, or a refusal.
pub type Result<T> = std::result::Result<T, Refusal>;
