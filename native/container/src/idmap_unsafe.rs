//! Mounts whose files belong to the pod's ids (`mount_setattr(2)`, `MOUNT_ATTR_IDMAP`, Linux 5.12).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::pipe::pipe;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::bundle;
use crate::mount_unsafe::set_attributes;

/// Which ids of a file system, users and groups alike, are which of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// The first one on disk.
    pub on_disk: u32,
    /// What that is on the host.
    pub first: u32,
    /// How many there are from there.
    pub count: u32,
}

impl Map {
    /// A pod's disk, whose ids begin with root's.
    #[must_use]
    pub const fn of_pod(first: u32) -> Self {
        Self { on_disk: 0, first, count: bundle::IDS }
    }
}

/// Has the ids of a file system, which is mounted nowhere yet, be a pod's from `first` on.
///
/// # Errors
/// A kernel without user namespaces, or a file system that cannot.
pub fn map_from(mount: BorrowedFd<'_>, first: u32) -> io::Result<()> {
    map(mount, namespace(Map::of_pod(first))?.as_fd())
}

/// A user namespace whose ids are mapped so.
///
/// # Errors
/// A kernel without user namespaces.
pub fn namespace(map: Map) -> io::Result<OwnedFd> {
    let Map { on_disk, first, count } = map;
    let (made, says_made) = pipe()?;
    let (release, releases) = pipe()?;
    // SAFETY: there is one thread, so the child is a whole copy and may do everything.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop((made, releases));
        // SAFETY: this process has one thread, and shares nothing that the call would part.
        let code = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
        if code == 0 {
            let _ = File::from(says_made).write_all(b"1");
            let _ = File::from(release).read(&mut [0]);
        }
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(0) }
    }
    let child = Pid::from_raw(pid.max(0)).ok_or_else(io::Error::last_os_error)?;
    drop((says_made, release));
    let found = File::from(made).read_exact(&mut [0]).and_then(|()| {
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{file}"), format!("{on_disk} {first} {count}"))?;
        }
        File::open(format!("/proc/{pid}/ns/user"))
    });
    drop(releases);
    waitpid(Some(child), WaitOptions::empty())?;
    found.map(OwnedFd::from)
}

/// Has the ids of a file system, which is mounted nowhere yet, be those of `namespace`.
///
/// # Errors
/// A file system that cannot.
pub fn map(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    set_attributes(mount, &attributes)
}
