//! The control pipe: the conversation Linux has, both directions, and back-pressure.

use casemate_devices::{
    CONSOLE_CHAIN_BYTES_MAX, CONSOLE_INPUT_BYTES_MAX, CONSOLE_OUTPUT_QUEUE, Console, Device, Fault,
    Output, Rng,
};

use crate::guest::{BUFFERS, Guest, WRITE};

const CONTROL_IN: u16 = 2;
const CONTROL_OUT: u16 = 3;
const PORT_IN: u16 = 4;
const PORT_OUT: u16 = CONSOLE_OUTPUT_QUEUE;

const DEVICE_READY: u16 = 0;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

const MESSAGE: u64 = BUFFERS;
const REPLY: u64 = BUFFERS + 0x1000;
const INPUT: u64 = BUFFERS + 0x1_0000;
const OUTPUT: u64 = BUFFERS + 0x10_0000;

fn new() -> Guest {
    Guest::running(Device::Console(Console::new()))
}

/// The driver says something.
fn say(guest: &mut Guest, id: u32, event: u16, value: u16) {
    let mut message = id.to_le_bytes().to_vec();
    message.extend(event.to_le_bytes());
    message.extend(value.to_le_bytes());
    guest.write(MESSAGE, &message);
    guest.send(CONTROL_OUT, &[(MESSAGE, 8, 0)]);
}

/// The driver gives a buffer for control messages, as descriptor and page `slot`.
fn offer_reply(guest: &mut Guest, slot: u16) {
    guest.chain(CONTROL_IN, slot, &[(REPLY + u64::from(slot) * 0x1000, 4096, WRITE)]);
    guest.publish(CONTROL_IN, slot);
    guest.transport.notify(CONTROL_IN);
}

/// What the device has said: the bytes of each message.
fn heard(guest: &Guest) -> Vec<Vec<u8>> {
    guest
        .used(CONTROL_IN)
        .into_iter()
        .map(|(head, len)| guest.bytes(REPLY + u64::from(head) * 0x1000, len as usize))
        .collect()
}

/// Linux's probe, up to a process that opened the port.
fn open() -> Guest {
    let mut guest = new();
    for slot in 0..8 {
        offer_reply(&mut guest, slot);
    }
    say(&mut guest, u32::MAX, DEVICE_READY, 1);
    say(&mut guest, 1, PORT_READY, 1);
    say(&mut guest, 1, PORT_OPEN, 1);
    assert!(guest.transport.console_is_open());
    guest
}

/// The driver gives a buffer for input.
fn offer_input(guest: &mut Guest, slot: u16, len: u32) {
    guest.chain(PORT_IN, slot, &[(INPUT + u64::from(slot) * 0x4000, len, WRITE)]);
    guest.publish(PORT_IN, slot);
    guest.transport.notify(PORT_IN);
}

fn input(guest: &Guest) -> Vec<u8> {
    guest
        .used(PORT_IN)
        .into_iter()
        .flat_map(|(head, len)| guest.bytes(INPUT + u64::from(head) * 0x4000, len as usize))
        .collect()
}

#[test]
fn announces_one_named_port_and_opens_it() {
    let mut guest = new();
    assert_eq!(guest.features(), 1 << 32 | 1 << 1);
    assert_eq!(guest.config(4), 2_u32.to_le_bytes());
    assert_eq!(heard(&guest), Vec::<Vec<u8>>::new(), "nothing before the driver is ready");
    let guest = open();
    assert_eq!(
        heard(&guest),
        [
            b"\x01\0\0\0\x01\0\0\0".to_vec(),
            b"\x01\0\0\0\x07\0\0\0casemate.control".to_vec(),
            b"\x01\0\0\0\x06\0\x01\0".to_vec(),
        ]
    );
    assert_eq!(guest.transport.counters().bad_control, 0);
}

#[test]
fn messages_wait_for_buffers() {
    let mut guest = new();
    say(&mut guest, u32::MAX, DEVICE_READY, 1);
    assert_eq!(heard(&guest).len(), 0);
    offer_reply(&mut guest, 0);
    assert_eq!(heard(&guest).len(), 1);
    say(&mut guest, 1, PORT_READY, 1);
    offer_reply(&mut guest, 1);
    assert_eq!(heard(&guest).len(), 2);
    offer_reply(&mut guest, 2);
    offer_reply(&mut guest, 3);
    assert_eq!(heard(&guest).len(), 3, "there is nothing more to say");
}

#[test]
fn a_driver_that_repeats_itself_gets_nothing_more() {
    let mut guest = open();
    for _ in 0..100 {
        say(&mut guest, u32::MAX, DEVICE_READY, 1);
        say(&mut guest, 1, PORT_READY, 1);
    }
    assert_eq!(heard(&guest).len(), 3);
    assert_eq!(guest.transport.counters().bad_control, 200);
    assert!(guest.transport.console_is_open());
}

