//! A terminal for a process beside the app: a pair of the app's own devpts.

use std::os::fd::{AsFd, OwnedFd};

use casemate_wire::payload::{ErrorCode, Size};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Uid, fchown, fstatfs, openat2};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::failure::{Failure, OrFailure};

/// Not /dev/ptmx, which is a link that an app which is root can put another in place of.
const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: i64 = 0x1cd1;

/// Makes a terminal, the calling process' own and its 0, 1 and 2; answers the other end of it. The caller leads a
/// session that has no terminal yet, inside the app's root.
///
/// # Errors
/// [`ErrorCode::Other`] with the step that failed.
pub fn take(size: Size, owner: u32) -> Result<OwnedFd, Failure> {
    let step = "make a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let other = openat2(CWD, MULTIPLEXER, flags, Mode::empty(), resolve)
        .or_failure(ErrorCode::Other, step)?;
    // An app with CAP_SYS_ADMIN may have mounted something else there.
    let kind = fstatfs(&other).or_failure(ErrorCode::Other, step)?.f_type;
    if kind != DEVPTS {
        return Err(Failure::new(ErrorCode::Other, "/dev/pts is not what it was"));
    }
    unlockpt(&other).or_failure(ErrorCode::Other, step)?;
    // By the pair itself: a name in /dev/pts could lead elsewhere (TIOCGPTPEER is there for that).
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let own = ioctl_tiocgptpeer(&other, peer).or_failure(ErrorCode::Other, step)?;
    resize(&own, size).or_failure(ErrorCode::Other, "set the terminal's size")?;
    fchown(&own, Some(Uid::from_raw(owner)), None)
        .or_failure(ErrorCode::Other, "give the user its terminal")?;
    ioctl_tiocsctty(&own).or_failure(ErrorCode::Other, "take the terminal")?;
    dup2_stdin(&own)
        .and_then(|()| dup2_stdout(&own))
        .and_then(|()| dup2_stderr(&own))
        .or_failure(ErrorCode::Other, "connect the terminal")?;
    Ok(other)
}

/// Sets the size of a terminal, by either end; who has it in the foreground gets SIGWINCH.
///
/// # Errors
/// What the kernel answers.
pub fn resize(terminal: impl AsFd, size: Size) -> rustix::io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size)
}
