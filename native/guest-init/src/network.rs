//! The machine's interfaces: loopback from the start, since every program expects 127.0.0.1; the card as the
//! configuration says, and not at all without one.
//!
//! The card's driver was told an address and a size when the template was made. Both are set here, and IPv6 is told
//! to believe no router and to look for no double: addresses are given out by the host, once each.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_ticket::network::{Address, Network};
use casemate_wire::payload::ErrorCode;
use rustix::io::Errno;

use crate::failure::{Failure, OrFailure};
use crate::netlink::{Netlink, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, Request};

/// The only network card.
pub const CARD: &str = "eth0";
const LOOPBACK_INDEX: u32 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
/// What IPv6 does by itself, and is not to do.
const OFF: [&str; 3] = ["accept_ra", "accept_dad", "autoconf"];
/// The host has connected the card before the guest ran; the driver hears of it by an interrupt.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);
const LINK_INTERVAL: Duration = Duration::from_millis(5);

/// Brings the loopback interface up, which the kernel makes before any other.
///
/// # Errors
/// What the kernel answers, in particular when it is built without networking.
pub fn bring_loopback_up() -> Result<(), Errno> {
    let body = interface(LOOPBACK_INDEX, IFF_UP);
    Netlink::open()?.change(&Request { kind: RTM_NEWLINK, body: &body, attributes: &[] })
}

/// Makes the interface `card` what `network` says, and waits until its link is up.
///
/// # Errors
/// [`ErrorCode::Network`] with the step that failed.
pub fn configure(card: &str, network: &Network) -> Result<(), Failure> {
    let step = |what: &str| format!("{what} of the network card");
    let netlink = Netlink::open().or_failure(ErrorCode::Network, "ask for the network card")?;
    let (index, _) =
        find(&netlink, card).or_failure(ErrorCode::Network, "find the network card")?;
    let set = |body: &[u8], attributes: &[(u16, &[u8])]| {
        netlink.change(&Request { kind: RTM_NEWLINK, body, attributes })
    };
    set(&interface(index, 0), &[(IFLA_ADDRESS, &network.mac)])
        .or_failure(ErrorCode::Network, step("set the hardware address"))?;
    set(&interface(index, 0), &[(IFLA_MTU, &u32::from(network.mtu).to_ne_bytes())])
        .or_failure(ErrorCode::Network, step("set the packet size"))?;
    let settings = Path::new("/proc/sys/net/ipv6/conf").join(card);
    for name in OFF {
        match fs::write(settings.join(name), "0") {
            // A kernel without IPv6 refuses its addresses below.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            written => written.or_failure(ErrorCode::Network, step("set up IPv6"))?,
        }
    }
    set(&interface(index, IFF_UP), &[]).or_failure(ErrorCode::Network, step("change the state"))?;
    for address in &network.addresses {
        add(&netlink, index, address)
            .or_failure(ErrorCode::Network, format!("give the network card {address}"))?;
    }
    wait_for_link(&netlink, card)?;
    network.gateways.iter().try_for_each(|gateway| {
        add_route(&netlink, index, *gateway)
            .or_failure(ErrorCode::Network, format!("make {gateway} the gateway"))
    })
}

fn interface(index: u32, flags: u32) -> [u8; 16] {
    let mut body = [0_u8; 16];
    let fields = [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()];
    for (to, from) in body.iter_mut().zip(fields.iter().flatten()) {
        *to = *from;
    }
    body
}

/// The number and flags of an interface.
fn find(netlink: &Netlink, name: &str) -> Result<(u32, u32), Errno> {
    let terminated = [name.as_bytes(), &[0]].concat();
    let attributes: [(u16, &[u8]); 1] = [(IFLA_IFNAME, &terminated)];
    let body = interface(0, 0);
    let found =
        netlink.get(&Request { kind: RTM_GETLINK, body: &body, attributes: &attributes })?;
    let field = |at: usize| found.get(at..).and_then(|rest| rest.first_chunk().copied());
    let [index, flags] = [4, 8].map(|at| field(at).map_or(0, u32::from_ne_bytes));
    Ok((index, flags))
}

fn add(netlink: &Netlink, index: u32, address: &Address) -> Result<(), Errno> {
    let (family, bytes) = match address.ip {
        IpAddr::V4(ip) => (FAMILY_IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILY_IPV6, ip.octets().to_vec()),
    };
    // struct ifaddrmsg: family, prefix, flags, scope, index.
    let body = [[family, address.prefix, 0, 0], index.to_ne_bytes()].concat();
    let flags = IFA_F_NODAD.to_ne_bytes();
    let attributes: [(u16, &[u8]); 3] =
        [(IFA_LOCAL, &bytes), (IFA_ADDRESS, &bytes), (IFA_FLAGS, &flags)];
    netlink.change(&Request { kind: RTM_NEWADDR, body: &body, attributes: &attributes })
}

/// The way to everything that is not on the card's own networks.
fn add_route(netlink: &Netlink, index: u32, gateway: IpAddr) -> Result<(), Errno> {
    let (family, bytes) = match gateway {
        IpAddr::V4(ip) => (FAMILY_IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILY_IPV6, ip.octets().to_vec()),
    };
    // struct rtmsg: family, prefixes of destination and source, service, table, protocol, scope, type, flags.
    let body = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    let card = index.to_ne_bytes();
    let attributes: [(u16, &[u8]); 2] = [(RTA_GATEWAY, &bytes), (RTA_OIF, &card)];
    netlink.change(&Request { kind: RTM_NEWROUTE, body: &body, attributes: &attributes })
}

/// An app that connects before the link is up would wait a second for its second try.
fn wait_for_link(netlink: &Netlink, card: &str) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let (_, flags) =
            find(netlink, card).or_failure(ErrorCode::Network, "look at the network card")?;
        if flags & IFF_LOWER_UP != 0 {
            return Ok(());
        }
        if begin.elapsed() > LINK_TIMEOUT {
            let text = "the network card's link did not come up";
            return Err(Failure::new(ErrorCode::Network, text));
        }
        sleep(LINK_INTERVAL);
    }
}
