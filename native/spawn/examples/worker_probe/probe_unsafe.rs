//! Descriptors at fixed numbers, and calls that end a worker.

use std::os::fd::{FromRawFd, OwnedFd};

/// A descriptor that spawn left at this number.
pub fn take(number: i32) -> Option<OwnedFd> {
    // SAFETY: asks whether the descriptor is open.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: it is open, and nobody else in this program names it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

pub fn fork() -> i64 {
    // SAFETY: one thread; a child would end at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) }
    }
    child.into()
}

pub fn socket() -> i64 {
    // SAFETY: changes no memory.
    unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) }.into()
}

pub fn unshare() -> i64 {
    // SAFETY: changes no memory.
    unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()
}

pub fn ptrace() -> i64 {
    // SAFETY: attaches to this process itself, which is refused in any case.
    unsafe { libc::ptrace(libc::PTRACE_ATTACH, 1, 0, 0) }
}
