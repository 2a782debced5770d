//! The app's root: the image below, scratch above, kernel file systems on mount points that are
//! never reached through a symbolic link of the image (CVE-2019-19921, CVE-2021-30465 were that).
//!
//! Everything happens in the child's own mount namespace, so when the app's last process is gone
//! the kernel unmounts it all. File systems the app can write to are mounted `nodev`: with
//! `CAP_MKNOD`, which many images get, it can make a node of the control port or of a disk, but not
//! open it. Device nodes in its /dev are bind mounts of the real ones.

use std::ffi::CString;
use std::fs::{DirBuilder, create_dir};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use casemate_ticket::app::App;
use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind,
    mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use crate::devices;
use crate::failure::{Failure, OrFailure};
use crate::mounts::{self, Brought};
use crate::places::{Places, Source, wait_for_disk};

const KERNEL_FS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const DATA_FS: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Builds the root in the calling process' mount namespace and makes it its root directory. `write` gets the place for
/// files of ours above the image. Answers the trees of the app's mounts that are from outside of it.
///
/// # Errors
/// [`ErrorCode::Mount`] with the step that failed; what `write` fails with.
pub fn enter(
    places: &Places,
    (place, apps): (usize, &[App]),
    app: &App,
    write: impl FnOnce(BorrowedFd<'_>) -> Result<(), Failure>,
) -> Result<Vec<OwnedFd>, Failure> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .or_failure(ErrorCode::Mount, "make mounts private")?;
    let root = stack(places, place)?;
    write(root.as_fd())?;
    populate(root.as_fd(), app.read_only_root, places.cgroup.is_some())?;
    let volumes = places.mount_volumes(apps, &app.mounts)?;
    let brought = Brought { volumes, ..Brought::default() };
    let scratch = places.staging.join("scratch");
    let trees = mounts::bring((&scratch, place), &app.mounts, 0, brought)?;
    pivot(root.as_fd()).or_failure(ErrorCode::Mount, "change the root")?;
    Ok(trees)
}

/// Image, scratch and the overlay of both, of which each app has its own part; answers the overlay's root.
fn stack(places: &Places, place: usize) -> Result<OwnedFd, Failure> {
    let staging = places.staging.as_path();
    let memory = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", staging, "tmpfs", memory, c"size=64k,mode=700")
        .or_failure(ErrorCode::Mount, "mount a file system to build the root in")?;
    let [image, scratch, root] = ["image", "scratch", "root"].map(|name| staging.join(name));
    for directory in [&image, &scratch, &root] {
        create_dir(directory).or_failure(ErrorCode::Mount, "make a mount point")?;
    }
    mount_image(&places.image, &image)?;
    mount_scratch(&places.scratch, &scratch)?;
    let [upper, work] = ["upper", "work"].map(|name| scratch.join(format!("{name}{place}")));
    make_upper(&image, &upper, &work).or_failure(ErrorCode::Mount, "prepare the scratch disk")?;
    let layers = [("lowerdir", &image), ("upperdir", &upper), ("workdir", &work)]
        .map(|(name, path)| format!("{name}={}", path.display()))
        .join(",");
    let layers = CString::new(layers).or_failure(ErrorCode::Mount, "name the overlay's layers")?;
    mount("overlay", &root, "overlay", MountFlags::NODEV, layers.as_c_str())
        .or_failure(ErrorCode::Mount, "mount the overlay of image and scratch")?;
    openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .or_failure(ErrorCode::Mount, "open the new root")
}

fn mount_image(source: &Source, target: &Path) -> Result<(), Failure> {
    let what = "mount the image";
    match source {
        Source::Disk(name) => {
            let flags = MountFlags::RDONLY | MountFlags::NODEV;
            mount(wait_for_disk(name)?, target, "erofs", flags, None)
                .or_failure(ErrorCode::Mount, what)
        }
        Source::Directory(path) => {
            mount_bind(path, target).or_failure(ErrorCode::Mount, what)?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
            mount_remount(target, flags, "").or_failure(ErrorCode::Mount, what)
        }
    }
}

