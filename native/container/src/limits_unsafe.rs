//! Resource limits by the kernel's numbers, of which the spec has any.

use casemate_ticket::app::{HOST_LIMITS, Rlimit};

/// Makes room for limits that are above what this process has: root may, where it has `CAP_SYS_RESOURCE`. What is
/// inherited by the container is all that its own root can hand out.
pub fn make_room(limits: &[Rlimit]) {
    for Rlimit { resource, hard, .. } in limits {
        if !HOST_LIMITS.contains(resource) && most(*resource) < *hard {
            let wanted = libc::rlimit64 { rlim_cur: *hard, rlim_max: *hard };
            // SAFETY: the new limit is a valid struct; the kernel writes no old one through a null pointer.
            unsafe { libc::prlimit64(0, *resource, &raw const wanted, std::ptr::null_mut()) };
        }
    }
}

/// The same limits, none above what this process may set: below level vm the host's own are the most there is.
pub fn within(limits: &mut [Rlimit]) {
    for limit in limits {
        limit.hard = limit.hard.min(most(limit.resource));
        limit.soft = limit.soft.min(limit.hard);
    }
}

/// The hard limit that this process has.
fn most(resource: u32) -> u64 {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads no new limit through a null pointer and writes one struct, which is there.
    let answer = unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut limit) };
    if answer == 0 { limit.rlim_max } else { u64::MAX }
}
