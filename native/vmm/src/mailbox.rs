//! What the control thread has for the I/O thread; written under the lock, then the board is woken.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where it lies until the I/O thread takes it.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Mail>);

/// What spawn asked for since the last look.
#[derive(Debug, Default)]
pub struct Mail {
    /// Stop the app: milliseconds until it is killed.
    pub stop: Option<u32>,
    /// A fresh pod stream.
    pub stream: Option<OwnedFd>,
    /// Tell the counters.
    pub metrics: bool,
    /// Bytes of the scratch disk, which has grown.
    pub resize: Option<u64>,
}

impl Mailbox {
    /// Asks for the app to be stopped.
    pub fn put_stop(&self, timeout_ms: u32) {
        self.lock().stop = Some(timeout_ms);
    }

    /// Asks for the counters; asked again before they are sent, they are sent once.
    pub fn put_metrics_request(&self) {
        self.lock().metrics = true;
    }

    /// Hands over a fresh pod stream.
    pub fn put_stream(&self, stream: OwnedFd) {
        self.lock().stream = Some(stream);
    }

    /// The scratch disk has `bytes` now.
    pub fn put_resize(&self, bytes: u64) {
        self.lock().resize = Some(bytes);
    }

    /// Everything that is there.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
