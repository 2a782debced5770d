//! A network card between a driver and a tap. The tap is one end of a socket that keeps frames apart;
//! the test holds the other.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use casemate_devices::{
    BucketSize, Counters, Device, FRAME_BYTES_MAX, Fault, NET_RECEIVE_QUEUE as RX,
    NET_TRANSMIT_QUEUE as TX, Net, Network, Rate,
};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use crate::guest::{BUFFERS, Guest, NEXT, WRITE};

pub const MAC: [u8; 6] = [0x02, 0xca, 0x5e, 0, 0, 7];
const OTHER: [u8; 6] = [0x02, 0xca, 0x5e, 0, 0, 8];
pub const HEADER: usize = 12;
const SECOND: u64 = 1_000_000_000;
const GUEST_TSO4: u64 = 1 << 7;
const MERGE: u64 = 1 << 15;

/// A card with a network, and the host's end of it.
pub struct Card {
    pub guest: Guest,
    pub host: OwnedFd,
}

pub fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (tap, host) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    for end in [&tap, &host] {
        sockopt::set_socket_send_buffer_size(end, 1 << 17).unwrap();
    }
    (tap, host)
}

pub fn network(tap: OwnedFd, addresses: &[&str]) -> Network {
    Network {
        tap,
        mac: MAC,
        addresses: addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect(),
        mtu: 1500,
        receive: Rate::default(),
        transmit: Rate::default(),
    }
}

/// A card whose tap has a few frames, and is gone once they are read.
pub fn card_with_frames() -> Net {
    let (tap, host) = pair();
    for len in [HEADER + 1, 60, 1526, 9000] {
        write(&host, &vec![0; len]).unwrap();
    }
    let mut net = Net::new();
    assert!(net.connect(network(tap, &[])));
    net
}

impl Card {
    pub fn new(addresses: &[&str]) -> Self {
        Self::with(addresses, |network| network)
    }

    fn with(addresses: &[&str], change: impl FnOnce(Network) -> Network) -> Self {
        let (tap, host) = pair();
        let mut net = Net::new();
        assert!(net.connect(change(network(tap, addresses))));
        Self { guest: Guest::running(Device::Net(net)), host }
    }

    /// A driver that takes these features only.
    fn taking(features: u64) -> Self {
        let (tap, host) = pair();
        let mut net = Net::new();
        assert!(net.connect(network(tap, &[])));
        let mut guest = Guest::new(Device::Net(net));
        guest.set(0x70, 1);
        guest.set(0x70, 3);
        guest.take_features(features | 1 << 32);
        guest.set(0x70, 11);
        for queue in [RX, TX] {
            guest.configure(queue, crate::guest::Rings::of(queue, 256));
        }
        guest.set(0x70, 15);
        assert_eq!(guest.get(0x70), 15);
        Self { guest, host }
    }

    pub fn counters(&self) -> Counters {
        *self.guest.transport.counters()
    }

    /// Sends a frame behind a header of zeros.
    pub fn send(&mut self, frame: &[u8]) {
        self.send_with([0; HEADER], frame);
    }

    pub fn send_with(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let bytes = [header.as_slice(), frame].concat();
        self.guest.write(BUFFERS, &bytes);
        self.guest.send(TX, &[(BUFFERS, bytes.len() as u32, 0)]);
    }

    /// What came to the host: header and frame.
    pub fn sent(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 1 << 17];
        match read(&self.host, &mut bytes) {
            Ok(count) => Some(bytes[..count].to_vec()),
            Err(Errno::AGAIN) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// What the host has for the guest.
    pub fn deliver(&self, frame: &[u8]) -> Result<usize, Errno> {
        write(&self.host, &[[0; HEADER].as_slice(), frame].concat())
    }

    /// Gives the guest `count` buffers of `len` bytes, from descriptor `first` on, without a notification.
    fn offer(&mut self, first: u16, count: u16, len: u32) {
        for index in first..first + count {
            let at = BUFFERS + 0x10_0000 + u64::from(index) * 0x1000;
            self.guest.chain(RX, index, &[(at, len, WRITE)]);
            self.guest.publish(RX, index);
        }
    }

    fn buffer(&self, index: u32, len: usize) -> Vec<u8> {
        self.guest.bytes(BUFFERS + 0x10_0000 + u64::from(index) * 0x1000, len)
    }

    /// Reads when a monitor would.
    fn tap_is_readable(&mut self) {
        if self.guest.transport.link_interest().unwrap().receive {
            self.guest.transport.notify(RX);
        }
    }
}

/// An Ethernet frame from the guest with an IPv4 packet from 10.0.0.7.
pub fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&OTHER);
    frame[6..12].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&[10, 0, 0, 7]);
    frame
}

