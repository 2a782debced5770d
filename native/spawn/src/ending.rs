//! How a VMM ended, whoever is its parent. A pod that was taken over is no child of this spawn: another process reaps
//! it, and its status is what the kernel still tells by the pidfd. Never by a number alone, which may be another's.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::pod::Status;
use crate::sys_unsafe::exit_of_reaped;

/// `None` while it runs. Reaps nothing, so that a spawn that dies before it has written the end down loses no word.
pub fn status(pidfd: BorrowedFd<'_>) -> Option<Status> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(pidfd), options) {
        Ok(status) => status.map(|status| status_of(&status)),
        Err(Errno::CHILD) if has_ended(pidfd) => Some(status_of_another(pidfd)),
        Err(_) => None,
    }
}

/// Reaps it, where that is spawn's to do.
pub fn reap(pidfd: BorrowedFd<'_>) {
    let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// Whether the descriptor is a pidfd.
pub fn is_pidfd(fd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::PidFd(fd), options), Ok(_) | Err(Errno::CHILD))
}

/// The process's number; `None` once it is reaped.
pub fn pid(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:\t"))?;
    number.parse().ok().filter(|pid| *pid > 0)
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

/// While nobody has reaped it, /proc has its status; after that the pidfd, since Linux 6.15. It may be reaped between
/// the two questions, so the second is asked on both sides of the first.
fn status_of_another(pidfd: BorrowedFd<'_>) -> Status {
    let reaped = || exit_of_reaped(pidfd);
    let code = reaped().or_else(|| status_of_zombie(pidfd)).or_else(reaped);
    code.map_or(Status::Unknown, from_wait_status)
}

/// Field 52 of /proc/PID/stat, if that number was still this process's after it was read.
fn status_of_zombie(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let pid = pid(pidfd)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A name may hold parentheses and spaces; what follows the last of them are fields 3 and up.
    let code = stat.rsplit_once(") ")?.1.split_whitespace().nth(49)?.parse().ok()?;
    (self::pid(pidfd) == Some(pid)).then_some(code)
}

fn from_wait_status(status: i32) -> Status {
    match status & 0x7f {
        0 => Status::Code(status >> 8 & 0xff),
        signal => Status::Signal(signal),
    }
}

/// The kernel's word on how a process ended.
pub fn status_of(status: &WaitIdStatus) -> Status {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Status::Code(code),
        (None, signal) => Status::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// A process that ends when `release` is closed, with `script`.
    fn process(script: &str) -> (std::process::Child, OwnedFd) {
        let script = format!("read line; {script}");
        let mut command = Command::new("/bin/sh");
        let child = command.arg("-c").arg(script).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        (child, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    fn wait(pidfd: &OwnedFd) {
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn reads_the_status_of_a_child_without_reaping_it() {
        let (mut child, pidfd) = process("exit 7");
        assert_eq!(status(pidfd.as_fd()), None);
        assert!(is_pidfd(pidfd.as_fd()));
        assert_eq!(pid(pidfd.as_fd()), i32::try_from(child.id()).ok());
        drop(child.stdin.take());
        wait(&pidfd);
        for _ in 0..2 {
            assert_eq!(status(pidfd.as_fd()), Some(Status::Code(7)));
        }
        assert_eq!(child.wait().unwrap().code(), Some(7), "nobody reaped it");
        assert_eq!(pid(pidfd.as_fd()), None);
    }

    #[test]
    fn reads_the_status_of_a_zombie_and_of_one_that_is_reaped() {
        for (script, expected) in
            [("exit 7", Status::Code(7)), ("kill -9 $$", Status::Signal(libc::SIGKILL))]
        {
            let (mut child, pidfd) = process(script);
            drop(child.stdin.take());
            wait(&pidfd);
            // As of a process that is another's child.
            assert_eq!(status_of_zombie(pidfd.as_fd()).map(from_wait_status), Some(expected));
            child.wait().unwrap();
            assert_eq!(status_of_zombie(pidfd.as_fd()), None);
            let reaped = status(pidfd.as_fd());
            assert!([Some(expected), Some(Status::Unknown)].contains(&reaped), "{reaped:?}");
        }
    }

    #[test]
    fn knows_a_pidfd_from_other_descriptors() {
        let null: OwnedFd = fs::File::open("/dev/null").unwrap().into();
        assert!(!is_pidfd(null.as_fd()));
        assert_eq!(pid(null.as_fd()), None);
        assert_eq!(status(null.as_fd()), None);
    }
}
