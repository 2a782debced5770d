//! Saved state: it comes back the same, and what no device can have written is refused.

use casemate_devices::{
    Backend, Block, BlockKind, Console, Device, Fault, Net, Reader, Rng, Scratch, StateError,
};

use crate::block::{DATA, IO_ERROR, OK, READ, request};
use crate::guest::{BUFFERS, DRIVER_OK, Guest, LOW_END, Line, Random, WRITE, file_of};
use crate::net::{Card, frame, network, pair};
use casemate_devices::MmioTransport;

/// Offsets in the state of a transport, for tests that alter it.
const STATUS: usize = 2;
const INTERRUPT: usize = 18;
const FEATURES: usize = 26;
const QUEUES: usize = 34;
const QUEUE_BYTES: usize = 31;

fn console() -> Device {
    Device::Console(Console::new())
}

fn scratch(backend: Backend) -> Device {
    Device::Block(Block::new(BlockKind::Scratch, backend, "scratch").unwrap())
}

fn save(guest: &Guest) -> Vec<u8> {
    let mut bytes = vec![];
    guest.transport.save(&mut bytes);
    bytes
}

/// The machine goes on in a new transport, as after a restore of memory and state.
fn restore(guest: &Guest, device: Device, bytes: &[u8]) -> Result<Guest, StateError> {
    let mut restored = Guest::with_memory(device, guest.memory.clone());
    for queue in 0..6 {
        restored.set_rings(queue, guest.rings(queue));
    }
    let mut reader = Reader::new(bytes);
    restored.transport.restore(&mut reader)?;
    assert_eq!(reader.rest(), [], "all of it was read");
    restored.transport.resume();
    Ok(restored)
}

/// The driver of a template has a card without a network. After the restore the same queues carry
/// frames, and buffers that it gave before are still there.
#[test]
fn a_restored_card_gets_its_network() {
    let mut template = Guest::running(Device::Net(Net::new()));
    for index in 0..4 {
        template.chain(0, index, &[(BUFFERS + u64::from(index) * 2048, 2048, WRITE)]);
        template.publish(0, index);
    }
    template.transport.notify(0);
    let bytes = save(&template);
    let mut guest = restore(&template, Device::Net(Net::new()), &bytes).unwrap();
    assert_eq!(guest.transport.link_interest(), None);
    let (tap, host) = pair();
    guest.transport.connect(network(tap, &[])).unwrap();
    assert_eq!((guest.config(6), guest.interrupts()), ([1, 0], 1));
    let mut card = Card { guest, host };
    card.deliver(&[9; 60]).unwrap();
    assert!(card.guest.transport.link_interest().unwrap().receive);
    card.guest.transport.notify(0);
    assert_eq!(card.guest.used(0), [(0, 72)]);
    card.send(&frame(60));
    assert!(card.sent().is_some());
    // It is not a state of any other device's.
    let other = restore(&template, Device::Rng(Rng::new()), &bytes).map(|_| ());
    assert_eq!(other, Err(StateError::Device(5)));
}

#[test]
fn a_restored_disk_goes_on_where_it_was_and_gets_its_capacity() {
    let mut template = Guest::running(scratch(Backend::Absent));
    for _ in 0..3 {
        assert_eq!(request(&mut template, READ, 0, &[(DATA, 512, WRITE)]), IO_ERROR);
    }
    template.set(0x64, 3);
    let bytes = save(&template);
    let mut guest = restore(&template, scratch(Backend::Absent), &bytes).unwrap();
    assert_eq!(guest.get(0x70), DRIVER_OK);
    assert_eq!(guest.interrupts(), 0);
    let file = file_of(&vec![5; 0x1_0000]);
    guest.transport.attach(Backend::Scratch(Scratch::new(file, 0x1_0000).unwrap())).unwrap();
    assert_eq!((guest.interrupts(), guest.get(0x60)), (1, 2));
    assert_eq!(guest.config(0), 128_u64.to_le_bytes());
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), OK);
    assert_eq!(guest.bytes(DATA, 512), vec![5; 512]);
    assert_eq!(guest.used(0).len(), 4);
    let again = save(&guest);
    let generation = 22..26;
    assert_ne!(bytes[generation.clone()], again[generation]);
}

