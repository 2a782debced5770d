//! One check under way: a process beside the app, in its namespaces and under all that it is under. What it writes is
//! taken as fast as it writes, and the last of it kept; when its time is over it is killed, with its group.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_ticket::app::App;
use casemate_ticket::health::Check;
use casemate_wire::health::{Answer, OUTPUT_MAX};
use casemate_wire::payload::{ErrorCode, Exit};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::doors::Forked;
use super::{child, later};
use crate::child::Stdio;
use crate::failure::{Failure, OrFailure};
use crate::link::Broken;
use crate::namespaces::Namespaces;
use crate::process_unsafe;
use crate::report::{self, Report, Reports};
use crate::running::{exit_of, pipe};
use crate::site::Site;

const CHUNK: usize = 16_384;
/// What is read of a check that has ended: a pipe holds no more.
const LAST_READS: u32 = 8;

/// A part of it that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The process.
    Process,
    /// What it writes.
    Output,
}

/// A check between fork and its answer.
#[derive(Debug)]
pub struct Probe {
    pid: Pid,
    process: OwnedFd,
    report: Reports,
    output: Option<OwnedFd>,
    tail: VecDeque<u8>,
    time: Duration,
    /// When its time is over.
    kill_at: Instant,
    /// It was given its time once more.
    waited: bool,
    /// Its time is over, and what is left is to reap it.
    overdue: bool,
}

impl Probe {
    /// Forks the process.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] when the kernel refuses.
    pub fn start(
        check: &Check,
        app: &App,
        namespaces: &Namespaces,
        site: &Site,
    ) -> Result<Self, Failure> {
        // Its input has ended: nobody keeps the other end.
        let (stdin, _) = pipe()?;
        let (output, stdout) = pipe()?;
        let stderr = stdout.try_clone().or_failure(ErrorCode::Other, "share a pipe")?;
        fcntl_setfl(&output, OFlags::NONBLOCK).or_failure(ErrorCode::Other, "prepare a pipe")?;
        let (report, reporter) = report::pair()?;
        let streams = Stdio { stdin, stdout, stderr };
        let pid = match site.fork_beside(namespaces, &streams, &reporter)? {
            Forked::Parent(pid) => pid,
            Forked::Child => {
                let app = site.within(check.probe.beside(app));
                child::run(&check.probe, &app, streams, &reporter, site.glibc_tunables.as_deref())
            }
        };
        let process = pidfd_open(pid, PidfdFlags::empty())
            .or_failure(ErrorCode::Other, "watch the process")?;
        let time = Duration::from_millis(check.timeout_ms.into());
        let kill_at = later(Instant::now(), time);
        let (output, tail) = (Some(output), VecDeque::new());
        Ok(Self {
            pid,
            process,
            report,
            output,
            tail,
            time,
            kill_at,
            waited: false,
            overdue: false,
        })
    }

    /// When something is due, unless it is only to be reaped.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (!self.overdue).then_some(self.kill_at)
    }

    /// Whether its time is over just now; it is killed then. Once, where this process itself comes later than by all of
    /// that time, both stood still (a pause of the pod), and it is given its time anew.
    pub fn is_late(&mut self, now: Instant) -> bool {
        if self.overdue || self.kill_at > now {
            return false;
        }
        if !self.waited && now.saturating_duration_since(self.kill_at) > self.time {
            (self.waited, self.kill_at) = (true, later(now, self.time));
            return false;
        }
        self.overdue = true;
        self.kill();
        true
    }

    /// Adds what is worth waiting for.
    pub fn watch<'a>(&'a self, mut add: impl FnMut(Part, PollFd<'a>)) {
        add(Part::Process, PollFd::new(&self.process, PollFlags::IN));
        if let Some(output) = &self.output {
            add(Part::Output, PollFd::new(output, PollFlags::IN));
        }
    }

    /// Takes one read's worth of what it wrote. True: there may be more.
    pub fn take_output(&mut self) -> bool {
        let Some(output) = &self.output else { return false };
        let mut buffer = [0_u8; CHUNK];
        match read(output, &mut buffer) {
            Ok(0) => self.output = None,
            Ok(count) => {
                self.tail.extend(buffer.get(..count).unwrap_or_default());
                let surplus = self.tail.len().saturating_sub(OUTPUT_MAX);
                self.tail.drain(..surplus);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => self.output = None,
        }
        self.output.is_some()
    }

    /// Its answer, if it has ended.
    ///
    /// # Errors
    /// What waiting answers.
    pub fn reap(&mut self) -> Result<Option<(Answer, Vec<u8>)>, Broken> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.process.as_fd()), look) {
            Ok(None) => return Ok(None),
            // The app ended, and whatever was left went with it.
            Ok(Some(_)) | Err(Errno::CHILD) => {}
            Err(errno) => return Err(Broken::Io(errno)),
        }
        // While it is not reaped its number, which is its group's, is nobody else's.
        self.kill();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(self.process.as_fd()), options) {
            Ok(status) => status,
            Err(Errno::CHILD) => None,
            Err(errno) => return Err(Broken::Io(errno)),
        };
        for _ in 0..LAST_READS {
            if !self.take_output() {
                break;
            }
        }
        if let Some(failure) = self.failure()? {
            return Ok(Some((Answer::NotAsked, failure.text.into_bytes())));
        }
        let answer = match status.as_ref().map(|status| exit_of(status, false)) {
            Some(Exit::Code(code)) => Answer::Code(code),
            Some(Exit::Signal(signal) | Exit::Oom(signal)) => Answer::Signal(signal),
            None => Answer::Signal(9),
        };
        Ok(Some((answer, self.said())))
    }

    /// Why it could not be asked. Its end of the report is closed: it has ended, or become its program.
    fn failure(&mut self) -> Result<Option<Failure>, Broken> {
        for _ in 0..LAST_READS {
            match self.report.read()? {
                Report::Unfinished => {}
                Report::Started => return Ok(None),
                Report::Failed(failure) => return Ok(Some(failure)),
            }
        }
        Ok(None)
    }

    /// The last of what it wrote.
    #[must_use]
    pub fn said(&self) -> Vec<u8> {
        self.tail.iter().copied().collect()
    }

    /// SIGKILL for the process and what is in its group. What left the group goes with the app.
    pub fn kill(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = process_unsafe::send_signal(self.process.as_fd(), libc::SIGKILL);
    }
}
