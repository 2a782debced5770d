//! The apps of the guest: their turns, their output on its way to the log, their input, and what a fresh agent is told.
//!
//! An only app speaks as the machine does, with stream number 0. Of several each has a number of its own, and what the
//! guest says with 0 is of the pod as a whole.

use casemate_wire::apps::{Turn, number_of};
use casemate_wire::control::Reason;
use casemate_wire::credit::{WINDOW_MAX, Window};
use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::log_ring::Source;
use casemate_wire::order::Phase;
use casemate_wire::payload::{
    Exit, InputCredit, OutputCredit, Signal, StartError, Started, Stream,
};

use super::health::Heard;
use super::{Talk, malformed, now_ns, parsed};
use crate::failure::{Failure, failure};

/// Most bytes of what is kept of an app's last turn: an ERROR.
const LAST_MAX: usize = 1026;

/// What is kept of an app.
#[derive(Debug)]
pub(super) struct Outlet {
    number: u16,
    turn: Turn,
    windows: [Window; 2],
    /// Standard input that the guest takes and no agent has sent yet.
    input: Window,
    /// Output that was written to the log and not yet granted again, by stream.
    owed: [u32; 2],
    /// Of its check, if it has one.
    pub(super) health: Option<Heard>,
    /// Its last turn, for a fresh agent. The room is made at once.
    last: Option<GuestKind>,
    payload: Vec<u8>,
}

impl Outlet {
    /// Of each app; `checked` says of which the guest may speak of their health.
    pub(super) fn all(checked: &[bool]) -> Vec<Self> {
        let count = checked.len();
        let outlet = |(place, checked): (usize, &bool)| Self {
            number: number_of(place, count),
            turn: Turn::default(),
            windows: [Window::open(WINDOW_MAX); 2],
            input: Window::default(),
            owed: [0; 2],
            health: checked.then(Heard::new),
            last: None,
            payload: Vec::with_capacity(LAST_MAX),
        };
        checked.iter().enumerate().map(outlet).collect()
    }

    /// The number of its frames.
    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    fn keep(&mut self, kind: GuestKind, payload: &[u8]) {
        self.last = Some(kind);
        self.payload.clear();
        self.payload.extend_from_slice(payload);
    }
}

fn refuse(text: std::fmt::Arguments<'_>) -> Failure {
    failure(Reason::GuestProtocol, text)
}

impl Talk {
    /// The place of an only app, which the number 0 stands for.
    pub(super) fn only_app(&self, kind: GuestKind) -> Result<usize, Failure> {
        let several = || refuse(format_args!("a {kind:?} frame of none of several apps"));
        if self.apps.len() == 1 { Ok(0) } else { Err(several()) }
    }

    fn app(&mut self, place: usize) -> Result<&mut Outlet, Failure> {
        self.apps.get_mut(place).ok_or_else(|| refuse(format_args!("there is no such app")))
    }

    /// A frame of the guest with an app's own number.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` for one out of turn, without credit or with a payload that is none; `IO` when the log cannot be
    /// written.
    pub(super) fn frame_of_app(
        &mut self,
        place: usize,
        kind: GuestKind,
        payload: &[u8],
    ) -> Result<(), Failure> {
        if self.apps.len() == 1 || self.conversation.phase() != Phase::Running {
            return Err(refuse(format_args!("a {kind:?} frame of an app that is not there")));
        }
        let app = self.app(place)?;
        let number = app.number;
        app.turn.guest(number, kind).map_err(|error| refuse(format_args!("{error}")))?;
        match kind {
            GuestKind::Started => {
                parsed(Started::parse(payload), kind)?;
                app.keep(kind, payload);
                self.open(place)?;
                self.tell_agent_of(number, kind, payload)
            }
            GuestKind::Exit => {
                let exit = parsed(Exit::parse(payload), kind)?;
                app.keep(kind, payload);
                let (how, value) = match exit {
                    Exit::Code(code) => ("code", code),
                    Exit::Signal(signal) => ("signal", signal),
                    Exit::Oom(signal) => ("out of memory, signal", signal),
                };
                if exit != Exit::Code(0) {
                    let text = format!("ended with {how} {value}");
                    self.write_log(place, Source::VmmNote, text.as_bytes())?;
                }
                self.tell_agent_of(number, kind, payload)
            }
            GuestKind::Error => {
                let error = parsed(StartError::parse(payload), kind)?;
                app.keep(kind, payload);
                let text = format!("could not be started: {}: {}", error.code.name(), error.text);
                self.write_log(place, Source::VmmNote, text.as_bytes())?;
                self.tell_agent_of(number, kind, payload)
            }
            _ => self.stream(place, kind, payload),
        }
    }

    /// What apps say while they run.
    pub(super) fn stream(
        &mut self,
        place: usize,
        kind: GuestKind,
        payload: &[u8],
    ) -> Result<(), Failure> {
        match kind {
            GuestKind::Stdout => self.output(place, Stream::Stdout, payload),
            GuestKind::Stderr => self.output(place, Stream::Stderr, payload),
            GuestKind::Health => self.hear_health(place, payload),
            GuestKind::Credit => {
                let InputCredit { bytes } = parsed(InputCredit::parse(payload), kind)?;
                let app = self.app(place)?;
                let number = app.number;
                app.input
                    .grant(bytes)
                    .ok_or_else(|| refuse(format_args!("more credit than a window holds")))?;
                self.tell_agent_of(number, kind, payload)
            }
            _ => Err(malformed(kind)),
        }
    }