fn mount_scratch(source: &Source, target: &Path) -> Result<(), Failure> {
    let what = "mount the scratch disk";
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    match source {
        // What the app deletes goes back to the host.
        Source::Disk(name) => mount(wait_for_disk(name)?, target, "ext4", flags, c"discard"),
        Source::Directory(_) => mount("tmpfs", target, "tmpfs", flags, None),
    }
    .or_failure(ErrorCode::Mount, what)
}

/// The overlay's root directory has the owner and mode of the upper one, so those are the image's.
fn make_upper(image: &Path, upper: &Path, work: &Path) -> std::io::Result<()> {
    let like = std::fs::metadata(image)?;
    DirBuilder::new().mode(0o700).create(work)?;
    DirBuilder::new().mode(0o700).create(upper)?;
    chown(upper, Some(like.uid()), Some(like.gid()))?;
    std::fs::set_permissions(upper, PermissionsExt::from_mode(like.mode() & 0o7777))
}

/// The mounts of the OCI default: proc, dev, sys and the app's cgroup; and a place for temporary files.
fn populate(root: BorrowedFd<'_>, read_only: bool, cgroup: bool) -> Result<(), Failure> {
    let read = MountAttrFlags::MOUNT_ATTR_RDONLY;
    attach(root, "proc", &make("proc", &[], KERNEL_FS)?)?;
    attach(root, "sys", &make("sysfs", &[], KERNEL_FS | read)?)?;
    if cgroup {
        attach(root, "sys/fs/cgroup", &make("cgroup2", &[], KERNEL_FS | read)?)?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let dev = make("tmpfs", &[("mode", "755"), ("size", "64m")], attributes)?;
    attach(root, "dev", &dev)?;
    devices::populate(dev.as_fd())?;
    temporary(root, read_only)
}

/// A place for temporary files in the calling process's root.
///
/// # Errors
/// [`ErrorCode::Mount`] with what failed.
pub fn make_temporary(read_only: bool) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        openat(CWD, "/", flags, Mode::empty()).or_failure(ErrorCode::Mount, "open the root")?;
    temporary(root.as_fd(), read_only)
}

/// Where the image has none, or nothing else can be written.
fn temporary(root: BorrowedFd<'_>, read_only: bool) -> Result<(), Failure> {
    let missing = mkdirat(root, "tmp", Mode::from_raw_mode(0o1777));
    match missing {
        // A link, say to /var/tmp, is the image's own arrangement.
        Err(Errno::EXIST) if !read_only || open_point(root, "tmp").is_err() => Ok(()),
        Ok(()) if !read_only => Ok(()),
        Ok(()) | Err(Errno::EXIST) => attach(root, "tmp", &make("tmpfs", TEMPORARY, DATA_FS)?),
        Err(errno) => Err(errno).or_failure(ErrorCode::Mount, "make /tmp"),
    }
}

const TEMPORARY: &[(&str, &str)] = &[("mode", "1777")];

/// Makes a file system that is mounted nowhere yet.
pub(crate) fn make(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failure> {
    let made = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    made().or_failure(ErrorCode::Mount, format!("make a file system of type {kind}"))
}

/// Mounts `tree` on the directory `path` below `root`, which is made when it is missing.
pub(crate) fn attach(root: BorrowedFd<'_>, path: &str, tree: &OwnedFd) -> Result<(), Failure> {
    match mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).or_failure(ErrorCode::Mount, format!("make /{path}")),
    }
    let point = open_point(root, path).or_failure(
        ErrorCode::Mount,
        format!("mount on /{path}, which must be a directory and no link in the image"),
    )?;
    attach_to(point.as_fd(), tree.as_fd()).or_failure(ErrorCode::Mount, format!("mount on /{path}"))
}

/// Mounts `tree` on what `point` refers to.
pub(crate) fn attach_to(point: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let by_descriptor =
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", point, "", by_descriptor)
}

fn open_point(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

/// Old and new root on one mount point, then the old one taken away from below.
fn pivot(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}
