//! The apps of a pod: which of them is to be started, what each one's end means for the others, and what is said of them.
//!
//! They start in the order of the spec, each when the one before it runs or has ended and what it waits for is so. The
//! first that fails has all others told to stop; the pod ends when none is left.

use std::time::{Duration, Instant};

use casemate_ticket::app::{After, App, Condition};
use casemate_ticket::config::Config;
use casemate_ticket::files;
use casemate_wire::apps::number_of;
use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::payload::{
    ErrorCode, Exit, OutputCredit, Signal, StartError, Started as StartedPayload, Stop,
};
use rustix::event::PollFd;

use crate::crowd::Crowd;
use crate::failure::Failure;
use crate::health::Checkup;
use crate::health::probe::Part as ProbePart;
use crate::link::{Broken, Outbox};
use crate::namespaces::Namespaces;
use crate::report::Report;
use crate::running::{Part, Running};
use crate::session::Machine;

/// A part of the pod that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Something of the app at that place.
    App(usize, Part),
    /// Something of its health check.
    Health(usize, ProbePart),
}

/// What became of the pod as a whole, for the host.
#[derive(Debug)]
pub enum News {
    /// The first app runs.
    Started(u32),
    /// It cannot be started, and so nothing is.
    Failed(Failure),
}

#[derive(Debug)]
enum State {
    Waiting,
    Running(Box<Running>),
    /// Ended with what was said of it; `None`: it never ran.
    Over(Option<Exit>),
}

/// One app with its place in the pod.
#[derive(Debug)]
struct Slot {
    number: u16,
    app: App,
    state: State,
    started: bool,
    checkup: Option<Checkup>,
    was_healthy: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Pod {
    config: Config,
    /// Content of the files of all apps, one behind the other.
    files: Vec<u8>,
    slots: Vec<Slot>,
    /// Nothing is started any more.
    stopping: bool,
    failed: Option<Exit>,
}

/// Bytes of all files of an app.
fn file_bytes(app: &App) -> usize {
    files::sizes(&app.mounts)
        .fold(0_usize, |sum, size| sum.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)))
}

impl Slot {
    fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            State::Waiting | State::Over(_) => None,
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    /// Whether an app that waits for `condition` of this one may start.
    fn is(&self, condition: Condition) -> bool {
        match condition {
            Condition::Started => self.started,
            Condition::Healthy => self.was_healthy,
            Condition::Exited => matches!(self.state, State::Over(Some(Exit::Code(0)))),
        }
    }
}

impl Pod {
    /// One of which nothing was started yet.
    ///
    /// # Errors
    /// [`ErrorCode::Config`] for other files than its apps have.
    pub fn new(config: Config, files: Vec<u8>) -> Result<Self, Failure> {
        if config.apps.iter().map(file_bytes).fold(0, usize::saturating_add) != files.len() {
            let text = "the files are not those of the configuration";
            return Err(Failure::new(ErrorCode::Config, text));
        }
        let count = config.apps.len();
        let slot = |(place, app): (usize, &App)| Slot {
            number: number_of(place, count),
            app: app.clone(),
            state: State::Waiting,
            started: false,
            checkup: None,
            was_healthy: false,
        };
        let slots = config.apps.iter().enumerate().map(slot).collect();
        Ok(Self { config, files, slots, stopping: false, failed: None })
    }

