//! One app's life, from `UNIQUE_DONE` to EXIT, and of the processes beside it, as one poll loop with bounded buffers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_ticket::app::App;
use casemate_ticket::config::Config;
use casemate_ticket::files::FILES_BYTES_MAX;
use casemate_wire::frame::{Frame, GuestKind, HostKind, Kind};
use casemate_wire::order::{Conversation, OutOfOrder, Phase};
use casemate_wire::payload::{
    ErrorCode, OutputCredit, Resize, Resized, Signal, StartError, Started, Stop,
};
use rustix::event::{PollFd, PollFlags};

use crate::beside::Part;
use crate::child::Plan;
use crate::crowd::Crowd;
use crate::failure::{Failure, OrFailure};
use crate::health::Checkup;
use crate::health::probe::Part as ProbePart;
use crate::link::{Broken, Inbox, Outbox, poll_for};
use crate::places::Places;
use crate::report::Report;
use crate::running::Running;
use crate::site::Site;
use crate::{cgroup, grow, network, volumes};

/// Where a session's app runs: in this machine, or in a container of the host's.
pub trait Machine {
    /// Makes the process that becomes the app.
    ///
    /// # Errors
    /// Why there is none.
    fn start(&self, app: &App, config: &Config, files: &[u8]) -> Result<Running, Failure>;

    /// Where processes beside the app are made, health checks among them.
    fn beside(&self) -> Site;

    /// The app has ended, and nobody was told yet: what outlives it has to be on its disks.
    fn settle(&self, app: &App);

    /// Has the app's file system take up all of a disk that has `bytes` now.
    fn grow(&self, bytes: u64) -> Resized;
}

impl Machine for Places {
    fn start(&self, app: &App, config: &Config, files: &[u8]) -> Result<Running, Failure> {
        let configure = |network| network::configure(network::CARD, network);
        config.network.as_ref().map_or(Ok(()), configure)?;
        Running::start(&Plan { app, config, files, places: self })
    }

    fn beside(&self) -> Site {
        let groups: Vec<_> = self.cgroup.iter().cloned().collect();
        let oom = groups.first().map(|group| group.join(cgroup::EVENTS));
        let glibc_tunables = self.glibc_tunables.clone();
        Site { groups, oom, glibc_tunables, root: None, adapt: |_| () }
    }

    fn settle(&self, app: &App) {
        volumes::settle(self, app);
    }

    fn grow(&self, bytes: u64) -> Resized {
        grow::grow(self, bytes)
    }
}

/// Runs one conversation from `UNIQUE_DONE` on; returns when `EXIT` or `ERROR` has left.
///
/// # Errors
/// [`Broken`] when the host broke the protocol or went away. The app is killed then.
pub fn run(pipe: &OwnedFd, machine: &dyn Machine) -> Result<(), Broken> {
    let mut session = Session {
        machine,
        conversation: Conversation::reseeding(),
        outbox: Outbox::default(),
        running: None,
        app: None,
        files: Vec::new(),
        crowd: Crowd::default(),
        checkup: None,
    };
    let answer = session.converse(pipe);
    if let (Err(_), Some(running)) = (&answer, &session.running) {
        running.kill();
    }
    answer?;
    session.outbox.flush_all(pipe)
}

/// A descriptor of the poll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The control pipe.
    Pipe,
    /// The pipe on which the child reports why it could not become the app.
    Report,
    /// The app's process.
    Process,
    /// The app's standard input.
    Stdin,
    /// The app's standard output.
    Stdout,
    /// The app's standard error.
    Stderr,
    /// Something of a process beside the app.
    Beside(u16, Part),
    /// Something of a health check.
    Health(ProbePart),
}

struct Session<'a> {
    machine: &'a dyn Machine,
    conversation: Conversation,
    outbox: Outbox,
    running: Option<Running>,
    app: Option<App>,
    /// Content of the app's files, until it is started.
    files: Vec<u8>,
    crowd: Crowd,
    checkup: Option<Checkup>,
}

