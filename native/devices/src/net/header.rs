//! `struct virtio_net_hdr_v1` (virtio 1.2, section 5.1.6): what a driver asks to be done to a frame.
//!
//! The host's kernel believes what is written here when the frame comes to it through the tap, so it
//! never gets the driver's header, only one that is made anew from fields which fit the frame. What a
//! header of a frame that goes to the guest says comes from the host's kernel; it is compared with
//! what the driver said that it understands.

use super::Dropped;
use super::frame::{
    ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, ethertype, ipv4_header_bytes,
    u8_at,
};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;
/// Offset of `num_buffers`.
pub const BUFFERS_OFFSET: u32 = 10;

pub const FEATURE_CSUM: u64 = 1;
pub const FEATURE_GUEST_CSUM: u64 = 1 << 1;
pub const FEATURE_GUEST_TSO4: u64 = 1 << 7;
pub const FEATURE_GUEST_TSO6: u64 = 1 << 8;
pub const FEATURE_HOST_TSO4: u64 = 1 << 11;
pub const FEATURE_HOST_TSO6: u64 = 1 << 12;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Of a TCP header.
const TCP_CSUM_OFFSET: u16 = 16;
const IPV6_BYTES: usize = 40;

/// Makes the header that the host's kernel gets with `frame`, from the driver's.
///
/// # Errors
/// [`Dropped::Malformed`] for what the driver did not take as a feature or what does not fit the frame.
pub fn to_host(
    header: [u8; HEADER_BYTES],
    frame: &[u8],
    features: u64,
    mtu: u16,
) -> Result<[u8; HEADER_BYTES], Dropped> {
    let [flags, gso, _, _, s0, s1, c0, c1, o0, o1, _, _] = header;
    let (size, start, offset) =
        (u16::from_le_bytes([s0, s1]), u16::from_le_bytes([c0, c1]), u16::from_le_bytes([o0, o1]));
    let needs_csum = flags & FLAG_NEEDS_CSUM != 0;
    if needs_csum {
        let end = usize::from(start).saturating_add(usize::from(offset)).saturating_add(2);
        let fits = usize::from(start) >= ETHERNET_BYTES && end <= frame.len();
        if features & FEATURE_CSUM == 0 || !fits {
            return Err(Dropped::Malformed);
        }
    }
    let one_frame = usize::from(mtu).saturating_add(ETHERNET_BYTES);
    if gso == GSO_NONE {
        if frame.len() > one_frame {
            return Err(Dropped::Malformed);
        }
        let (start, offset) = if needs_csum { (start, offset) } else { (0, 0) };
        return Ok(build(u8::from(needs_csum), gso, [0, 0, start, offset]));
    }
    let wanted = match gso {
        GSO_TCPV4 => FEATURE_HOST_TSO4,
        GSO_TCPV6 => FEATURE_HOST_TSO6,
        _ => return Err(Dropped::Malformed),
    };
    if features & wanted == 0 || !needs_csum || offset != TCP_CSUM_OFFSET {
        return Err(Dropped::Malformed);
    }
    let headers = tcp_headers(gso, frame, start).ok_or(Dropped::Malformed)?;
    if size == 0 || usize::from(headers).saturating_add(usize::from(size)) > one_frame {
        return Err(Dropped::Malformed);
    }
    Ok(build(FLAG_NEEDS_CSUM, gso, [headers, size, start, offset]))
}

/// Bytes of all headers of a TCP segment whose TCP header is said to be at `start`; `None` when it is
/// not there. The driver's `hdr_len` is a hint that nobody has to believe (virtio 1.2, section
/// 5.1.6.2), and too small a one has overrun hosts before.
fn tcp_headers(gso: u8, frame: &[u8], start: u16) -> Option<u16> {
    let start_at = usize::from(start);
    let there = match (gso, ethertype(frame)?) {
        (GSO_TCPV4, ETHERTYPE_IPV4) => {
            let network = ipv4_header_bytes(frame, ETHERNET_BYTES)?;
            u8_at(frame, 23)? == PROTOCOL_TCP && start_at == ETHERNET_BYTES.checked_add(network)?
        }
        // Nothing between the IPv6 header and TCP: Linux makes no others.
        (GSO_TCPV6, ETHERTYPE_IPV6) => {
            u8_at(frame, 20)? == PROTOCOL_TCP
                && start_at == ETHERNET_BYTES.checked_add(IPV6_BYTES)?
        }
        _ => false,
    };
    let words = u16::from(u8_at(frame, start_at.checked_add(12)?)? >> 4);
    let headers = start.checked_add(words.checked_mul(4)?)?;
    (there && words >= 5 && usize::from(headers) < frame.len()).then_some(headers)
}

/// `numbers`: `hdr_len`, `gso_size`, `csum_start`, `csum_offset`.
fn build(flags: u8, gso: u8, numbers: [u16; 4]) -> [u8; HEADER_BYTES] {
    let [[h0, h1], [s0, s1], [c0, c1], [o0, o1]] = numbers.map(u16::to_le_bytes);
    [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
}

/// Whether a driver with these features understands a header of the host's kernel.
pub fn understood(header: [u8; HEADER_BYTES], features: u64) -> bool {
    let [flags, gso, ..] = header;
    let needed = match gso {
        GSO_NONE => 0,
        GSO_TCPV4 => FEATURE_GUEST_TSO4,
        GSO_TCPV6 => FEATURE_GUEST_TSO6,
        _ => return false,
    };
    let csum = if flags & FLAG_NEEDS_CSUM == 0 { 0 } else { FEATURE_GUEST_CSUM };
    let known = flags & !(FLAG_NEEDS_CSUM | FLAG_DATA_VALID) == 0;
    known && features & (needed | csum) == needed | csum
}
