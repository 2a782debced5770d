//! A process beside the app as init sees it: a session of the control pipe from EXEC to EXIT. What it writes waits for
//! the credit of whoever asked for it, however long that takes, and holds up nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_ticket::app::App;
use casemate_ticket::errand::Request;
use casemate_wire::payload::{ErrorCode, Exit, Size, Stream};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::beside_child::{self, Plan, Streams};
use crate::child::Stdio;
use crate::failure::{Failure, OrFailure};
use crate::link::{Broken, Outbox};
use crate::namespaces::Namespaces;
use crate::process_unsafe::{self, Fork};
use crate::report::{self, Report, Reporter, Reports};
use crate::running::{DRAIN_TIMEOUT, Part, bury, exit_of, pipe};
use crate::site::Site;
use crate::streams::{Input, Output};
use crate::{cgroup, terminal};

/// Between hanging up and killing, when nobody listens any more.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// A process beside the app, between fork and EXIT.
#[derive(Debug)]
pub struct Beside {
    session: u16,
    input: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    /// Our end of its terminal, for the terminal's size.
    terminal: Option<OwnedFd>,
    wants_terminal: bool,
    pid: Pid,
    process: OwnedFd,
    report: Option<Reports>,
    /// The file of its cgroup with a line `oom_kill N`, if there is one, and N when it began.
    oom: Option<(PathBuf, u64)>,
    kill_at: Option<Instant>,
    exit: Option<Exit>,
    /// When output last moved, since the end of the process.
    drained_at: Option<Instant>,
}

impl Beside {
    /// Forks the child that becomes the process.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] when the kernel refuses.
    pub fn start(
        session: u16,
        request: &Request,
        app: &App,
        namespaces: &Namespaces,
        site: &Site,
    ) -> Result<Self, Failure> {
        let mut beside = request.beside(app);
        (site.adapt)(&mut beside);
        let (terminal, errand) = match request {
            Request::Program(program) => (program.terminal, None),
            Request::Errand(request) => (None, Some(&request.errand)),
        };
        let plan = Plan { app: &beside, errand, namespaces, site };
        let oom = site.oom.clone().map(|events| {
            let killed = cgroup::oom_kills(&events);
            (events, killed)
        });
        let (report, child_report) = report::pair()?;
        let mut this = if let Some((rows, columns)) = terminal {
            let streams = Streams::Terminal(Size { rows, columns });
            let mut this = Self::fork(session, &plan, streams, (report, &child_report))?;
            this.stdout = Some(Output::unconnected(session, Stream::Stdout));
            this
        } else {
            Self::start_with_pipes(session, &plan, (report, &child_report))?
        };
        this.wants_terminal = terminal.is_some();
        this.oom = oom;
        Ok(this)
    }

    fn start_with_pipes(
        session: u16,
        plan: &Plan<'_>,
        reports: (Reports, &Reporter),
    ) -> Result<Self, Failure> {
        let (stdin, input) = pipe()?;
        let (output, stdout) = pipe()?;
        let (errors, stderr) = pipe()?;
        for ours in [&input, &output, &errors] {
            fcntl_setfl(ours, OFlags::NONBLOCK).or_failure(ErrorCode::Other, "prepare pipes")?;
        }
        let theirs = Stdio { stdin, stdout, stderr };
        plan.site.own(&theirs)?;
        let streams = Streams::Pipes(theirs);
        let mut this = Self::fork(session, plan, streams, reports)?;
        this.input = Some(Input::new(session, input));
        this.stdout = Some(Output::new(session, Stream::Stdout, output));
        this.stderr = Some(Output::new(session, Stream::Stderr, errors));
        Ok(this)
    }

    fn fork(
        session: u16,
        plan: &Plan<'_>,
        streams: Streams,
        (report, child_report): (Reports, &Reporter),
    ) -> Result<Self, Failure> {
        // It is in the app's process namespace from the start.
        let pid = match plan.namespaces.fork().or_failure(ErrorCode::Other, "make a process")? {
            Fork::Parent(pid) => pid,
            Fork::Child => beside_child::run(plan, streams, child_report),
        };
        let process = pidfd_open(pid, PidfdFlags::empty())
            .or_failure(ErrorCode::Other, "watch the process")?;
        Ok(Self {
            session,
            input: None,
            stdout: None,
            stderr: None,
            terminal: None,
            wants_terminal: false,
            pid,
            process,
            report: Some(report),
            oom: None,
            kill_at: None,
            exit: None,
            drained_at: None,
        })
    }

