//! RESIZE: the scratch disk is larger, and its file system is to take up all of it.
//!
//! The app's root has the file system mounted in a namespace that init is not in. Mounted once more, it is the same one:
//! the kernel keeps one superblock for a disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_wire::payload::Resized;
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::{Errno, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::places::{Places, Source};
use crate::resize_unsafe;

/// How long the disk's driver may take to hear of its new size, and how often it is asked.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(20);
const DRIVER_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of a block of the file system (`scripts/setup/disks.mjs`).
const BLOCK_BYTES: u64 = 4096;

/// Grows the file system of the scratch disk to `bytes`. Nothing else is done meanwhile; the kernel writes a few blocks
/// for each 128 MiB.
#[must_use]
pub fn grow(places: &Places, bytes: u64) -> Resized {
    let answer = match &places.scratch {
        Source::Disk(name) => grow_disk(name, &places.staging, bytes),
        Source::Directory(_) => Err(Errno::OPNOTSUPP),
    };
    answered(answer, bytes)
}

/// Grows the ext4 that the directory `root` is of, whose disk has `bytes` already.
#[must_use]
pub fn grow_mounted(root: BorrowedFd<'_>, bytes: u64) -> Resized {
    answered(resize_unsafe::grow_ext4(root, bytes / BLOCK_BYTES), bytes)
}

fn answered(answer: Result<()>, bytes: u64) -> Resized {
    let errno = answer.err().map_or(0, |errno| u32::try_from(errno.raw_os_error()).unwrap_or(0));
    Resized { errno, bytes }
}

fn grow_disk(name: &str, staging: &Path, bytes: u64) -> Result<()> {
    let disk = format!("/dev/{name}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let device = openat(CWD, &disk, flags, Mode::empty())?;
    wait_for_size(&device, bytes)?;
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(&disk, staging, "ext4", inert, None)?;
    let grown = openat(CWD, staging, flags | OFlags::DIRECTORY, Mode::empty())
        .and_then(|root| resize_unsafe::grow_ext4(root.as_fd(), bytes / BLOCK_BYTES));
    unmount(staging, UnmountFlags::empty())?;
    grown
}

/// The interrupt comes before RESIZE, but it is another thread of the kernel that asks the device.
fn wait_for_size(device: &OwnedFd, bytes: u64) -> Result<()> {
    let begin = Instant::now();
    while seek(device, SeekFrom::End(0))? < bytes {
        if begin.elapsed() > DRIVER_TIMEOUT {
            return Err(Errno::NOSPC);
        }
        sleep(DRIVER_INTERVAL);
    }
    Ok(())
}
