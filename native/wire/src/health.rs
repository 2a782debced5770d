//! `HEALTH`: what the app's health check came to, and how much a guest may say of it.

use crate::bytes::Cursor;

/// Most bytes of a check's output that are kept: its last.
pub const OUTPUT_MAX: usize = 4096;
/// A check comes to its end once in a second at most. A guest that was held up may catch up, no more.
const BURST: u64 = 32;
const NANOSECONDS_EACH: u64 = 250_000_000;

/// What is made of an app's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No right answer yet, and not as many wrong ones as count.
    Starting,
    /// The last answers were right.
    Healthy,
    /// Too many wrong answers in a row.
    Unhealthy,
}

impl State {
    const ALL: [Self; 3] = [Self::Starting, Self::Healthy, Self::Unhealthy];

    const fn number(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Healthy => 1,
            Self::Unhealthy => 2,
        }
    }
}

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this code; 0 is right.
    Code(u8),
    /// By this signal, 1 to 64.
    Signal(u8),
    /// Not in its time.
    TimedOut,
    /// It could not be asked; its output says why.
    NotAsked,
}

impl Answer {
    /// Whether the app does its work.
    #[must_use]
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Code(0))
    }

    const fn numbers(self) -> [u8; 2] {
        match self {
            Self::Code(code) => [0, code],
            Self::Signal(signal) => [1, signal],
            Self::TimedOut => [2, 0],
            Self::NotAsked => [3, 0],
        }
    }
}

/// The last check, and what all of them come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health<'a> {
    /// Of the app.
    pub state: State,
    /// Of the last check.
    pub answer: Answer,
    /// Wrong answers in a row.
    pub streak: u32,
    /// When the state began, nanoseconds since 1970. The VMM's to say: the guest says 0.
    pub since_ns: u64,
    /// What the last check wrote, at most [`OUTPUT_MAX`] bytes.
    pub output: &'a [u8],
}

impl<'a> Health<'a> {
    /// The payload's bytes. Of longer output the end is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let [how, value] = self.answer.numbers();
        let mut out = vec![self.state.number(), how, value, 0];
        out.extend_from_slice(&self.streak.to_le_bytes());
        out.extend_from_slice(&self.since_ns.to_le_bytes());
        let skipped = self.output.len().saturating_sub(OUTPUT_MAX);
        out.extend_from_slice(self.output.get(skipped..).unwrap_or_default());
        out
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let [state, how, value, zero] = cursor.array()?;
        let state = State::ALL.into_iter().find(|one| one.number() == state)?;
        let answer = match (how, value) {
            (0, code) => Answer::Code(code),
            (1, 1..=64) => Answer::Signal(value),
            (2, 0) => Answer::TimedOut,
            (3, 0) => Answer::NotAsked,
            _ => return None,
        };
        let (streak, since_ns) = (cursor.u32()?, cursor.u64()?);
        let output = cursor.rest();
        let fits = zero == 0 && output.len() <= OUTPUT_MAX;
        fits.then_some(Self { state, answer, streak, since_ns, output })
    }
}

/// How many a guest may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    left: u64,
    /// Up to when it was filled, on a clock that never goes back.
    filled_ns: u64,
}

impl Allowance {
    /// A full one.
    #[must_use]
    pub const fn new(now_ns: u64) -> Self {
        Self { left: BURST, filled_ns: now_ns }
    }

    /// One was sent. `None`: it was one too many.
    pub fn spend(&mut self, now_ns: u64) -> Option<()> {
        let since = now_ns.saturating_sub(self.filled_ns);
        let earned = since.checked_div(NANOSECONDS_EACH).unwrap_or(0);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.filled_ns = self.filled_ns.saturating_add(earned.saturating_mul(NANOSECONDS_EACH));
        self.left = self.left.checked_sub(1)?;
        Some(())
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
