//! The app's own mounts (`app.mounts` of the spec), put into its root at every level by this code, from inside.
//!
//! The image is hostile: a mount point may be a link to somewhere else, or lie behind one (CVE-2021-30465). So every
//! name on the way is opened beneath the root, one after the other, and a link is a refusal. What is missing is made,
//! 0755 and root's, as appc has it: before the root becomes read-only, so that works for such roots too.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use casemate_ticket::mounts::{Kind, Mount, SHARED_MEMORY};
use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::failure::{Failure, OrFailure};
use crate::root::{attach_to, make};

/// Bytes for which a file system in memory gets one file: the kernel's own number would be by the memory of the host.
const BYTES_OF_A_FILE: u64 = 4096;
const FILES_MIN: u64 = 1024;
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Whether the tree of a mount is made where the scratch disk is, which is outside of the app's root.
#[must_use]
pub const fn is_from_outside(kind: &Kind) -> bool {
    matches!(kind, Kind::Empty { .. })
}

/// Makes the trees that are from outside, in the order of the list, in `scratch`: the root of the scratch disk's file
/// system. `owner` is whose they are: the app's root, by the number that it has here. Nothing of the app ran yet, and
/// nothing of the image is there.
///
/// # Errors
/// [`ErrorCode::Mount`] with what could not be made.
pub fn bring(scratch: &Path, mounts: &[Mount], owner: u32) -> Result<Vec<OwnedFd>, Failure> {
    let parent = scratch.join("empty");
    mounts
        .iter()
        .filter_map(|mount| match mount.kind {
            Kind::Empty { mode } => Some(mode),
            Kind::Tmpfs { .. } | Kind::Image => None,
        })
        .enumerate()
        .map(|(number, mode)| {
            let place = parent.join(number.to_string());
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&place)
                .and_then(|()| chown(&place, Some(owner), Some(owner)))
                .and_then(|()| std::fs::set_permissions(&place, PermissionsExt::from_mode(mode)))
                .and_then(|()| Ok(open_tree(CWD, &place, CLONE)?))
                .or_failure(ErrorCode::Mount, "make a directory of the scratch disk")
        })
        .collect()
}

/// Mounts all of them in the calling process's root. `trees` are those from outside.
///
/// # Errors
/// [`ErrorCode::Mount`] with the place that failed.
pub fn apply(mounts: &[Mount], trees: Vec<OwnedFd>) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        openat(CWD, "/", flags, Mode::empty()).or_failure(ErrorCode::Mount, "open the root")?;
    let mut trees = trees.into_iter();
    for mount in mounts {
        let point = open_point(root.as_fd(), &mount.path)?;
        let tree = match mount.kind {
            Kind::Tmpfs { .. } => make_memory(mount)?,
            Kind::Image => open_tree(&point, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
                .or_failure(ErrorCode::Mount, format!("keep {} writable", mount.path))?,
            Kind::Empty { .. } => trees.next().ok_or_else(|| {
                Failure::new(ErrorCode::Mount, format!("nothing is there for {}", mount.path))
            })?,
        };
        attach_to(point.as_fd(), tree.as_fd())
            .or_failure(ErrorCode::Mount, format!("mount on {}", mount.path))?;
    }
    Ok(())
}

/// A file system in memory, which counts as the app's.
fn make_memory(mount: &Mount) -> Result<OwnedFd, Failure> {
    let Kind::Tmpfs { size, mode, exec, read_only } = mount.kind else {
        return Err(Failure::new(ErrorCode::Mount, "a mount is not of memory"));
    };
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    // As the one that it lies above.
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec || mount.path == SHARED_MEMORY);
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    let files = (size / BYTES_OF_A_FILE).max(FILES_MIN).to_string();
    let (size, mode) = (size.to_string(), format!("{mode:o}"));
    make("tmpfs", &[("size", &size), ("nr_inodes", &files), ("mode", &mode)], attributes)
}

/// The directory `path` below `root`, made where it is missing.
fn open_point(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Failure> {
    let opened = path.split('/').filter(|name| !name.is_empty()).try_fold(
        root.try_clone_to_owned().or_failure(ErrorCode::Mount, "open the root")?,
        |parent, name| open_below(parent.as_fd(), name),
    );
    opened.map_err(|errno| {
        let text = match errno {
            Errno::LOOP | Errno::NOTDIR => {
                format!("cannot mount on {path}: the image has a link or a file on the way there")
            }
            Errno::ROFS => format!(
                "cannot mount on {path}: it is missing, and what it would be made in is read-only"
            ),
            errno => format!("cannot mount on {path}: {errno}"),
        };
        Failure::new(ErrorCode::Mount, text)
    })
}

fn open_below(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(parent, name, flags, Mode::empty(), resolve);
    match open() {
        Err(Errno::NOENT) => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            open()
        }
        answer => answer,
    }
}
