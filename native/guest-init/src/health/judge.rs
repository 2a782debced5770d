//! What answers come to, with the meanings of Docker's HEALTHCHECK.

use std::time::Duration;

use casemate_ticket::health::Check;
use casemate_wire::health::State;

/// The state of one app.
#[derive(Debug)]
pub struct Judge {
    state: State,
    streak: u32,
    /// There was a right answer: the app has started, and wrong ones count from then on.
    started: bool,
}

impl Default for Judge {
    fn default() -> Self {
        Self { state: State::Starting, streak: 0, started: false }
    }
}

impl Judge {
    /// One more answer, so long after the app's start.
    pub fn take(&mut self, right: bool, check: &Check, age: Duration) {
        if right {
            (self.state, self.streak, self.started) = (State::Healthy, 0, true);
        } else if self.counts(check, age) {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= check.retries {
                self.state = State::Unhealthy;
            }
        }
    }

    /// Whether a wrong answer counts at that age.
    fn counts(&self, check: &Check, age: Duration) -> bool {
        self.started || age >= Duration::from_millis(check.start_period_ms.into())
    }

    /// From one check to the next at that age.
    #[must_use]
    pub fn pause(&self, check: &Check, age: Duration) -> Duration {
        let ms = if self.counts(check, age) { check.interval_ms } else { check.start_interval_ms };
        Duration::from_millis(ms.into())
    }

    /// What it is now.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Wrong answers in a row that count.
    #[must_use]
    pub const fn streak(&self) -> u32 {
        self.streak
    }
}

#[cfg(test)]
mod tests {
    use casemate_ticket::health::Probe;

    use super::*;

    const CHECK: Check = Check {
        probe: Probe::Tcp(80),
        interval_ms: 30_000,
        start_interval_ms: 5_000,
        start_period_ms: 60_000,
        timeout_ms: 1_000,
        retries: 2,
    };
    const EARLY: Duration = Duration::from_secs(59);
    const LATE: Duration = Duration::from_mins(1);

    fn after(answers: &[(bool, Duration)]) -> (State, u32) {
        let mut judge = Judge::default();
        for (right, age) in answers {
            judge.take(*right, &CHECK, *age);
        }
        (judge.state(), judge.streak())
    }

    #[test]
    fn wrong_answers_do_not_count_while_the_app_starts() {
        assert_eq!(after(&[(false, EARLY); 9]), (State::Starting, 0));
        assert_eq!(after(&[(false, EARLY), (false, LATE)]), (State::Starting, 1));
        assert_eq!(after(&[(false, LATE), (false, LATE)]), (State::Unhealthy, 2));
    }

    #[test]
    fn a_right_answer_ends_the_start_and_every_row() {
        assert_eq!(after(&[(true, EARLY)]), (State::Healthy, 0));
        assert_eq!(after(&[(true, EARLY), (false, EARLY)]), (State::Healthy, 1));
        assert_eq!(after(&[(true, EARLY), (false, EARLY), (false, EARLY)]), (State::Unhealthy, 2));
        let flapping = [(false, LATE), (true, LATE), (false, LATE), (true, LATE), (false, LATE)];
        assert_eq!(after(&flapping), (State::Healthy, 1));
        assert_eq!(after(&[(false, LATE); 5]), (State::Unhealthy, 5));
        assert_eq!(after(&[(false, LATE), (false, LATE), (true, LATE)]), (State::Healthy, 0));
    }

    #[test]
    fn asks_more_often_while_the_app_starts() {
        let mut judge = Judge::default();
        assert_eq!(judge.pause(&CHECK, EARLY), Duration::from_secs(5));
        assert_eq!(judge.pause(&CHECK, LATE), Duration::from_secs(30));
        judge.take(true, &CHECK, EARLY);
        assert_eq!(judge.pause(&CHECK, EARLY), Duration::from_secs(30));
    }
}
