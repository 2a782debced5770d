//! Loop devices (Linux, `include/uapi/linux/loop.h`): a file as a disk, for as long as it is mounted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `LOOP_CTL_GET_FREE`.
const GET_FREE: libc::Ioctl = 0x4C82;
/// `LOOP_CONFIGURE`, Linux 5.8.
const CONFIGURE: libc::Ioctl = 0x4C0A;
/// `LOOP_SET_CAPACITY`.
const SET_CAPACITY: libc::Ioctl = 0x4C07;
/// `LO_FLAGS_READ_ONLY`.
const READ_ONLY: u32 = 1;
/// `LO_FLAGS_AUTOCLEAR`: free again with its last user, however that ends.
const AUTOCLEAR: u32 = 4;
/// Others take devices at the same time.
const TRIES: u32 = 64;

/// `struct loop_info64`, of which only the flags are used.
#[repr(C)]
struct Info {
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

fn answer(code: libc::c_int) -> io::Result<libc::c_int> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

/// A disk of `file`. It goes with the last of this descriptor, others of it, and mounts.
///
/// # Errors
/// A kernel without loop devices, or none free.
pub fn attach(file: BorrowedFd<'_>, read_only: bool) -> io::Result<(File, String)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..TRIES {
        // SAFETY: the request takes no argument.
        let number = answer(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) })?;
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(!read_only).open(&path)?;
        match configure(&device, file, read_only) {
            Ok(()) => return Ok((device, path)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn configure(device: &File, file: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let flags = AUTOCLEAR | if read_only { READ_ONLY } else { 0 };
    let config = Config {
        fd: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
        block_size: 0,
        info: Info {
            numbers: [0; 5],
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            names: [0; 160],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one struct through the pointer, which lives until the call returns.
    answer(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) }).map(|_| ())
}

/// The disk has as many bytes as its file has now.
///
/// # Errors
/// What the kernel says.
pub fn take_size(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    answer(unsafe { libc::ioctl(device.as_raw_fd(), SET_CAPACITY) }).map(|_| ())
}
