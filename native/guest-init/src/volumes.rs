//! Named volumes: an ext4 on a disk of its own, which had other pods before and has others after this one.
//!
//! The disk may have become larger since its last pod: the file system takes up all of it as it is mounted.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use casemate_ticket::app::App;
use casemate_ticket::mounts::{self, Volume};
use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, openat, seek};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount as mount_at,
};

use crate::failure::{Failure, OrFailure};
use crate::places::Places;
use crate::resize_unsafe::{self, grow_ext4};
use crate::sub_path;

/// Bytes of a block of the file system (`scripts/setup/disks.mjs`).
const BLOCK_BYTES: u64 = 4096;
/// Where the superblock has the number of its blocks (Linux, `fs/ext4/ext4.h`: `s_blocks_count_lo`).
const BLOCKS_OFFSET: u64 = 1024 + 4;

/// The file system of the disk at `path`, or the part of it that the volume is to have, mounted nowhere yet. Data of a pod
/// that was cut off is recovered from its journal, unless the disk is `never_written`; of one that is, this volume may
/// still be read-only. `place` is a path at which nothing is.
///
/// # Errors
/// [`ErrorCode::Mount`] with the step that failed.
pub fn make(
    path: &Path,
    never_written: bool,
    volume: &Volume<'_>,
    place: &Path,
) -> Result<OwnedFd, Failure> {
    let tree = mount(path, never_written, volume.read_only)
        .or_failure(ErrorCode::Mount, mounting(never_written))?;
    if !never_written {
        let grown = grow(path, &tree);
        grown
            .or_failure(ErrorCode::Mount, "have a volume's file system take up all of its disk")?;
    }
    sub_path::part(tree, volume, place)
}

fn mounting(read_only: bool) -> &'static str {
    if read_only {
        "mount a volume read-only (one whose pod was cut off has to be mounted once to be written)"
    } else {
        "mount a volume"
    }
}

fn mount(path: &Path, never_written: bool, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", path)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    if read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if never_written {
        fsconfig_set_flag(context.as_fd(), "ro")?;
    } else {
        // What the app deletes goes back to the host.
        fsconfig_set_flag(context.as_fd(), "discard")?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Has volumes that could be written be whole on their disks, journals closed: the machine is about to be switched off,
/// and what is left of the app, if anything, would write on. A volume of which that fails is recovered by its next mount.
pub fn settle(places: &Places, apps: &[App]) {
    for (volume, disk) in mounts::of_all(apps).into_iter().zip(places.volumes) {
        if !volume.read_only {
            let _ = freeze(disk, &places.staging);
        }
    }
}

/// The app has it mounted in a namespace that init is not in; mounted once more it is the same one.
fn freeze(disk: &str, staging: &Path) -> rustix::io::Result<()> {
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_at(format!("/dev/{disk}"), staging, "ext4", inert, None)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    resize_unsafe::freeze(openat(CWD, staging, flags, Mode::empty())?.as_fd())
}

fn grow(path: &Path, tree: &OwnedFd) -> std::io::Result<()> {
    // The kernel has the superblock of what is mounted where it reads the disk from.
    let disk = File::open(path)?;
    let mut blocks = [0; 4];
    disk.read_exact_at(&mut blocks, BLOCKS_OFFSET)?;
    let wanted = seek(&disk, SeekFrom::End(0))? / BLOCK_BYTES;
    if u64::from(u32::from_le_bytes(blocks)) >= wanted {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(tree, ".", flags, Mode::empty())?;
    Ok(grow_ext4(root.as_fd(), wanted)?)
}
