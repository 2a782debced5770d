//! The kernel's messages about interfaces and addresses (rtnetlink(7)), as far as init needs them.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Sets or makes an interface.
pub const RTM_NEWLINK: u16 = 16;
/// Describes an interface.
pub const RTM_GETLINK: u16 = 18;
/// Gives an interface an address.
pub const RTM_NEWADDR: u16 = 20;
/// Makes a route.
pub const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const HEADER_BYTES: usize = 16;

/// An open conversation.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

/// What is asked: a fixed part, and attributes behind it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `RTM_*`.
    pub kind: u16,
    /// `struct ifinfomsg`, `struct ifaddrmsg` or `struct rtmsg`.
    pub body: &'a [u8],
    /// Numbers and values.
    pub attributes: &'a [(u16, &'a [u8])],
}

impl Netlink {
    /// Begins one.
    ///
    /// # Errors
    /// What the kernel answers, in particular when it is built without networking.
    pub fn open() -> Result<Self, Errno> {
        // Protocol 0 of netlink is NETLINK_ROUTE.
        let kind = (AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC);
        socket_with(kind.0, kind.1, kind.2, None).map(Self)
    }

    /// Has something done.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn change(&self, request: &Request<'_>) -> Result<(), Errno> {
        let is_new = matches!(request.kind, RTM_NEWADDR | RTM_NEWROUTE);
        let new = if is_new { NLM_F_CREATE_EXCL } else { 0 };
        self.ask(request, NLM_F_ACK | new).map(|_| ())
    }

    /// Asks for an object; answers the first bytes behind its header.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn get(&self, request: &Request<'_>) -> Result<[u8; 16], Errno> {
        self.ask(request, 0)
    }

    fn ask(&self, request: &Request<'_>, flags: u16) -> Result<[u8; 16], Errno> {
        send(&self.0, &message(request, flags | NLM_F_REQUEST), SendFlags::empty())?;
        // What is longer is cut: nothing behind the fixed part is wanted.
        let mut answer = [0_u8; 64];
        let (count, _) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        let answer = answer.get(..count).ok_or(Errno::BADMSG)?;
        let kind = answer.get(4..6).and_then(|bytes| bytes.first_chunk());
        let body = answer.get(HEADER_BYTES..).ok_or(Errno::BADMSG)?;
        if kind == Some(&NLMSG_ERROR.to_ne_bytes()) {
            // The negative error number, zero for success.
            let number = body.first_chunk().ok_or(Errno::BADMSG)?;
            return match i32::from_ne_bytes(*number) {
                0 => Ok([0; 16]),
                negative => Err(Errno::from_raw_os_error(negative.saturating_neg())),
            };
        }
        body.first_chunk().copied().ok_or(Errno::BADMSG)
    }
}

fn message(request: &Request<'_>, flags: u16) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(request.kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and port: one question at a time, of one socket.
    bytes.extend([0; 8]);
    bytes.extend(request.body);
    for (number, value) in request.attributes {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX).saturating_add(4);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_ne_bytes();
    for (to, from) in bytes.iter_mut().zip(length) {
        *to = from;
    }
    bytes
}
