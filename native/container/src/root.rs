//! The containers' roots: the verified copy of the image below, a part of the scratch disk above.
//!
//! All of it is in the monitor's own mount namespace, which the host does not see and which ends with its last process,
//! and with it the mounts and the loop devices.

use std::ffi::CString;
use std::fs::{DirBuilder, File, create_dir};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use casemate_devices::{Verified, VerityError};
use casemate_vmm::failure::{Failure, failure};
use casemate_wire::control::Reason;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount,
};

use crate::{bundle, idmap_unsafe, loop_unsafe};

/// Where everything of the pod is, in the monitor's own mount namespace. Every host has it.
pub const PLACE: &str = "/tmp";
/// The root of the scratch disk's file system.
pub const SCRATCH: &str = "/tmp/scratch";

/// What a mounted pod needs later on.
#[derive(Debug)]
pub struct Scratch {
    /// Its loop device.
    pub device: File,
    /// The root directory of its file system.
    pub directory: OwnedFd,
}

/// Copies the image while all of its Merkle tree is checked: the agent has the original, and could change it later.
/// What comes back can only be read, and nobody has another descriptor of it.
///
/// # Errors
/// `VERITY` for a block that no signature covers.
pub fn take_image(mut image: Verified, copy: File) -> Result<File, Failure> {
    image.copy_to(&copy).map_err(|error| match error {
        VerityError::Mismatch(block) => failure(
            Reason::Verity,
            format_args!("block {block} of the image is not the one its signature covers"),
        ),
        error => failure(Reason::Io, format_args!("the image: {error}")),
    })?;
    let image = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()));
    drop(copy);
    image.map_err(|error| failure(Reason::Io, format_args!("the copy of the image: {error}")))
}

/// The root of the app at `place`.
#[must_use]
pub fn of_app(place: usize) -> String {
    format!("{PLACE}/root{place}")
}

/// Makes the roots of as many apps, for ids from `first` on or for the host's.
///
/// # Errors
/// `IO` with the step: a kernel that lacks a file system, loop devices or mapped mounts.
pub fn build(
    image: &File,
    scratch: &File,
    first: Option<u32>,
    apps: usize,
) -> Result<Scratch, Failure> {
    let step = |what: &'static str| {
        move |error: io::Error| {
            failure(Reason::Io, format_args!("the container's root: {what}: {error}"))
        }
    };
    make_place().map_err(step("make a place for it"))?;
    mount_image(image, first)
        .map_err(step("mount the image (erofs, by a loop device, with the pod's ids)"))?;
    let scratch =
        mount_scratch(scratch).map_err(step("mount the scratch disk (ext4, by a loop device)"))?;
    // Relative, so that no path of the host's shows in the container.
    std::env::set_current_dir(PLACE).map_err(step("enter it"))?;
    for place in 0..apps {
        make_upper(place).map_err(step("prepare the scratch disk"))?;
        mount_overlay(place).map_err(step("mount the overlay"))?;
    }
    std::env::set_current_dir("/").map_err(step("leave it"))?;
    Ok(scratch)
}

/// In the current directory, which is [`PLACE`].
fn mount_overlay(place: usize) -> io::Result<()> {
    let root = format!("root{place}");
    create_dir(&root)?;
    let layers =
        format!("lowerdir=image,upperdir=scratch/upper{place},workdir=scratch/work{place}");
    let layers = CString::new(layers)?;
    Ok(mount("overlay", &root, "overlay", MountFlags::NODEV, layers.as_c_str())?)
}

fn make_place() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let inert = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", PLACE, "tmpfs", inert, c"size=16m,mode=755")?;
    ["image", "scratch", "sys", "queues"]
        .iter()
        .try_for_each(|name| create_dir(Path::new(PLACE).join(name)))?;
    mount("mqueue", bundle::QUEUES, "mqueue", inert, None)?;
    Ok(mount("sysfs", bundle::SYS, "sysfs", inert | MountFlags::RDONLY, None)?)
}

fn mount_image(image: &File, first: Option<u32>) -> io::Result<()> {
    let (device, path) = loop_unsafe::attach(image.as_fd(), true)?;
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", path.as_str())?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let inert = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let tree = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, inert)?;
    first.map_or(Ok(()), |first| idmap_unsafe::map_from(tree.as_fd(), first))?;
    drop(device);
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&tree, "", CWD, Path::new(PLACE).join("image"), flags)?)
}

fn mount_scratch(scratch: &File) -> io::Result<Scratch> {
    let (device, path) = loop_unsafe::attach(scratch.as_fd(), false)?;
    let target = Path::new(SCRATCH);
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    // What the app deletes goes back to the host.
    mount(&path, target, "ext4", flags, c"discard")?;
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Scratch { device, directory: openat(CWD, target, directory, Mode::empty())? })
}

/// The overlay's root directory has the owner and mode of the upper one, so those are the image's, as they are mapped.
fn make_upper(place: usize) -> io::Result<()> {
    let [upper, work] =
        ["upper", "work"].map(|name| Path::new(SCRATCH).join(format!("{name}{place}")));
    let like = std::fs::metadata(Path::new(PLACE).join("image"))?;
    DirBuilder::new().mode(0o700).create(work)?;
    DirBuilder::new().mode(0o700).create(&upper)?;
    chown(&upper, Some(like.uid()), Some(like.gid()))?;
    std::fs::set_permissions(upper, PermissionsExt::from_mode(like.mode() & 0o7777))
}
