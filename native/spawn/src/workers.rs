//! Workers: programs of ours that read what tenants made, in a jail of their own (docs/formats.md
//! section 9). A worker lives as long as the agent's connection, at most ten minutes.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_ticket::json::Value;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Resource;

use crate::answers::object;
use crate::cgroup::{self, Cgroup};
use crate::clients::Answer;
use crate::daemon::{Daemon, Source, log};
use crate::ending;
use crate::jail::{self, Jail, pointers};
use crate::jail_child_unsafe::{Program, Root};
use crate::launch::no_resources;
use crate::pod::Status;
use crate::poller::{Interest, Watched};
use crate::refusal::{Refusal, Result};

/// Workers at a time.
const WORKERS_MAX: usize = 16;
/// Descriptors of a request: 3 and up.
const DESCRIPTORS_MAX: usize = 250;
/// How long a worker may run.
const WORKER_WAIT: Duration = Duration::from_mins(10);
/// Its cgroup.
const LIMITS: cgroup::Limits = cgroup::Limits { memory_bytes: 1 << 30, cpu_percent: 200, pids: 64 };
/// Its rlimits beside the size of files: CPU seconds; descriptors; processes of the user, all workers together.
const RLIMITS: [(Resource, u64); 6] = [
    (Resource::Cpu, 600),
    (Resource::Nofile, 1024),
    (Resource::Nproc, 1024),
    (Resource::Core, 0),
    (Resource::Memlock, 65_536),
    (Resource::Msgqueue, 0),
];
/// Bytes of standard error that are kept of one worker, and of all in `worker.log`.
const LOG_BYTES_MAX: usize = 65_536;
const LOG_FILE_BYTES_MAX: u64 = 1 << 20;

/// One worker.
#[derive(Debug)]
pub struct Worker {
    kind: String,
    pid: i32,
    client: u64,
    cgroup: Cgroup,
    end: Watched<Source>,
    jail: Option<Watched<Source>>,
    stderr: Option<Watched<Source>>,
    logged: usize,
    failure: Option<String>,
    answered: bool,
    /// When it is killed.
    pub deadline: Option<Instant>,
}

impl Daemon {
    /// `worker`: starts one. The connection hears of its start and of its end.
    pub(crate) fn worker(
        &mut self,
        client: u64,
        kind: &str,
        file_bytes: u64,
        fds: &[OwnedFd],
    ) -> Result<()> {
        let command = self.config.workers.iter().find(|(name, _)| name == kind);
        let Some((_, command)) = command else {
            let message = format!("spawn.json has no worker {kind:?}");
            return Err(Refusal::new("WORKER_UNKNOWN", message));
        };
        if fds.is_empty() || fds.len() > DESCRIPTORS_MAX {
            let message =
                format!("a worker takes 1 to {DESCRIPTORS_MAX} descriptors, not {}", fds.len());
            return Err(Refusal::new("DESCRIPTORS", message));
        }
        if self.stopping.is_some() || self.workers.len() >= WORKERS_MAX {
            let message =
                format!("{WORKERS_MAX} workers run already, or spawn is stopping; ask again");
            return Err(Refusal::new("WORKERS_BUSY", message));
        }
        let command = command.clone();
        let id = self.fresh_id();
        let cgroup = self.cgroups.create(&format!("worker-{id}"), &LIMITS).map_err(|error| {
            Refusal::new("CGROUP", format!("the worker's cgroup could not be made: {error}"))
        })?;
        match self.start_worker(&command, file_bytes, &cgroup, fds) {
            Ok((jailed, stderr)) => self.keep_worker(id, kind, client, cgroup, jailed, stderr),
            Err(refusal) => {
                self.discard(cgroup);
                Err(refusal)
            }
        }
    }

    fn start_worker(
        &self,
        command: &[String],
        file_bytes: u64,
        cgroup: &Cgroup,
        fds: &[OwnedFd],
    ) -> Result<(jail::Jailed, OwnedFd)> {
        let (log, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(no_resources)?;
        rustix::io::ioctl_fionbio(&log, true).map_err(no_resources)?;
        let null = Some(self.null.as_fd());
        let mut descriptors: Vec<Option<BorrowedFd<'_>>> = vec![null, null, Some(stderr.as_fd())];
        descriptors.extend(fds.iter().map(|fd| Some(fd.as_fd())));
        let words: Vec<CString> = command.iter().filter_map(|word| c_string(word)).collect();
        let environment = [c"PATH=/usr/bin:/bin".to_owned(), c"LANG=C.UTF-8".to_owned()];
        let hidden = [c_path(&self.config.run_dir), c_path(&self.config.state_dir)];
        let hidden: Vec<_> = hidden.iter().flatten().map(CString::as_c_str).collect();
        let path =
            words.first().ok_or_else(|| Refusal::new("WORKER_UNKNOWN", "the command is empty"))?;
        let mut limits = RLIMITS.to_vec();
        limits.push((Resource::Fsize, file_bytes));
        let jail = Jail {
            own_user_namespace: false,
            id: self.config.worker,
            cgroup: Some(cgroup),
            is_monitor: false,
            host: None,
            limits: &limits,
            root: Root::Host { hidden: &hidden },
            descriptors: &descriptors,
            landlock: None,
            filter: Some(&self.worker_filter),
            program: Program::Path { path, argv: &pointers(&words), envp: &pointers(&environment) },
        };
        // The next spawn takes no worker over: it ends what is left of them.
        Ok((jail::start(&jail, |_| Ok(()))?, log))
    }

    fn keep_worker(
        &mut self,
        id: u64,
        kind: &str,
        client: u64,
        cgroup: Cgroup,
        jailed: jail::Jailed,
        stderr: OwnedFd,
    ) -> Result<()> {
        let jail::Jailed { pid, pidfd, channel } = jailed;
        let watch = |fd, source| self.poller.watch(fd, Interest::IN, source);
        let killer = pidfd.try_clone().map_err(no_resources)?;
        let watch_all = || -> io::Result<_> {
            let end = watch(pidfd, Source::WorkerEnd(id))?;
            let jail = watch(channel, Source::WorkerJail(id))?;
            Ok((end, jail, watch(stderr, Source::WorkerLog(id))?))
        };
        let (end, jail, stderr) = match watch_all() {
            Ok(watched) => watched,
            Err(error) => {
                jail::kill_and_reap(&killer);
                self.discard(cgroup);
                return Err(no_resources(error));
            }
        };
        let worker = Worker {
            kind: kind.to_owned(),
            pid,
            client,
            cgroup,
            end,
            jail: Some(jail),
            stderr: Some(stderr),
            logged: 0,
            failure: None,
            answered: false,
            deadline: Instant::now().checked_add(WORKER_WAIT),
        };
        self.workers.insert(id, worker);
        if let Some(client) = self.clients.get_mut(&client) {
            client.worker = Some(id);
        }
        Ok(())
    }

    /// The worker runs, or a step of its jail failed.
    pub(crate) fn worker_jail(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(channel) = &worker.jail else { return };
        let mut report = [0_u8; 5];
        match rustix::io::read(channel.as_fd(), &mut report) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(count) if count > 0 => {
                worker.failure = Some(jail::failure(report.get(..count).unwrap_or_default()));
            }
            _ => {}
        }
        worker.jail = None;
        if worker.failure.is_none() {
            worker.answered = true;
            let (client, pid) = (worker.client, worker.pid);
            self.say(client, Ok(Answer::new(vec![("pid", Value::Integer(pid.into()))])));
        }
    }