    /// What the pod is made of.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Starts what may be started now. The first app's failure is the pod's; another's is an end of that one.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn start_due(
        &mut self,
        machine: &dyn Machine,
        outbox: &mut Outbox,
    ) -> Result<Option<Failure>, Broken> {
        while let Some(place) = self.due() {
            let begun = machine.start(place, &self.config, self.files_of(place));
            let Some(slot) = self.slots.get_mut(place) else { break };
            match begun {
                Ok(running) => slot.state = State::Running(Box::new(running)),
                Err(failure) if place == 0 => return Ok(Some(failure)),
                Err(failure) => self.fail(place, &failure, outbox)?,
            }
        }
        if self.slots.iter().all(|slot| slot.started || slot.is_over()) {
            self.files = Vec::new();
        }
        Ok(None)
    }

    fn due(&self) -> Option<usize> {
        if self.stopping {
            return None;
        }
        let place = self.slots.iter().position(|slot| matches!(slot.state, State::Waiting))?;
        let before = place.checked_sub(1).and_then(|before| self.slots.get(before));
        let is_free = before.is_none_or(|slot| slot.started || slot.is_over());
        let after = self.slots.get(place).and_then(|slot| slot.app.after.as_ref());
        let holds = |After { app, condition }: &After| {
            self.slots.iter().any(|slot| slot.app.name == *app && slot.is(*condition))
        };
        (is_free && after.is_none_or(holds)).then_some(place)
    }

    /// The next one, if what it waits for cannot come any more: the pod would wait with it for ever.
    fn in_vain(&self) -> Option<usize> {
        let place = self.slots.iter().position(|slot| matches!(slot.state, State::Waiting))?;
        let After { app, condition } = self.slots.get(place)?.app.after.as_ref()?;
        let awaited = self.slots.iter().find(|slot| slot.app.name == *app)?;
        (awaited.is_over() && !awaited.is(*condition)).then_some(place)
    }

    fn files_of(&self, place: usize) -> &[u8] {
        let before = self.config.apps.iter().take(place);
        let from = before.map(file_bytes).fold(0_usize, usize::saturating_add);
        let own = self.config.apps.get(place).map_or(0, file_bytes);
        self.files.get(from..from.saturating_add(own)).unwrap_or_default()
    }

    /// Adds what is worth waiting for.
    pub fn watch<'a>(&'a self, outbox: &Outbox, mut add: impl FnMut(Watched, PollFd<'a>)) {
        for (place, slot) in self.slots.iter().enumerate() {
            if let State::Running(running) = &slot.state {
                running.watch(outbox, |part, fd| add(Watched::App(place, part), fd));
            }
            if let Some(checkup) = &slot.checkup {
                checkup.watch(|part, fd| add(Watched::Health(place, part), fd));
            }
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = |slot: &Slot| {
            let running = match &slot.state {
                State::Running(running) => running.deadline(),
                State::Waiting | State::Over(_) => None,
            };
            running.into_iter().chain(slot.checkup.as_ref().and_then(Checkup::deadline)).min()
        };
        self.slots.iter().filter_map(due).min()
    }

    /// Something that was waited for is there.
    ///
    /// # Errors
    /// As those of the streams.
    pub fn serve(&mut self, watched: Watched, outbox: &mut Outbox) -> Result<Option<News>, Broken> {
        let (place, part) = match watched {
            Watched::App(place, part) => (place, part),
            Watched::Health(place, part) => {
                let Some(slot) = self.slots.get_mut(place) else { return Ok(None) };
                if let Some(checkup) = &mut slot.checkup {
                    checkup.serve(part, outbox)?;
                    slot.was_healthy |= checkup.is_healthy();
                }
                return Ok(None);
            }
        };
        let is_running = |slot: &Slot| matches!(slot.state, State::Running(_));
        let last = self.slots.iter().filter(|slot| is_running(slot)).count() < 2;
        let Some(slot) = self.slots.get_mut(place) else { return Ok(None) };
        let State::Running(running) = &mut slot.state else { return Ok(None) };
        match part {
            Part::Report => match running.read_report()? {
                Report::Unfinished => Ok(None),
                Report::Started => self.begin(place, outbox),
                Report::Failed(failure) if place == 0 => Ok(Some(News::Failed(failure))),
                Report::Failed(failure) => {
                    running.bury();
                    self.fail(place, &failure, outbox).map(|()| None)
                }
            },
            Part::Process => {
                running.reap(last)?;
                if running.has_ended() {
                    slot.checkup = None;
                }
                Ok(None)
            }
            Part::Stdin => running.input.pump(outbox).map(|()| None),
            Part::Stdout | Part::Stderr => running.pump(part, outbox).map(|()| None),
        }
    }

    /// The app at `place` runs. The pod does with the first, before anything else is said of that one.
    fn begin(&mut self, place: usize, outbox: &mut Outbox) -> Result<Option<News>, Broken> {
        let Some(slot) = self.slots.get_mut(place) else { return Ok(None) };
        slot.started = true;
        let check = slot.app.health.clone();
        // It may have ended already: its end was seen before its report was read.
        let check = check.filter(|_| !slot.running().is_none_or(|running| running.has_ended()));
        slot.checkup = check.map(|check| Checkup::new(slot.number, check));
        let pid = slot.running().map_or(0, |running| running.pid());
        if place == 0 {
            return Ok(Some(News::Started(pid)));
        }
        self.announce(place, pid, outbox).map(|()| None)
    }

    /// Says that the app at `place` runs, where it has a number of its own, and opens its input.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn announce(&mut self, place: usize, pid: u32, outbox: &mut Outbox) -> Result<(), Broken> {
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        if slot.number != 0 {
            let started = StartedPayload { pid };
            outbox.push_of(slot.number, GuestKind::Started, started.encode().as_bytes())?;
        }
        slot.running().map_or(Ok(()), |running| running.begin(outbox))
    }

    /// One that could not be started, after the first, has ended as a shell would have it.
    fn fail(&mut self, place: usize, why: &Failure, outbox: &mut Outbox) -> Result<(), Broken> {
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        let error = StartError { code: why.code, text: &why.text };
        outbox.push_of(slot.number, GuestKind::Error, &error.encode())?;
        let exit = Exit::Code(match why.code {
            ErrorCode::NotFound => 127,
            ErrorCode::NotExecutable => 126,
            _ => 125,
        });
        slot.state = State::Over(Some(exit));
        self.note(exit);
        Ok(())
    }

    /// An end that is a failure is the pod's, the first one, and everything else is told to stop.
    fn note(&mut self, exit: Exit) {
        if exit == Exit::Code(0) || self.failed.is_some() {
            return;
        }
        self.failed = Some(exit);
        // What was told to stop before has the time that it was given.
        if !self.stopping {
            self.stop(Duration::from_millis(u64::from(self.config.stop_ms)));
        }
    }

    /// Tells all to stop, and starts none any more.
    pub fn stop(&mut self, timeout: Duration) {
        self.stopping = true;
        for slot in &mut self.slots {
            match &mut slot.state {
                State::Running(running) => running.stop(timeout),
                State::Waiting => slot.state = State::Over(None),
                State::Over(_) => {}
            }
        }
    }

    /// SIGKILL for all.
    pub fn kill(&mut self) {
        self.slots.iter_mut().filter_map(Slot::running).for_each(|running| running.kill());
    }

    /// A frame for the app at `place`. After its end it may still come, and has no effect.
    ///
    /// # Errors
    /// [`Broken::Payload`] and [`Broken::Credit`].
    pub fn hear(
        &mut self,
        place: usize,
        (kind, payload): (HostKind, &[u8]),
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        let wrong = || Broken::Payload(kind);
        let running = self.slots.get_mut(place).ok_or_else(wrong)?.running();
        let Some(running) = running else { return Ok(()) };
        match kind {
            HostKind::Stdin => {
                running.input.take(payload)?;
                running.input.pump(outbox)
            }
            HostKind::StdinEof => {
                running.input.end();
                Ok(())
            }
            HostKind::Signal => {
                let signal = Signal::parse(payload).ok_or_else(wrong)?;
                let number = i32::try_from(signal.number).map_err(|_| wrong())?;
                if !(1..=64).contains(&number) {
                    return Err(wrong());
                }
                running.signal(number);
                Ok(())
            }
            HostKind::Credit => {
                let credit = OutputCredit::parse(payload).ok_or_else(wrong)?;
                running.output(credit.stream).grant(credit.bytes)
            }
            _ => Err(wrong()),
        }
    }

    /// STOP of the host.
    ///
    /// # Errors
    /// [`Broken::Payload`].
    pub fn hear_stop(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let stop = Stop::parse(payload).ok_or(Broken::Payload(HostKind::Stop))?;
        self.stop(Duration::from_millis(u64::from(stop.timeout_ms)));
        Ok(())
    }

    /// The app of that name, or the first, while it runs: its place and namespaces.
    #[must_use]
    pub fn beside(&self, name: Option<&str>) -> Option<(usize, &App, &Namespaces)> {
        let wanted = |slot: &Slot| name.is_none_or(|name| slot.app.name == name);
        let place = self.slots.iter().position(wanted)?;
        let slot = self.slots.get(place)?;
        let State::Running(running) = &slot.state else { return None };
        let namespaces = running.namespaces().filter(|_| !running.has_ended())?;
        Some((place, &slot.app, namespaces))
    }

    /// Health checks that are due, KILL after a STOP, and the end of whatever ended.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn look_at_the_clock(
        &mut self,
        machine: &dyn Machine,
        crowd: &mut Crowd,
        outbox: &mut Outbox,
    ) -> Result<Option<Exit>, Broken> {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let State::Running(running) = &mut slot.state else { continue };
            if let (Some(checkup), Some(namespaces)) = (&mut slot.checkup, running.namespaces()) {
                let site = machine.beside(place);
                checkup.look_at_the_clock(&slot.app, namespaces, &site, outbox)?;
                slot.was_healthy |= checkup.is_healthy();
            }
            running.kill_when_due(now);
            ended.extend(running.finished(now).map(|exit| (place, exit)));
        }
        for (place, exit) in ended {
            self.end(place, exit, crowd, outbox)?;
        }
        if let Some(place) = self.in_vain() {
            let text = "what it waits for has ended and was never healthy";
            self.fail(place, &Failure::new(ErrorCode::Other, text), outbox)?;
        }
        let is_over = self.slots.iter().all(Slot::is_over);
        Ok(is_over.then(|| self.failed.unwrap_or(Exit::Code(0))))
    }

    /// The app at `place` has ended, and with it what was beside it, which is said first.
    fn end(
        &mut self,
        place: usize,
        exit: Exit,
        crowd: &mut Crowd,
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        crowd.end(place, outbox)?;
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        slot.state = State::Over(Some(exit));
        slot.checkup = None;
        if slot.number != 0 {
            outbox.push_of(slot.number, GuestKind::Exit, exit.encode().as_bytes())?;
        }
        self.note(exit);
        Ok(())
    }
}
