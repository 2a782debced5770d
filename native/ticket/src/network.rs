//! A pod's network (docs/formats.md section 2): who its card is on its tenant's bridge, and who is its gateway.

use std::fmt;
use std::net::IpAddr;

use crate::json::Value;
use crate::published::{Published, read_ports};
use crate::rates::NetworkRates;
use crate::shape::{ShapeError, fields, integer, list, text, wrong};
use crate::ways::{Egress, Names, read_ip};

/// Most addresses of a card.
const ADDRESSES_MAX: usize = 8;
/// From the least that IPv6 takes (RFC 8200, section 5) to what a template's card offered its driver.
const MTU: std::ops::RangeInclusive<u64> = 1280..=1500;

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// An address that one host alone can have.
    pub ip: IpAddr,
    /// Bits of the network, at least 1.
    pub prefix: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.ip, self.prefix)
    }
}

/// A card and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// At least one, each once.
    pub addresses: Vec<Address>,
    /// What may be reached beside the tenant's pods; `None`: nothing.
    pub egress: Option<Egress>,
    /// Who everything else is handed to: at most one of each version, on a network of the card's addresses.
    pub gateways: Vec<IpAddr>,
    /// Locally administered, of one station.
    pub mac: [u8; 6],
    /// Bytes of the largest packet.
    pub mtu: u16,
    /// What the resolver is told.
    pub names: Names,
    /// Ports of the host that lead to the pod.
    pub ports: Vec<Published>,
    /// How much of the network it has.
    pub rates: NetworkRates,
}

impl Network {
    /// Reads the member `network`, of a spec or of what spawn writes down of a pod.
    ///
    /// # Errors
    /// What is not as docs/formats.md says.
    pub fn read(value: &Value) -> Result<Self, ShapeError> {
        let [addresses, egress, gateways, mac, mtu, names, ports, rates] = fields(
            value,
            "network",
            ["addresses", "egress", "gateways", "mac", "mtu", "names", "ports", "rates"],
        )?;
        let addresses = list(addresses, "network.addresses", ADDRESSES_MAX, read_address)?;
        let twice =
            |at: usize, one: &Address| addresses.iter().skip(at).skip(1).any(|o| o.ip == one.ip);
        if addresses.is_empty() || addresses.iter().enumerate().any(|(at, one)| twice(at, one)) {
            return Err(wrong("network.addresses", "must have one address at least, each once"));
        }
        let mtu = integer(mtu, "network.mtu", MTU)?;
        let gateways = list(gateways, "network.gateways", 2, read_ip)?;
        check_gateways(&gateways, &addresses)?;
        Ok(Self {
            egress: Egress::read(egress)?,
            gateways,
            mac: read_mac(mac)?,
            mtu: u16::try_from(mtu).map_err(|_| wrong("network.mtu", "must fit 16 bits"))?,
            names: Names::read(names)?,
            ports: read_ports(ports)?,
            rates: NetworkRates::read(rates)?,
            addresses,
        })
    }

    /// What [`Network::read`] reads.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let text = |text: String| Value::String(text);
        let addresses = self.addresses.iter().map(|one| text(one.to_string())).collect();
        let gateways = self.gateways.iter().map(|one| text(one.to_string())).collect();
        Value::object(vec![
            ("addresses".into(), Value::Array(addresses)),
            ("egress".into(), self.egress.as_ref().map_or(Value::Null, Egress::to_value)),
            ("gateways".into(), Value::Array(gateways)),
            ("mac".into(), text(mac_text(self.mac))),
            ("mtu".into(), Value::Integer(self.mtu.into())),
            ("names".into(), self.names.to_value()),
            ("ports".into(), Value::Array(self.ports.iter().map(|port| port.to_value()).collect())),
            ("rates".into(), self.rates.to_value()),
        ])
    }

    /// The prefix of the network on which `gateway` is.
    #[must_use]
    pub fn prefix_of(&self, gateway: IpAddr) -> Option<u8> {
        let on_it = self.addresses.iter().find(|address| address.reaches(gateway))?;
        Some(on_it.prefix)
    }
}

impl Address {
    /// Whether `other` is on this address's network, and another address of a host.
    fn reaches(&self, other: IpAddr) -> bool {
        let shift = u32::from(self.prefix);
        let on_it = match (self.ip, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u32::from(a) ^ u32::from(b)) & !u32::MAX.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b)) & !u128::MAX.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        };
        on_it && is_of_one_host(&Self { ip: other, prefix: self.prefix })
    }
}

fn check_gateways(gateways: &[IpAddr], addresses: &[Address]) -> Result<(), ShapeError> {
    let good = gateways.iter().all(|gateway| {
        addresses.iter().any(|address| address.reaches(*gateway))
            && !addresses.iter().any(|address| address.ip == *gateway)
    });
    let versions = |is_4: bool| gateways.iter().filter(|one| one.is_ipv4() == is_4).count();
    if good && versions(true) <= 1 && versions(false) <= 1 {
        return Ok(());
    }
    Err(wrong("network.gateways", "must be one of each version at most, on the card's networks"))
}

/// `address/prefix` in the one way that both are written (RFC 5952).
fn read_address(value: &Value, path: &str) -> Result<Address, ShapeError> {
    let written = text(value, path, 64)?;
    let parts = written.split_once('/');
    let address = parts.and_then(|(ip, prefix)| {
        Some(Address { ip: ip.parse().ok()?, prefix: prefix.parse().ok()? })
    });
    match address {
        Some(address) if address.to_string() == written && is_of_one_host(&address) => Ok(address),
        _ => {
            Err(wrong(path, "must be the address of one host, with its prefix, in canonical form"))
        }
    }
}

fn is_of_one_host(address: &Address) -> bool {
    match address.ip {
        IpAddr::V4(ip) => {
            let host = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
            // The first and the last address of a network are of nobody, but in the smallest (RFC 3021).
            let part = u32::from(ip) & host;
            let of_all = host > 1 && (part == 0 || part == host);
            let special = ip.is_loopback() || ip.is_link_local() || ip.is_multicast();
            // 0.0.0.0/8 and 240.0.0.0/4.
            let reserved = matches!(ip.octets(), [0 | 240..=255, ..]);
            matches!(address.prefix, 1..=32) && !of_all && !special && !reserved
        }
        IpAddr::V6(ip) => {
            let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
            let link_local = ip.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80);
            let mapped = ip.to_ipv4_mapped().is_some();
            matches!(address.prefix, 1..=128) && !special && !link_local && !mapped
        }
    }
}

/// Six pairs of lower-case hexadecimal digits with colons between.
fn read_mac(value: &Value) -> Result<[u8; 6], ShapeError> {
    let written = text(value, "network.mac", 17)?;
    let bytes: Option<Vec<u8>> =
        written.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    match mac {
        // Bit 0 of the first byte: of a group. Bit 1: of nobody's registry.
        Some(mac) if mac_text(mac) == written && mac.first().is_some_and(|b| b & 3 == 2) => Ok(mac),
        _ => Err(wrong("network.mac", "must be a locally administered address of one station")),
    }
}

/// Six pairs of hexadecimal digits.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "network_tests.rs"]
mod tests;