impl Session<'_> {
    fn converse(&mut self, pipe: &OwnedFd) -> Result<(), Broken> {
        let mut inbox = Inbox::default();
        self.say(GuestKind::UniqueDone, &[])?;
        while self.conversation.phase() != Phase::Over {
            for (watched, events) in self.wait(pipe)? {
                match watched {
                    Watched::Pipe if events == PollFlags::OUT => {}
                    Watched::Pipe => self.serve_pipe(pipe, &mut inbox)?,
                    Watched::Beside(session, part) => {
                        self.crowd.serve((session, part), &mut self.outbox)?;
                    }
                    Watched::Health(part) => {
                        if let Some(checkup) = &mut self.checkup {
                            checkup.serve(part, &mut self.outbox)?;
                        }
                    }
                    _ => self.serve_app(watched)?,
                }
            }
            self.look_at_the_clock()?;
            self.outbox.flush_some(pipe.as_fd())?;
        }
        Ok(())
    }

    /// Waits until something can be done, and answers what.
    fn wait(&self, pipe: &OwnedFd) -> Result<Vec<(Watched, PollFlags)>, Broken> {
        let mut interest = PollFlags::IN;
        if self.outbox.pending() > 0 {
            interest |= PollFlags::OUT;
        }
        let mut set = vec![(Watched::Pipe, PollFd::new(pipe, interest))];
        let mut deadline = None;
        if let Some(running) = &self.running {
            running.watch(&self.outbox, &mut set);
            deadline = running.deadline();
        }
        self.crowd.watch(&self.outbox, |session, part, fd| {
            set.push((Watched::Beside(session, part), fd));
        });
        let mut dues: Vec<Instant> = deadline.into_iter().chain(self.crowd.deadline()).collect();
        if let Some(checkup) = &self.checkup {
            checkup.watch(|part, fd| set.push((Watched::Health(part), fd)));
            dues.extend(checkup.deadline());
        }
        let deadline = dues.into_iter().min();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let (names, mut fds): (Vec<Watched>, Vec<PollFd<'_>>) = set.into_iter().unzip();
        // A millisecond on top: a timeout that was rounded down would spin until its time.
        poll_for(&mut fds, timeout.map(|time| time.saturating_add(Duration::from_millis(1))))?;
        let ready = names.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn serve_pipe(&mut self, pipe: &OwnedFd, inbox: &mut Inbox) -> Result<(), Broken> {
        inbox.fill(pipe.as_fd())?;
        while let Some(frame) = inbox.next_frame()? {
            self.hear(frame)?;
        }
        Ok(())
    }

    fn hear(&mut self, frame: Frame<'_, HostKind>) -> Result<(), Broken> {
        let Frame { kind, session, payload } = frame;
        if session != 0 {
            return self.hear_beside(frame);
        }
        self.conversation.host(kind)?;
        let wrong = || Broken::Payload(kind);
        if kind == HostKind::Files {
            return self.take_files(payload);
        }
        if kind == HostKind::Config {
            return self.start(payload);
        }
        // After EXIT or ERROR the host may still speak of an app that it does not know ended.
        let Some(running) = &mut self.running else { return Ok(()) };
        match kind {
            HostKind::Unique
            | HostKind::Config
            | HostKind::Files
            | HostKind::Exec
            | HostKind::Window
            | HostKind::Close
            | HostKind::Admit => Ok(()),
            HostKind::Stdin => {
                running.input.take(payload)?;
                running.input.pump(&mut self.outbox)
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
            HostKind::Resize => {
                let resize = Resize::parse(payload).ok_or_else(wrong)?;
                let resized = self.machine.grow(resize.bytes);
                // What it was for may have ended meanwhile; it is said in time, or not at all.
                if self.conversation.phase() != Phase::Running {
                    return Ok(());
                }
                self.say(GuestKind::Resized, resized.encode().as_bytes())
            }
            HostKind::Stop => {
                let stop = Stop::parse(payload).ok_or_else(wrong)?;
                running.stop(Duration::from_millis(u64::from(stop.timeout_ms)));
                Ok(())
            }
        }
    }

    fn hear_beside(&mut self, frame: Frame<'_, HostKind>) -> Result<(), Broken> {
        let Frame { kind, session, payload } = frame;
        match self.conversation.phase() {
            Phase::Running => {}
            // All ended with the app, and the host cannot know yet.
            Phase::Over => return Ok(()),
            phase => return Err(Broken::Order(OutOfOrder { kind: kind.byte(), phase })),
        }
        if kind != HostKind::Exec {
            return self.crowd.hear(frame, &mut self.outbox);
        }
        let namespaces = self.running.as_ref().and_then(Running::namespaces);
        let (Some(app), Some(namespaces)) = (&self.app, namespaces) else { return Ok(()) };
        let site = self.machine.beside();
        self.crowd.exec((session, payload), app, namespaces, &site, &mut self.outbox)
    }

    fn take_files(&mut self, piece: &[u8]) -> Result<(), Broken> {
        let size = self.files.len().saturating_add(piece.len());
        if u64::try_from(size).unwrap_or(u64::MAX) > FILES_BYTES_MAX {
            return Err(Broken::Payload(HostKind::Files));
        }
        self.files.extend_from_slice(piece);
        Ok(())
    }

    fn start(&mut self, config: &[u8]) -> Result<(), Broken> {
        let files = std::mem::take(&mut self.files);
        let started = Config::parse(config)
            .or_failure(ErrorCode::Config, "use the configuration")
            .and_then(|config| {
                let app = config.apps.first().cloned();
                let app = app.ok_or_else(|| Failure::new(ErrorCode::Config, "there is no app"))?;
                Ok((self.machine.start(&app, &config, &files)?, app))
            });
        match started {
            Ok((running, app)) => {
                self.running = Some(running);
                self.app = Some(app);
                Ok(())
            }
            Err(failure) => self.say_error(&failure),
        }
    }

    fn serve_app(&mut self, watched: Watched) -> Result<(), Broken> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match watched {
            Watched::Pipe | Watched::Beside(..) | Watched::Health(_) => Ok(()),
            Watched::Report => match running.read_report()? {
                Report::Unfinished => Ok(()),
                Report::Started => {
                    let pid = running.pid();
                    self.say(GuestKind::Started, Started { pid }.encode().as_bytes())?;
                    let check = self.app.as_ref().and_then(|app| app.health.clone());
                    self.checkup = check.map(Checkup::new);
                    self.running.as_mut().map_or(Ok(()), |app| app.begin(&mut self.outbox))
                }
                Report::Failed(failure) => self.say_error(&failure),
            },
            Watched::Process => {
                running.reap()?;
                if running.has_ended() {
                    self.checkup = None;
                }
                Ok(())
            }
            Watched::Stdin => running.input.pump(&mut self.outbox),
            Watched::Stdout | Watched::Stderr => running.pump(watched, &mut self.outbox),
        }
    }

    /// KILL after a STOP; EXIT when the app ended and its output is out or held up for too long.
    fn look_at_the_clock(&mut self) -> Result<(), Broken> {
        self.crowd.look_at_the_clock(&mut self.outbox)?;
        let Some(running) = &mut self.running else { return Ok(()) };
        if let (Some(checkup), Some(app), Some(namespaces)) =
            (&mut self.checkup, &self.app, running.namespaces())
        {
            let site = self.machine.beside();
            checkup.look_at_the_clock(app, namespaces, &site, &mut self.outbox)?;
        }
        running.kill_when_due(Instant::now());
        match running.finished(Instant::now()) {
            Some(exit) if self.conversation.phase() == Phase::Running => {
                self.crowd.end(&mut self.outbox)?;
                if let Some(app) = &self.app {
                    self.machine.settle(app);
                }
                self.say(GuestKind::Exit, exit.encode().as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn say_error(&mut self, failure: &Failure) -> Result<(), Broken> {
        let error = StartError { code: failure.code, text: &failure.text };
        self.say(GuestKind::Error, &error.encode())
    }

    fn say(&mut self, kind: GuestKind, payload: &[u8]) -> Result<(), Broken> {
        self.conversation.guest(kind)?;
        self.outbox.push(kind, payload)
    }
}
