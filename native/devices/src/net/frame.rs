//! Reading fields of a frame, which may end anywhere.

/// `N` bytes at `at`, when they are there.
pub fn bytes_at<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

/// One byte at `at`.
pub fn u8_at(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

/// Two bytes in network order at `at`.
pub fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    bytes_at(frame, at).map(u16::from_be_bytes)
}

pub const ETHERNET_BYTES: usize = 14;
pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_ICMPV6: u8 = 58;

/// The kind of an Ethernet frame.
pub fn ethertype(frame: &[u8]) -> Option<u16> {
    u16_at(frame, 12)
}

/// Bytes of the IPv4 header at `at`, options included; `None` when it is none or is cut.
pub fn ipv4_header_bytes(frame: &[u8], at: usize) -> Option<usize> {
    let first = u8_at(frame, at)?;
    let bytes = usize::from(first & 0x0f).checked_mul(4)?;
    let end = at.checked_add(bytes)?;
    (first >> 4 == 4 && bytes >= 20 && end <= frame.len()).then_some(bytes)
}
