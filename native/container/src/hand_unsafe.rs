//! Descriptors of a child at numbers that it expects.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use rustix::io::fcntl_dupfd_cloexec;

/// Out of the way of the numbers that are filled.
const LOWEST: RawFd = 64;

/// What a child is handed, and where.
#[derive(Debug)]
pub struct Handing {
    descriptors: Vec<(OwnedFd, RawFd)>,
}

impl Handing {
    /// Each at its number.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new<'a>(wanted: impl IntoIterator<Item = (BorrowedFd<'a>, RawFd)>) -> io::Result<Self> {
        let mut descriptors = Vec::new();
        for (fd, number) in wanted {
            descriptors.push((fcntl_dupfd_cloexec(fd, LOWEST)?, number));
        }
        Ok(Self { descriptors })
    }

    /// Runs the command with them to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn status(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let pairs: Vec<(RawFd, RawFd)> =
            self.descriptors.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
        let place = move || {
            for (from, to) in &pairs {
                // SAFETY: both numbers are the child's own; nothing in it uses what was at `to`.
                if unsafe { libc::dup2(*from, *to) } != *to {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: what runs between fork and exec makes one kind of call and allocates nothing.
        unsafe { command.pre_exec(place) };
        command.status()
    }
}

/// The same descriptor, at a number that nothing handed to a child takes: what the child is to execute is found by it.
///
/// # Errors
/// No descriptors left.
pub fn out_of_the_way(fd: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, LOWEST)?)
}

/// Every descriptor from 3 on is closed by exec.
///
/// # Errors
/// A kernel before 5.11.
pub fn close_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: changes flags of descriptors and closes none.
    let code = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
