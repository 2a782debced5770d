//! Processes beside the app, between agent and guest: their tickets, their order, their credit.
//!
//! What one writes goes to the agent and not to the pod's log, so it is the agent that grants its credit, and what it
//! granted has room here. An agent that goes takes its sessions with it: the guest is told to end them, and what they
//! still say is heard by nobody.

use casemate_wire::control::Reason;
use casemate_wire::credit::{SESSION_WINDOW_MAX, Window};
use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::order::Phase;
use casemate_wire::payload::{
    Admit, ErrorCode, Exit, InputCredit, OutputCredit, Signal, Size, StartError, Started, Stream,
};

use super::{Talk, malformed, parsed};
use crate::clock_unsafe::boottime_ns;
use crate::failure::{Failure, failure};
use crate::gate::Gate;

/// What is kept of an open session.
#[derive(Debug)]
pub(super) struct Channel {
    /// What the guest may still send: standard output, standard error.
    windows: [Window; 2],
    /// Standard input that the guest takes and the agent has not sent yet.
    input: Window,
    /// The agent still wants to hear what it writes.
    heard: bool,
    /// The agent that asked for it has gone.
    orphan: bool,
}

fn refuse(text: std::fmt::Arguments<'_>) -> Failure {
    failure(Reason::GuestProtocol, text)
}

impl Talk {
    /// A frame of the agent for a session. One that is of a session that has just ended has no effect.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` when an agent may not send that: the caller ends the agent's connection.
    pub(super) fn accept_beside(
        &mut self,
        session: u16,
        kind: HostKind,
        payload: &[u8],
    ) -> Result<(), Failure> {
        if kind == HostKind::Admit {
            return self.admit(session, payload);
        }
        let Some(channel) = self.sessions.get_mut(session).filter(|channel| !channel.orphan) else {
            return Ok(());
        };
        let fits = match kind {
            HostKind::Stdin => channel.input.spend(payload.len()).is_some(),
            HostKind::Signal => {
                Signal::parse(payload).is_some_and(|signal| (1..=64).contains(&signal.number))
            }
            HostKind::Window => Size::parse(payload).is_some(),
            HostKind::Credit => OutputCredit::parse(payload).is_some_and(|credit| {
                let [stdout, stderr] = &mut channel.windows;
                let window = if credit.stream == Stream::Stdout { stdout } else { stderr };
                window.grant_within(credit.bytes, SESSION_WINDOW_MAX).is_some()
            }),
            HostKind::StdinEof => true,
            HostKind::Close => {
                channel.heard = false;
                true
            }
            _ => false,
        };
        if !fits {
            return Err(refuse(format_args!("an agent may not send this {kind:?} frame")));
        }
        self.send_of(session, kind, payload)
    }

    fn admit(&mut self, session: u16, payload: &[u8]) -> Result<(), Failure> {
        let admit = Admit::parse(payload)
            .ok_or_else(|| refuse(format_args!("an agent may not send this Admit frame")))?;
        let told = if !self.sessions.may_open(session) {
            Err((ErrorCode::Busy, "the pod has as many sessions as it may have".to_owned()))
        } else if self.conversation.phase() != Phase::Running {
            Err((ErrorCode::Refused, "the app does not run".to_owned()))
        } else {
            let gate: Option<&mut Gate> = self.gate.as_mut();
            match gate.map(|gate| gate.admit(&admit, boottime_ns())) {
                Some(Ok(())) => Ok(()),
                Some(Err(closed)) => Err((ErrorCode::Refused, closed.to_string())),
                None => Err((ErrorCode::Refused, "this machine has no pod".to_owned())),
            }
        };
        if let Err((code, text)) = told {
            let error = StartError { code, text: &text }.encode();
            return self.tell_agent_of(session, GuestKind::Error, &error);
        }
        self.send_of(session, HostKind::Exec, admit.request)?;
        let windows = [Window::default(); 2];
        let channel = Channel { windows, input: Window::default(), heard: true, orphan: false };
        self.sessions.open(session, channel).map_err(|error| refuse(format_args!("{error}")))
    }

    /// A frame of the guest for a session.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` for one that is not open, out of turn, without credit or with a payload that is none.
    pub(super) fn frame_beside(
        &mut self,
        session: u16,
        kind: GuestKind,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let ended =
            self.sessions.guest(session, kind).map_err(|error| refuse(format_args!("{error}")))?;
        let mut tell = ended.as_ref().is_some_and(|channel| !channel.orphan);
        if let Some(channel) = self.sessions.get_mut(session) {
            tell = !channel.orphan;
            let [stdout, stderr] = &mut channel.windows;
            let window = match kind {
                GuestKind::Stdout => Some(stdout),
                GuestKind::Stderr => Some(stderr),
                _ => None,
            };
            if let Some(window) = window {
                window.spend(payload.len()).ok_or_else(|| {
                    refuse(format_args!("{kind:?} of session {session} without credit"))
                })?;
                tell &= channel.heard;
            }
            if kind == GuestKind::Credit {
                let InputCredit { bytes } = parsed(InputCredit::parse(payload), kind)?;
                channel
                    .input
                    .grant(bytes)
                    .ok_or_else(|| refuse(format_args!("more credit than a window holds")))?;
            }
        }
        let fits = match kind {
            GuestKind::Started => Started::parse(payload).is_some(),
            GuestKind::Exit => Exit::parse(payload).is_some(),
            GuestKind::Error => StartError::parse(payload).is_some(),
            _ => true,
        };
        if !fits {
            return Err(malformed(kind));
        }
        if tell { self.tell_agent_of(session, kind, payload) } else { Ok(()) }
    }

    /// The agent has gone: its sessions end. May be said again.
    ///
    /// # Errors
    /// `GUEST_PROTOCOL` when the guest does not read.
    pub(super) fn hang_up(&mut self) -> Result<(), Failure> {
        let mut next = || {
            let mut left = self.sessions.iter_mut().filter(|(_, channel)| !channel.orphan);
            left.next().map(|(session, channel)| {
                channel.orphan = true;
                (session, std::mem::take(&mut channel.heard))
            })
        };
        let mut close = [None; casemate_wire::sessions::SESSIONS_MAX];
        for slot in &mut close {
            *slot = next();
        }
        for (session, heard) in close.into_iter().flatten() {
            // It is told once.
            if heard {
                self.send_of(session, HostKind::Close, &[])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "beside_tests.rs"]
mod tests;