#[test]
fn says_who_it_is_and_whether_its_link_is_up() {
    let mut card = Card::new(&[]);
    // Byte by byte, as Linux does.
    assert_eq!([0, 1, 2, 3, 4, 5].map(|at| card.guest.config::<1>(at)[0]), MAC);
    assert_eq!(card.guest.config(6), [1, 0]);
    assert_eq!(card.guest.config(10), 1500_u16.to_le_bytes());
    let mut alone = Guest::running(Device::Net(Net::new()));
    assert_eq!(alone.config(6), [0, 0]);
    assert_eq!(alone.transport.link_interest(), None);
    // Neither a control queue nor several pairs, UDP offloads, guest announcements or RSS.
    assert_eq!(alone.features(), 1 << 32 | 0x1_9000 | 0x9800 | 0x1ab | 1 << 16);
}

/// What a template's driver has is no network; after a restore it is told of one.
#[test]
fn a_card_gets_its_network_once_and_tells_its_driver() {
    let mut guest = Guest::running(Device::Net(Net::new()));
    guest.write(BUFFERS, &[[0; HEADER].as_slice(), &frame(60)].concat());
    guest.send(TX, &[(BUFFERS, 72, 0)]);
    assert_eq!((guest.used(TX).len(), guest.transport.counters().io_errors), (1, 1));
    let (tap, host) = pair();
    let interrupts = guest.interrupts();
    guest.transport.connect(network(tap, &[])).unwrap();
    assert_eq!((guest.interrupts(), guest.get(0x60) & 2), (interrupts + 1, 2));
    assert_eq!((guest.config(6), guest.config(4)), ([1, 0], [MAC[4], MAC[5]]));
    let mut card = Card { guest, host };
    card.send(&frame(60));
    assert_eq!(card.sent().unwrap()[HEADER..], frame(60));
    let (tap, _host) = pair();
    assert!(card.guest.transport.connect(network(tap, &[])).is_err());
}

#[test]
fn frames_go_out_whole_and_in_order_through_any_segments() {
    let mut card = Card::new(&[]);
    let mut longer = frame(1514);
    for (index, byte) in longer.iter_mut().enumerate().skip(60) {
        *byte = (index % 251) as u8;
    }
    for frame in [&frame(60), &longer] {
        let bytes = [[0; HEADER].as_slice(), frame].concat();
        card.guest.write(BUFFERS, &bytes);
        let rest = bytes.len() as u32 - 40;
        card.guest.send(TX, &[(BUFFERS, 5, 0), (BUFFERS + 5, 35, 0), (BUFFERS + 40, rest, 0)]);
        assert_eq!(card.sent().unwrap(), bytes);
    }
    assert_eq!(card.guest.used(TX), [(0, 0), (0, 0)]);
    assert_eq!(card.counters().bytes_out, 60 + 1514);
}

/// CVE-2020-16843: a card that stood still for ever when the tap and the guest's ring were both full.
#[test]
fn goes_on_when_tap_and_ring_were_both_full() {
    let mut card = Card::new(&[]);
    card.offer(0, 4, 2048);
    card.guest.transport.notify(RX);
    let mut sent = 0_u8;
    while card.deliver(&[sent; 900]).is_ok() {
        sent += 1;
    }
    assert!(sent > 8, "the socket held {sent} frames");
    card.tap_is_readable();
    assert_eq!(card.guest.used(RX).len(), 4);
    // The guest has no buffer: the tap is left alone, or a monitor would spin on it.
    assert!(!card.guest.transport.link_interest().unwrap().receive);
    while card.deliver(&[sent; 900]).is_ok() {
        sent += 1;
    }
    // One buffer at a time, each with its notification; then many at once, and the tap runs dry.
    for round in 4..8 {
        card.offer(round, 1, 2048);
        card.guest.transport.notify(RX);
        assert_eq!(card.guest.used(RX).len(), usize::from(round) + 1);
        assert_eq!(card.buffer(round.into(), 13)[HEADER], round as u8);
        assert!(!card.guest.transport.link_interest().unwrap().receive);
    }
    card.offer(8, 240, 2048);
    card.guest.transport.notify(RX);
    assert!(card.guest.transport.link_interest().unwrap().receive, "the tap is watched again");
    assert_eq!(card.guest.used(RX).len(), usize::from(sent));
    card.deliver(&[0xee; 60]).unwrap();
    card.tap_is_readable();
    assert_eq!(card.buffer(sent.into(), 13)[HEADER], 0xee);
    assert_eq!(card.counters().dropped_receive, 0);
}