    /// The first whole windows of an app that runs now.
    pub(super) fn open(&mut self, place: usize) -> Result<(), Failure> {
        self.grant(place, Stream::Stdout, WINDOW_MAX)?;
        self.grant(place, Stream::Stderr, WINDOW_MAX)
    }

    /// A frame of the agent with an app's own number.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` when an agent may not send that: the caller ends the agent's connection.
    pub(super) fn accept_of_app(
        &mut self,
        place: usize,
        kind: HostKind,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let wrong = || refuse(format_args!("an agent may not send this {kind:?} frame to an app"));
        if self.apps.len() == 1 {
            return Err(wrong());
        }
        match kind {
            HostKind::Stdin => self.input(place, payload),
            HostKind::StdinEof => self.send_to(place, kind, payload),
            HostKind::Signal => {
                let is_one = |signal: Signal| (1..=64).contains(&signal.number);
                Signal::parse(payload).filter(|signal| is_one(*signal)).ok_or_else(wrong)?;
                self.send_to(place, kind, payload)
            }
            _ => Err(wrong()),
        }
    }

    /// A frame for an app: in the order of the conversation for an only one, and once the guest has its configuration
    /// for one of several.
    fn send_to(&mut self, place: usize, kind: HostKind, payload: &[u8]) -> Result<(), Failure> {
        let number = self.app(place)?.number;
        if number == 0 {
            return self.send(kind, payload);
        }
        match self.conversation.phase() {
            Phase::Starting | Phase::Running | Phase::Over => self.send_of(number, kind, payload),
            phase => Err(refuse(format_args!("there are no apps in phase {phase:?}"))),
        }
    }

    /// Input beyond what the guest has granted would end the guest, so it ends the agent's connection instead.
    pub(super) fn input(&mut self, place: usize, payload: &[u8]) -> Result<(), Failure> {
        let mut left = self.app(place)?.input;
        left.spend(payload.len()).ok_or_else(|| refuse(format_args!("input without credit")))?;
        self.send_to(place, HostKind::Stdin, payload)?;
        self.app(place)?.input = left;
        Ok(())
    }

    fn output(&mut self, place: usize, stream: Stream, payload: &[u8]) -> Result<(), Failure> {
        let [stdout, stderr] = &mut self.app(place)?.windows;
        let (window, source) = match stream {
            Stream::Stdout => (stdout, Source::Stdout),
            Stream::Stderr => (stderr, Source::Stderr),
        };
        window
            .spend(payload.len())
            .ok_or_else(|| refuse(format_args!("{stream:?} without credit")))?;
        self.write_log(place, source, payload)?;
        self.grant_back(place, stream, payload.len())
    }

    /// Renews what was written to the log, no more: the window never grows. Half a window at a time, so that output in
    /// single bytes does not come back as a frame for each.
    fn grant_back(&mut self, place: usize, stream: Stream, length: usize) -> Result<(), Failure> {
        let app = self.app(place)?;
        let [owed_out, owed_err] = &mut app.owed;
        let [window_out, window_err] = &mut app.windows;
        let (owed, window) = match stream {
            Stream::Stdout => (owed_out, window_out),
            Stream::Stderr => (owed_err, window_err),
        };
        *owed = owed.saturating_add(u32::try_from(length).unwrap_or(0));
        if *owed < WINDOW_MAX.div_ceil(2) {
            return Ok(());
        }
        let bytes = std::mem::take(owed);
        window
            .grant(bytes)
            .ok_or_else(|| refuse(format_args!("{stream:?} has more credit than a window")))?;
        self.grant(place, stream, bytes)
    }

    fn grant(&mut self, place: usize, stream: Stream, bytes: u32) -> Result<(), Failure> {
        self.send_to(place, HostKind::Credit, OutputCredit { stream, bytes }.encode().as_bytes())
    }

    /// Tells a fresh agent how far each app is, how much input the guest still takes of it, and how it fares.
    ///
    /// # Errors
    /// None that a guest can cause.
    pub(super) fn repeat_apps(&mut self) -> Result<(), Failure> {
        for place in 0..self.apps.len() {
            let app = self.app(place)?;
            let (number, last) = (app.number, app.last);
            let bytes = u32::try_from(app.input.left()).unwrap_or(0);
            if let Some(kind) = last {
                let payload = std::mem::take(&mut app.payload);
                let told = self.tell_agent_of(number, kind, &payload);
                self.app(place)?.payload = payload;
                told?;
            }
            let is_over = matches!(last, Some(GuestKind::Exit | GuestKind::Error));
            if bytes != 0 && !is_over {
                let credit = InputCredit { bytes }.encode();
                self.tell_agent_of(number, GuestKind::Credit, credit.as_bytes())?;
            }
            self.repeat_health(place)?;
        }
        Ok(())
    }

    /// Writes to the pod's log, if there is one, what is of the app at `place`.
    pub(super) fn write_log(
        &mut self,
        place: usize,
        source: Source,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.append_of(u8::try_from(place).unwrap_or(0), source, now_ns(), bytes)
            .map_err(|error| failure(Reason::Io, format_args!("the pod's log: {error}")))
    }
}

#[cfg(test)]
#[path = "apps_tests.rs"]
mod tests;
