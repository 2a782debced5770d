//! Credit: how many bytes of a stream the other side may still send.
//!
//! A window never holds more than [`WINDOW_MAX`], so a stream that nobody reads costs its sender's
//! pipe and this much memory, whatever either side says.

/// Most bytes that may be outstanding on one stream.
pub const WINDOW_MAX: u32 = crate::frame::OUTPUT_WINDOW;

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

    /// The sender sent `bytes`. `None`, and nothing changed, when it had no leave to.
    pub fn spend(&mut self, bytes: usize) -> Option<()> {
        self.0 = u32::try_from(bytes).ok().and_then(|bytes| self.0.checked_sub(bytes))?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