#[test]
fn a_long_frame_is_laid_into_as_many_buffers_as_it_needs() {
    let mut card = Card::new(&[]);
    let frame: Vec<u8> = (0..5000_u32).map(|index| (index % 251) as u8).collect();
    card.deliver(&frame).unwrap();
    card.offer(0, 3, 1526);
    let interrupts = card.guest.interrupts();
    card.guest.transport.notify(RX);
    // Three are not enough: nothing is given back, and the frame is not lost.
    assert_eq!((card.guest.used(RX).len(), card.guest.interrupts()), (0, interrupts));
    assert!(!card.guest.transport.link_interest().unwrap().receive);
    card.offer(3, 2, 1526);
    card.guest.transport.notify(RX);
    assert_eq!(card.guest.used(RX), [(0, 1526), (1, 1526), (2, 1526), (3, 5012 - 3 * 1526)]);
    assert_eq!(card.guest.interrupts(), interrupts + 1);
    let mut bytes = vec![];
    for (index, len) in card.guest.used(RX) {
        bytes.extend(card.buffer(index, len as usize));
    }
    assert_eq!(bytes[10..HEADER], 4_u16.to_le_bytes());
    assert_eq!(bytes[HEADER..], frame);
    assert_eq!(card.counters().bytes_in, 5000);
}

#[test]
fn a_frame_that_no_ring_could_hold_is_dropped() {
    // Without merging, one buffer has to do.
    let mut card = Card::taking(0);
    card.offer(0, 4, 1526);
    card.deliver(&[1; 1515]).unwrap();
    card.deliver(&[2; 1514]).unwrap();
    card.guest.transport.notify(RX);
    card.tap_is_readable();
    assert_eq!((card.counters().dropped_receive, card.guest.used(RX).len()), (1, 1));
    assert_eq!(card.buffer(0, 16), [&[0; 10], [1, 0].as_slice(), &[2; 4]].concat());
    // With merging, all the descriptors there are.
    let mut card = Card::new(&[]);
    card.offer(0, 256, 100);
    card.deliver(&vec![1; 40_000]).unwrap();
    card.deliver(&[2; 60]).unwrap();
    card.guest.transport.notify(RX);
    card.tap_is_readable();
    assert_eq!((card.counters().dropped_receive, card.guest.used(RX).len()), (1, 1));
}

#[test]
fn a_full_tap_keeps_frames_in_the_queue_and_goes_on_when_it_has_room() {
    let mut card = Card::new(&[]);
    let mut count = 0_u32;
    while !card.guest.transport.link_interest().unwrap().transmit {
        card.send(&frame(1514));
        count += 1;
        assert!(count < 10_000, "the socket is never full");
    }
    let done = card.guest.used(TX).len() as u32;
    assert_eq!(done, count - 1, "the last one waits");
    card.guest.transport.notify(TX);
    assert_eq!(card.guest.used(TX).len() as u32, done);
    for _ in 0..done {
        assert!(card.sent().is_some());
    }
    card.guest.transport.notify(TX);
    assert_eq!(card.guest.used(TX).len() as u32, count);
    assert!(!card.guest.transport.link_interest().unwrap().transmit);
    assert!(card.sent().is_some() && card.sent().is_none());
    assert_eq!(card.counters().io_errors, 0);
}

#[test]
fn a_tap_that_is_gone_takes_the_link_down_once() {
    let mut card = Card::new(&[]);
    card.offer(0, 4, 2048);
    drop(std::mem::replace(&mut card.host, pair().0));
    let interrupts = card.guest.interrupts();
    card.tap_is_readable();
    assert_eq!(card.guest.transport.link_interest(), None);
    assert_eq!((card.guest.config(6), card.guest.get(0x60) & 2), ([0, 0], 2));
    card.guest.transport.link_lost();
    assert_eq!(card.guest.interrupts(), interrupts + 1);
    card.send(&frame(60));
    assert_eq!(card.counters().io_errors, 1);
    assert_eq!(card.guest.transport.fault(), None);
}

