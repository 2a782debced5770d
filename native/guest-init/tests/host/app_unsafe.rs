//! Signals and descriptors of the app.

use std::sync::atomic::{AtomicI32, Ordering};

static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: `_exit` is async-signal-safe.
    unsafe { libc::_exit(CODE.load(Ordering::Relaxed)) }
}

/// SIGTERM ends the app with `code`.
pub fn exit_on_term(code: i32) {
    CODE.store(code, Ordering::Relaxed);
    let handler: extern "C" fn(libc::c_int) = handler;
    // SAFETY: the handler does nothing but `_exit`.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// Closes descriptor 0.
pub fn close_stdin() {
    // SAFETY: nothing in the app reads its standard input afterwards.
    unsafe { libc::close(0) };
}

/// A hang-up goes unnoticed.
pub fn ignore_hang_up() {
    // SAFETY: `SIG_IGN` is a valid disposition.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// Mounts and names of its own.
pub fn leave_namespaces() {
    // SAFETY: there is one thread.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS) };
    assert_eq!(left, 0);
}
