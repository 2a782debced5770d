//! What the VMM tells spawn, and how it ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use casemate_wire::control::{FAILURE_TEXT_MAX, FromVmm};
use rustix::net::{SendFlags, send};

use crate::failure::Failure;

/// The control socket, shared by the threads that report.
#[derive(Clone, Debug)]
pub struct Report(Arc<OwnedFd>);

impl Report {
    /// Reports go to `control`.
    #[must_use]
    pub fn new(control: OwnedFd) -> Self {
        Self(Arc::new(control))
    }

    /// The socket itself, for receiving.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a message. Spawn reads all the time; a full socket means that spawn is gone, and then the message has no
    /// reader either.
    pub fn send(&self, message: &FromVmm<'_>) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = send(&self.0, message.encode().as_bytes(), flags);
    }

    /// Says why and ends the process, all threads of it.
    pub fn die(&self, failure: &Failure) -> ! {
        self.send(&FromVmm::Failure { reason: failure.reason, text: &printable(&failure.text) });
        exit(1)
    }
}

/// Ends the process at once: no destructors, no exit handlers, one system call that every filter allows.
pub fn exit(code: i32) -> ! {
    crate::exit_unsafe::exit_group(code)
}

/// The text as the message carries it: printable ASCII, cut to the limit.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if matches!(character, ' '..='~') { character } else { '?' })
        .take(FAILURE_TEXT_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_failure_fits_its_message() {
        assert_eq!(printable("caf\u{e9}\n"), "caf??");
        assert_eq!(printable(&"x".repeat(1_000)).len(), FAILURE_TEXT_MAX);
    }
}
