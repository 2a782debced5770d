//! `casemate-spawn --keep`: keeps a spawn running on hosts without systemd, and its descriptors while none runs.
//!
//! The same protocol as systemd's, so that spawn knows one (store.rs). It is the nearest reaper of what spawn leaves,
//! and reaps a VM only when spawn has written its end down: older kernels forget a status with that. It reads nothing but
//! short messages of its own child, by the kernel's word on who sent them, and holds no privilege that it uses. Its end is
//! the end of all pods.

mod shelf;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup::Cgroups;
use crate::config;
use crate::daemon::{lock, prepare_process};
use crate::ending;
use crate::pod::Status;
use crate::refusal::{Refusal, Result};
use crate::sys_unsafe::{Cloned, clone3, close_from, raise_descriptor, signal_name, signals};
#[cfg(test)]
pub use shelf::ENTRIES_MAX;
use shelf::{Heard, Shelf};

/// Before the first new start, the second, ... What comes after the last depends. A spawn that a signal ends again and
/// again is perhaps being attacked, each start is another try, and it is given up. One that ends by itself says why, as
/// when its configuration was spoilt: it is started until somebody has mended that, since giving it up ends the pods.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// A spawn that was up for so long has recovered: what comes after counts from the beginning.
const STEADY: Duration = Duration::from_mins(1);
/// How long a spawn may take to end its pods, after which it is killed; it gives up itself before that.
const END_WAIT: Duration = Duration::from_secs(30);

/// The keeper's descriptors are moved up to here: below are the places of all that it can keep (shelf.rs), in the child
/// that becomes spawn and expects them from 3 on.
const LOWEST: i32 = 5000;

/// Exit code of a program that could not be started, as shells have it.
const NOT_STARTED: i32 = 127;

struct Keeper {
    program: PathBuf,
    config: PathBuf,
    address: PathBuf,
    shelf: Shelf,
    signals: OwnedFd,
    /// Since it was told to end.
    ending: bool,
}

/// A spawn.
struct Running {
    pid: i32,
    pidfd: OwnedFd,
    since: Instant,
    ready: bool,
}

/// Keeps a spawn running until a signal ends it.
///
/// # Errors
/// `KEEPER`, when it cannot begin, or when spawn does not come up or does not stay.
pub fn run(config: &Path) -> Result<()> {
    let failed = |error: io::Error| Refusal::new("KEEPER", error.to_string());
    // What whoever started this has left open is neither for spawn nor for its place.
    close_from(3);
    prepare_process().map_err(failed)?;
    let run_dir = config::load(config)?.run_dir;
    let mut keeper = Keeper::open(config, &run_dir).map_err(failed)?;
    let result = keeper.keep();
    let _ = fs::remove_file(&keeper.address);
    // Whatever spawn did not come to. A VMM that stands still, or was taken over, would not notice that its control socket
    // hangs up.
    let cgroups = Cgroups::open(&run_dir).map_err(failed)?;
    let swept = cgroups.sweep(&[]).map_err(failed)?;
    cgroups.close();
    match swept {
        swept if swept.ended == 0 && swept.stuck.is_empty() => {}
        swept => say(&format!(
            "ended what spawn left in {} cgroups; {} have processes that do not end",
            swept.ended,
            swept.stuck.len()
        )),
    }
    result
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "casemate-spawn --keep: {line}");
}

