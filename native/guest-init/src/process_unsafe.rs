//! The calls that change what the calling process is. guest-init has one thread, always, and so has whoever else calls
//! these: the monitor of a container.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which process goes on.
#[derive(Debug)]
pub enum Fork {
    /// The one that called; with the child's id.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a copy of this process.
///
/// # Errors
/// What the kernel answers.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: there is one thread, so the child is a whole copy and may do everything.
    let answer = unsafe { libc::fork() };
    match answer {
        0 => Ok(Fork::Child),
        id => Pid::from_raw(id.max(0)).map(Fork::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Leaves the namespaces in `flags` for new ones. Never called with `FILES`.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: what makes this unsafe is unsharing descriptors between threads; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// Becomes the program at `path`; returns only when that failed.
pub(crate) fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null, and they and their strings live until the call returns.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once: no destructor, no buffer is flushed.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// No signal blocked, SIGPIPE as the kernel has it: Rust's start-up ignores it, and what is ignored
/// stays ignored over exec.
pub(crate) fn default_signals() -> io::Result<()> {
    // SAFETY: `SIG_DFL` is a valid disposition of SIGPIPE.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for a write of one `sigset_t`.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `sigemptyset` initialised the set; a null old set is allowed.
    let answer =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends the signal `number`, 1 to 64, to the process behind `pidfd`. rustix knows no real-time ones.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; without siginfo the kernel reads no memory of ours.
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor but 0, 1, 2 and `keep`. Whoever owns one of the others in this process must not use or drop
/// it afterwards.
///
/// # Errors
/// A kernel before 5.9.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().map(|fd| u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().chain([u32::MAX]) {
        if first < kept {
            // SAFETY: the caller gave up what is closed here.
            let answer =
                unsafe { libc::syscall(libc::SYS_close_range, first, kept.saturating_sub(1), 0) };
            if answer != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(kept.saturating_add(1));
    }
    Ok(())
}

/// Closes a descriptor that its owner neither uses nor drops afterwards.
pub(crate) fn close(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the caller gave up what is closed here.
    let answer = unsafe { libc::close(descriptor.as_raw_fd()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts an empty session keyring in the place of the one that was inherited (keyctl(2)).
pub(crate) fn leave_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let without_name = std::ptr::null::<libc::c_char>();
    // SAFETY: the kernel reads no name through a null pointer.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, without_name) };
    match io::Error::last_os_error() {
        // A kernel without keys has none to leave.
        error if answer < 0 && error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// Sets the resource limit with the kernel's number `resource`.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is a valid struct; the kernel writes no old one through a null pointer.
    let answer = unsafe { libc::prlimit64(0, resource, &raw const limit, std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Installs a seccomp program, an array of `struct sock_filter` as bytes, on this process.
///
/// # Errors
/// What `seccomp(2)` says: it wants `no_new_privs` or `CAP_SYS_ADMIN`.
pub fn install_seccomp(program: &[u8]) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .filter_map(|chunk| {
            let [c0, c1, jt, jf, k0, k1, k2, k3] = *chunk.first_chunk::<8>()?;
            Some(libc::sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            })
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `fprog` names `len` instructions that live until the call returns; the kernel copies
    // and checks them, and does not write.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes over the descriptor `number`, which the program that executed this one left open for it.
/// `None` when it is not open.
pub(crate) fn adopt_descriptor(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer; on a closed descriptor it answers -1.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and nothing in this program owns it: it was there before the program was.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
