//! The one request of ext4's that grows it (Linux, `fs/ext4/ext4.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

/// `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)`.
const RESIZE_FS: libc::Ioctl = 0x4008_6610;

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