#[test]
fn both_directions_keep_their_rates() {
    let size = |capacity| BucketSize { capacity, burst: 0, refill_per_second: 1000 };
    let mut card = Card::with(&[], |network| Network {
        receive: Rate::new(None, Some(size(100))),
        transmit: Rate::new(None, Some(size(200))),
        ..network
    });
    card.offer(0, 8, 2048);
    for _ in 0..3 {
        card.deliver(&[3; 100]).unwrap();
    }
    card.guest.transport.notify(RX);
    assert_eq!((card.guest.used(RX).len(), card.guest.transport.wake_at()), (1, Some(SECOND / 10)));
    assert!(!card.guest.transport.link_interest().unwrap().receive, "one frame waits here");
    card.guest.transport.advance(SECOND / 10);
    assert_eq!((card.guest.used(RX).len(), card.guest.transport.wake_at()), (2, Some(SECOND / 5)));
    // What the guest sends waits for itself; a frame that is dropped costs as much as one that goes.
    let mut forged = frame(100);
    forged[6] ^= 4;
    card.send(&frame(100));
    card.send(&forged);
    card.send(&frame(60));
    assert_eq!((card.guest.used(TX).len(), card.counters().dropped_mac), (2, 1));
    assert_eq!(card.guest.transport.wake_at(), Some(SECOND / 10 + SECOND * 6 / 100));
    card.guest.transport.advance(SECOND);
    assert_eq!((card.guest.used(RX).len(), card.guest.used(TX).len()), (3, 3));
    assert_eq!(card.counters().throttled_ns, SECOND);
}

/// A frame that waits for its tokens is the one that is there then, and pays for what it is then.
#[test]
fn a_frame_that_changes_while_it_waits_pays_for_what_it_became() {
    let size = BucketSize { capacity: 1000, burst: 0, refill_per_second: 1000 };
    let mut card =
        Card::with(&[], |network| Network { transmit: Rate::new(None, Some(size)), ..network });
    card.send(&frame(1000));
    card.send(&frame(60));
    assert_eq!(card.guest.used(TX).len(), 1);
    card.guest.write(BUFFERS + HEADER as u64, &frame(1000));
    card.guest.chain(TX, 0, &[(BUFFERS, 1012, 0)]);
    card.guest.transport.advance(SECOND * 6 / 100);
    assert_eq!((card.guest.used(TX).len(), card.guest.transport.wake_at()), (1, Some(SECOND)));
    card.guest.transport.advance(SECOND);
    assert_eq!(card.sent().unwrap().len(), 1012);
    assert_eq!(card.sent().unwrap().len(), 1012);
}

