//! Who a guest may say that it is. Every frame of a guest is judged here before the host's kernel sees it.
//!
//! The rules, in their order; what none of them permits is dropped and counted by kind:
//!
//! 1. The source hardware address is the guest's own.
//! 2. The frame is IPv4, IPv6 or ARP. A VLAN tag, a length in place of a type (spanning tree) and
//!    every other type could carry a packet past the rules below.
//! 3. ARP: for IPv4 over Ethernet, a request or an answer, from the guest's hardware address; when
//!    addresses are given, from one of them, or a probe from 0.0.0.0 (RFC 5227).
//! 4. IPv4: when addresses are given, from one of them. From 0.0.0.0 only what a DHCP client
//!    broadcasts before it has an address (UDP 68 to 67, no fragment). Never what a DHCP server says.
//! 5. IPv6: when addresses are given, from one of them or from the link-local address that belongs to
//!    the hardware address. From `::` only what duplicate address detection needs: a neighbour
//!    solicitation for an own address, a router solicitation, a multicast listener report.
//! 6. Neighbour discovery, behind extension headers as well: link-layer options name the guest's
//!    hardware address, an advertisement is of an own address, and a guest is no router.
//!
//! A later fragment and whatever a packet carries inside are judged by their outer source alone: a
//! receiver ignores neighbour discovery in fragments (RFC 6980).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Dropped;
use super::frame::{
    ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_ICMPV6, PROTOCOL_UDP,
    bytes_at, ethertype, ipv4_header_bytes, u8_at, u16_at,
};

const IPV6_BYTES: usize = 40;
/// More extension headers than any packet has.
const EXTENSIONS_MAX: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_REPORT_2: u8 = 143;

type Verdict = Result<(), Dropped>;

/// What a guest is called. Without addresses, only hardware addresses are enforced.
#[derive(Debug)]
pub struct Guard {
    mac: [u8; 6],
    link_local: Ipv6Addr,
    addresses: Box<[IpAddr]>,
}

/// A field that must be there.
fn need<T>(field: Option<T>) -> Result<T, Dropped> {
    field.ok_or(Dropped::Malformed)
}

fn permit(permitted: bool, otherwise: Dropped) -> Verdict {
    if permitted { Ok(()) } else { Err(otherwise) }
}

impl Guard {
    pub fn new(mac: [u8; 6], addresses: Box<[IpAddr]>) -> Self {
        // RFC 4291, appendix A.
        let [m0, m1, m2, m3, m4, m5] = mac;
        let interface = [m0 ^ 2, m1, m2, 0xff, 0xfe, m3, m4, m5];
        let mut link_local = [0; 16];
        for (to, from) in link_local.iter_mut().zip([0xfe, 0x80]) {
            *to = from;
        }
        for (to, from) in link_local.iter_mut().skip(8).zip(interface) {
            *to = from;
        }
        Self { mac, link_local: link_local.into(), addresses }
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.is_empty()
            || self.addresses.contains(&address)
            || address == IpAddr::V6(self.link_local)
    }

    /// Judges an Ethernet frame that the guest sends.
    pub fn judge(&self, frame: &[u8]) -> Verdict {
        let source: [u8; 6] = need(bytes_at(frame, 6))?;
        permit(source == self.mac, Dropped::Mac)?;
        match need(ethertype(frame))? {
            ETHERTYPE_IPV4 => self.judge_ipv4(frame),
            ETHERTYPE_IPV6 => self.judge_ipv6(frame),
            ETHERTYPE_ARP => self.judge_arp(frame),
            _ => Err(Dropped::Protocol),
        }
    }

    fn judge_arp(&self, frame: &[u8]) -> Verdict {
        // Hardware Ethernet, protocol IPv4, of 6 and 4 bytes (RFC 826).
        let kind: [u8; 6] = need(bytes_at(frame, ETHERNET_BYTES))?;
        permit(kind == [0, 1, 8, 0, 6, 4], Dropped::Protocol)?;
        let operation = need(u16_at(frame, 20))?;
        permit(matches!(operation, 1 | 2), Dropped::Protocol)?;
        let hardware: [u8; 6] = need(bytes_at(frame, 22))?;
        permit(hardware == self.mac, Dropped::Mac)?;
        let sender = Ipv4Addr::from(need(bytes_at::<4>(frame, 28))?);
        need(bytes_at::<10>(frame, 32))?;
        let probe = operation == 1 && sender.is_unspecified();
        permit(probe || self.is_own(sender.into()), Dropped::Address)
    }

