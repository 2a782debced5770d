//! Which frame may come when. One conversation per machine:
//!
//! ```text
//!   guest HELLO -> host UNIQUE -> guest UNIQUE_DONE -> host FILES, CONFIG -> guest STARTED | ERROR
//!     -> streams, signals, credit -> guest EXIT
//! ```
//!
//! The host may send credit, signals, STOP and the end of the input as soon as it has sent CONFIG,
//! and cannot know yet that the app ended when it sends them; so they are no error after EXIT.

use std::fmt;

use crate::frame::{GuestKind, HostKind, Kind};

/// How far a conversation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest boots and has not spoken.
    Boot,
    /// `HELLO` was said; the guest waits for `UNIQUE`. Templates are taken here.
    Hello,
    /// The guest makes itself unique.
    Reseeding,
    /// The guest waits for `CONFIG`.
    Reseeded,
    /// The guest starts the app.
    Starting,
    /// The app runs.
    Running,
    /// `EXIT` or `ERROR` was said.
    Over,
}

/// A frame that may not come now. It ends the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    /// The frame's kind.
    pub kind: u8,
    /// When it came.
    pub phase: Phase,
}

impl fmt::Display for OutOfOrder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a frame of kind {} may not come in phase {:?}", self.kind, self.phase)
    }
}

impl std::error::Error for OutOfOrder {}

/// Follows a conversation. Either end feeds it every frame that is sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    phase: Phase,
    input_ended: bool,
}

impl Conversation {
    /// A machine that boots.
    #[must_use]
    pub const fn boot() -> Self {
        Self { phase: Phase::Boot, input_ended: false }
    }

    /// A machine restored from a template, which was taken after `HELLO`.
    #[must_use]
    pub const fn restored() -> Self {
        Self { phase: Phase::Hello, input_ended: false }
    }

    /// Guest-init after it has executed itself anew.
    #[must_use]
    pub const fn reseeding() -> Self {
        Self { phase: Phase::Reseeding, input_ended: false }
    }

    /// How far the conversation has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// A frame of the guest.
    ///
    /// # Errors
    /// [`OutOfOrder`], and nothing changed, when the guest may not say that now.
    pub fn guest(&mut self, kind: GuestKind) -> Result<(), OutOfOrder> {
        self.phase = match (self.phase, kind) {
            (Phase::Boot, GuestKind::Hello) => Phase::Hello,
            (Phase::Reseeding, GuestKind::UniqueDone) => Phase::Reseeded,
            (Phase::Starting, GuestKind::Error) | (Phase::Running, GuestKind::Exit) => Phase::Over,
            (Phase::Starting, GuestKind::Started)
            | (
                Phase::Running,
                GuestKind::Stdout
                | GuestKind::Stderr
                | GuestKind::Credit
                | GuestKind::Resized
                | GuestKind::Health,
            ) => Phase::Running,
            (phase, _) => return Err(OutOfOrder { kind: kind.byte(), phase }),
        };
        Ok(())
    }

    /// A frame of the host.
    ///
    /// # Errors
    /// [`OutOfOrder`], and nothing changed, when the host may not say that now.
    pub fn host(&mut self, kind: HostKind) -> Result<(), OutOfOrder> {
        let (phase, ended) = (self.phase, self.input_ended);
        let talks = matches!(phase, Phase::Starting | Phase::Running | Phase::Over);
        let next = match kind {
            HostKind::Unique if phase == Phase::Hello => Some(Phase::Reseeding),
            HostKind::Files if phase == Phase::Reseeded => Some(phase),
            HostKind::Config if phase == Phase::Reseeded => Some(Phase::Starting),
            HostKind::Stdin if talks && phase != Phase::Starting && !ended => Some(phase),
            HostKind::Resize if talks && phase != Phase::Starting => Some(phase),
            HostKind::StdinEof if talks && !ended => Some(phase),
            HostKind::Signal | HostKind::Credit | HostKind::Stop if talks => Some(phase),
            _ => None, // frames of sessions are sessions.rs's
        };
        self.phase = next.ok_or(OutOfOrder { kind: kind.byte(), phase })?;
        self.input_ended = ended || kind == HostKind::StdinEof;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test that fails may panic")]

    use super::*;

    fn run(steps: &str) -> Result<Phase, OutOfOrder> {
        let mut conversation = Conversation::boot();
        for step in steps.split_whitespace() {
            match step {
                "hello" => conversation.guest(GuestKind::Hello)?,
                "unique" => conversation.host(HostKind::Unique)?,
                "done" => conversation.guest(GuestKind::UniqueDone)?,
                "config" => conversation.host(HostKind::Config)?,
                "files" => conversation.host(HostKind::Files)?,
                "started" => conversation.guest(GuestKind::Started)?,
                "error" => conversation.guest(GuestKind::Error)?,
                "out" => conversation.guest(GuestKind::Stdout)?,
                "in" => conversation.host(HostKind::Stdin)?,
                "eof" => conversation.host(HostKind::StdinEof)?,
                "stop" => conversation.host(HostKind::Stop)?,
                "grow" => conversation.host(HostKind::Resize)?,
                "grown" => conversation.guest(GuestKind::Resized)?,
                "health" => conversation.guest(GuestKind::Health)?,
                "exit" => conversation.guest(GuestKind::Exit)?,
                other => panic!("no step {other}"),
            }
        }
        Ok(conversation.phase())
    }

    #[test]
    fn admits_a_whole_life() {
        assert_eq!(
            run("hello unique done config eof stop started out stop exit stop"),
            Ok(Phase::Over)
        );
        assert_eq!(run("hello unique done files files config error"), Ok(Phase::Over));
        assert_eq!(run("hello unique done config started in in eof"), Ok(Phase::Running));
        assert_eq!(run("hello unique done config started grow grown exit grow"), Ok(Phase::Over));
        assert_eq!(run("hello unique done config started health health exit"), Ok(Phase::Over));
    }

    #[test]
    fn refuses_what_comes_too_early_too_late_or_twice() {
        for steps in [
            "done",
            "unique",
            "hello hello",
            "hello done",
            "hello config",
            "hello unique unique",
            "hello unique config",
            "hello unique files",
            "hello unique done config files",
            "hello unique done config started files",
            "hello unique done config config",
            "hello unique done config started started",
            "hello unique done config out",
            "hello unique done config in",
            "hello unique done config exit",
            "hello unique done config error out",
            "hello unique done config started exit out",
            "hello unique done config started exit exit",
            "hello unique done config started eof in",
            "hello unique done config started eof eof",
            "hello unique done config grow",
            "hello unique done config started exit grown",
            "hello unique done config health",
            "hello unique done config started exit health",
            "hello stop",
            "eof",
        ] {
            assert!(run(steps).is_err(), "{steps}");
        }
    }
}
