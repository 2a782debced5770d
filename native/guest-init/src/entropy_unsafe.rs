//! Making the kernel's random numbers differ from those of every other machine restored from the
//! same template (random(4)).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// `_IOW('R', 0x03, int[2])`: mixes bytes in and credits their bits.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// `_IO('R', 0x07)`: what is handed out from now on comes from the pool as it is now.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info` with room for 64 bytes.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; 64],
}

/// Mixes in `nonce` without credit and `entropy` with all its bits, and reseeds the generator.
pub(crate) fn reseed(entropy: &[u8; 64], nonce: &[u8; 16]) -> io::Result<()> {
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/urandom")?;
    device.write_all(nonce)?;
    let info = PoolInfo { entropy_bits: 512, bytes: 64, buffer: *entropy };
    add(&device, &info)?;
    // SAFETY: this request takes no argument; the descriptor is open.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn add(device: &File, info: &PoolInfo) -> io::Result<()> {
    // SAFETY: the request reads a `rand_pool_info` whose buffer has as many bytes as it says.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const *info) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
