//! A place below the root of a volume, to be mounted in place of all of it.
//!
//! What is in a volume was written by pods that may have been hostile, and the one who resolves it is root: of a machine,
//! or of the host (CVE-2017-1002101 and CVE-2021-25741 followed links out of such places). So each name is opened beneath
//! the one before, a link is a refusal, and what was opened is what is mounted: nothing is resolved twice. No other pod has
//! the volume meanwhile; another app of this one may, and swaps links in vain.

use std::fs::create_dir;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use casemate_ticket::mounts::Volume;
use casemate_wire::payload::ErrorCode;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::failure::{Failure, OrFailure};
use crate::mounts::{CLONE, NO_LINKS, open_directory};

/// The part of `tree`, which is mounted nowhere yet, that `volume` is to have. Directories that are missing are made, 0755
/// and root's of the volume, where it can be written. `place` is a path at which nothing is, for a moment.
///
/// # Errors
/// [`ErrorCode::Mount`] with what is there instead.
pub fn part(tree: OwnedFd, volume: &Volume<'_>, place: &Path) -> Result<OwnedFd, Failure> {
    let Some(sub_path) = volume.sub_path else { return Ok(tree) };
    let what = format!("have a place to look into volume {}", volume.name);
    create_dir(place).or_failure(ErrorCode::Mount, &what)?;
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", rustix::fs::CWD, place, here).or_failure(ErrorCode::Mount, &what)?;
    let found = open(tree.as_fd(), sub_path, volume.read_only)
        .and_then(|found| open_tree(found, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH));
    unmount(place, UnmountFlags::DETACH).or_failure(ErrorCode::Mount, &what)?;
    std::fs::remove_dir(place).or_failure(ErrorCode::Mount, what)?;
    found.map_err(|errno| {
        let of = format!("{sub_path} of volume {}", volume.name);
        Failure::new(ErrorCode::Mount, sentence(&of, errno))
    })
}

fn sentence(of: &str, errno: Errno) -> String {
    match errno {
        Errno::NOENT => format!("{of} is not there, and the volume is read-only"),
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            format!("{of} is a link, or a link or a file is on the way to it")
        }
        Errno::NODEV => format!("{of} is neither a directory nor a regular file"),
        errno => format!("{of}: {errno}"),
    }
}

fn open(root: BorrowedFd<'_>, sub_path: &str, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let step = |parent: BorrowedFd<'_>, name: &str| {
        if read_only {
            openat2(parent, name, directory | OFlags::NOFOLLOW, Mode::empty(), NO_LINKS)
        } else {
            open_directory(parent, name)
        }
    };
    let (above, last) = sub_path.rsplit_once('/').unwrap_or(("", sub_path));
    let top = openat(root, ".", directory, Mode::empty())?;
    let parent = above
        .split('/')
        .filter(|name| !name.is_empty())
        .try_fold(top, |parent, name| step(parent.as_fd(), name))?;
    // The two flags together open a link itself, which is then seen to be none of these.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match openat2(&parent, last, flags, Mode::empty(), NO_LINKS) {
        Err(Errno::NOENT) => step(parent.as_fd(), last)?,
        found => found?,
    };
    match FileType::from_raw_mode(fstat(&found)?.st_mode) {
        FileType::Directory | FileType::RegularFile => Ok(found),
        FileType::Symlink => Err(Errno::LOOP),
        _ => Err(Errno::NODEV),
    }
}
