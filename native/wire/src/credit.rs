//! Credit: how many bytes of a stream the other side may still send.
//!
//! A window never holds more than [`WINDOW_MAX`], so a stream that nobody reads costs its sender's
//! pipe and this much memory, whatever either side says.

/// Most bytes that may be outstanding on one stream.
pub const WINDOW_MAX: u32 = crate::frame::OUTPUT_WINDOW;

/// Most bytes that an agent may have outstanding on one stream of a session: they wait in the VMM, which has two such
/// streams of each session.
pub const SESSION_WINDOW_MAX: u32 = 16_384;

/// The bytes that may still be sent on one stream. Both ends keep one and see the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window(u32);

impl Window {
    /// A window that is open for `bytes`, at most [`WINDOW_MAX`].
    #[must_use]
    pub fn open(bytes: u32) -> Self {
        Self(bytes.min(WINDOW_MAX))
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn left(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// The receiver grants more. `None`, and nothing changed, when that would exceed [`WINDOW_MAX`]:
    /// an honest receiver renews only what it has taken.
    pub fn grant(&mut self, bytes: u32) -> Option<()> {
        let sum = self.0.checked_add(bytes).filter(|sum| *sum <= WINDOW_MAX)?;
        self.0 = sum;
        Some(())
    }

    /// As [`Window::grant`], for a receiver that keeps less ready than a whole window.
    pub fn grant_within(&mut self, bytes: u32, max: u32) -> Option<()> {
        self.0.checked_add(bytes).filter(|sum| *sum <= max)?;
        self.grant(bytes)
    }

    /// The sender sent `bytes`. `None`, and nothing changed, when it had no leave to.
    pub fn spend(&mut self, bytes: usize) -> Option<()> {
        self.0 = u32::try_from(bytes).ok().and_then(|bytes| self.0.checked_sub(bytes))?;
        Some(())
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may stop at once, and its numbers are its own"
)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn says_what_a_wide_number_says(
            steps in vec((any::<bool>(), prop_oneof![0..70_000_u32, u32::MAX - 70_000..=u32::MAX]), 0..64),
        ) {
            let mut window = Window::default();
            let mut model = 0_i64;
            for (granted, bytes) in steps {
                let next = if granted { model + i64::from(bytes) } else { model - i64::from(bytes) };
                let fits = (0..=i64::from(WINDOW_MAX)).contains(&next);
                let done = if granted { window.grant(bytes) } else { window.spend(bytes as usize) };
                prop_assert_eq!(done.is_some(), fits);
                model = if fits { next } else { model };
                prop_assert_eq!(window.left() as i64, model);
            }
        }

        /// Two ends and a pipe each way, with anything in flight: who keeps to the rules is never refused, and what is
        /// unread is never more than a window.
        #[test]
        fn keeps_both_ends_in_step(steps in vec((0..4_u8, 1..=WINDOW_MAX), 0..200)) {
            let (mut sender, mut receiver) = (Window::open(WINDOW_MAX), Window::open(WINDOW_MAX));
            let (mut data, mut credit) = (VecDeque::new(), VecDeque::new());
            let mut unread = 0;
            for (step, bytes) in steps {
                match step {
                    0 => {
                        let bytes = bytes.min(sender.left() as u32);
                        prop_assert_eq!(sender.spend(bytes as usize), Some(()));
                        data.push_back(bytes);
                    }
                    1 => if let Some(bytes) = data.pop_front() {
                        prop_assert_eq!(receiver.spend(bytes as usize), Some(()));
                        unread += bytes;
                    },
                    2 => {
                        let bytes = bytes.min(unread);
                        unread -= bytes;
                        prop_assert_eq!(receiver.grant(bytes), Some(()));
                        credit.push_back(bytes);
                    }
                    _ => if let Some(bytes) = credit.pop_front() {
                        prop_assert_eq!(sender.grant(bytes), Some(()));
                    },
                }
                let in_flight: u32 = data.iter().chain(&credit).sum();
                prop_assert_eq!(sender.left() as u32 + in_flight + unread, WINDOW_MAX);
            }
        }
    }

    #[test]
    fn never_holds_more_than_the_window() {
        let mut window = Window::open(u32::MAX);
        assert_eq!(window.left(), 65_536);
        assert_eq!(window.grant(1), None);
        assert_eq!(window.spend(65_536), Some(()));
        assert_eq!(window.spend(1), None);
        assert_eq!(window.grant(u32::MAX), None);
        assert_eq!(window.grant(10), Some(()));
        assert_eq!(window.left(), 10);
        assert_eq!(window.grant_within(1, 10), None);
        assert_eq!(window.grant_within(u32::MAX, u32::MAX), None);
        assert_eq!(window.grant_within(5, 15), Some(()));
        assert_eq!(window.left(), 15);
    }
}
