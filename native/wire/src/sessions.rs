//! Processes beside the app: which of their frames may come when.
//!
//! A session is open from `EXEC` to the guest's `EXIT` or `ERROR`; in between its number is no other's.
//! The host cannot know yet that a session has ended when it sends it something, so what it sends to one that
//! is not open is of no effect; a guest that speaks for one is broken or hostile.

use std::fmt;

use crate::apps;
use crate::frame::{GuestKind, Kind};

/// Most sessions of a pod at once.
pub const SESSIONS_MAX: usize = 16;

/// Why a frame of a session may not come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// No session of that number is open.
    NotOpen {
        /// The frame's kind.
        kind: u8,
        /// The frame's session.
        session: u16,
    },
    /// The session has been announced, or has not yet.
    Turn {
        /// The frame's kind.
        kind: u8,
        /// The frame's session.
        session: u16,
    },
    /// A session of that number is open, or it is an app's, or there are [`SESSIONS_MAX`].
    Busy,
}

impl fmt::Display for SessionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen { kind, session } => {
                write!(out, "a frame of kind {kind} is of session {session}, which is not open")
            }
            Self::Turn { kind, session } => {
                write!(out, "a frame of kind {kind} of session {session} is out of turn")
            }
            Self::Busy => write!(out, "the session is open, or there are {SESSIONS_MAX}"),
        }
    }
}

impl std::error::Error for SessionError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session<T> {
    number: u16,
    started: bool,
    value: T,
}

/// The open sessions, each with what its end keeps of it. Never more than [`SESSIONS_MAX`], in place.
#[derive(Debug)]
pub struct Sessions<T>([Option<Session<T>>; SESSIONS_MAX]);

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self([const { None }; SESSIONS_MAX])
    }
}

impl<T> Sessions<T> {
    /// `EXEC` is sent, or has come.
    ///
    /// # Errors
    /// [`SessionError::Busy`], and nothing changed.
    pub fn open(&mut self, number: u16, value: T) -> Result<(), SessionError> {
        if !self.may_open(number) {
            return Err(SessionError::Busy);
        }
        let free = self.0.iter_mut().find(|slot| slot.is_none()).ok_or(SessionError::Busy)?;
        *free = Some(Session { number, started: false, value });
        Ok(())
    }

    /// Whether [`Sessions::open`] would be content.
    #[must_use]
    pub fn may_open(&self, number: u16) -> bool {
        let is_free = self.get(number).is_none() && apps::place_of(number).is_none();
        is_free && self.0.iter().any(Option::is_none)
    }

    /// A frame of the guest. `EXIT` and `ERROR` close the session and give back what was kept of it.
    ///
    /// # Errors
    /// [`SessionError`], and nothing changed, when the guest may not say that now.
    pub fn guest(&mut self, number: u16, kind: GuestKind) -> Result<Option<T>, SessionError> {
        let slot = self
            .0
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|session| session.number == number));
        let Some(slot) = slot else {
            return Err(SessionError::NotOpen { kind: kind.byte(), session: number });
        };
        let started = slot.as_ref().is_some_and(|session| session.started);
        match (started, kind) {
            (false, GuestKind::Started) => {
                if let Some(session) = slot {
                    session.started = true;
                }
                Ok(None)
            }
            (false, GuestKind::Error) | (true, GuestKind::Exit) => {
                Ok(slot.take().map(|session| session.value))
            }
            (true, GuestKind::Stdout | GuestKind::Stderr | GuestKind::Credit) => Ok(None),
            _ => Err(SessionError::Turn { kind: kind.byte(), session: number }),
        }
    }

    /// What is kept of an open session.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<&T> {
        let mut open = self.0.iter().flatten();
        open.find(|session| session.number == number).map(|session| &session.value)
    }

    /// What is kept of an open session, to change it.
    pub fn get_mut(&mut self, number: u16) -> Option<&mut T> {
        let mut open = self.0.iter_mut().flatten();
        open.find(|session| session.number == number).map(|session| &mut session.value)
    }

    /// The open sessions with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        self.0.iter().flatten().map(|session| (session.number, &session.value))
    }

    /// The open sessions with their numbers, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut T)> {
        self.0.iter_mut().flatten().map(|session| (session.number, &mut session.value))
    }

    /// The app has ended, and all sessions with it.
    pub fn clear(&mut self) {
        self.0 = [const { None }; SESSIONS_MAX];
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