    /// Its process id as init sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw_nonzero().get()).unwrap_or(0)
    }

    /// Adds what is worth waiting for.
    pub fn watch<'a>(&'a self, outbox: &Outbox, add: &mut impl FnMut(u16, Part, PollFd<'a>)) {
        let mut wait = |part, descriptor: BorrowedFd<'a>, events| {
            add(self.session, part, PollFd::from_borrowed_fd(descriptor, events));
        };
        if let Some(report) = &self.report {
            wait(Part::Report, report.as_fd(), PollFlags::IN);
        } else {
            for (part, output) in [(Part::Stdout, &self.stdout), (Part::Stderr, &self.stderr)] {
                let Some(output) = output else { continue };
                if let (true, Some(pipe)) = (output.wants_read(outbox), &output.pipe) {
                    wait(part, pipe.as_fd(), PollFlags::IN);
                }
            }
        }
        if let Some(input) = &self.input
            && let (true, Some(pipe)) = (input.wants_write(), &input.pipe)
        {
            wait(Part::Stdin, pipe.as_fd(), PollFlags::OUT);
        }
        if self.exit.is_none() {
            wait(Part::Process, self.process.as_fd(), PollFlags::IN);
        }
    }

    /// Reads the child's report.
    ///
    /// # Errors
    /// What reading answers, and as [`Outbox::push`].
    pub fn read_report(&mut self) -> Result<Report, Broken> {
        let Some(report) = &mut self.report else { return Ok(Report::Unfinished) };
        let told = report.read()?;
        if matches!(told, Report::Unfinished) {
            return Ok(told);
        }
        let descriptors = self.report.take().map(Reports::into_descriptors).unwrap_or_default();
        match told {
            Report::Started if self.wants_terminal => match self.take_terminal(descriptors) {
                Some(()) => Ok(Report::Started),
                None => Ok(Report::Failed(Failure::new(
                    ErrorCode::Other,
                    "the process ended before it had its terminal",
                ))),
            },
            told => Ok(told),
        }
    }

    /// Three copies of one end: to read, to write, and for the size. Only when all are closed is the terminal hung up.
    fn take_terminal(&mut self, descriptors: Vec<OwnedFd>) -> Option<()> {
        let terminal = descriptors.into_iter().next()?;
        let [read, write] =
            [fcntl_dupfd_cloexec(&terminal, 3).ok()?, fcntl_dupfd_cloexec(&terminal, 3).ok()?];
        // Gone when nobody listens any more.
        self.stdout.as_mut()?.pipe = Some(read);
        self.input = Some(Input::new(self.session, write));
        self.terminal = Some(terminal);
        Some(())
    }

    /// The process runs: its input is open.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn begin(&mut self, outbox: &mut Outbox) -> Result<(), Broken> {
        self.input.as_mut().map_or(Ok(()), |input| input.open(outbox))
    }

    /// Moves one part's bytes, at most one frame.
    ///
    /// # Errors
    /// As those of the streams.
    pub fn pump(&mut self, part: Part, outbox: &mut Outbox) -> Result<(), Broken> {
        let output = match part {
            Part::Stdin => {
                return self.input.as_mut().map_or(Ok(()), |input| input.pump(outbox));
            }
            Part::Stderr => &mut self.stderr,
            _ => &mut self.stdout,
        };
        let moved = output.as_mut().map_or(Ok(false), |output| output.pump(outbox))?;
        if moved && self.exit.is_some() {
            self.drained_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Bytes for its input.
    ///
    /// # Errors
    /// [`Broken::Credit`] when the host had no leave to send that much.
    pub fn take_input(&mut self, bytes: &[u8], outbox: &mut Outbox) -> Result<(), Broken> {
        // Before it runs there is no credit; a terminal is not even there.
        let input = self.input.as_mut().ok_or(Broken::Credit)?;
        input.take(bytes)?;
        input.pump(outbox)
    }

    /// No more input comes.
    pub fn end_input(&mut self) {
        match &mut self.input {
            Some(input) if self.wants_terminal => input.end_terminal(),
            Some(input) => input.end(),
            None => {}
        }
    }

    /// The host lets a stream go on.
    ///
    /// # Errors
    /// [`Broken::Credit`] when it grants more than a window.
    pub fn grant(&mut self, stream: Stream, bytes: u32) -> Result<(), Broken> {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if self.exit.is_some() {
            self.drained_at = Some(Instant::now());
        }
        output.as_mut().map_or(Ok(()), |output| output.grant(bytes))
    }

    /// Its terminal has another size.
    pub fn resize(&self, size: Size) {
        if let Some(terminal) = &self.terminal {
            // The terminal may have been hung up already.
            let _ = terminal::resize(terminal, size);
        }
    }

    /// Sends a signal to the process, unless that has ended.
    pub fn signal(&self, number: i32) {
        if self.exit.is_none() {
            let _ = process_unsafe::send_signal(self.process.as_fd(), number);
        }
    }

    /// Nobody listens: hang up, and kill what does not mind.
    pub fn close(&mut self) {
        (self.input, self.stdout, self.stderr, self.terminal) = (None, None, None, None);
        if self.report.is_some() {
            // It is still ours and has nobody to hang up on.
            self.kill();
        } else if self.exit.is_none() {
            let _ = kill_process_group(self.pid, Signal::HUP);
            self.kill_at = Instant::now().checked_add(CLOSE_GRACE);
        }
    }

    /// SIGKILL for the process and what is in its group: the number is its own until it is reaped.
    pub fn kill(&self) {
        if self.exit.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.signal(libc::SIGKILL);
        }
    }

    /// Kills when the time after [`Beside::close`] is over, and finds out what came to its end without a word.
    pub fn look_at_the_clock(&mut self, now: Instant) {
        if self.exit.is_some() {
            for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
                output.look_for_the_end();
            }
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.kill();
        }
    }

    /// Whether the kernel has killed one of its cgroup for want of memory since it began.
    fn lost_to_kernel(&self) -> bool {
        self.oom.as_ref().is_some_and(|(events, before)| cgroup::oom_kills(events) > *before)
    }

    /// Takes its status.
    ///
    /// # Errors
    /// What waiting answers.
    pub fn reap(&mut self) -> Result<(), Broken> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let exit = match waitid(WaitId::PidFd(self.process.as_fd()), options) {
            Ok(None) => return Ok(()),
            Ok(Some(status)) => exit_of(&status, self.lost_to_kernel()),
            // The app ended, and whatever was left went with it.
            Err(Errno::CHILD) => KILLED,
            Err(errno) => return Err(Broken::Io(errno)),
        };
        self.exit = Some(exit);
        self.kill_at = None;
        self.drained_at = Some(Instant::now());
        if let Some(input) = &mut self.input {
            input.drop_all();
        }
        Ok(())
    }

    /// Takes the process that reported a failure. Left as it is, the app could not end either: the kernel waits for all
    /// of a namespace to be reaped.
    pub fn bury(&self) {
        bury(self.process.as_fd());
    }

    /// How it ended, once its report was read and its output is out, or has stood still although it was let through.
    #[must_use]
    pub fn finished(&self, now: Instant) -> Option<Exit> {
        let over = |output: &Option<Output>| output.as_ref().is_none_or(|one| one.pipe.is_none());
        let drained = over(&self.stdout) && over(&self.stderr);
        let due = self.drain_deadline().is_some_and(|at| at <= now);
        self.exit.filter(|_| self.report.is_none() && (drained || due))
    }

    /// How it ended, now that all end with the app; `None` when it never ran.
    #[must_use]
    pub fn cut_off(&self) -> Option<Exit> {
        self.report.is_none().then(|| self.exit.unwrap_or(KILLED))
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.kill_at.into_iter().chain(self.drain_deadline()).min()
    }

    fn drain_deadline(&self) -> Option<Instant> {
        let held_up = [&self.stdout, &self.stderr].into_iter().flatten().any(Output::is_held_up);
        let since = self.drained_at.filter(|_| !held_up && self.report.is_none());
        since.and_then(|at| at.checked_add(DRAIN_TIMEOUT))
    }
}

const KILLED: Exit = Exit::Signal(9);
