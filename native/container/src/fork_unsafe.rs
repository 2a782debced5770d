//! Copies of this process, which has two threads: the one that forks is all that the copy has.

use std::io;

use rustix::process::Pid;

/// Which process goes on.
#[derive(Debug)]
pub enum Fork {
    /// The one that called; with the id of the new one.
    Parent(Pid),
    /// The new one.
    Child,
}

/// A child of this process. It may allocate: the C library settles its own locks for a fork, and nothing else in it is
/// shared by the threads.
///
/// # Errors
/// What the kernel answers.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the copy uses nothing that the other thread could have been at, but the allocator, for which see above.
    which(unsafe { libc::fork() })
}

/// A sibling of this process, a child of its parent, in the namespace of processes that was entered last. Called in
/// processes with one thread.
///
/// # Errors
/// What the kernel answers.
pub fn sibling() -> io::Result<Fork> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: without a new stack and without sharing anything this is a fork, and there is one thread.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    which(libc::pid_t::try_from(answer).unwrap_or(-1))
}

fn which(answer: libc::pid_t) -> io::Result<Fork> {
    match answer {
        0 => Ok(Fork::Child),
        id => Pid::from_raw(id.max(0)).map(Fork::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Ends this process at once: no destructor, no buffer is flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}
