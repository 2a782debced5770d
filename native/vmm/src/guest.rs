//! The conversation with guest-init over the control pipe, and what of it concerns spawn, the log and the agent.
//!
//! The guest is hostile: a frame that is none, comes out of turn or overdraws its credit ends the VM. The agent is not
//! trusted with the VM either: it may send input, signals and stop, and a wrong frame of its own ends its connection.
//! Processes beside the app, which it may ask for with a ticket, are in beside.rs.

mod apps;
mod beside;
mod health;
mod told;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use casemate_wire::apps::place_of;
use casemate_wire::control::Reason;
use casemate_wire::frame::{
    FrameReader, GuestKind, HEADER_LEN, HostKind, PROTOCOL_VERSION, append_to,
};
use casemate_wire::log_ring::{Source, WriteAt, Writer};
use casemate_wire::order::{Conversation, Phase};
use casemate_wire::payload::{
    ENTROPY_LEN, Exit, Hello, Resize, Resized, StartError, Started, Stop, Unique,
};
use casemate_wire::sessions::Sessions;

use crate::failure::{Failure, failure};
use crate::gate::Gate;
use apps::Outlet;
use beside::Channel;
pub use told::Told;

/// Bytes kept for an agent that reads slowly; more than that and its connection is given up. What sixteen sessions may
/// send by the agent's own credit, in frames of ordinary length, and then some; the room is made at once.
const AGENT_BACKLOG_MAX: usize = 640 << 10;

/// Bytes kept for a guest that reads slowly: its configuration and then some. More means that it does not read. The room
/// is made at once, because a running I/O thread may not map memory; what is not used of it costs nothing.
const GUEST_BACKLOG_MAX: usize = 1 << 20;

/// What the conversation came to, for the I/O thread to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest waits for its identity: the moment of a template.
    Hello,
    /// The app runs.
    Ready,
    /// The app ended.
    Exit(Exit),
    /// What came of a RESIZE.
    Resized(Resized),
    /// The app could not be started: code and the guest's sentence.
    StartError(String),
}

/// The pod's log file, as the ring's writer wants it.
#[derive(Debug)]
pub struct LogFile(pub File);

impl WriteAt for LogFile {
    fn write_at(&mut self, offset: u64, parts: [&[u8]; 2]) -> std::io::Result<()> {
        let [first, second] = parts;
        self.0.write_all_at(first, offset)?;
        let after = offset.saturating_add(u64::try_from(first.len()).unwrap_or(u64::MAX));
        self.0.write_all_at(second, after)
    }
}

/// The conversation with one guest.
#[derive(Debug)]
pub struct Guest {
    reader: FrameReader<GuestKind>,
    talk: Talk,
}

/// Everything but the reader, so that a frame can be handled while it lies in the reader's buffer.
#[derive(Debug)]
struct Talk {
    conversation: Conversation,
    told: Told,
    log: Option<Writer<LogFile>>,
    /// At least one.
    apps: Vec<Outlet>,
    /// What the guest was told of its disk and has not answered.
    resizing: Option<u64>,
    /// Without a pod there is none.
    gate: Option<Gate>,
    sessions: Sessions<Channel>,
    to_guest: Vec<u8>,
    /// Bytes that it may come to.
    backlog_max: usize,
    to_agent: Vec<u8>,
    agent_lost: bool,
    events: Vec<Event>,
}

impl Guest {
    /// A conversation; `restored` says that HELLO was said before the template was taken. Without a `log` the guest is
    /// a template's, which never gets as far as output; without a `gate` nothing runs beside the app.
    #[must_use]
    pub fn new(
        restored: bool,
        told: Told,
        log: Option<Writer<LogFile>>,
        gate: Option<Gate>,
    ) -> Self {
        let conversation = if restored { Conversation::restored() } else { Conversation::boot() };
        let backlog_max = GUEST_BACKLOG_MAX.saturating_add(told.backlog());
        let talk = Talk {
            conversation,
            told,
            log,
            apps: Outlet::all(&[false]),
            resizing: None,
            gate,
            sessions: Sessions::default(),
            to_guest: Vec::with_capacity(backlog_max),
            backlog_max,
            to_agent: Vec::with_capacity(AGENT_BACKLOG_MAX),
            agent_lost: false,
            events: Vec::new(),
        };
        Self { reader: FrameReader::new(), talk }
    }

