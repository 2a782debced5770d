//! The control pipe: whole frames in, whole frames out, without blocking and with bounded buffers.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_wire::frame::{
    Frame, FrameError, FrameReader, GuestKind, HostKind, PAYLOAD_MAX, append_to,
};
use casemate_wire::order::OutOfOrder;
use casemate_wire::sessions::SessionError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};

/// Output of the app is taken only while fewer bytes wait for the pipe than this.
const OUTBOX_SOFT_MAX: usize = 65_536;
/// Bytes that are taken off the pipe at a time.
const READ_SIZE: usize = 16_384;
/// How long the last frames may take to leave before the machine ends without them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the conversation with the host cannot go on. It ends the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The host sent what is no frame.
    Frame(FrameError),
    /// The host sent a frame before or after its turn.
    Order(OutOfOrder),
    /// The host sent a frame for a session whose turn it is not.
    Session(SessionError),
    /// The host sent a payload with values that do not exist.
    Payload(HostKind),
    /// The host sent more input than it had leave to, or granted more output than the window.
    Credit,
    /// The host closed the pipe.
    Gone,
    /// The pipe, or another descriptor of init's own, failed.
    Io(Errno),
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(out, "control pipe: {error}"),
            Self::Order(error) => write!(out, "control pipe: {error}"),
            Self::Session(error) => write!(out, "control pipe: {error}"),
            Self::Payload(kind) => write!(out, "control pipe: a {kind:?} frame has wrong values"),
            Self::Credit => write!(out, "control pipe: credit was exceeded"),
            Self::Gone => write!(out, "control pipe: the host closed it"),
            Self::Io(errno) => write!(out, "control pipe: {errno}"),
        }
    }
}

impl std::error::Error for Broken {}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<OutOfOrder> for Broken {
    fn from(error: OutOfOrder) -> Self {
        Self::Order(error)
    }
}

impl From<SessionError> for Broken {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<Errno> for Broken {
    fn from(errno: Errno) -> Self {
        Self::Io(errno)
    }
}

/// Frames from the host. Holds one frame and one read's worth of bytes.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
    reader: FrameReader<HostKind>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(READ_SIZE), taken: 0, reader: FrameReader::new() }
    }
}

impl Inbox {
    /// Reads once. Call it after [`Inbox::next`] answered `None`.
    ///
    /// # Errors
    /// [`Broken::Gone`] at the end of the stream; what reading answers.
    pub fn fill(&mut self, pipe: BorrowedFd<'_>) -> Result<(), Broken> {
        self.bytes.resize(READ_SIZE, 0);
        self.taken = 0;
        let answer = read(pipe, &mut self.bytes);
        self.bytes.truncate(answer.unwrap_or(0));
        match answer {
            Ok(0) => Err(Broken::Gone),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(Broken::Io(errno)),
        }
    }

    /// The next whole frame of what was read.
    ///
    /// # Errors
    /// [`Broken::Frame`] for garbage.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_, HostKind>>, Broken> {
        let mut rest = self.bytes.get(self.taken..).unwrap_or_default();
        let before = rest.len();
        let frame = self.reader.take(&mut rest)?;
        self.taken = self.taken.saturating_add(before.saturating_sub(rest.len()));
        Ok(frame)
    }

    /// True when no byte of a further frame was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len() && self.reader.at_boundary()
    }
}

/// Frames to the host that the pipe has not taken yet.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Queues a frame.
    ///
    /// # Errors
    /// [`Broken::Frame`] when the kind does not allow the payload: a mistake of ours.
    pub fn push(&mut self, kind: GuestKind, payload: &[u8]) -> Result<(), Broken> {
        self.push_of(0, kind, payload)
    }

    /// Queues a frame of a session.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn push_of(&mut self, session: u16, kind: GuestKind, payload: &[u8]) -> Result<(), Broken> {
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
        Ok(append_to(&mut self.bytes, session, kind, payload)?)
    }

    /// Whether output of the app may be added. Control frames may always be: there are few.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending() < OUTBOX_SOFT_MAX
    }

    /// Bytes that wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }

    /// Writes what the pipe takes now.
    ///
    /// # Errors
    /// [`Broken::Gone`] when nobody reads any more; what writing answers.
    pub fn flush_some(&mut self, pipe: BorrowedFd<'_>) -> Result<(), Broken> {
        let waiting = self.bytes.get(self.sent..).unwrap_or_default();
        if waiting.is_empty() {
            return Ok(());
        }
        match write(pipe, waiting) {
            Ok(count) => self.sent = self.sent.saturating_add(count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE) => return Err(Broken::Gone),
            Err(errno) => return Err(Broken::Io(errno)),
        }
        if self.sent > usize::try_from(PAYLOAD_MAX).unwrap_or(0) {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Writes everything, or gives up after a while: the host may have stopped to read.
    ///
    /// # Errors
    /// As [`Outbox::flush_some`].
    pub fn flush_all(&mut self, pipe: &OwnedFd) -> Result<(), Broken> {
        let begin = Instant::now();
        while self.pending() > 0 && begin.elapsed() < FLUSH_TIMEOUT {
            wait(pipe.as_fd(), PollFlags::OUT, Some(Duration::from_millis(100)))?;
            self.flush_some(pipe.as_fd())?;
        }
        Ok(())
    }
}

/// Waits until `pipe` is ready for one of `events`, or broken, or `timeout` is over.
///
/// # Errors
/// What poll answers.
pub fn wait(
    pipe: BorrowedFd<'_>,
    events: PollFlags,
    timeout: Option<Duration>,
) -> Result<PollFlags, Broken> {
    let mut fds = [PollFd::from_borrowed_fd(pipe, events)];
    poll_for(&mut fds, timeout)?;
    Ok(fds.first().map_or(PollFlags::empty(), PollFd::revents))
}

/// poll(2) that takes an interruption for nothing having happened.
///
/// # Errors
/// What poll answers.
pub fn poll_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Broken> {
    let timespec = timeout.and_then(|time| Timespec::try_from(time).ok());
    match poll(fds, timespec.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Broken::Io(errno)),
    }
}
