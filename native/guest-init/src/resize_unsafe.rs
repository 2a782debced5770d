//! Requests about file systems: the one of ext4's that grows it (Linux, `fs/ext4/ext4.h`), and the one that freezes any.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

/// `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)`.
const RESIZE_FS: libc::Ioctl = 0x4008_6610;

/// `FIFREEZE`, `_IOWR('X', 119, int)` (Linux, `include/uapi/linux/fs.h`).
const FREEZE: libc::c_long = 0xC004_5877;

/// Has the file system that `place` is on write everything out, close its journal, and take no writes from then on.
pub(crate) fn freeze(place: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes no argument.
    let answer = unsafe { libc::syscall(libc::SYS_ioctl, place.as_raw_fd(), FREEZE, 0) };
    if answer == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Grows the mounted file system that `place` is on to `blocks` of its blocks.
pub(crate) fn grow_ext4(place: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    // SAFETY: the kernel reads one u64 through the pointer, which lives until the call returns, and writes nothing.
    let answer = unsafe { libc::ioctl(place.as_raw_fd(), RESIZE_FS, &raw const blocks) };
    if answer == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))
}
