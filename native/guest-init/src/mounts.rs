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
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::failure::{Failure, OrFailure};
use crate::files::Files;
use crate::root::{attach_to, make};

/// Bytes for which a file system in memory gets one file: the kernel's own number would be by the memory of the host.
const BYTES_OF_A_FILE: u64 = 4096;
const FILES_MIN: u64 = 1024;
pub(crate) const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Whether the tree of a mount is made outside of the app's root: where the scratch disk is, of a disk of its own, or of
/// something of the host's.
#[must_use]
pub const fn is_from_outside(kind: &Kind) -> bool {
    matches!(kind, Kind::Empty { .. } | Kind::Volume { .. } | Kind::Host(_))
}

/// Trees that are there already, each in the order of its mounts.
#[derive(Debug, Default)]
pub struct Brought {
    /// Of volumes.
    pub volumes: Vec<OwnedFd>,
    /// Of the host.
    pub host_paths: Vec<OwnedFd>,
}

/// The trees that are from outside, in the order of the list: those that are `brought`, and what is made in `scratch`: the
/// root of the scratch disk's file system, with the app's place among the pod's. What has a name is the same for all apps
/// that name it, and made by the first. `owner` is whose that is: the app's root, by the number that it has here. Nothing
/// of the app ran yet, and nothing of the image is there.
///
/// # Errors
/// [`ErrorCode::Mount`] with what could not be made.
pub fn bring(
    (scratch, place): (&Path, usize),
    mounts: &[Mount],
    owner: u32,
    brought: Brought,
) -> Result<Vec<OwnedFd>, Failure> {
    let parent = scratch.join("empty");
    let mut volumes = brought.volumes.into_iter();
    let mut host_paths = brought.host_paths.into_iter();
    let mut trees = Vec::new();
    for mount in mounts {
        match &mount.kind {
            Kind::Tmpfs { .. } | Kind::File { .. } | Kind::Image => {}
            Kind::Volume { .. } => trees.push(volumes.next().ok_or_else(|| missing(mount))?),
            Kind::Host(_) => trees.push(host_paths.next().ok_or_else(|| missing(mount))?),
            Kind::Empty { mode, name } => {
                let own = || format!("app{place}/{}", trees.len());
                let name = name.as_ref().map_or_else(own, |name| format!("shared/{name}"));
                let tree = make_empty(&parent.join(name), *mode, owner);
                let what = "make a directory of the scratch disk";
                trees.push(tree.or_failure(ErrorCode::Mount, what)?);
            }
        }
    }
    Ok(trees)
}

fn make_empty(place: &Path, mode: u32, owner: u32) -> std::io::Result<OwnedFd> {
    if place.is_dir() {
        return Ok(open_tree(CWD, place, CLONE)?);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(place)?;
    chown(place, Some(owner), Some(owner))?;
    std::fs::set_permissions(place, PermissionsExt::from_mode(mode))?;
    Ok(open_tree(CWD, place, CLONE)?)
}

fn missing(mount: &Mount) -> Failure {
    Failure::new(ErrorCode::Mount, format!("nothing is there for {}", mount.path))
}

/// What of an app's mounts is made elsewhere.
#[derive(Debug)]
pub struct Outside<'a> {
    /// Trees, in the order of their mounts.
    pub trees: Vec<OwnedFd>,
    /// Content of the files, one behind the other in the order of their mounts.
    pub files: &'a [u8],
}

/// Mounts all of them in the calling process's root.
///
/// # Errors
/// [`ErrorCode::Mount`] with the place that failed.
pub fn apply(mounts: &[Mount], outside: Outside<'_>) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        openat(CWD, "/", flags, Mode::empty()).or_failure(ErrorCode::Mount, "open the root")?;
    let mut trees = outside.trees.into_iter();
    let mut files = Files::write(root.as_fd(), mounts, outside.files)?;
    for mount in mounts {
        let tree = match &mount.kind {
            Kind::Tmpfs { .. } => Some(make_memory(mount)?),
            Kind::File { .. } => Some(files.take()?),
            Kind::Image => None,
            Kind::Empty { .. } | Kind::Volume { .. } | Kind::Host(_) => {
                Some(trees.next().ok_or_else(|| missing(mount))?)
            }
        };
        let point = open_point(root.as_fd(), &mount.path, tree.as_ref().is_some_and(is_file))?;
        let tree = match tree {
            Some(tree) => tree,
            None => open_tree(&point, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
                .or_failure(ErrorCode::Mount, format!("keep {} writable", mount.path))?,
        };
        attach_to(point.as_fd(), tree.as_fd())
            .or_failure(ErrorCode::Mount, format!("mount on {}", mount.path))?;
    }
    files.leave(root.as_fd())
}

fn is_file(tree: &OwnedFd) -> bool {
    fstat(tree).is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode).is_file())
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

/// The place of a mount below `root`, made where it is missing: a file for a file, a directory for all else.
fn open_point(root: BorrowedFd<'_>, path: &str, is_file: bool) -> Result<OwnedFd, Failure> {
    let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = above
            .split('/')
            .filter(|name| !name.is_empty())
            .try_fold(openat(root, ".", flags, Mode::empty())?, |parent, name| {
                open_directory(parent.as_fd(), name)
            })?;
        if is_file { open_file(parent.as_fd(), last) } else { open_directory(parent.as_fd(), last) }
    };
    open().map_err(|errno| {
        let text = match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => format!(
                "cannot mount on {path}: the image has something else there, or a link or a file on the way"
            ),
            Errno::ROFS => format!(
                "cannot mount on {path}: it is missing, and what it would be made in is read-only"
            ),
            errno => format!("cannot mount on {path}: {errno}"),
        };
        Failure::new(ErrorCode::Mount, text)
    })
}

pub(crate) const NO_LINKS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat2(parent, name, flags, Mode::empty(), NO_LINKS);
    match open() {
        Err(Errno::NOENT) => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            open()
        }
        answer => answer,
    }
}

fn open_file(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match openat(parent, name, create, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // The two flags together open a link itself, which is then seen to be none of these.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = openat2(parent, name, flags, Mode::empty(), NO_LINKS)?;
    match FileType::from_raw_mode(fstat(&point)?.st_mode) {
        FileType::RegularFile => Ok(point),
        FileType::Symlink => Err(Errno::LOOP),
        _ => Err(Errno::ISDIR),
    }
}
