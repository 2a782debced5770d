//! The time at which a device may go on, to the nanosecond that the host's clock has.
//!
//! Epoll counts milliseconds; a device whose rate limit gives way earlier would wait too long, or be
//! looked at in vain. A timer descriptor rings at an instant of the clock instead.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

const SECOND_NS: u64 = 1_000_000_000;

/// A descriptor that becomes readable at an instant.
#[derive(Debug)]
pub struct Timer {
    file: OwnedFd,
    at: Option<u64>,
}

impl Timer {
    /// A timer that never rings.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { file: timerfd_create(TimerfdClockId::Monotonic, flags)?, at: None })
    }

    /// For epoll.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Rings at this instant and no other, at once when it has passed; never for `None`.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set(&mut self, at: Option<u64>) -> io::Result<()> {
        if at == self.at {
            return Ok(());
        }
        timerfd_settime(&self.file, TimerfdTimerFlags::ABSTIME, &once(at))?;
        self.at = at;
        Ok(())
    }

    /// Makes it unreadable after it rang; it is set anew for the same instant then.
    pub fn clear(&mut self) {
        let mut expirations = [0; 8];
        let _ = rustix::io::read(&self.file, &mut expirations);
        self.at = None;
    }
}

/// Both zero is never, so the first nanosecond of a clock is the second one.
fn once(at: Option<u64>) -> Itimerspec {
    let at = at.map_or(0, |at| at.max(1));
    let part = |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
    Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: part(at.checked_div(SECOND_NS)),
            tv_nsec: part(at.checked_rem(SECOND_NS)),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::clock_unsafe::monotonic_ns;

    fn readable(timer: &Timer, wait: Option<&Timespec>) -> bool {
        poll(&mut [PollFd::new(&timer.file, PollFlags::IN)], wait).unwrap() == 1
    }

    #[test]
    fn rings_at_its_instant_and_not_before_and_no_more_when_it_is_taken_back() {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut timer = Timer::new().unwrap();
        let at = monotonic_ns() + 3_000_000;
        timer.set(Some(at)).unwrap();
        assert!(readable(&timer, None));
        assert!(monotonic_ns() >= at, "it rang too early");
        timer.clear();
        assert!(!readable(&timer, Some(&now)));
        timer.set(Some(at)).unwrap();
        assert!(readable(&timer, None), "an instant that has passed");
        timer.set(None).unwrap();
        assert!(!readable(&timer, Some(&now)));
        timer.set(Some(u64::MAX)).unwrap();
        assert!(!readable(&timer, Some(&now)));
    }
}
