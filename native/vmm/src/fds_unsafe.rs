//! Taking ownership of the descriptors that spawn left at fixed numbers.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use kvm_ioctls::Kvm;
use std::os::fd::IntoRawFd;

/// The descriptor at `number`, or `None` when there is none.
///
/// Called once for each number, before anything else opens a descriptor.
#[must_use]
pub fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number is in use.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the number is in use, was inherited, and nothing else in this process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `/dev/kvm`, opened by spawn.
#[must_use]
pub fn kvm(descriptor: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is owned and handed over; that it is KVM is checked by its first ioctl.
    unsafe { Kvm::from_raw_fd(descriptor.into_raw_fd()) }
}

/// A fault ends the process as a fault, which spawn then reports. The standard library's handlers, which look for a
/// stack that is too small, would end it as a call that is not allowed.
pub fn faults_are_fatal() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: called before a second thread exists; the default action needs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// From so many bytes on an allocation is a mapping of its own while the VM is made.
const MAPPED_BYTES: libc::c_int = 32 << 10;

/// Keeps glibc to one heap: each further arena would be a mapping of its own, counted against the VMM's budget. What is
/// large stays out of it: pages of a device's buffer are then not there before they are used, nor those of a spec and
/// a state after they were read. Left alone, glibc takes such from the heap as soon as one was given back.
pub fn shape_heap() {
    for (what, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES)] {
        // SAFETY: mallopt is called before a second thread exists.
        unsafe { libc::mallopt(what, value) };
    }
}

/// From now on the heap grows by brk alone: no filter of a running VM lets a thread map memory.
pub fn settle_heap() {
    // SAFETY: mallopt is called before a second thread exists.
    unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) };
}