    fn judge_ipv4(&self, frame: &[u8]) -> Verdict {
        let header = need(ipv4_header_bytes(frame, ETHERNET_BYTES))?;
        let payload = header.saturating_add(ETHERNET_BYTES);
        let protocol = need(u8_at(frame, 23))?;
        let fragment = need(u16_at(frame, 20))?;
        let source = Ipv4Addr::from(need(bytes_at::<4>(frame, 26))?);
        let mut ports = None;
        if protocol == PROTOCOL_UDP && fragment & FRAGMENT_OFFSET == 0 {
            ports = Some((
                need(u16_at(frame, payload))?,
                need(u16_at(frame, payload.saturating_add(2)))?,
            ));
        }
        // A first fragment is enough to be believed by some, so it is not believed here.
        permit(ports.is_none_or(|(from, _)| from != DHCP_SERVER), Dropped::Protocol)?;
        if source.is_unspecified() {
            let to = Ipv4Addr::from(need(bytes_at::<4>(frame, 30))?);
            let whole = fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0;
            let asks = ports == Some((DHCP_CLIENT, DHCP_SERVER)) && to.is_broadcast() && whole;
            return permit(asks, Dropped::Address);
        }
        permit(self.is_own(source.into()), Dropped::Address)
    }

    fn judge_ipv6(&self, frame: &[u8]) -> Verdict {
        let packet = need(frame.get(ETHERNET_BYTES..))?;
        permit(need(u8_at(packet, 0))? >> 4 == 6, Dropped::Malformed)?;
        let source = Ipv6Addr::from(need(bytes_at::<16>(packet, 8))?);
        need(bytes_at::<16>(packet, 24))?;
        let upper = upper_layer(packet)?;
        if !source.is_unspecified() {
            permit(self.is_own(source.into()), Dropped::Address)?;
        }
        match upper {
            Some((PROTOCOL_ICMPV6, message)) => self.judge_icmpv6(source, message),
            _ => permit(!source.is_unspecified(), Dropped::Address),
        }
    }

    fn judge_icmpv6(&self, source: Ipv6Addr, message: &[u8]) -> Verdict {
        let kind = need(u8_at(message, 0))?;
        let unspecified = source.is_unspecified();
        match kind {
            ROUTER_ADVERTISEMENT | REDIRECT => Err(Dropped::Protocol),
            ROUTER_SOLICITATION => self.judge_options(message, 8, unspecified),
            NEIGHBOUR_SOLICITATION => {
                let target = Ipv6Addr::from(need(bytes_at::<16>(message, 8))?);
                permit(!unspecified || self.is_own(target.into()), Dropped::Address)?;
                self.judge_options(message, 24, unspecified)
            }
            NEIGHBOUR_ADVERTISEMENT => {
                let target = Ipv6Addr::from(need(bytes_at::<16>(message, 8))?);
                permit(!unspecified && self.is_own(target.into()), Dropped::Address)?;
                self.judge_options(message, 24, false)
            }
            _ => permit(!unspecified || kind == LISTENER_REPORT_2, Dropped::Address),
        }
    }

    /// Options from `at` on: a link-layer address, of source or target, is the guest's own. What comes
    /// from nobody has none (RFC 4861, section 4.3).
    fn judge_options(&self, message: &[u8], at: usize, nobody: bool) -> Verdict {
        let mut rest = need(message.get(at..))?;
        while let Some(kind) = u8_at(rest, 0) {
            let units = usize::from(need(u8_at(rest, 1))?);
            let (option, later) = need(rest.split_at_checked(units.saturating_mul(8)))?;
            permit(units != 0, Dropped::Malformed)?;
            if matches!(kind, 1 | 2) {
                let address: [u8; 6] = need(bytes_at(option, 2))?;
                permit(units == 1 && address == self.mac && !nobody, Dropped::Mac)?;
            }
            rest = later;
        }
        Ok(())
    }
}

/// Protocol and bytes of what is behind the extension headers of an IPv6 packet; `None` for a fragment
/// and for what has no next header.
fn upper_layer(packet: &[u8]) -> Result<Option<(u8, &[u8])>, Dropped> {
    let mut next = need(u8_at(packet, 6))?;
    let payload = usize::from(need(u16_at(packet, 4))?);
    let end = IPV6_BYTES.saturating_add(payload).min(packet.len());
    // A length of 0 is a jumbogram's, or of a segment that the host's kernel cuts.
    let end = if payload == 0 { packet.len() } else { end };
    let mut rest = need(packet.get(IPV6_BYTES..end))?;
    for _ in 0..EXTENSIONS_MAX {
        let bytes = match next {
            // Hop-by-hop, routing, destination options, mobility, host identity, shim6: units of 8
            // beyond the first.
            0 | 43 | 60 | 135 | 139 | 140 => {
                usize::from(need(u8_at(rest, 1))?).saturating_add(1).saturating_mul(8)
            }
            // Authentication: units of 4 beyond the first two.
            51 => usize::from(need(u8_at(rest, 1))?).saturating_add(2).saturating_mul(4),
            44 | 59 => return Ok(None),
            protocol => return Ok(Some((protocol, rest))),
        };
        next = need(u8_at(rest, 0))?;
        rest = need(rest.get(bytes..))?;
    }
    Err(Dropped::Malformed)
}
