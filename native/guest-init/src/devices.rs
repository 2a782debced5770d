//! The app's /dev: the nodes of the OCI default and no others. The control port, the disks and the
//! console are not among them.

use std::os::fd::{AsFd, BorrowedFd};

use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::failure::{Failure, OrFailure};
use crate::root::{attach, attach_to, make};

const NODES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
const TERMINALS: &[(&str, &str)] = &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
const SHARED: &[(&str, &str)] = &[("mode", "1777"), ("size", "64m")];

/// Fills `dev`, an empty file system that is mounted on /dev.
///
/// # Errors
/// [`ErrorCode::Mount`] with the entry that failed.
pub fn populate(dev: BorrowedFd<'_>) -> Result<(), Failure> {
    for name in NODES {
        match node(dev, name) {
            // A kernel without terminals has no /dev/tty, and the app no terminal to open.
            Err(Errno::NOENT) if *name == "tty" => {}
            answer => answer.or_failure(ErrorCode::Mount, format!("make /dev/{name}"))?,
        }
    }
    for (target, name) in LINKS {
        symlinkat(*target, dev, *name).or_failure(ErrorCode::Mount, format!("make /dev/{name}"))?;
    }
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let inert = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
    attach(dev, "pts", &make("devpts", TERMINALS, quiet)?)?;
    attach(dev, "shm", &make("tmpfs", SHARED, inert)?)?;
    attach(dev, "mqueue", &make("mqueue", &[], inert)?)
}

/// A bind mount of the real node: a node made here could not be opened, /dev being `nodev`.
fn node(dev: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let real = open_tree(CWD, format!("/dev/{name}"), clone)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(dev, name, flags, Mode::RUSR)?;
    let point = openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach_to(point.as_fd(), real.as_fd())
}