impl Keeper {
    fn open(config: &Path, run_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        // Held until this process ends.
        std::mem::forget(raise(lock(&run_dir.join("keeper.lock"))?)?);
        let address = run_dir.join("keeper.sock");
        let _ = fs::remove_file(&address);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = raise(socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?)?;
        // The umask lets root alone send to it.
        rustix::net::bind(&socket, &SocketAddrUnix::new(&address)?)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let wanted = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2, libc::SIGCHLD];
        Ok(Self {
            program: env::current_exe()?,
            config: config.to_owned(),
            address,
            shelf: Shelf::new(socket),
            signals: raise(signals(&wanted)?)?,
            ending: false,
        })
    }

    fn keep(&mut self) -> Result<()> {
        let mut tries: usize = 0;
        let mut came_up = false;
        loop {
            let (status, how) = match self.start() {
                Ok(mut spawn) => {
                    let status = self.attend(&mut spawn);
                    came_up |= spawn.ready;
                    if spawn.since.elapsed() >= STEADY || status == Status::Code(0) {
                        tries = 0;
                    }
                    (status, how(status))
                }
                // A moment without memory or processes is no reason to end the pods.
                Err(error) => (Status::Code(NOT_STARTED), format!("not even started: {error}")),
            };
            if self.ending {
                return Ok(());
            }
            let Some(pause) = pause_after(status, tries).filter(|_| came_up) else {
                let message = format!("casemate-spawn ended by itself ({how}) and is given up");
                return Err(Refusal::new("KEEPER", message));
            };
            tries = tries.saturating_add(1);
            let seconds = pause.as_secs();
            say(&format!(
                "casemate-spawn ended by itself ({how}); starting it again in {seconds} s"
            ));
            self.rest(pause);
            if self.ending {
                return Ok(());
            }
        }
    }

    fn start(&self) -> io::Result<Running> {
        let since = Instant::now();
        match clone3(0, None)? {
            Cloned::Parent { pid, pidfd } => {
                Ok(Running { pid, pidfd: raise(pidfd)?, since, ready: false })
            }
            Cloned::Child => {
                let error = self.become_spawn();
                say(&format!("{} cannot be started: {error}", self.program.display()));
                std::process::exit(NOT_STARTED)
            }
        }
    }

    /// In the child. Returns only when it fails.
    fn become_spawn(&self) -> io::Error {
        let pid = std::process::id();
        // Should the keeper die, nobody keeps anything any more: then the pods end, on record.
        let signal = Some(Signal::USR2);
        if let Err(errno) = rustix::process::set_parent_process_death_signal(signal) {
            return errno.into();
        }
        let mut names = Vec::new();
        for (expected, (name, fd)) in (3_i32..).zip(self.shelf.entries()) {
            // The lowest number that is free, and open across exec.
            match rustix::io::dup(fd) {
                Ok(copy) if copy.as_raw_fd() == expected => std::mem::forget(copy),
                Ok(_) => return io::Error::other("descriptors are in the way"),
                Err(errno) => return errno.into(),
            }
            names.push(name);
        }
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).env_clear().env("NOTIFY_SOCKET", &self.address);
        if !names.is_empty() {
            command.env("LISTEN_PID", pid.to_string()).env("LISTEN_FDS", names.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        command.exec()
    }

    /// Serves a spawn to its end, and says how it ended.
    fn attend(&mut self, spawn: &mut Running) -> Status {
        let mut kill_at = None;
        loop {
            let signalled = self.wait(Some(spawn), kill_at);
            if signalled && !self.ending {
                self.ending = true;
                let _ = pidfd_send_signal(&spawn.pidfd, Signal::USR2);
                kill_at = Instant::now().checked_add(END_WAIT);
            }
            let status = ending::status(spawn.pidfd.as_fd());
            self.read(spawn);
            if let Some(status) = status {
                ending::reap(spawn.pidfd.as_fd());
                return status;
            }
            if kill_at.is_some_and(|at| at <= Instant::now()) {
                let _ = pidfd_send_signal(&spawn.pidfd, Signal::KILL);
            }
        }
    }

    /// What spawn has said, also after its end.
    fn read(&mut self, spawn: &mut Running) {
        while let Some(heard) = self.shelf.read(spawn.pid) {
            spawn.ready |= heard == Heard::Ready;
        }
        self.shelf.reap_strays(spawn.pid);
    }

    /// The pause before a new start.
    fn rest(&mut self, pause: Duration) {
        let until = Instant::now().checked_add(pause);
        while !self.ending && until.is_some_and(|until| Instant::now() < until) {
            self.ending = self.wait(None, until);
        }
    }

    /// Waits for anything to happen. True when a signal told it to end.
    fn wait(&self, spawn: Option<&Running>, until: Option<Instant>) -> bool {
        let socket = self.shelf.socket();
        let mut watched = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(spawn) = spawn {
            watched.push(PollFd::new(&spawn.pidfd, PollFlags::IN));
            watched.push(PollFd::new(&socket, PollFlags::IN));
        }
        let left = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec::try_from(left.saturating_add(Duration::from_millis(1))).unwrap_or_default()
        });
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut watched, left.as_ref());
        let mut signal = [0_u8; 128];
        let mut told = false;
        while rustix::io::read(&self.signals, &mut signal).is_ok() {
            let number = signal.first_chunk().map_or(0, |number| u32::from_ne_bytes(*number));
            told |= i32::try_from(number) != Ok(libc::SIGCHLD);
        }
        told
    }
}

fn how(status: Status) -> String {
    match status {
        Status::Code(code) => format!("exit code {code}"),
        Status::Signal(signal) => signal_name(signal),
        Status::Unknown => "nobody knows how".into(),
    }
}

/// The pause before the next start, after so many in a row; `None`: it is given up.
fn pause_after(status: Status, tries: usize) -> Option<Duration> {
    let last = PAUSES.last().filter(|_| matches!(status, Status::Code(_)));
    PAUSES.get(tries).or(last).copied()
}

fn raise(fd: OwnedFd) -> io::Result<OwnedFd> {
    let raised = raise_descriptor(fd.as_fd(), LOWEST);
    drop(fd);
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_who_is_killed_again_and_again_and_nobody_else() {
        let pauses =
            |status| (0..7).map(move |tries| pause_after(status, tries).map(|p| p.as_secs()));
        let known = [0, 1, 2, 4, 8].map(Some);
        let by_itself: Vec<_> = pauses(Status::Code(1)).collect();
        assert_eq!(by_itself, [known.as_slice(), &[Some(8), Some(8)]].concat());
        for signal in [libc::SIGSYS, libc::SIGABRT, libc::SIGSEGV, libc::SIGKILL] {
            let killed: Vec<_> = pauses(Status::Signal(signal)).collect();
            assert_eq!(killed, [known.as_slice(), &[None, None]].concat());
        }
    }
}
