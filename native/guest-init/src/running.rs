//! The app as init sees it: a process, three pipes, and what is due when.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_wire::apps;
use casemate_wire::payload::{ErrorCode, Exit, Stream};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, pidfd_open, waitid, waitpid,
};

use crate::cgroup;
use crate::child::{self, Plan, Stdio};
use crate::failure::{Failure, OrFailure};
use crate::link::{Broken, Outbox};
use crate::namespaces::{Kinds, Namespaces, fork_apart};
use crate::process_unsafe::{self, Fork};
use crate::report::{self, Report, Reports};
use crate::streams::{Input, Output};

/// How long EXIT waits for the rest of the app's output while none of it moves.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A part of a process, the app's or one beside it, that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The pipe on which the child reports why it could not become what it was to be.
    Report,
    /// The process.
    Process,
    /// Its standard input.
    Stdin,
    /// Its standard output, or its terminal.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// A process that is about to become an app, and init's ends of its pipes, which do not block.
#[derive(Debug)]
pub struct Begun {
    /// The number of its frames.
    pub number: u16,
    /// Its process id, as whoever runs the session sees it.
    pub pid: Pid,
    /// The process.
    pub process: OwnedFd,
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
    /// Says why it could not become the app; closed when it has.
    pub report: Reports,
    /// The file of its cgroup with a line `oom_kill N`, if there is one.
    pub oom: Option<PathBuf>,
    /// What asks it to stop.
    pub stop_signal: i32,
    /// The namespaces that its child hands over.
    pub kinds: Kinds,
    /// Folders of its cgroup, where nothing else ends what is left of it.
    pub rest: Vec<PathBuf>,
}

/// An app between fork and EXIT.
#[derive(Debug)]
pub struct Running {
    /// Its standard input.
    pub input: Input,
    stdout: Output,
    stderr: Output,
    pid: Pid,
    process: OwnedFd,
    report: Option<Reports>,
    /// Of the app; the child hands them over.
    kinds: Kinds,
    namespaces: Option<Namespaces>,
    rest: Vec<PathBuf>,
    oom: Option<PathBuf>,
    stop_signal: i32,
    stop_asked: bool,
    kill_at: Option<Instant>,
    exit: Option<Exit>,
    drained_at: Option<Instant>,
}

