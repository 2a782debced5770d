//! The three streams of the app, or of a process beside it. Each side of each stream has a bound: the app's pipe, the window of
//! credit, and for input a queue no longer than its window.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use casemate_wire::credit::{WINDOW_MAX, Window};
use casemate_wire::frame::GuestKind;
use casemate_wire::payload::{InputCredit, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread, read, write};

use crate::link::{Broken, Outbox};

/// Most bytes in one frame of output.
const CHUNK: usize = 16_384;
/// Input credit is renewed in steps of at least this many bytes.
const RENEW_STEP: u32 = 16_384;
/// ^D: VEOF of a new terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// Standard output or standard error of the app.
#[derive(Debug)]
pub struct Output {
    /// The reading end of the app's pipe; `None` once it has ended.
    pub pipe: Option<OwnedFd>,
    session: u16,
    stream: Stream,
    window: Window,
}

impl Output {
    /// An open stream without credit: the first comes with the host's first CREDIT.
    #[must_use]
    pub fn new(session: u16, stream: Stream, pipe: OwnedFd) -> Self {
        Self { pipe: Some(pipe), ..Self::unconnected(session, stream) }
    }

    /// A stream that may get credit before there is anything to read.
    #[must_use]
    pub fn unconnected(session: u16, stream: Stream) -> Self {
        Self { pipe: None, session, stream, window: Window::default() }
    }

    /// Whether there is something that the host does not let through for now.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.window.left() == 0 && self.pipe.as_ref().is_some_and(holds_bytes)
    }

    /// Without credit nothing is read, the end of the stream neither: finds that out all the same.
    pub fn look_for_the_end(&mut self) {
        let ended = |pipe: &OwnedFd| {
            let mut set = [PollFd::new(pipe, PollFlags::empty())];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut set, Some(&now)).is_ok()
                && set.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
                && !holds_bytes(pipe)
        };
        if self.window.left() == 0 && self.pipe.as_ref().is_some_and(ended) {
            self.pipe = None;
        }
    }

    /// The host lets the stream go on.
    ///
    /// # Errors
    /// [`Broken::Credit`] when it grants more than the window.
    pub fn grant(&mut self, bytes: u32) -> Result<(), Broken> {
        self.window.grant(bytes).ok_or(Broken::Credit)
    }

    /// Whether the pipe is worth waiting for.
    #[must_use]
    pub fn wants_read(&self, outbox: &Outbox) -> bool {
        self.pipe.is_some() && self.window.left() > 0 && outbox.has_room()
    }

    /// Moves at most one frame from the app to the outbox, as far as credit goes. Answers whether
    /// anything happened.
    ///
    /// # Errors
    /// What reading answers, except that there is nothing to read.
    pub fn pump(&mut self, outbox: &mut Outbox) -> Result<bool, Broken> {
        let Some(pipe) = &self.pipe else { return Ok(false) };
        let mut buffer = [0_u8; CHUNK];
        let (usable, _) = buffer.split_at_mut(self.window.left().min(CHUNK));
        if usable.is_empty() {
            return Ok(false);
        }
        match read(pipe, &mut *usable) {
            // The second is how a terminal that nobody has open any more says it.
            Ok(0) | Err(Errno::IO) => {
                self.pipe = None;
                Ok(true)
            }
            Ok(count) => {
                self.window.spend(count).ok_or(Broken::Credit)?;
                let kind = match self.stream {
                    Stream::Stdout => GuestKind::Stdout,
                    Stream::Stderr => GuestKind::Stderr,
                };
                outbox.push_of(self.session, kind, usable.get(..count).unwrap_or_default())?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(Broken::Io(errno)),
        }
    }
}

fn holds_bytes(pipe: &OwnedFd) -> bool {
    ioctl_fionread(pipe).is_ok_and(|count| count > 0)
}

/// Standard input of the app.
#[derive(Debug)]
pub struct Input {
    /// The writing end of the app's pipe; `None` once it is closed, by either side.
    pub pipe: Option<OwnedFd>,
    session: u16,
    queue: VecDeque<u8>,
    window: Window,
    taken: u32,
    ended: bool,
}

impl Input {
    /// An open stream; the host has no leave to send before [`Input::open`].
    #[must_use]
    pub fn new(session: u16, pipe: OwnedFd) -> Self {
        Self {
            pipe: Some(pipe),
            session,
            queue: VecDeque::new(),
            window: Window::default(),
            taken: 0,
            ended: false,
        }
    }

    /// Grants the whole window, once, when the app runs.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn open(&mut self, outbox: &mut Outbox) -> Result<(), Broken> {
        self.taken = WINDOW_MAX;
        self.renew(outbox)
    }

    /// Bytes from the host. When the app has closed its end they are dropped, and credit is renewed
    /// all the same, as a shell does for a pipe into `true`: the host is not held up.
    ///
    /// # Errors
    /// [`Broken::Credit`] when the host had no leave to send that much.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.window.spend(bytes.len()).ok_or(Broken::Credit)?;
        if self.pipe.is_some() {
            self.queue.extend(bytes);
        } else {
            self.count(bytes.len());
        }
        Ok(())
    }

    /// The host sends no more.
    pub fn end(&mut self) {
        self.ended = true;
        if self.queue.is_empty() {
            self.pipe = None;
        }
    }

    /// As [`Input::end`], on a terminal, whose reader is told by the character for it: twice, since the first may
    /// only end a line that was begun.
    pub fn end_terminal(&mut self) {
        if self.pipe.is_some() {
            self.queue.extend([END_OF_TRANSMISSION; 2]);
        }
        self.ended = true;
    }

    /// Whether the pipe is worth waiting for.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.pipe.is_some() && !self.queue.is_empty()
    }

    /// Writes what the app's pipe takes now, and renews the host's credit.
    ///
    /// # Errors
    /// What writing answers, except that the app has closed its end.
    pub fn pump(&mut self, outbox: &mut Outbox) -> Result<(), Broken> {
        if let (Some(pipe), (front, _)) = (&self.pipe, self.queue.as_slices())
            && !front.is_empty()
        {
            match write(pipe, front) {
                Ok(count) => {
                    self.queue.drain(..count.min(self.queue.len()));
                    self.count(count);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::PIPE | Errno::IO) => self.drop_all(),
                Err(errno) => return Err(Broken::Io(errno)),
            }
        }
        if self.ended && self.queue.is_empty() {
            self.pipe = None;
        }
        self.renew(outbox)
    }

    /// The app has closed its end.
    pub fn drop_all(&mut self) {
        self.pipe = None;
        self.count(self.queue.len());
        self.queue.clear();
    }

    fn count(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn renew(&mut self, outbox: &mut Outbox) -> Result<(), Broken> {
        let due = self.taken >= RENEW_STEP || (self.taken > 0 && self.queue.is_empty());
        if !due || self.ended {
            return Ok(());
        }
        self.window.grant(self.taken).ok_or(Broken::Credit)?;
        let credit = InputCredit { bytes: self.taken }.encode();
        outbox.push_of(self.session, GuestKind::Credit, credit.as_bytes())?;
        self.taken = 0;
        Ok(())
    }
}
