//! One connection of the agent: one request in, answers out, never a wait.
//!
//! Framing only (docs/formats.md section 5): u32 length, then that many bytes; descriptors ride on
//! the first byte. What a slow or broken client can hold is bounded in bytes, descriptors and time.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::refusal::Refusal;

/// Most bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;
/// Most descriptors that the kernel passes with one message (`SCM_MAX_FD`).
const KERNEL_DESCRIPTORS_MAX: usize = 253;
/// How long a client may take to send a request, or to take an answer.
const CLIENT_WAIT: Duration = Duration::from_secs(5);
/// Bytes taken at a time, so that one client's megabytes do not hold up the others.
const CHUNK: usize = 64 << 10;

/// How far a request is.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What reading has come to.
#[derive(Debug)]
pub enum Read {
    /// There is more to come.
    More,
    /// The request is complete.
    Request(Vec<u8>, Vec<OwnedFd>),
    /// The client is gone.
    Gone,
    /// This is no request.
    Refused(Refusal),
}

/// Time by which a client must have done its part.
#[must_use]
pub fn client_deadline() -> Option<Instant> {
    Instant::now().checked_add(CLIENT_WAIT)
}

impl Incoming {
    /// Takes what is there, at most one chunk.
    pub fn read(&mut self, socket: BorrowedFd<'_>) -> Read {
        let wanted = match self.missing() {
            Ok(wanted) => wanted.min(CHUNK),
            Err(refusal) => return Read::Refused(refusal),
        };
        let mut buffer = vec![0; wanted];
        let count = match self.receive(socket, &mut buffer) {
            Ok(0) => return Read::Gone,
            Ok(count) => count,
            Err(ReceiveError::Refused(refusal)) => return Read::Refused(refusal),
            Err(ReceiveError::Errno(Errno::AGAIN | Errno::INTR)) => return Read::More,
            Err(ReceiveError::Errno(_)) => return Read::Gone,
        };
        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        match self.missing() {
            Ok(0) => {
                let body = self.bytes.split_off(4);
                Read::Request(body, std::mem::take(&mut self.descriptors))
            }
            Ok(_) => Read::More,
            Err(refusal) => Read::Refused(refusal),
        }
    }

    /// Bytes that are still to come: of the length, then of the request.
    fn missing(&self) -> Result<usize, Refusal> {
        let Some((length, body)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(4_usize.saturating_sub(self.bytes.len()));
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 || length > REQUEST_BYTES_MAX {
            let message =
                format!("a request has 1 to {REQUEST_BYTES_MAX} bytes, this one says {length}");
            return Err(Refusal::new("REQUEST_SIZE", message));
        }
        Ok(length.saturating_sub(body.len()))
    }

    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, ReceiveError> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut into = [IoSliceMut::new(buffer)];
        let message =
            recvmsg(socket, &mut into, &mut control, flags).map_err(ReceiveError::Errno)?;
        let is_first = self.bytes.is_empty();
        for part in control.drain() {
            let RecvAncillaryMessage::ScmRights(descriptors) = part else { continue };
            let descriptors: Vec<OwnedFd> = descriptors.collect();
            if !is_first {
                let message = "descriptors must ride on the first byte of the request";
                return Err(ReceiveError::Refused(Refusal::new("REQUEST_DESCRIPTORS", message)));
            }
            self.descriptors.extend(descriptors);
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            let message =
                "the request's descriptors did not arrive whole; spawn may have none left";
            return Err(ReceiveError::Refused(Refusal::new("REQUEST_DESCRIPTORS", message)));
        }
        Ok(message.bytes)
    }
}

enum ReceiveError {
    Errno(Errno),
    Refused(Refusal),
}

/// Answers on their way out.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Outgoing {
    /// Appends an answer. `descriptors` ride on its first byte, which must then be the first unsent one.
    pub fn push(&mut self, text: &str, descriptors: Vec<OwnedFd>) {
        self.bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.descriptors.extend(descriptors);
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Sends what the socket takes. `Ok` says whether everything is sent.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while !self.is_empty() {
            let rest = self.bytes.get(self.sent..).unwrap_or_default();
            match send(socket, rest, &self.descriptors) {
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            self.descriptors.clear();
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }
}

/// Most descriptors that spawn sends at once: those of a monitor with volumes.
const SENT_DESCRIPTORS_MAX: usize = 16;

/// Sends bytes, with descriptors on the first of them, without waiting.
///
/// # Errors
/// `AGAIN` when the socket is full; otherwise the other end is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "connection_tests.rs"]
mod tests;
