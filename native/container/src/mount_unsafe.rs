//! Flags of a mount (`mount_setattr(2)`, Linux 5.12).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What differs between mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether programs in it may be started.
    pub exec: bool,
}

/// Has a tree, which is mounted nowhere yet, be of no group of mounts, so that what is mounted in it here is not mounted on
/// the host as well; without devices and without programs that lend a user. Nothing that was forbidden before is allowed.
///
/// # Errors
/// What the kernel says.
pub fn make_private(mount: BorrowedFd<'_>, flags: Flags) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if flags.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if !flags.exec {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    set_attributes(
        mount,
        &libc::mount_attr {
            attr_set: set,
            attr_clr: 0,
            propagation: libc::MS_PRIVATE,
            userns_fd: 0,
        },
    )
}

/// One mount, and none below it.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &libc::mount_attr,
) -> io::Result<()> {
    let size = size_of::<libc::mount_attr>();
    let (fd, path) = (mount.as_raw_fd(), c"".as_ptr());
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: path and attributes are valid for the call.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path,
            flags,
            std::ptr::from_ref(attributes),
            size,
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
