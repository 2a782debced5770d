//! A child process with descriptors at numbers of our choice and a limit on its memory, and what it had of it.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;

/// Above every number that the VMM is given: nothing is overwritten before it was copied.
const HIGH: RawFd = 100;

/// Starts `command` with each descriptor at its number. Beyond `data_bytes_max` of private memory it gets none.
pub fn start(
    command: &mut Command,
    descriptors: Vec<(RawFd, OwnedFd)>,
    data_bytes_max: u64,
) -> Child {
    let table: Vec<(RawFd, OwnedFd)> = descriptors
        .into_iter()
        .map(|(number, fd)| (number, rustix::io::fcntl_dupfd_cloexec(fd, HIGH).unwrap()))
        .collect();
    let limit = Rlimit { current: Some(data_bytes_max), maximum: Some(data_bytes_max) };
    let place = move || {
        for (number, fd) in &table {
            // SAFETY: dup2 is a system call; both numbers are plain integers.
            if unsafe { libc::dup2(fd.as_raw_fd(), *number) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(setrlimit(Resource::Data, limit)?)
    };
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing.
    unsafe { command.pre_exec(place) }.spawn().unwrap()
}

/// A tap with these flags (`IFF_*`) and frames behind a header of so many bytes, in a network namespace of its own.
pub fn tap(open: OFlags, flags: u16, header_bytes: i32) -> std::io::Result<OwnedFd> {
    let make = move || {
        // SAFETY: a thread of its own leaves the network namespace; no memory and no descriptor changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let tap = rustix::fs::open("/dev/net/tun", open, Mode::empty())?;
        let mut request = [0_u8; 40];
        request[..8].copy_from_slice(b"test%d\0\0");
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: a `struct ifreq` of 40 bytes.
        let made = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        // SAFETY: the request reads an int.
        let set = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header_bytes) };
        if (made, set) == (0, 0) { Ok(tap) } else { Err(std::io::Error::last_os_error()) }
    };
    std::thread::spawn(make).join().unwrap()
}

/// Waits for the end of a child; says how it ended and how many bytes it had in memory at most.
pub fn wait(child: &Child) -> (ExitStatus, u64) {
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both places are this function's own and of the types that the call fills.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, pid, "{}", std::io::Error::last_os_error());
    // SAFETY: all-zero bytes are a rusage, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    (ExitStatus::from_raw(status), u64::try_from(usage.ru_maxrss).unwrap() << 10)
}