impl Running {
    /// Forks the child that becomes the app.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] when the kernel refuses pipes, a namespace or a process.
    pub fn start(plan: &Plan<'_>) -> Result<Self, Failure> {
        let group = plan.places.cgroup.as_ref();
        group.map_or(Ok(()), |group| cgroup::make(group, plan.place))?;
        let (child_stdin, stdin) = pipe()?;
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let (report, child_report) = report::pair()?;
        for ours in [&stdin, &stdout, &stderr] {
            fcntl_setfl(ours, OFlags::NONBLOCK).or_failure(ErrorCode::Other, "prepare pipes")?;
        }
        let forked = fork_apart();
        let pid = match forked.or_failure(ErrorCode::Other, "make a process in a namespace")? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                let (stdin, stdout, stderr) = (child_stdin, child_stdout, child_stderr);
                child::run(plan, Stdio { stdin, stdout, stderr }, &child_report)
            }
        };
        let process = pidfd_open(pid, PidfdFlags::empty())
            .or_failure(ErrorCode::Other, "watch the app's process")?;
        let oom = group.map(|group| cgroup::of_app(group, plan.place).join(cgroup::EVENTS));
        let stop_signal = i32::from(plan.app.stop_signal);
        let kinds = Kinds::Machine;
        let number = apps::number_of(plan.place, plan.config.apps.len());
        // The namespace of processes ends with its first one.
        let rest = Vec::new();
        let begun = Begun {
            number,
            pid,
            process,
            stdin,
            stdout,
            stderr,
            report,
            oom,
            stop_signal,
            kinds,
            rest,
        };
        Ok(Self::of(begun))
    }

    /// An app that somebody else has made the process of. It must be a child of this process.
    #[must_use]
    pub fn of(begun: Begun) -> Self {
        Self {
            input: Input::new(begun.number, begun.stdin),
            stdout: Output::new(begun.number, Stream::Stdout, begun.stdout),
            stderr: Output::new(begun.number, Stream::Stderr, begun.stderr),
            pid: begun.pid,
            process: begun.process,
            report: Some(begun.report),
            kinds: begun.kinds,
            namespaces: None,
            rest: begun.rest,
            oom: begun.oom,
            stop_signal: begun.stop_signal,
            stop_asked: false,
            kill_at: None,
            exit: None,
            drained_at: None,
        }
    }

    /// The app's process id as init sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw_nonzero().get()).unwrap_or(0)
    }

    /// One of the output streams.
    pub fn output(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Adds what is worth waiting for. Output of an app that has not been announced waits.
    pub fn watch<'a>(&'a self, outbox: &Outbox, mut set: impl FnMut(Part, PollFd<'a>)) {
        let mut add = |watched, fd: BorrowedFd<'a>, events| {
            set(watched, PollFd::from_borrowed_fd(fd, events));
        };
        if let Some(report) = &self.report {
            add(Part::Report, report.as_fd(), PollFlags::IN);
        } else {
            let outputs = [(Part::Stdout, &self.stdout), (Part::Stderr, &self.stderr)];
            for (watched, output) in outputs {
                if let (true, Some(fd)) = (output.wants_read(outbox), &output.pipe) {
                    add(watched, fd.as_fd(), PollFlags::IN);
                }
            }
        }
        if let (true, Some(fd)) = (self.input.wants_write(), &self.input.pipe) {
            add(Part::Stdin, fd.as_fd(), PollFlags::OUT);
        }
        if self.exit.is_none() {
            add(Part::Process, self.process.as_fd(), PollFlags::IN);
        }
    }

    /// Reads the child's report.
    ///
    /// # Errors
    /// What reading answers.
    pub fn read_report(&mut self) -> Result<Report, Broken> {
        let Some(report) = &mut self.report else { return Ok(Report::Unfinished) };
        let told = report.read()?;
        if matches!(told, Report::Unfinished) {
            return Ok(told);
        }
        let descriptors = self.report.take().map(Reports::into_descriptors).unwrap_or_default();
        self.namespaces = Namespaces::of(self.kinds, descriptors);
        match told {
            Report::Started if self.namespaces.is_none() => Ok(Report::Failed(Failure::new(
                ErrorCode::Other,
                "the app's process ended while it was set up",
            ))),
            told => Ok(told),
        }
    }

    /// The app's namespaces, once it runs.
    #[must_use]
    pub const fn namespaces(&self) -> Option<&Namespaces> {
        self.namespaces.as_ref()
    }

    /// The app runs: its input is open, and a STOP that came early takes effect.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn begin(&mut self, outbox: &mut Outbox) -> Result<(), Broken> {
        if self.stop_asked {
            self.signal(self.stop_signal);
        }
        self.input.open(outbox)
    }

    /// Moves output of one stream, at most one frame.
    ///
    /// # Errors
    /// As [`Output::pump`].
    pub fn pump(&mut self, part: Part, outbox: &mut Outbox) -> Result<(), Broken> {
        let stream = if part == Part::Stderr { Stream::Stderr } else { Stream::Stdout };
        let moved = self.output(stream).pump(outbox)?;
        if moved && self.exit.is_some() {
            self.drained_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Sends a signal to the app's first process, unless that has ended.
    pub fn signal(&self, number: i32) {
        if self.exit.is_none() {
            // It may end at any time; that there is nobody to signal is then no error.
            let _ = process_unsafe::send_signal(self.process.as_fd(), number);
        }
    }

    /// SIGKILL, which takes every process of the app's namespace with it; where there is none, [`Running::reap`] does.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// The app's stop signal now, SIGKILL after `timeout`. A second STOP can only bring the end nearer.
    pub fn stop(&mut self, timeout: Duration) {
        let at = Instant::now().checked_add(timeout);
        self.kill_at = match (self.kill_at, at) {
            (Some(before), Some(at)) => Some(before.min(at)),
            (before, at) => before.or(at),
        };
        if self.report.is_none() && !self.stop_asked {
            self.signal(self.stop_signal);
        }
        self.stop_asked = true;
    }

    /// Kills the app when its time after STOP is over.
    pub fn kill_when_due(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.kill();
        }
    }

    /// Takes the app's status; of the `last` one also that of whatever else was left to process 1.
    ///
    /// # Errors
    /// What waiting answers.
    pub fn reap(&mut self, last: bool) -> Result<(), Broken> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let Some(status) = waitid(WaitId::PidFd(self.process.as_fd()), options)? else {
            return Ok(());
        };
        let oom = self.oom.as_deref().is_some_and(|events| cgroup::oom_kills(events) > 0);
        self.exit = Some(exit_of(&status, oom));
        cgroup::kill(&self.rest);
        self.kill_at = None;
        self.drained_at = Some(Instant::now());
        self.input.drop_all();
        while last && matches!(waitpid(None, WaitOptions::NOHANG), Ok(Some(_))) {}
        Ok(())
    }

    /// Takes the process that reported a failure.
    pub fn bury(&self) {
        bury(self.process.as_fd());
    }

    /// Whether its status was taken.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.exit.is_some()
    }

    /// How the app ended, once its output is out or has been held up for too long.
    #[must_use]
    pub fn finished(&self, now: Instant) -> Option<Exit> {
        let drained = self.stdout.pipe.is_none() && self.stderr.pipe.is_none();
        let due = self.drain_deadline().is_some_and(|at| at <= now);
        self.exit.filter(|_| drained || due)
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.kill_at.into_iter().chain(self.drain_deadline()).min()
    }

    fn drain_deadline(&self) -> Option<Instant> {
        self.drained_at.and_then(|at| at.checked_add(DRAIN_TIMEOUT))
    }
}

/// How a process ended; `oom` says that a SIGKILL was the kernel's, for want of memory.
#[must_use]
pub fn exit_of(status: &WaitIdStatus, oom: bool) -> Exit {
    let number = |value: i32| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    match (status.terminating_signal(), status.exit_status()) {
        (Some(libc::SIGKILL), _) if oom => Exit::Oom(number(libc::SIGKILL)),
        (Some(signal), _) => Exit::Signal(number(signal)),
        (None, Some(code)) => Exit::Code(number(code)),
        (None, None) => Exit::Code(u8::MAX),
    }
}

/// Waits for a process that reported a failure and does nothing after that but end, which whoever else is in the pod
/// may have stopped before it did.
pub(crate) fn bury(process: BorrowedFd<'_>) {
    let _ = process_unsafe::send_signal(process, libc::SIGKILL);
    let _ = waitid(WaitId::PidFd(process), WaitIdOptions::EXITED);
}

/// A pipe whose ends no program keeps.
///
/// # Errors
/// [`ErrorCode::Other`] when the kernel refuses.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe_with(PipeFlags::CLOEXEC).or_failure(ErrorCode::Other, "make a pipe")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use std::process::Command;

    use rustix::process::{Signal, kill_process};

    use super::*;

    #[test]
    fn buries_what_somebody_has_stopped() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        bury(process.as_fd());
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}
