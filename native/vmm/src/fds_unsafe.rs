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

/// Keeps glibc to one heap: each further arena would be a mapping of its own, counted against the VMM's budget.
pub fn use_one_heap() {
    // SAFETY: mallopt is called before a second thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
