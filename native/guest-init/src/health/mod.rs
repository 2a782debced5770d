//! The app's health check: one question after the other, by processes beside the app. What it comes to is said to the
//! host whenever it is not what was said last, and the last word is the host's to keep.

pub mod child;
pub mod doors;
pub mod judge;
pub mod probe;

use std::time::{Duration, Instant};

use casemate_ticket::app::App;
use casemate_ticket::health::Check;
use casemate_wire::frame::GuestKind;
use casemate_wire::health::{Answer, Health, State};
use rustix::event::PollFd;

use crate::link::{Broken, Outbox};
use crate::namespaces::Namespaces;
use crate::site::Site;
use judge::Judge;
use probe::{Part, Probe};

const KILLED: Answer = Answer::Signal(9);
/// How long the end of an app may take to show after that of its last process.
const END_GRACE: Duration = Duration::from_millis(100);

/// The check of an app that runs.
#[derive(Debug)]
pub struct Checkup {
    /// The number of its app's frames.
    number: u16,
    check: Check,
    judge: Judge,
    probe: Option<Probe>,
    since: Instant,
    next: Instant,
    /// Something killed the last one; the end of the app does that too, and is seen a little later.
    killed: Option<(Instant, Vec<u8>)>,
    /// The last HEALTH.
    told: Vec<u8>,
}

impl Checkup {
    /// Of an app that runs from now on.
    #[must_use]
    pub fn new(number: u16, check: Check) -> Self {
        let since = Instant::now();
        let judge = Judge::default();
        let next = later(since, judge.pause(&check, Duration::ZERO));
        Self { number, check, judge, probe: None, since, next, killed: None, told: Vec::new() }
    }

    /// Whether the last word is that the app is well.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.judge.state() == State::Healthy
    }

    /// Adds what is worth waiting for.
    pub fn watch<'a>(&'a self, add: impl FnMut(Part, PollFd<'a>)) {
        if let Some(probe) = &self.probe {
            probe.watch(add);
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let killed = self.killed.as_ref().map(|(at, _)| *at);
        let probe = self.probe.as_ref().and_then(Probe::deadline);
        killed.or(probe).or(Some(self.next))
    }

    /// Something that was waited for is there.
    ///
    /// # Errors
    /// What waiting for a process answers, and as [`Outbox::push`].
    pub fn serve(&mut self, part: Part, outbox: &mut Outbox) -> Result<(), Broken> {
        let Some(probe) = &mut self.probe else { return Ok(()) };
        if part == Part::Output {
            probe.take_output();
            return Ok(());
        }
        let Some((answer, output)) = probe.reap()? else { return Ok(()) };
        let counted = probe.deadline().is_none();
        self.probe = None;
        if counted {
            return Ok(());
        }
        if answer == KILLED {
            self.killed = Some((later(Instant::now(), END_GRACE), output));
            return Ok(());
        }
        self.count(answer, &output, outbox)
    }

    /// Kills what took too long, and asks again when it is time.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn look_at_the_clock(
        &mut self,
        app: &App,
        namespaces: &Namespaces,
        site: &Site,
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        let now = Instant::now();
        if let Some((at, output)) = self.killed.take() {
            if at <= now {
                return self.count(KILLED, &output, outbox);
            }
            self.killed = Some((at, output));
            return Ok(());
        }
        if let Some(probe) = &mut self.probe
            && probe.deadline().is_some()
        {
            if !probe.is_late(now) {
                return Ok(());
            }
            let output = probe.said();
            return self.count(Answer::TimedOut, &output, outbox);
        }
        if self.next > now {
            return Ok(());
        }
        if self.probe.is_some() {
            // Killed and still not gone: nothing can be asked beside it, and it is no sign of health.
            return self.count(Answer::TimedOut, &[], outbox);
        }
        match Probe::start(&self.check, app, namespaces, site) {
            Ok(probe) => {
                self.probe = Some(probe);
                Ok(())
            }
            Err(failure) => self.count(Answer::NotAsked, failure.text.as_bytes(), outbox),
        }
    }

    fn count(&mut self, answer: Answer, output: &[u8], outbox: &mut Outbox) -> Result<(), Broken> {
        let age = self.since.elapsed();
        self.judge.take(answer.is_right(), &self.check, age);
        self.next = later(Instant::now(), self.judge.pause(&self.check, age));
        let (state, streak) = (self.judge.state(), self.judge.streak());
        let health = Health { state, answer, streak, since_ns: 0, output }.encode();
        if health == self.told {
            return Ok(());
        }
        outbox.push_of(self.number, GuestKind::Health, &health)?;
        self.told = health;
        Ok(())
    }
}

fn later(from: Instant, time: Duration) -> Instant {
    from.checked_add(time).unwrap_or(from)
}
