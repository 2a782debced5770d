//! What a guest may put on the wire, and what it may ask the host's kernel to do with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use casemate_devices::Counters;

use crate::guest::Random;
use crate::net::{Card, HEADER, MAC, frame};

const OURS: [&str; 2] = ["10.0.0.7", "fd00::7"];
const LINK_LOCAL: &str = "fe80::ca:5eff:fe00:7";
const OTHER: [u8; 6] = [0x02, 0xca, 0x5e, 0, 0, 8];

/// Names of what dropped something, in order of the counters.
fn dropped(counters: &Counters) -> Vec<&'static str> {
    [
        ("malformed", counters.dropped_malformed),
        ("mac", counters.dropped_mac),
        ("address", counters.dropped_address),
        ("protocol", counters.dropped_protocol),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, _)| name)
    .collect()
}

/// What becomes of a frame: "sent", or what dropped it.
fn fate(addresses: &[&str], frame: &[u8]) -> &'static str {
    fate_with(addresses, [0; HEADER], frame)
}

fn fate_with(addresses: &[&str], header: [u8; HEADER], frame: &[u8]) -> &'static str {
    let mut card = Card::new(addresses);
    card.send_with(header, frame);
    assert_eq!(card.guest.transport.fault(), None);
    assert_eq!(card.guest.used(1).len(), 1);
    match (card.sent(), dropped(&card.counters()).as_slice()) {
        (Some(bytes), []) => {
            assert_eq!(&bytes[HEADER..], frame);
            "sent"
        }
        (None, [why]) => why,
        other => panic!("{other:?}"),
    }
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [[0xff; 6].as_slice(), &MAC, &kind.to_be_bytes(), payload].concat()
}