#[test]
fn messages_out_of_order_or_of_another_port_do_nothing() {
    let mut guest = new();
    offer_reply(&mut guest, 0);
    for (id, event, value) in [
        (1, PORT_READY, 1),
        (1, PORT_OPEN, 1),
        (u32::MAX, DEVICE_READY, 0),
        (u32::MAX, DEVICE_READY, 2),
        (1, 1, 1),
        (1, 2, 1),
        (1, 4, 1),
        (1, 5, 0),
        (1, 7, 0),
        (1, 0xffff, 0xffff),
    ] {
        say(&mut guest, id, event, value);
    }
    assert_eq!(guest.transport.counters().bad_control, 10);
    say(&mut guest, u32::MAX, DEVICE_READY, 1);
    for id in [0, 2, 0x101, u32::MAX] {
        say(&mut guest, id, PORT_READY, 1);
        say(&mut guest, id, PORT_OPEN, 1);
    }
    assert_eq!(guest.transport.counters().bad_control, 18);
    assert!(!guest.transport.console_is_open());
    assert_eq!(heard(&guest).len(), 1);
}

#[test]
fn a_message_is_eight_bytes() {
    let mut guest = new();
    guest.write(MESSAGE, &[0, 0, 0, 0, 0, 0, 1, 0, 0]);
    for len in [1, 7, 9, 4096] {
        guest.send(CONTROL_OUT, &[(MESSAGE, len, 0)]);
    }
    assert_eq!(guest.transport.counters().bad_control, 4);
    offer_reply(&mut guest, 0);
    assert_eq!(heard(&guest).len(), 0);
    guest.send(CONTROL_OUT, &[(MESSAGE, 3, 0), (MESSAGE + 3, 5, 0)]);
    assert_eq!(heard(&guest).len(), 1, "in pieces it is still eight");
}

#[test]
fn a_reply_buffer_that_is_too_small_is_a_fault() {
    let mut guest = new();
    guest.chain(CONTROL_IN, 0, &[(REPLY, 7, WRITE)]);
    guest.publish(CONTROL_IN, 0);
    say(&mut guest, u32::MAX, DEVICE_READY, 1);
    assert_eq!(guest.transport.fault(), Some(Fault::WrongDirection));
}

#[test]
fn the_hosts_bytes_reach_the_guest_in_order() {
    let mut guest = open();
    assert_eq!(guest.transport.console_push(b"before there is a buffer, "), 26);
    assert_eq!(guest.transport.console_pending(), 26);
    offer_input(&mut guest, 0, 10);
    assert_eq!(guest.transport.console_pending(), 16);
    offer_input(&mut guest, 1, 4096);
    assert_eq!(guest.transport.console_pending(), 0);
    offer_input(&mut guest, 2, 3);
    offer_input(&mut guest, 3, 4096);
    assert_eq!(guest.transport.console_push(b"after"), 5);
    assert_eq!(input(&guest), b"before there is a buffer, after");
    assert_eq!(guest.used(PORT_IN), [(0, 10), (1, 16), (2, 3), (3, 2)]);
    assert_eq!(guest.transport.counters().bytes_in, 31);
}

#[test]
fn a_large_push_is_taken_as_far_as_there_is_room() {
    let mut guest = open();
    let bytes: Vec<u8> = (0..100_000_u32).map(|index| (index % 253) as u8).collect();
    assert_eq!(guest.transport.console_push(&bytes), CONSOLE_INPUT_BYTES_MAX);
    assert_eq!(guest.transport.console_push(&bytes), 0);
    let mut got = vec![];
    let mut sent = CONSOLE_INPUT_BYTES_MAX;
    // A ring that wraps, with a buffer over its end.
    for round in 0..40_u16 {
        let slot = round % 8;
        offer_input(&mut guest, slot, 0x0fff);
        let len = guest.last_used_of_slot(slot);
        got.extend(guest.bytes(INPUT + u64::from(slot) * 0x4000, len as usize));
        sent += guest.transport.console_push(&bytes[sent..]);
        if got.len() == bytes.len() {
            break;
        }
    }
    assert!(got == bytes, "{} of {}", got.len(), bytes.len());
}

#[test]
fn a_closed_port_gets_nothing_until_it_is_opened() {
    let mut guest = open();
    say(&mut guest, 1, PORT_OPEN, 0);
    assert!(!guest.transport.console_is_open());
    offer_input(&mut guest, 0, 4096);
    assert_eq!(guest.transport.console_push(b"wait"), 4);
    assert_eq!((input(&guest), guest.transport.console_pending()), (vec![], 4));
    say(&mut guest, 1, PORT_OPEN, 1);
    assert_eq!(input(&guest), b"wait");
}

#[test]
fn the_guests_bytes_reach_the_host_in_bounded_pieces() {
    let mut guest = open();
    let bytes: Vec<u8> = (0..0x8000_u32).map(|index| (index % 251) as u8).collect();
    guest.write(OUTPUT, &bytes);
    guest.send(PORT_OUT, &[(OUTPUT, 5, 0), (OUTPUT + 5, 0x7ffb, 0)]);
    assert_eq!(guest.used(PORT_OUT), [], "nothing is taken until the monitor asks");
    let mut got: Vec<u8> = vec![];
    let mut largest = 0;
    let ended = guest.transport.console_output(&mut |piece| {
        got.extend(piece);
        largest = largest.max(piece.len());
        true
    });
    assert_eq!((ended, largest), (Output::Drained, 4096));
    assert!(got == bytes);
    assert_eq!(guest.used(PORT_OUT), [(0, 0)]);
    assert_eq!(guest.transport.counters().bytes_out, 0x8000);
}

