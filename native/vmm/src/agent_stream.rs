//! The pod stream: the agent's end of the conversation. An agent may come, go and come again; the pod does not care.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use casemate_wire::frame::{FrameReader, HostKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::guest::Guest;

const CHUNK: usize = 4_096;

/// The stream, or its absence.
#[derive(Debug)]
pub struct AgentStream {
    token: u64,
    socket: Option<OwnedFd>,
    reader: FrameReader<HostKind>,
    watched: EventSet,
}

impl AgentStream {
    /// No agent yet; events will carry `token`.
    #[must_use]
    pub fn new(token: u64) -> Self {
        Self { token, socket: None, reader: FrameReader::new(), watched: EventSet::empty() }
    }

    /// Takes `socket` in place of the old one, at a frame boundary: half a frame of the old one is forgotten.
    ///
    /// # Errors
    /// What epoll answers.
    pub fn replace(&mut self, epoll: &Epoll, socket: OwnedFd) -> io::Result<()> {
        self.socket = None;
        self.reader.reset();
        self.watched = EventSet::empty();
        let event = EpollEvent::new(self.watched, self.token);
        epoll.ctl(ControlOperation::Add, socket.as_raw_fd(), event)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Whether there is an agent.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Asks to be told when frames can be read or the backlog can go on.
    pub fn watch(&mut self, epoll: &Epoll, read: bool, write: bool) {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, read);
        wanted.set(EventSet::OUT, write);
        let Some(socket) = &self.socket else { return };
        if wanted != self.watched
            && epoll
                .ctl(
                    ControlOperation::Modify,
                    socket.as_raw_fd(),
                    EpollEvent::new(wanted, self.token),
                )
                .is_ok()
        {
            self.watched = wanted;
        }
    }

    /// Reads what is there, one chunk, and passes its frames on. An agent that hangs up or breaks the protocol loses its
    /// connection, nothing else.
    pub fn receive(&mut self, guest: &mut Guest, flags: EventSet) {
        if flags.contains(EventSet::IN) {
            if self.receive_chunk(guest).is_err() {
                self.socket = None;
            }
        } else if flags.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            self.socket = None;
        }
    }

    fn receive_chunk(&mut self, guest: &mut Guest) -> Result<(), ()> {
        let Some(socket) = &self.socket else { return Err(()) };
        let mut chunk = [0; CHUNK];
        let count = match recv(socket, &mut chunk, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(()),
            Ok((_, count)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(()),
        };
        let mut bytes = chunk.get(..count).ok_or(())?;
        while let Some(frame) = self.reader.take(&mut bytes).map_err(|_| ())? {
            guest.accept(frame.session, frame.kind, frame.payload).map_err(|_| ())?;
        }
        Ok(())
    }

    /// Sends what waits for the agent, as far as its socket takes it; without an agent it is dropped, since spawn and the
    /// pod's log have it too.
    pub fn flush(&mut self, guest: &mut Guest) {
        if guest.agent_lost() {
            self.socket = None;
        }
        let Some(socket) = &self.socket else {
            guest.agent_backlog().clear();
            return;
        };
        while !guest.agent_backlog().is_empty() {
            match send(socket, guest.agent_backlog(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => {
                    let waiting = guest.agent_backlog();
                    waiting.drain(..sent.min(waiting.len()));
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.socket = None;
                    guest.agent_backlog().clear();
                    return;
                }
            }
        }
    }
}
