//! What the kernel says of a tap, and the one thing that a VMM sets: no library has these requests (`if_tun.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const TUNGETIFF: libc::Ioctl = 0x8004_54d2;
const TUNGETVNETHDRSZ: libc::Ioctl = 0x8004_54d7;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
/// `sizeof(struct ifreq)`.
const IFREQ_BYTES: usize = 40;

/// What can be asked.
#[derive(Clone, Copy)]
enum Question {
    /// A `struct ifreq`: the name in its first 16 bytes, then flags.
    Interface,
    /// An `int`.
    HeaderBytes,
}

fn ask(tap: BorrowedFd<'_>, question: Question) -> io::Result<[u8; IFREQ_BYTES]> {
    let mut answer = [0_u8; IFREQ_BYTES];
    let request = match question {
        Question::Interface => TUNGETIFF,
        Question::HeaderBytes => TUNGETVNETHDRSZ,
    };
    // SAFETY: both requests write a `struct ifreq` at most, which the buffer holds; it is bytes, so any value is valid.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), request, answer.as_mut_ptr()) };
    if result == 0 { Ok(answer) } else { Err(io::Error::last_os_error()) }
}

/// The flags (`IFF_*`) that a tap was made with.
///
/// # Errors
/// `EBADFD` when the descriptor has no interface, `ENOTTY` when it is no tap.
pub fn flags(tap: BorrowedFd<'_>) -> io::Result<u16> {
    let answer = ask(tap, Question::Interface)?;
    let flags = answer.get(16..).and_then(|rest| rest.first_chunk());
    Ok(flags.map_or(0, |bytes| u16::from_ne_bytes(*bytes)))
}

/// Bytes of the header before each frame.
///
/// # Errors
/// What the kernel answers.
pub fn header_bytes(tap: BorrowedFd<'_>) -> io::Result<i32> {
    let answer = ask(tap, Question::HeaderBytes)?;
    Ok(answer.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes)))
}

/// Says which frames may come without checksum, or as segments that nobody cut (`TUN_F_*`).
///
/// # Errors
/// What the kernel answers.
pub fn set_offload(tap: BorrowedFd<'_>, offload: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the argument is a number; the kernel touches no memory of ours.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, offload) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