#[test]
fn a_doorbell_that_rang_while_the_state_was_saved_is_answered() {
    let template = Guest::running(Device::Rng(Rng::new()));
    template.chain(0, 0, &[(BUFFERS, 16, WRITE)]);
    template.publish(0, 0);
    let guest = restore(&template, Device::Rng(Rng::new()), &save(&template)).unwrap();
    assert_eq!(guest.used(0), [(0, 16)]);
    assert_eq!(guest.interrupts(), 1);
}

#[test]
fn an_interrupt_that_was_not_acknowledged_is_raised_again() {
    let mut template = Guest::running(Device::Rng(Rng::new()));
    template.send(0, &[(BUFFERS, 16, WRITE)]);
    let mut guest = restore(&template, Device::Rng(Rng::new()), &save(&template)).unwrap();
    assert_eq!((guest.interrupts(), guest.get(0x60)), (1, 1));
    assert_eq!(guest.used(0).len(), 1);
}

#[test]
fn a_console_keeps_its_conversation_and_what_waited() {
    let mut template = Guest::running(console());
    template.write(BUFFERS, b"\xff\xff\xff\xff\0\0\x01\0");
    template.send(3, &[(BUFFERS, 8, 0)]);
    assert_eq!(template.transport.console_push(b"hello"), 5);
    let bytes = save(&template);
    let mut guest = restore(&template, console(), &bytes).unwrap();
    assert_eq!(guest.transport.console_pending(), 5);
    // The port is announced once there is a buffer: that was still to be said.
    guest.chain(2, 0, &[(BUFFERS + 0x1000, 64, WRITE)]);
    guest.publish(2, 0);
    guest.transport.notify(2);
    assert_eq!(guest.bytes(BUFFERS + 0x1000, 8), b"\x01\0\0\0\x01\0\0\0");
    assert!(save(&guest) != bytes);
}

#[test]
fn a_device_without_a_driver_and_a_failed_one_are_restored_as_such() {
    let template = Guest::new(console());
    let mut guest = restore(&template, console(), &save(&template)).unwrap();
    assert_eq!(guest.get(0x70), 0);
    guest.start();
    let mut template = Guest::running(console());
    template.set_available_index(3, 999);
    template.transport.notify(3);
    assert_eq!(template.transport.fault(), Some(Fault::AvailableJump(999)));
    let mut guest = restore(&template, console(), &save(&template)).unwrap();
    assert_eq!(guest.get(0x70), DRIVER_OK | 64);
    let memory = guest.bytes(0, 0x10_0000);
    guest.transport.notify(3);
    assert!(guest.bytes(0, 0x10_0000) == memory);
}

/// What a changed byte makes of a good state, with the transport it was given to.
fn altered(device: fn() -> Device, change: impl FnOnce(&mut Vec<u8>)) -> StateError {
    let template = Guest::running(device());
    let mut bytes = save(&template);
    change(&mut bytes);
    let mut target =
        MmioTransport::new(device(), template.memory.clone(), Box::new(Line::default()));
    let refused = target.restore(&mut Reader::new(&bytes)).err().unwrap();
    let mut fresh = vec![];
    MmioTransport::new(device(), template.memory.clone(), Box::new(Line::default()))
        .save(&mut fresh);
    let mut after = vec![];
    target.save(&mut after);
    assert_eq!(after, fresh, "a refused restore leaves a reset device");
    refused
}

#[test]
fn another_version_or_device_is_refused() {
    assert_eq!(altered(console, |bytes| bytes[0] = 2), StateError::Version(2));
    assert_eq!(altered(console, |bytes| bytes[1] = 4), StateError::Device(4));
    let image = || Device::Block(Block::new(BlockKind::Image, Backend::Absent, "x").unwrap());
    assert_eq!(altered(image, |bytes| bytes[1] = 2), StateError::Device(2));
}

