//! The apps of a pod that has several: which of their frames may come when.
//!
//! An only app has stream number 0, which is the machine's too. Of several each has a number of its own, by its place in
//! the spec, and 0 is the pod's: it is STARTED with the first of them and says EXIT after the last.

use crate::frame::{GuestKind, Kind};
use crate::sessions::SessionError;

/// Most apps of a pod.
pub const APPS_MAX: usize = 8;
/// The first one's number; those of sessions are below.
const FIRST: u16 = u16::MAX - 7;

/// The number of the app at `place` among `count`.
#[must_use]
pub fn number_of(place: usize, count: usize) -> u16 {
    let place = u16::try_from(place).unwrap_or(0);
    if count > 1 { FIRST.saturating_add(place) } else { 0 }
}

/// The place of the app whose number it is, among several.
#[must_use]
pub fn place_of(number: u16) -> Option<usize> {
    number.checked_sub(FIRST).map(usize::from)
}

/// How far an app has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// It has not been started.
    #[default]
    Waiting,
    /// It runs.
    Running,
    /// `EXIT` or `ERROR` was said.
    Over,
}

impl Turn {
    /// A frame of the guest for the app of that number.
    ///
    /// # Errors
    /// [`SessionError::Turn`], and nothing changed, when the guest may not say that now.
    pub fn guest(&mut self, number: u16, kind: GuestKind) -> Result<(), SessionError> {
        *self = match (*self, kind) {
            (Self::Waiting, GuestKind::Error) | (Self::Running, GuestKind::Exit) => Self::Over,
            (Self::Waiting, GuestKind::Started)
            | (
                Self::Running,
                GuestKind::Stdout | GuestKind::Stderr | GuestKind::Credit | GuestKind::Health,
            ) => Self::Running,
            _ => return Err(SessionError::Turn { kind: kind.byte(), session: number }),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_several_numbers_of_their_own_and_one_that_of_the_machine() {
        assert_eq!((number_of(0, 1), place_of(0)), (0, None));
        for place in 0..APPS_MAX {
            assert_eq!(place_of(number_of(place, 2)), Some(place));
        }
        assert_eq!((number_of(7, 8), place_of(65_527)), (u16::MAX, None));
    }

    #[test]
    fn hears_of_an_app_in_its_turn() {
        use GuestKind::{Credit, Error, Exit, Health, Hello, Resized, Started, Stdout};
        let run = |kinds: &[GuestKind]| {
            let mut turn = Turn::default();
            kinds.iter().try_for_each(|kind| turn.guest(65_530, *kind))
        };
        assert!(run(&[Started, Stdout, Credit, Health, Exit]).is_ok());
        assert!(run(&[Error]).is_ok());
        for bad in [
            &[Stdout][..],
            &[Exit],
            &[Started, Started],
            &[Started, Error],
            &[Started, Exit, Stdout],
            &[Started, Exit, Started],
            &[Error, Started],
            &[Started, Resized],
            &[Hello],
        ] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
    }
}
