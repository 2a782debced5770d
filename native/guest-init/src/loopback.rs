//! The loopback interface: every program expects 127.0.0.1 to be there, and no other interface is
//! init's business.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`: sets `IFF_UP` of interface 1, which the kernel makes
/// before any other (rtnetlink(7): struct nlmsghdr, then struct ifinfomsg).
const UP: [u8; 32] = [
    32, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
];

/// Brings the loopback interface up.
///
/// # Errors
/// What the kernel answers, in particular when it is built without networking.
pub fn bring_up() -> Result<(), Errno> {
    // Protocol 0 of netlink is NETLINK_ROUTE.
    let kind = (AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = socket_with(kind.0, kind.1, kind.2, None)?;
    send(&socket, &UP, SendFlags::empty())?;
    let mut answer = [0_u8; 64];
    let (count, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // An NLMSG_ERROR: 16 bytes of header, then the negative error number, zero for success.
    let number = answer.get(..count).and_then(|bytes| bytes.get(16..)?.first_chunk::<4>());
    match number.map(|bytes| i32::from_le_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(negative) => Err(Errno::from_raw_os_error(negative.saturating_neg())),
        None => Err(Errno::BADMSG),
    }
}