    /// The same, with as many apps as `checked` has entries; only of one that is checked may the guest say how it fares.
    #[must_use]
    pub fn with_apps(mut self, checked: &[bool]) -> Self {
        self.talk.apps = Outlet::all(checked);
        self
    }

    /// How far the conversation has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.talk.conversation.phase()
    }

    /// Bytes the guest wrote to the pipe.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` for what is no frame or out of turn, `IO` when the log cannot be written.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        loop {
            let frame = self
                .reader
                .take(&mut bytes)
                .map_err(|error| failure(Reason::GuestProtocol, format_args!("{error}")))?;
            let Some(frame) = frame else { return Ok(()) };
            if frame.session == 0 {
                self.talk.frame(frame.kind, frame.payload)?;
            } else if let Some(place) = place_of(frame.session) {
                self.talk.frame_of_app(place, frame.kind, frame.payload)?;
            } else {
                self.talk.frame_beside(frame.session, frame.kind, frame.payload)?;
            }
        }
    }

    /// What happened since the last call, oldest first.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.talk.events)
    }

    /// Makes a restored or booted guest unlike its siblings.
    ///
    /// # Errors
    /// `IO` when the host has no entropy.
    pub fn send_unique(&mut self) -> Result<(), Failure> {
        let mut random = [0; ENTROPY_LEN.saturating_add(16)];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failure(Reason::Io, format_args!("getrandom: {error}")))?;
        let (entropy, nonce) = random.split_at(ENTROPY_LEN);
        let unique = Unique {
            entropy: entropy.try_into().unwrap_or([0; ENTROPY_LEN]),
            wall_clock_ns: now_ns(),
            nonce: nonce.try_into().unwrap_or([0; 16]),
        };
        self.talk.send(HostKind::Unique, unique.encode().as_bytes())
    }

    /// A frame of the agent.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` when an agent may not send that now: the caller ends the agent's connection.
    pub fn accept(&mut self, session: u16, kind: HostKind, payload: &[u8]) -> Result<(), Failure> {
        if let Some(place) = place_of(session) {
            return self.talk.accept_of_app(place, kind, payload);
        }
        if session != 0 {
            return self.talk.accept_beside(session, kind, payload);
        }
        let is_only = self.talk.apps.len() == 1;
        match kind {
            HostKind::Stop => self.talk.send(kind, payload),
            HostKind::Stdin if is_only => self.talk.input(0, payload),
            HostKind::Signal if is_only => self.talk.send(kind, payload),
            HostKind::StdinEof if is_only => {
                // An agent that took over from another cannot know whether that one ended the input; twice is no harm.
                let _ = self.talk.send(kind, payload);
                Ok(())
            }
            _ => Err(failure(
                Reason::GuestProtocol,
                format_args!("an agent may not send a {kind:?} frame"),
            )),
        }
    }

    /// Asks the guest to stop the app, if it runs one.
    ///
    /// # Errors
    /// None that a running guest can cause.
    pub fn stop(&mut self, timeout_ms: u32) -> Result<(), Failure> {
        self.talk.send(HostKind::Stop, Stop { timeout_ms }.encode().as_bytes())
    }

    /// Has a running guest grow its file system to the disk's `bytes`.
    ///
    /// # Errors
    /// None that a running guest can cause.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Failure> {
        self.talk.resizing = Some(bytes);
        self.talk.send(HostKind::Resize, Resize { bytes }.encode().as_bytes())
    }

    /// Bytes waiting for the guest; the caller drains what the pipe took.
    pub fn guest_backlog(&mut self) -> &mut Vec<u8> {
        &mut self.talk.to_guest
    }

    /// Bytes waiting for the agent; the caller drains what the socket took.
    pub fn agent_backlog(&mut self) -> &mut Vec<u8> {
        &mut self.talk.to_agent
    }

    /// A fresh agent begins at a frame boundary: what waited for the old one is gone, and spawn has its content. How much
    /// input the guest still takes, and how its apps are, only the VMM knows.
    ///
    /// # Errors
    /// None that a running guest can cause.
    pub fn agent_changed(&mut self) -> Result<(), Failure> {
        self.agent_gone()?;
        self.talk.to_agent.clear();
        self.talk.agent_lost = false;
        self.talk.repeat_apps()
    }

    /// Nobody is there to hear what runs beside the app. May be said again.
    ///
    /// # Errors
    /// None that a running guest can cause, unless it does not read.
    pub fn agent_gone(&mut self) -> Result<(), Failure> {
        self.talk.hang_up()
    }

    /// True once when the agent let its backlog fill up.
    pub fn agent_lost(&mut self) -> bool {
        std::mem::take(&mut self.talk.agent_lost)
    }

    /// Writes `text` to the pod's log, if there is one.
    ///
    /// # Errors
    /// `IO` when the file cannot be written.
    pub fn note(&mut self, source: Source, text: &[u8]) -> Result<(), Failure> {
        self.talk.write_log(0, source, text)
    }
}