/// CVE-2020-16843 class: what stopped must go on, without another doorbell.
#[test]
fn a_sink_that_stops_leaves_the_rest_in_the_ring() {
    let mut guest = open();
    for slot in 0..3 {
        guest.write(OUTPUT + u64::from(slot) * 0x1000, &[slot as u8 + b'a'; 16]);
        guest.chain(PORT_OUT, slot, &[(OUTPUT + u64::from(slot) * 0x1000, 16, 0)]);
        guest.publish(PORT_OUT, slot);
    }
    guest.transport.notify(PORT_OUT);
    let mut got = vec![];
    let mut take = |guest: &mut Guest, go_on: bool| {
        guest.transport.console_output(&mut |piece| {
            got.push(piece[0]);
            go_on
        })
    };
    assert_eq!(take(&mut guest, false), Output::Stopped);
    assert_eq!(guest.used(PORT_OUT).len(), 1);
    assert_eq!(take(&mut guest, false), Output::Stopped);
    assert_eq!(take(&mut guest, true), Output::Drained);
    assert_eq!(take(&mut guest, true), Output::Drained);
    assert_eq!(got, b"abc");
}

#[test]
fn a_chain_of_output_is_bounded() {
    let mut guest = open();
    let most = CONSOLE_CHAIN_BYTES_MAX;
    guest.send(PORT_OUT, &[(OUTPUT, most, 0)]);
    let mut count = 0;
    let mut sink = |piece: &[u8]| {
        count += piece.len();
        true
    };
    assert_eq!(guest.transport.console_output(&mut sink), Output::Drained);
    guest.send(PORT_OUT, &[(OUTPUT, most, 0), (OUTPUT, 1, 0)]);
    guest.transport.console_output(&mut sink);
    assert_eq!(count, most as usize);
    assert_eq!(guest.transport.fault(), Some(Fault::ChainTooLong));
}

#[test]
fn buffers_of_the_wrong_direction_are_faults() {
    let mut guest = open();
    guest.send(PORT_OUT, &[(OUTPUT, 8, WRITE)]);
    guest.transport.console_output(&mut |_| panic!("nothing was sent"));
    assert_eq!(guest.transport.fault(), Some(Fault::WrongDirection));
    let mut guest = open();
    guest.chain(PORT_IN, 0, &[(INPUT, 8, 0)]);
    guest.publish(PORT_IN, 0);
    guest.transport.console_push(b"secret");
    assert_eq!(guest.transport.fault(), Some(Fault::WrongDirection));
    assert_eq!(guest.bytes(INPUT, 8), [0; 8]);
}

#[test]
fn port_zero_is_not_there() {
    let mut guest = open();
    guest.send(1, &[(OUTPUT, 8, 0)]);
    guest.chain(0, 0, &[(INPUT, 8, WRITE)]);
    guest.publish(0, 0);
    guest.transport.notify(0);
    guest.transport.console_push(b"x");
    guest.transport.console_output(&mut |_| panic!("nothing was sent"));
    assert_eq!((guest.used(0), guest.used(1)), (vec![], vec![]));
}

#[test]
fn a_reset_closes_the_port_and_drops_what_waited() {
    let mut guest = open();
    guest.transport.console_push(b"secret");
    guest.set(0x70, 0);
    assert!(!guest.transport.console_is_open());
    assert_eq!(guest.transport.console_pending(), 0);
    assert_eq!(guest.transport.console_output(&mut |_| true), Output::Drained);
    // What the host sends to a device without a driver waits.
    assert_eq!(guest.transport.console_push(b"later"), 5);
    assert_eq!(guest.transport.console_pending(), 5);
}

#[test]
fn other_devices_have_no_pipe() {
    let mut guest = Guest::running(Device::Rng(Rng::new()));
    assert_eq!(guest.transport.console_push(b"x"), 0);
    assert_eq!(guest.transport.console_pending(), 0);
    assert_eq!(guest.transport.console_output(&mut |_| true), Output::Drained);
    assert!(!guest.transport.console_is_open());
}

impl Guest {
    /// The length of the last input chain given back, when it was this slot's; 0 otherwise.
    fn last_used_of_slot(&self, slot: u16) -> u32 {
        let rings = self.rings(PORT_IN);
        let raw = self.bytes(rings.used + 2, 2);
        let last = u16::from_le_bytes([raw[0], raw[1]]).wrapping_sub(1);
        let at = rings.used + 4 + u64::from(last) % u64::from(rings.size) * 8;
        let entry = self.bytes(at, 8);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
        if word(0) == u32::from(slot) { word(4) } else { 0 }
    }
}