    /// The worker wrote to its standard error: kept up to a limit, then its pipe is closed.
    pub(crate) fn worker_log(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stderr) = &worker.stderr else { return };
        let mut buffer = [0_u8; 4096];
        match rustix::io::read(stderr.as_fd(), &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(count) if count > 0 && worker.logged < LOG_BYTES_MAX => {
                worker.logged = worker.logged.saturating_add(count);
                let text = buffer.get(..count).unwrap_or_default();
                if let Err(error) = append(&self.config.state_dir, &worker.kind, worker.pid, text) {
                    log(&format!("worker.log cannot be written: {error}"));
                }
            }
            _ => worker.stderr = None,
        }
    }

    /// The worker has ended.
    pub(crate) fn worker_end(&mut self, id: u64) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(status) = ending::status(worker.end.as_fd()) else { return };
        ending::reap(worker.end.as_fd());
        // The pipe holds at most 64 KiB, which is also the limit of what is kept.
        for _ in 0..=LOG_BYTES_MAX / 4096 {
            self.worker_log(id);
        }
        self.worker_jail(id);
        let Some(worker) = self.workers.remove(&id) else { return };
        if worker.cgroup.was_oom_killed() {
            log(&format!("worker {} {} ran out of memory", worker.kind, worker.pid));
        }
        self.discard(worker.cgroup);
        if let Some(client) = self.clients.get_mut(&worker.client) {
            client.worker = None;
        }
        let (code, signal) = match status {
            Status::Code(code) => (Value::Integer(code.into()), Value::Null),
            Status::Signal(signal) => (Value::Null, Value::Integer(signal.into())),
            // Of no child of ours, and a worker is one.
            Status::Unknown => (Value::Null, Value::Null),
        };
        let answer = match worker.failure {
            Some(sentence) => Err(Refusal::new("JAIL_FAILED", sentence)),
            None => {
                Ok(Answer::new(vec![("exit", object(vec![("code", code), ("signal", signal)]))]))
            }
        };
        self.answer(worker.client, answer);
    }

    /// The agent closed the connection.
    pub(crate) fn kill_worker(&mut self, id: u64) {
        if let Some(worker) = self.workers.get(&id) {
            jail::kill(worker.end.as_fd());
        }
    }

    /// Every worker, when spawn ends.
    pub(crate) fn kill_all_workers(&mut self) {
        self.workers.values().for_each(|worker| jail::kill(worker.end.as_fd()));
    }

    /// Kills workers whose time is over.
    pub(crate) fn workers_due(&mut self, now: Instant) {
        for worker in self.workers.values_mut() {
            if worker.deadline.is_some_and(|at| at <= now) {
                worker.deadline = None;
                log(&format!("worker {} {} ran too long and is killed", worker.kind, worker.pid));
                jail::kill(worker.end.as_fd());
            }
        }
    }
}

fn c_string(text: &str) -> Option<CString> {
    CString::new(text).ok()
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_encoded_bytes()).ok()
}

/// Appends to `worker.log`; when it is full it becomes `worker.log.1` and a new one begins.
fn append(state_dir: &Path, kind: &str, pid: i32, text: &[u8]) -> io::Result<()> {
    let path = state_dir.join("worker.log");
    if fs::metadata(&path).is_ok_and(|facts| facts.len() > LOG_FILE_BYTES_MAX) {
        fs::rename(&path, state_dir.join("worker.log.1"))?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    let mut line = format!("[{kind} {pid}] ").into_bytes();
    // What a worker writes was perhaps made by a tenant: no control character reaches a terminal.
    line.extend(
        text.iter()
            .map(|byte| if byte.is_ascii_control() && *byte != b'\n' { b'?' } else { *byte }),
    );
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    file.write_all(&line)
}