impl Talk {
    fn send(&mut self, kind: HostKind, payload: &[u8]) -> Result<(), Failure> {
        self.conversation
            .host(kind)
            .map_err(|error| failure(Reason::GuestProtocol, format_args!("{error}")))?;
        self.send_of(0, kind, payload)
    }

    fn send_of(&mut self, session: u16, kind: HostKind, payload: &[u8]) -> Result<(), Failure> {
        let refuse = |text: std::fmt::Arguments<'_>| failure(Reason::GuestProtocol, text);
        if with_frame(&self.to_guest, payload) > self.backlog_max {
            return Err(refuse(format_args!("the guest does not read its control pipe")));
        }
        append_to(&mut self.to_guest, session, kind, payload)
            .map_err(|error| refuse(format_args!("{error}")))
    }

    fn frame(&mut self, kind: GuestKind, payload: &[u8]) -> Result<(), Failure> {
        self.conversation
            .guest(kind)
            .map_err(|error| failure(Reason::GuestProtocol, format_args!("{error}")))?;
        match kind {
            GuestKind::Hello => {
                let hello = parsed(Hello::parse(payload), kind)?;
                if hello.version != PROTOCOL_VERSION {
                    return Err(malformed(kind));
                }
                self.events.push(Event::Hello);
            }
            GuestKind::UniqueDone => self.tell()?,
            GuestKind::Started => {
                parsed(Started::parse(payload), kind)?;
                if self.apps.len() == 1 {
                    self.open(0)?;
                }
                self.events.push(Event::Ready);
                self.tell_agent(kind, payload)?;
            }
            GuestKind::Exit => {
                self.events.push(Event::Exit(parsed(Exit::parse(payload), kind)?));
                self.sessions.clear();
                self.tell_agent(kind, payload)?;
            }
            GuestKind::Resized => {
                let resized = parsed(Resized::parse(payload), kind)?;
                if self.resizing.take() != Some(resized.bytes) {
                    return Err(malformed(kind));
                }
                self.events.push(Event::Resized(resized));
            }
            GuestKind::Error => {
                let error = parsed(StartError::parse(payload), kind)?;
                self.events.push(Event::StartError(format!(
                    "{}: {}",
                    error.code.name(),
                    error.text
                )));
                self.tell_agent(kind, payload)?;
            }
            GuestKind::Stdout | GuestKind::Stderr | GuestKind::Health | GuestKind::Credit => {
                let place = self.only_app(kind)?;
                self.stream(place, kind, payload)?;
            }
        }
        Ok(())
    }

    fn tell_agent(&mut self, kind: GuestKind, payload: &[u8]) -> Result<(), Failure> {
        self.tell_agent_of(0, kind, payload)
    }

    fn tell_agent_of(
        &mut self,
        session: u16,
        kind: GuestKind,
        payload: &[u8],
    ) -> Result<(), Failure> {
        if with_frame(&self.to_agent, payload) > AGENT_BACKLOG_MAX {
            self.agent_lost = true;
            self.to_agent.clear();
            return Ok(());
        }
        append_to(&mut self.to_agent, session, kind, payload)
            .map_err(|error| failure(Reason::GuestProtocol, format_args!("{error}")))
    }
}

/// Bytes of a backlog once a frame with this payload is behind it.
const fn with_frame(backlog: &[u8], payload: &[u8]) -> usize {
    backlog.len().saturating_add(HEADER_LEN).saturating_add(payload.len())
}

fn parsed<T>(value: Option<T>, kind: GuestKind) -> Result<T, Failure> {
    value.ok_or_else(|| malformed(kind))
}

fn malformed(kind: GuestKind) -> Failure {
    failure(Reason::GuestProtocol, format_args!("a {kind:?} frame has a payload that is none"))
}

/// Wall clock, nanoseconds since 1970.
fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