#[test]
fn impossible_registers_are_refused() {
    for status in [2, 4, 5, 7, 8, 9, 12, 14, 16, 31] {
        let refused = altered(console, |bytes| bytes[STATUS] = status);
        assert_eq!(refused, StateError::Value("status"), "{status}");
    }
    let refused = altered(console, |bytes| bytes[STATUS + 3] = 1);
    assert_eq!(refused, StateError::Value("status"));
    let refused = altered(console, |bytes| bytes[INTERRUPT] = 4);
    assert_eq!(refused, StateError::Value("interrupt status"));
    for (at, value) in [(FEATURES, 3), (FEATURES + 4, 0), (FEATURES + 7, 1)] {
        let refused = altered(console, |bytes| bytes[at] = value);
        assert_eq!(refused, StateError::Value("features"));
    }
    let refused = altered(console, |bytes| bytes[STATUS] = 3);
    assert_eq!(refused, StateError::Value("queue"), "queues are ready before FEATURES_OK");
}

/// Exactly what is refused at `DRIVER_OK` is refused here.
#[test]
fn queues_are_checked_again() {
    let set = |queue: usize, at: usize, value: &'static [u8]| {
        move |bytes: &mut Vec<u8>| {
            let start = QUEUES + queue * QUEUE_BYTES + at;
            bytes[start..start + value.len()].copy_from_slice(value);
        }
    };
    let size = |size| StateError::Queue(Fault::QueueSize(size));
    assert_eq!(altered(console, set(0, 0, &[0, 1, 0, 0])), size(256));
    assert_eq!(altered(console, set(5, 0, &[3, 0, 0, 0])), size(3));
    assert_eq!(altered(console, set(5, 0, &[32, 0, 1, 0])), size(65_568));
    assert_eq!(altered(console, set(2, 4, &[2])), StateError::Value("queue ready"));
    for (at, low) in [(5, 0xf0), (13, 0xfe), (21, 0xfc)] {
        let all_ones = [low, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let address = u64::from_le_bytes(all_ones);
        let refused = altered(console, |bytes| {
            let start = QUEUES + QUEUE_BYTES + at;
            bytes[start..start + 8].copy_from_slice(&all_ones);
        });
        assert_eq!(refused, StateError::Queue(Fault::QueueOutsideMemory(address)));
    }
    let refused = altered(console, |bytes| {
        let start = QUEUES + 5;
        bytes[start..start + 8].copy_from_slice(&(LOW_END - 16).to_le_bytes());
    });
    assert_eq!(refused, StateError::Queue(Fault::QueueOutsideMemory(LOW_END - 16)));
    // A queue that the device does not have.
    let rng = || Device::Rng(Rng::new());
    assert_eq!(altered(rng, set(1, 0, &[8])), StateError::Value("queue"));
}

#[test]
fn a_console_state_that_cannot_be_is_refused() {
    let tail = QUEUES + 6 * QUEUE_BYTES;
    for (step, unsaid) in [(0, 1), (1, 2), (1, 4), (2, 8), (4, 0), (255, 0)] {
        altered(console, |bytes| {
            bytes[tail] = step;
            bytes[tail + 1] = unsaid;
        });
    }
    let too_long = 65_545_u32.to_le_bytes();
    let refused = altered(console, |bytes| bytes[tail + 2..tail + 6].copy_from_slice(&too_long));
    assert_eq!(refused, StateError::Value("console input length"));
    let refused = altered(console, |bytes| bytes[tail + 2] = 1);
    assert_eq!(refused, StateError::Short);
}

#[test]
fn a_state_that_ends_early_is_refused_at_every_length() {
    let template = Guest::running(console());
    let bytes = save(&template);
    for len in 0..bytes.len() {
        let mut target =
            MmioTransport::new(console(), template.memory.clone(), Box::new(Line::default()));
        let refused = target.restore(&mut Reader::new(&bytes[..len]));
        assert_eq!(refused, Err(StateError::Short), "{len}");
        assert!(!target.is_running());
    }
}

/// Any bytes at all: an error or a device that works, never a panic.
#[test]
fn random_states_never_panic() {
    let mut random = Random(0x5eed_0002);
    let template = Guest::running(console());
    let good = save(&template);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        let mut target =
            MmioTransport::new(console(), template.memory.clone(), Box::new(Line::default()));
        if target.restore(&mut Reader::new(&bytes)).is_ok() {
            target.resume();
            target.console_output(&mut |_| true);
        }
    }
}