fn ipv4(from: &str, protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet.extend(from.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend([255; 4]);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

fn ipv6(from: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 255];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend(from.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend("ff02::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// A neighbour discovery message about `target`, with link-layer options.
fn discovery(kind: u8, target: &str, options: &[(u8, [u8; 6])]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != 133 {
        message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    }
    for (option, address) in options {
        message.extend([*option, 1]);
        message.extend(address);
    }
    message
}

fn arp(operation: u16, hardware: [u8; 6], sender: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(hardware);
    packet.extend(sender);
    packet.extend([0; 10]);
    ethernet(0x0806, &packet)
}

#[test]
fn a_frame_comes_from_the_guests_own_hardware_address() {
    assert_eq!(fate(&[], &frame(60)), "sent");
    assert_eq!(fate(&OURS, &frame(60)), "sent");
    for byte in 6..12 {
        let mut forged = frame(60);
        forged[byte] ^= 1;
        assert_eq!(fate(&[], &forged), "mac");
        assert_eq!(fate(&OURS, &forged), "mac");
    }
}

#[test]
fn only_ip_and_arp_and_no_vlan() {
    for kind in [0x8100, 0x88a8, 0x9100, 0x0026, 0x8847, 0x8864, 0x88cc, 0x888e, 0x8035, 0x0801] {
        assert_eq!(fate(&[], &ethernet(kind, &[0; 46])), "protocol", "{kind:x}");
    }
}

#[test]
fn ipv4_comes_from_an_address_of_the_guest() {
    assert_eq!(fate(&OURS, &ipv4("10.0.0.7", 17, 0, &udp(9, 9))), "sent");
    for other in ["10.0.0.8", "127.0.0.1", "255.255.255.255", "169.254.0.1"] {
        assert_eq!(fate(&OURS, &ipv4(other, 17, 0, &udp(9, 9))), "address", "{other}");
        assert_eq!(fate(&[], &ipv4(other, 17, 0, &udp(9, 9))), "sent", "{other}");
    }
    // Fragments and what is inside a tunnel are judged by the source that is outside.
    assert_eq!(fate(&OURS, &ipv4("10.0.0.7", 17, 0x2000, &udp(9, 9))), "sent");
    assert_eq!(fate(&OURS, &ipv4("10.0.0.7", 17, 0x0010, &[1])), "sent");
    assert_eq!(fate(&OURS, &ipv4("10.0.0.8", 17, 0x0010, &[1])), "address");
    assert_eq!(fate(&OURS, &ipv4("10.0.0.7", 4, 0, &[0x45; 20])), "sent");
    let mut cut = ipv4("10.0.0.7", 6, 0, &[]);
    for version in [0x35, 0x65, 0x44, 0x46, 0x00] {
        cut[14] = version;
        assert_eq!(fate(&OURS, &cut), "malformed", "{version:x}");
    }
}

#[test]
fn a_dhcp_client_may_ask_and_nobody_may_answer() {
    for addresses in [&OURS[..], &[]] {
        assert_eq!(fate(addresses, &ipv4("0.0.0.0", 17, 0, &udp(68, 67))), "sent");
        assert_eq!(fate(addresses, &ipv4("0.0.0.0", 17, 0x4000, &udp(68, 67))), "sent");
        for (protocol, flags, ports) in [
            (17, 0, udp(68, 53)),
            (17, 0, udp(53, 67)),
            (17, 0x2000, udp(68, 67)),
            (17, 1, udp(68, 67)),
            (6, 0, udp(68, 67)),
        ] {
            let asks = ipv4("0.0.0.0", protocol, flags, &ports);
            assert_eq!(fate(addresses, &asks), "address", "{protocol} {flags} {ports:?}");
        }
        let mut unicast = ipv4("0.0.0.0", 17, 0, &udp(68, 67));
        unicast[33] = 1;
        assert_eq!(fate(addresses, &unicast), "address");
        assert_eq!(fate(addresses, &ipv4("10.0.0.7", 17, 0, &udp(67, 68))), "protocol");
        assert_eq!(fate(addresses, &ipv4("10.0.0.7", 17, 0x2000, &udp(67, 68))), "protocol");
    }
}

#[test]
fn arp_says_who_the_guest_is() {
    for operation in [1, 2] {
        assert_eq!(fate(&OURS, &arp(operation, MAC, [10, 0, 0, 7])), "sent");
        assert_eq!(fate(&OURS, &arp(operation, MAC, [10, 0, 0, 1])), "address");
        assert_eq!(fate(&OURS, &arp(operation, OTHER, [10, 0, 0, 7])), "mac");
        assert_eq!(fate(&[], &arp(operation, OTHER, [10, 0, 0, 7])), "mac");
        assert_eq!(fate(&[], &arp(operation, MAC, [10, 0, 0, 1])), "sent");
    }
    assert_eq!(fate(&OURS, &arp(1, MAC, [0; 4])), "sent", "a probe");
    assert_eq!(fate(&OURS, &arp(2, MAC, [0; 4])), "address");
    assert_eq!(fate(&OURS, &arp(3, MAC, [10, 0, 0, 7])), "protocol");
    for at in 14..20 {
        let mut odd = arp(1, MAC, [10, 0, 0, 7]);
        odd[at] ^= 1;
        assert_eq!(fate(&OURS, &odd), "protocol");
    }
}

#[test]
fn ipv6_comes_from_an_address_of_the_guest() {
    for own in ["fd00::7", LINK_LOCAL] {
        assert_eq!(fate(&OURS, &ipv6(own, 17, &udp(9, 9))), "sent", "{own}");
    }
    for other in ["fd00::8", "fe80::1", "::1", "::ffff:10.0.0.7", "ff02::1"] {
        assert_eq!(fate(&OURS, &ipv6(other, 17, &udp(9, 9))), "address", "{other}");
        assert_eq!(fate(&[], &ipv6(other, 17, &udp(9, 9))), "sent", "{other}");
    }
    assert_eq!(fate(&OURS, &ipv6("::", 17, &udp(9, 9))), "address");
    assert_eq!(fate(&OURS, &ipv6("::", 44, &[58, 0, 0, 0, 0, 0, 0, 0])), "address");
    assert_eq!(fate(&OURS, &ipv6("fd00::7", 44, &[58, 0, 0, 0, 0, 0, 0, 0])), "sent");
    assert_eq!(fate(&OURS, &ipv6("fd00::8", 44, &[58, 0, 0, 0, 0, 0, 0, 0])), "address");
    let mut version = ipv6("fd00::7", 17, &udp(9, 9));
    version[14] = 0x45;
    assert_eq!(fate(&OURS, &version), "malformed");
}

#[test]
fn neighbour_discovery_is_about_the_guest_alone() {
    let icmp = |from: &str, message: &[u8]| fate(&OURS, &ipv6(from, 58, message));
    // Solicitations: of anybody, but with the guest's own hardware address.
    assert_eq!(icmp("fd00::7", &discovery(135, "fd00::1", &[(1, MAC)])), "sent");
    assert_eq!(icmp("fd00::7", &discovery(135, "fd00::1", &[(1, OTHER)])), "mac");
    assert_eq!(icmp("fd00::7", &discovery(135, "fd00::1", &[(14, OTHER), (1, OTHER)])), "mac");
    assert_eq!(icmp(LINK_LOCAL, &discovery(133, "", &[(1, MAC)])), "sent");
    assert_eq!(icmp(LINK_LOCAL, &discovery(133, "", &[(1, OTHER)])), "mac");
    // Advertisements: of itself.
    for own in ["fd00::7", LINK_LOCAL] {
        assert_eq!(icmp(own, &discovery(136, own, &[(2, MAC)])), "sent");
        assert_eq!(icmp(own, &discovery(136, own, &[])), "sent");
        assert_eq!(icmp(own, &discovery(136, own, &[(2, OTHER)])), "mac");
    }
    assert_eq!(icmp("fd00::7", &discovery(136, "fd00::1", &[(2, MAC)])), "address");
    assert_eq!(icmp("::", &discovery(136, "fd00::7", &[])), "address");
    // A guest is no router.
    assert_eq!(icmp(LINK_LOCAL, &discovery(134, "fd00::1", &[])), "protocol");
    assert_eq!(icmp(LINK_LOCAL, &discovery(137, "fd00::1", &[])), "protocol");
    // Duplicate address detection, and what goes with it.
    assert_eq!(icmp("::", &discovery(135, "fd00::7", &[])), "sent");
    assert_eq!(icmp("::", &discovery(135, LINK_LOCAL, &[(14, OTHER)])), "sent");
    assert_eq!(icmp("::", &discovery(135, "fd00::1", &[])), "address");
    assert_eq!(icmp("::", &discovery(135, "fd00::7", &[(1, MAC)])), "mac");
    assert_eq!(icmp("::", &discovery(133, "", &[])), "sent");
    assert_eq!(icmp("::", &[143, 0, 0, 0, 0, 0, 0, 0]), "sent");
    assert_eq!(icmp("::", &[128, 0, 0, 0, 0, 0, 0, 0]), "address");
    // Options that end elsewhere than they say.
    let mut endless = discovery(135, "fd00::1", &[(1, MAC)]);
    endless[25] = 0;
    assert_eq!(icmp("fd00::7", &endless), "malformed");
    endless[25] = 2;
    assert_eq!(icmp("fd00::7", &endless), "malformed");
    endless.extend([0; 8]);
    assert_eq!(icmp("fd00::7", &endless), "mac", "an address of another length");
    // Hardware addresses are enforced without addresses too.
    let forged = ipv6("fd00::9", 58, &discovery(136, "fd00::9", &[(2, OTHER)]));
    assert_eq!(fate(&[], &forged), "mac");
}

/// Linux takes neighbour discovery behind extension headers for what it is.
#[test]
fn extension_headers_hide_nothing() {
    let forged = discovery(136, "fd00::1", &[(2, MAC)]);
    for (kind, units) in [(0_u8, 0_u8), (0, 3), (60, 1), (43, 0), (51, 4)] {
        let bytes =
            if kind == 51 { 4 * (2 + usize::from(units)) } else { 8 + usize::from(units) * 8 };
        let mut header = vec![0; bytes];
        header[0] = 58;
        header[1] = units;
        let hidden = [header, forged.clone()].concat();
        assert_eq!(fate(&OURS, &ipv6("fd00::7", kind, &hidden)), "address", "{kind} {units}");
        // A header that goes on beyond the packet.
        assert_eq!(fate(&OURS, &ipv6("fd00::7", kind, &[58, 255])), "malformed");
    }
    let chain = |count: usize| {
        let mut headers: Vec<u8> = (0..count).flat_map(|_| [60, 0, 0, 0, 0, 0, 0, 0]).collect();
        let last = headers.len() - 8;
        headers[last] = 58;
        [headers, forged.clone()].concat()
    };
    assert_eq!(fate(&OURS, &ipv6("fd00::7", 60, &chain(7))), "address");
    assert_eq!(fate(&OURS, &ipv6("fd00::7", 60, &chain(100))), "malformed");
    // What is behind the packet's own end is not part of it.
    let mut behind = ipv6("fd00::7", 58, &discovery(135, "fd00::1", &[]));
    behind.extend([1, 1, 9, 9, 9, 9, 9, 9]);
    assert_eq!(fate(&OURS, &behind), "sent");
}

#[test]
fn whatever_is_cut_short_is_dropped() {
    let all = [
        ipv4("0.0.0.0", 17, 0, &udp(68, 67)),
        ipv6("fd00::7", 58, &discovery(135, "fd00::1", &[(1, MAC)])),
        ipv6("::", 58, &discovery(135, "fd00::7", &[])),
        arp(1, MAC, [10, 0, 0, 7]),
    ];
    for whole in all {
        assert_eq!(fate(&OURS, &whole), "sent");
        for len in 1..whole.len() {
            let cut = fate(&OURS, &whole[..len]);
            // UDP needs its ports only, and a message may end before an option begins.
            let ends_well = cut == "sent" && (len >= whole.len() - 4 || whole.len() - len == 8);
            assert!(cut == "malformed" || ends_well, "{len} of {}: {cut}", whole.len());
        }
    }
}

fn header(flags: u8, gso: u8, numbers: [u16; 4]) -> [u8; HEADER] {
    let mut header = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (index, number) in numbers.into_iter().enumerate() {
        header[2 + index * 2..4 + index * 2].copy_from_slice(&number.to_le_bytes());
    }
    header
}

/// What the host's kernel gets as header.
fn passed(given: [u8; HEADER], frame: &[u8]) -> Option<[u8; HEADER]> {
    let mut card = Card::new(&[]);
    card.send_with(given, frame);
    let sent = card.sent().map(|bytes| bytes[..HEADER].try_into().unwrap());
    assert_eq!(card.counters().dropped_malformed, u64::from(sent.is_none()));
    sent
}

#[test]
fn a_checksum_is_asked_for_inside_the_frame() {
    let frame = frame(60);
    assert_eq!(passed(header(1, 0, [0, 0, 34, 16]), &frame), Some(header(1, 0, [0, 0, 34, 16])));
    assert_eq!(passed(header(1, 0, [0, 0, 42, 16]), &frame), Some(header(1, 0, [0, 0, 42, 16])));
    for (start, offset) in [(42, 17), (43, 16), (60, 0), (65_535, 65_535), (0, 16), (13, 16)] {
        assert_eq!(passed(header(1, 0, [0, 0, start, offset]), &frame), None, "{start} {offset}");
    }
    // What nobody asked for is not passed on: numbers without a flag, flags that mean "it is good".
    assert_eq!(passed(header(0, 0, [9, 9, 34, 16]), &frame), Some(header(0, 0, [0; 4])));
    assert_eq!(passed(header(0xfe, 0, [0; 4]), &frame), Some(header(0, 0, [0; 4])));
}

fn segment(kind: u16, len: usize) -> (Vec<u8>, u16) {
    let mut frame = frame(len);
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
    let tcp = if kind == 0x0800 { 34 } else { 54 };
    if kind == 0x86dd {
        frame[14] = 0x60;
        frame[20] = 6;
    }
    frame[tcp + 12] = 0x80;
    (frame, tcp as u16)
}

#[test]
fn a_segment_is_cut_where_its_headers_end() {
    for (kind, gso) in [(0x0800, 1), (0x86dd, 4)] {
        let (frame, tcp) = segment(kind, 20_000);
        let headers = tcp + 32;
        for hint in [0, 1, headers, 65_535] {
            let sent = passed(header(1, gso, [hint, 1000, tcp, 16]), &frame);
            assert_eq!(sent, Some(header(1, gso, [headers, 1000, tcp, 16])), "{hint}");
        }
        for (flags, kind_of, size, start, offset) in [
            (0, gso, 1000, tcp, 16),
            (1, gso, 0, tcp, 16),
            (1, gso, 1515 - headers, tcp, 16),
            (1, gso, 65_535, tcp, 16),
            (1, gso, 1000, tcp + 1, 16),
            (1, gso, 1000, 14, 16),
            (1, gso, 1000, 19_990, 16),
            (1, gso, 1000, tcp, 6),
            (1, 5 - gso, 1000, tcp, 16),
            (1, gso | 0x80, 1000, tcp, 16),
            (1, 3, 1000, tcp, 16),
            (1, 5, 1000, tcp, 16),
            (1, 0, 1000, tcp, 16),
        ] {
            let given = header(flags, kind_of, [headers, size, start, offset]);
            assert_eq!(passed(given, &frame), None, "{given:?}");
        }
        let largest = header(1, gso, [headers, 1514 - headers, tcp, 16]);
        assert_eq!(passed(largest, &frame), Some(largest));
        for words in [0x00, 0x40, 0xf0] {
            let mut odd = frame[..usize::from(tcp) + 40].to_vec();
            odd[usize::from(tcp) + 12] = words;
            assert_eq!(passed(header(1, gso, [headers, 10, tcp, 16]), &odd), None, "{words:x}");
        }
        let mut udp = frame.clone();
        udp[if kind == 0x0800 { 23 } else { 20 }] = 17;
        assert_eq!(passed(header(1, gso, [headers, 1000, tcp, 16]), &udp), None);
    }
}

/// Whatever the bytes are: either nothing goes out, or a frame from the guest's hardware address whose
/// header fits it.
#[test]
fn random_frames_go_out_only_as_they_may() {
    let mut random = Random(0x51_7cc1_b727_220a);
    let (mut sent, mut card) = (0, Card::new(&OURS));
    for _ in 0..4000 {
        let mut bytes = match random.below(4) {
            0 => ipv6("fd00::7", 58, &discovery(135, "fd00::1", &[(1, MAC)])),
            1 => segment(0x0800, 200).0,
            2 => arp(1, MAC, [10, 0, 0, 7]),
            _ => ipv4("10.0.0.7", 17, 0, &udp(68, 67)),
        };
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(random.below(300) as usize + 1);
        let mut given = [0; HEADER];
        for _ in 0..random.below(5) {
            given[random.below(12) as usize] = random.pick(&[0, 1, 4, 16, 34, 54, 255]);
        }
        card.guest.transport.notify(1);
        card.send_with(given, &bytes);
        let Some(out) = card.sent() else { continue };
        sent += 1;
        let (head, frame) = out.split_at(HEADER);
        assert_eq!((frame, &frame[6..12]), (&bytes[..], &MAC[..]));
        let number = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        assert!(head[0] <= 1 && matches!(head[1], 0 | 1 | 4));
        assert!(head[0] == 0 || number(6) + number(8) + 2 <= frame.len());
        assert!(head[1] == 0 || (number(2) < frame.len() && number(4) > 0));
    }
    assert!(sent > 100, "{sent}");
    assert_eq!(card.guest.transport.fault(), None);
}
