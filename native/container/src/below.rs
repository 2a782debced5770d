//! What the pod's user namespace leaves open to whoever is in it, and no capability keeps from it: making further
//! namespaces, in which everybody has every capability over packet filters and devices of the host's kernel, and hearing
//! what the kernel tells of the host's devices.

use std::fs;
use std::io::{self, ErrorKind};

/// Namespaces that nobody in the pod makes. Only `CAP_SYS_RESOURCE` changes that, which the app's process has until it is
/// the app.
const NONE_OF: [&str; 2] = ["user", "net"];

/// A list with one entry (`struct sock_filter`, little endian): no socket for the kernel's events (`AF_NETLINK`,
/// `NETLINK_KOBJECT_UEVENT`). They go to every network that is not of another user namespace, and those of pods are not,
/// so that no capability inside is one over them. Calls of other processor modes could do the same, and are refused.
///
/// In order: load the mode, unless `AUDIT_ARCH_X86_64` refuse; load the number, from x32's on refuse, unless `socket`
/// permit; load its family, unless 16 permit; load its protocol, 15 is refused. Refused is EPERM.
pub const NO_EVENTS: [[u8; 8]; 11] = [
    [0x20, 0, 0, 0, 4, 0, 0, 0],
    [0x15, 0, 0, 8, 0x3e, 0, 0, 0xc0],
    [0x20, 0, 0, 0, 0, 0, 0, 0],
    [0x35, 0, 6, 0, 0, 0, 0, 0x40],
    [0x15, 0, 0, 4, 41, 0, 0, 0],
    [0x20, 0, 0, 0, 16, 0, 0, 0],
    [0x15, 0, 0, 2, 16, 0, 0, 0],
    [0x20, 0, 0, 0, 32, 0, 0, 0],
    [0x15, 0, 1, 0, 15, 0, 0, 0],
    [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f],
    [0x06, 0, 0, 0, 1, 0, 5, 0],
];

/// In the pod's own namespaces, before /proc/sys is read-only.
///
/// # Errors
/// What the kernel says of one that it has.
pub fn forbid_namespaces() -> io::Result<()> {
    NONE_OF.iter().try_for_each(|kind| {
        match fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), "0") {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            written => written,
        }
    })
}
