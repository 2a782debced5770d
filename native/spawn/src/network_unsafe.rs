//! Requests about network interfaces (netdevice(7), `if_tun.h`, `if_bridge.h`), which no library has: each takes a
//! `struct ifreq`, or what lies at its beginning.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

const NAME_BYTES: usize = 16;
const IFREQ_BYTES: usize = 40;

/// `SIOCDEVPRIVATE`, and `BRCTL_SET_AGEING_TIME`.
const BRIDGE_ORDER: libc::Ioctl = 0x89f0;
const SET_AGEING_TIME: libc::c_ulong = 11;

/// What is asked of a socket of the namespace, or of a tap's descriptor.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// Flags of the tap in the value; the kernel completes the name.
    MakeTap,
    /// Bytes of the header, an int in place of the name.
    SetHeader,
    /// Bytes of a packet in the value.
    SetMtu,
    /// Frames that may wait, in the value.
    SetQueue,
    /// Answers the number in the value.
    Index,
    /// Flags in the value.
    SetFlags,
    /// The name alone.
    MakeBridge,
    /// The name alone.
    RemoveBridge,
    /// The number of the port in the value.
    AddPort,
}

impl Request {
    const fn number(self) -> libc::Ioctl {
        match self {
            Self::MakeTap => 0x4004_54ca,
            Self::SetHeader => 0x4004_54d8,
            Self::SetMtu => 0x8922,
            Self::SetQueue => 0x8943,
            Self::Index => 0x8933,
            Self::SetFlags => 0x8914,
            Self::MakeBridge => 0x89a0,
            Self::RemoveBridge => 0x89a1,
            Self::AddPort => 0x89a2,
        }
    }
}

/// A `struct ifreq`: a name that ends in NUL, and a value.
#[derive(Clone, Copy, Debug)]
pub struct Argument([u8; IFREQ_BYTES]);

impl Argument {
    /// The interface `name`, cut to 15 bytes.
    pub fn named(name: &str) -> Self {
        let mut argument = Self([0; IFREQ_BYTES]);
        let end = NAME_BYTES.saturating_sub(1);
        for (to, from) in argument.0.iter_mut().take(end).zip(name.bytes()) {
            *to = from;
        }
        argument
    }

    /// These bytes at the beginning.
    pub fn bytes(bytes: &[u8]) -> Self {
        let mut argument = Self([0; IFREQ_BYTES]);
        for (to, from) in argument.0.iter_mut().zip(bytes) {
            *to = *from;
        }
        argument
    }

    /// With this value.
    pub fn with(mut self, value: &[u8]) -> Self {
        for (to, from) in self.0.iter_mut().skip(NAME_BYTES).zip(value) {
            *to = *from;
        }
        self
    }

    /// The name, as the kernel left it.
    pub fn name(&self) -> String {
        let name = self.0.iter().take(NAME_BYTES).take_while(|byte| **byte != 0);
        name.map(|byte| char::from(*byte)).collect()
    }

    /// The first four bytes of the value.
    pub fn value(&self) -> [u8; 4] {
        self.0.get(NAME_BYTES..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
    }
}

/// Makes one request.
///
/// # Errors
/// What the kernel answers.
pub fn request(
    descriptor: BorrowedFd<'_>,
    request: Request,
    argument: &mut Argument,
) -> io::Result<()> {
    // SAFETY: each of these requests reads and writes a `struct ifreq` at most, which the argument has room for.
    let result =
        unsafe { libc::ioctl(descriptor.as_raw_fd(), request.number(), argument.0.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has a bridge remember no address: frames go to all of its ports. What it learns is memory of the kernel that nobody is
/// charged for, without a bound before Linux 6.7, and whoever writes to a tap can say that frames are of any address.
///
/// # Errors
/// What the kernel answers.
pub fn forget_addresses(socket: BorrowedFd<'_>, bridge: &str) -> io::Result<()> {
    let mut orders: [libc::c_ulong; 4] = [SET_AGEING_TIME, 0, 0, 0];
    let mut argument = Argument::named(bridge).with(&orders.as_mut_ptr().addr().to_ne_bytes());
    // SAFETY: the request reads the four words that its argument points to, which live until it returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), BRIDGE_ORDER, argument.0.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Enters a new network namespace, with a loopback interface that is down.
///
/// # Errors
/// What unshare(2) says.
pub fn leave_network() -> io::Result<()> {
    // SAFETY: a network namespace changes no memory and no descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}
