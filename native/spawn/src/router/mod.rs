//! The router, as spawn sees it: a process that was started before spawn left the host's network and took its filter.
//! Spawn has neither the sockets nor the programs for rules, and is not to have them.
//!
//! It is told everything there is to be each time, as a sealed file, under a number that it answers with. What the
//! kernel was told holds on when router and spawn are gone, and the next spawn's router makes it anew.

mod datagrams;
pub mod doors;
pub mod outside;
pub mod pairs;
mod programs;
pub mod rules;
pub mod serve;
mod served;
pub mod state;
mod streams;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;

use crate::connection;
use crate::jail::pair;
use crate::packets;
use crate::sparse::sealed_memfd;
use state::State;

/// Digits of a number, and the complaint behind it.
const NUMBER_BYTES_MAX: usize = 4096;
/// How long a launch waits for its rules. Beyond that something is broken, and the launch is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// The other process.
#[derive(Debug)]
pub struct Router {
    socket: OwnedFd,
    child: Child,
    /// Of the last state that was sent.
    number: u64,
    /// Of the last that was answered.
    answered: u64,
    /// What there is to be has changed since, and the router was busy.
    behind: bool,
}

/// What the router answered: its number and, when it failed, why.
type Answer = (u64, std::result::Result<(), String>);

impl Router {
    /// Starts it, in the network that this process is in: the host's.
    ///
    /// # Errors
    /// No process, no descriptors.
    pub fn start() -> io::Result<Self> {
        let (ours, theirs) = pair(SocketType::SEQPACKET)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("--router")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // Signals of a terminal are for spawn, which says what becomes of pods.
            .process_group(0)
            .spawn()?;
        Ok(Self { socket: ours, child, number: 0, answered: 0, behind: false })
    }

    /// Sends it into the pods' network and waits until nothing passes there that is not permitted.
    ///
    /// # Errors
    /// A sentence: what it needs and has not.
    pub fn enter(&mut self, namespace: OwnedFd) -> std::result::Result<(), String> {
        connection::send(self.socket.as_fd(), b"0", &[namespace]).map_err(|e| e.to_string())?;
        self.wait_for(0)
    }

    /// Something to wait on: readable when there is an answer, or when it has ended.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn watched(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Has everything made as `state` says, and waits for it. With a `namespace`, the last way is a container's that has
    /// no card yet, and it gets one in there.
    ///
    /// # Errors
    /// A sentence. The rules before hold.
    pub fn apply(
        &mut self,
        state: &State,
        namespace: Option<BorrowedFd<'_>>,
    ) -> std::result::Result<(), String> {
        // What it still has to do is overtaken by this.
        if self.answered < self.number {
            // Whether that failed was for its own launch to know.
            let answer = self.wait_for(self.number);
            if self.has_ended() {
                return Err(ended());
            }
            // One that hangs holds up no launch for longer than that, and nothing else of spawn's.
            if self.answered < self.number {
                return answer;
            }
        }
        self.send(state, namespace)?;
        self.wait_for(self.number)
    }

    /// The same without waiting: for what is gone. When the router is busy it is told later, by [`Self::hear`].
    pub fn update(&mut self, state: &State) {
        self.behind = self.answered < self.number || self.send(state, None).is_err();
    }

    /// Takes what it says; `state` is what there is to be. False when it has ended.
    pub fn hear(&mut self, state: &State) -> bool {
        loop {
            match self.receive() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(()) => return false,
            }
        }
        if self.behind {
            self.update(state);
        }
        true
    }

    fn send(
        &mut self,
        state: &State,
        namespace: Option<BorrowedFd<'_>>,
    ) -> std::result::Result<(), String> {
        let number = self.number.saturating_add(1);
        let send = || -> io::Result<()> {
            let file = sealed_memfd("casemate-router", state.write().as_bytes())?;
            let file = crate::sparse::reopen_read_only(file.as_fd())?;
            let namespace = namespace.map(|fd| fd.try_clone_to_owned()).transpose()?;
            let descriptors: Vec<OwnedFd> = [file].into_iter().chain(namespace).collect();
            connection::send(self.socket.as_fd(), number.to_string().as_bytes(), &descriptors)?;
            Ok(())
        };
        send().map_err(|error| format!("the router was not told: {error}"))?;
        (self.number, self.behind) = (number, false);
        Ok(())
    }

    fn wait_for(&mut self, number: u64) -> std::result::Result<(), String> {
        let until = Instant::now().checked_add(PATIENCE);
        loop {
            match self.receive() {
                Ok(Some((answered, done))) if answered >= number => return done,
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(()) => return Err(ended()),
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_none_or(|left| left.is_zero()) {
                return Err("the router does not answer".into());
            }
            wait(self.socket.as_fd(), left);
        }
    }

    /// `Err` when it has ended.
    fn receive(&mut self) -> std::result::Result<Option<Answer>, ()> {
        let Some(packet) =
            packets::receive(self.socket.as_fd(), NUMBER_BYTES_MAX).map_err(|_| ())?
        else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&packet.bytes).into_owned();
        let (number, complaint) = text.split_once(' ').ok_or(())?;
        let number: u64 = number.parse().map_err(|_| ())?;
        self.answered = number;
        let done = if complaint.is_empty() { Ok(()) } else { Err(complaint.to_owned()) };
        Ok(Some((number, done)))
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }
}

fn ended() -> String {
    "the router ended; casemate-spawn has to be started again".into()
}

fn wait(socket: BorrowedFd<'_>, left: Option<Duration>) {
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    // Interrupted or not: the socket is read again.
    let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], timeout.as_ref());
}
