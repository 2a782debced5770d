//! What the app may not see or change of its kernel file systems: the masked and read-only paths
//! of the OCI defaults. Done inside the new root, before anything of the app runs.

use std::fs::symlink_metadata;

use casemate_wire::payload::ErrorCode;
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};

use crate::failure::{Failure, OrFailure};

/// As runc and crun have them by Docker's defaults. What the kernel does not offer is skipped.
pub const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// And which it may read.
pub const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Masks and protects, and makes the whole root read-only if the app asked for that.
///
/// # Errors
/// [`ErrorCode::Mount`] with the path that failed.
pub fn apply(read_only_root: bool) -> Result<(), Failure> {
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for path in MASKED {
        let Ok(found) = symlink_metadata(path) else { continue };
        let flags = inert | MountFlags::RDONLY;
        if found.is_dir() {
            mount("tmpfs", *path, "tmpfs", flags, c"size=4k,mode=555")
        } else {
            mount_bind("/dev/null", *path)
        }
        .or_failure(ErrorCode::Mount, format!("mask {path}"))?;
    }
    for path in READ_ONLY.iter().filter(|path| symlink_metadata(path).is_ok()) {
        let flags = inert | MountFlags::BIND | MountFlags::RDONLY;
        mount_bind_recursive(*path, *path)
            .and_then(|()| mount_remount(*path, flags, ""))
            .or_failure(ErrorCode::Mount, format!("make {path} read-only"))?;
    }
    if read_only_root {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
        mount_remount("/", flags, "").or_failure(ErrorCode::Mount, "make the root read-only")?;
    }
    Ok(())
}