/// Frames that the driver did not say it understands would be taken for what they are not.
#[test]
fn what_the_driver_does_not_understand_is_not_delivered() {
    let whole = |header: [u8; HEADER]| [header.as_slice(), &[7; 60]].concat();
    let csum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    let tso = [1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0];
    for (features, header, delivered) in [
        (0, csum, 0),
        (1 << 1, csum, 1),
        (1 << 1, tso, 0),
        (1 << 1 | GUEST_TSO4, tso, 1),
        (1 << 1 | GUEST_TSO4, [1, 4, 54, 0, 9, 0, 34, 0, 16, 0, 0, 0], 0),
        (u64::from(u16::MAX) & 0x99ab, [1, 0x81, 54, 0, 9, 0, 34, 0, 16, 0, 0, 0], 0),
        (0, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1),
        (0, [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0),
    ] {
        let mut card = Card::taking(features);
        card.offer(0, 2, 2048);
        write(&card.host, &whole(header)).unwrap();
        card.guest.transport.notify(RX);
        assert_eq!(card.guest.used(RX).len(), delivered, "{features:x} {header:?}");
        assert_eq!(card.counters().dropped_receive, 1 - delivered as u64);
    }
    let mut card = Card::new(&[]);
    card.offer(0, 2, 2048);
    for short in [1, 11, 12] {
        write(&card.host, &vec![0; short]).unwrap();
    }
    card.guest.transport.notify(RX);
    assert_eq!((card.guest.used(RX).len(), card.counters().dropped_receive), (0, 3));
}

#[test]
fn lengths_at_their_ends_are_dropped_or_sent_and_never_more_than_a_frame() {
    for len in [1, 11, 12] {
        let mut card = Card::new(&[]);
        card.guest.send(TX, &[(BUFFERS, len, 0)]);
        assert_eq!(card.guest.used(TX), [(0, 0)]);
        assert_eq!((card.counters().dropped_malformed, card.sent()), (1, None), "{len}");
    }
    for len in [HEADER + FRAME_BYTES_MAX + 1, 0x2_0000, 0x40_0000] {
        let mut card = Card::new(&[]);
        card.guest.send(TX, &[(BUFFERS, len as u32, 0)]);
        assert_eq!((card.counters().dropped_malformed, card.sent()), (1, None), "{len}");
    }
    // One packet is no longer than the network's, but a segment that the host cuts is.
    let mut card = Card::new(&[]);
    card.send(&frame(1515));
    assert_eq!((card.counters().dropped_malformed, card.sent()), (1, None));
}

#[test]
fn hostile_chains_are_faults_of_the_driver() {
    for (queue, segments, fault) in [
        (TX, vec![(BUFFERS, 60, WRITE)], Fault::WrongDirection),
        (TX, vec![(BUFFERS, 60, 0), (BUFFERS, 60, WRITE)], Fault::WrongDirection),
        (RX, vec![(BUFFERS, 60, 0)], Fault::WrongDirection),
        (RX, vec![(BUFFERS, 60, 0), (BUFFERS, 2048, WRITE)], Fault::WrongDirection),
        (RX, vec![(BUFFERS, 2048, WRITE | NEXT); 300], Fault::DescriptorSeenTwice(0)),
        (RX, vec![(u64::MAX - 7, 2048, WRITE)], Fault::BufferOutsideMemory(u64::MAX - 7)),
    ] {
        let mut card = Card::new(&[]);
        card.deliver(&[7; 60]).unwrap();
        card.guest.chain(queue, 0, &segments[..segments.len().min(256)]);
        if segments.len() > 256 {
            card.guest.descriptor(queue, 255, (BUFFERS, 2048, WRITE | NEXT), 0);
        }
        card.guest.publish(queue, 0);
        card.guest.transport.notify(queue);
        assert_eq!(card.guest.transport.fault(), Some(fault), "{queue} {}", segments.len());
        assert_eq!(card.sent(), None);
        assert!(card.guest.failed());
    }
    // A first buffer that has no room for the number of buffers.
    let mut card = Card::new(&[]);
    card.deliver(&[7; 60]).unwrap();
    card.offer(0, 1, 8);
    card.offer(1, 1, 2048);
    card.guest.transport.notify(RX);
    assert_eq!(card.guest.transport.fault(), Some(Fault::WrongDirection));
    // Two chains of one frame that share a descriptor.
    let mut card = Card::new(&[]);
    card.deliver(&[7; 60]).unwrap();
    card.guest.chain(RX, 3, &[(BUFFERS, 30, WRITE)]);
    card.guest.publish(RX, 3);
    card.guest.publish(RX, 3);
    card.guest.transport.notify(RX);
    assert_eq!(card.guest.transport.fault(), Some(Fault::DescriptorSeenTwice(3)));
    assert!(card.guest.used(RX).is_empty());
}

/// A frame that waited for buffers is not given to the next driver.
#[test]
fn a_reset_forgets_what_waited() {
    let mut card = Card::new(&[]);
    card.deliver(&[7; 60]).unwrap();
    card.offer(0, 1, 30);
    card.guest.transport.notify(RX);
    assert!(!card.guest.transport.link_interest().unwrap().receive);
    card.guest.set(0x70, 0);
    let rings = card.guest.rings(RX);
    card.guest.write(rings.available, &[0; 4]);
    card.guest.start();
    card.offer(0, 2, 2048);
    card.guest.transport.notify(RX);
    assert!(card.guest.used(RX).is_empty());
    card.deliver(&[8; 60]).unwrap();
    card.tap_is_readable();
    assert_eq!(card.guest.used(RX).len(), 1);
    assert_eq!(card.guest.features() & MERGE, MERGE);
}
