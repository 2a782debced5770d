//! A pod's network (docs/formats.md section 2): who its card is on its tenant's bridge.

use std::fmt;
use std::net::IpAddr;

use crate::json::Value;
use crate::shape::{ShapeError, fields, integer, list, text, wrong};

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
    /// Locally administered, of one station.
    pub mac: [u8; 6],
    /// Bytes of the largest packet.
    pub mtu: u16,
}

impl Network {
    pub(crate) fn read(value: &Value) -> Result<Self, ShapeError> {
        let [addresses, mac, mtu] = fields(value, "network", ["addresses", "mac", "mtu"])?;
        let addresses = list(addresses, "network.addresses", ADDRESSES_MAX, read_address)?;
        let twice =
            |at: usize, one: &Address| addresses.iter().skip(at).skip(1).any(|o| o.ip == one.ip);
        if addresses.is_empty() || addresses.iter().enumerate().any(|(at, one)| twice(at, one)) {
            return Err(wrong("network.addresses", "must have one address at least, each once"));
        }
        let mtu = integer(mtu, "network.mtu", MTU)?;
        Ok(Self {
            addresses,
            mac: read_mac(mac)?,
            mtu: u16::try_from(mtu).map_err(|_| wrong("network.mtu", "must fit 16 bits"))?,
        })
    }
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

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "network_tests.rs"]
mod tests;
