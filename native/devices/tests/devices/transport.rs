//! Registers, the status state machine, and configuration that is frozen when it should be.

use casemate_devices::{Device, Rng, Wake};

use crate::guest::{
    ACKNOWLEDGE, BUFFERS, DRIVER, DRIVER_OK, FEATURES_OK, Guest, NEEDS_RESET, Rings, VERSION_1,
    WRITE,
};

fn rng() -> Guest {
    Guest::new(Device::Rng(Rng::new()))
}

#[test]
fn says_what_it_is() {
    let mut guest = rng();
    assert_eq!(guest.get(0x00).to_le_bytes(), *b"virt");
    assert_eq!((guest.get(0x04), guest.get(0x08)), (2, 4));
    assert_eq!(guest.features(), VERSION_1);
    assert_eq!((guest.size_max(0), guest.size_max(1), guest.size_max(6)), (8, 0, 0));
    guest.set(0x30, u32::MAX);
    assert_eq!(guest.get(0x34), 0);
    // No shared memory regions: a length of all ones (virtio 1.2, section 4.2.2).
    assert_eq!((guest.get(0xb0), guest.get(0xb4)), (u32::MAX, u32::MAX));
}

#[test]
fn unknown_registers_and_widths_read_zero_and_are_counted() {
    let mut guest = rng();
    for (offset, len) in [(0x01, 4), (0x00, 1), (0x00, 8), (0x54, 4), (0xfff, 2), (0x2000, 4)] {
        let mut data = vec![0xaa; len];
        guest.transport.read(offset, &mut data);
        assert_eq!(data, vec![0; len], "at {offset:#x}");
        let _ = guest.transport.write(offset, &data);
    }
    assert_eq!(guest.transport.counters().bad_access, 12);
    let mut nothing = [];
    guest.transport.read(0x100, &mut nothing);
    guest.transport.read(u64::MAX, &mut nothing);
    assert_eq!(guest.transport.counters().bad_access, 14);
}

#[test]
fn status_goes_step_by_step_and_only_forward() {
    let mut guest = rng();
    for refused in [DRIVER, FEATURES_OK, DRIVER_OK, 2, 4, 8, 16, 0xffff_ff00] {
        guest.set(0x70, refused);
        assert_eq!(guest.get(0x70), 0, "{refused:#x} from nothing");
    }
    guest.set(0x70, ACKNOWLEDGE);
    guest.set(0x70, FEATURES_OK);
    assert_eq!(guest.get(0x70), ACKNOWLEDGE);
    guest.set(0x70, DRIVER);
    guest.set(0x70, ACKNOWLEDGE);
    assert_eq!(guest.get(0x70), DRIVER, "no bit is cleared but by a reset");
    guest.set(0x70, DRIVER_OK);
    assert_eq!(guest.get(0x70), DRIVER);
    assert_eq!(guest.transport.counters().bad_status, 11);
    guest.set(0x70, DRIVER | 128);
    guest.set(0x70, FEATURES_OK | 128);
    assert_eq!(guest.get(0x70), DRIVER | 128, "a driver that gave up must reset");
    guest.set(0x70, 0);
    assert_eq!(guest.get(0x70), 0);
}

#[test]
fn the_driver_cannot_set_the_devices_bit() {
    let mut guest = rng();
    guest.set(0x70, ACKNOWLEDGE | NEEDS_RESET);
    assert_eq!(guest.get(0x70), ACKNOWLEDGE);
    guest.set(0x70, NEEDS_RESET);
    assert_eq!(guest.get(0x70), ACKNOWLEDGE, "the bit alone is no reset");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for taken in [0, 1, VERSION_1 | 1, VERSION_1 | 1 << 28, VERSION_1 << 1, u64::MAX] {
        let mut guest = rng();
        guest.set(0x70, ACKNOWLEDGE);
        guest.set(0x70, DRIVER);
        guest.take_features(taken);
        guest.set(0x70, FEATURES_OK);
        assert_eq!(guest.get(0x70), DRIVER, "{taken:#x}");
    }
}

#[test]
fn features_are_frozen_once_they_were_accepted() {
    let mut guest = rng();
    guest.take_features(VERSION_1);
    assert_eq!(guest.transport.counters().frozen_write, 2, "before DRIVER");
    guest.negotiate();
    guest.take_features(u64::MAX);
    assert_eq!(guest.transport.counters().frozen_write, 4);
    guest.configure(0, Rings::of(0, 8));
    guest.set(0x70, DRIVER_OK);
    assert!(guest.transport.is_running());
}

#[test]
fn queues_can_be_configured_between_features_and_driver_ok_only() {
    let mut guest = rng();
    guest.configure(0, Rings::of(0, 8));
    assert_eq!(guest.get(0x44), 0);
    assert_eq!(guest.transport.counters().frozen_write, 8);
    guest.negotiate();
    guest.configure(0, Rings::of(0, 8));
    assert_eq!(guest.get(0x44), 1);
    guest.configure(0, Rings::of(1, 4));
    assert_eq!(guest.transport.counters().frozen_write, 15, "a ready queue is closed");
    guest.set(0x30, 1);
    guest.set(0x44, 1);
    assert_eq!(guest.get(0x44), 0, "a queue that does not exist");
    guest.set(0x30, u32::MAX);
    guest.set(0x44, 1);
    assert_eq!(guest.transport.counters().frozen_write, 17);
}

/// CVE-2026-5747: a queue's size and addresses changed after activation.
#[test]
fn a_running_queue_cannot_be_changed() {
    let mut guest = Guest::running(Device::Rng(Rng::new()));
    let frozen = guest.rings(0);
    guest.set(0x30, 0);
    guest.set(0x44, 0);
    assert_eq!(guest.get(0x44), 1);
    guest.configure(0, Rings { size: 256, ..Rings::of(3, 8) });
    guest.set(0x44, 0);
    assert_eq!(guest.transport.counters().frozen_write, 10);
    // The driver goes on with the rings it had: the device is still there.
    guest.set_rings(0, frozen);
    guest.send(0, &[(BUFFERS, 16, WRITE)]);
    assert_eq!(guest.used(0), [(0, 16)]);
    assert_ne!(guest.bytes(BUFFERS, 16), vec![0; 16]);
}

#[test]
fn a_doorbell_is_answered_only_while_the_device_runs() {
    let mut guest = rng();
    guest.transport.notify(0);
    guest.negotiate();
    guest.configure(0, Rings::of(0, 8));
    guest.chain(0, 0, &[(BUFFERS, 16, WRITE)]);
    guest.publish(0, 0);
    guest.transport.notify(0);
    assert_eq!(guest.used(0), []);
    guest.set(0x70, DRIVER_OK);
    for absent in [1, 5, 6, u16::MAX] {
        guest.transport.notify(absent);
    }
    assert_eq!(guest.transport.counters().ignored_notify, 6);
    guest.transport.notify(0);
    assert_eq!(guest.used(0), [(0, 16)]);
}

#[test]
fn a_doorbell_that_reaches_the_register_goes_to_the_io_thread() {
    let mut guest = Guest::running(Device::Rng(Rng::new()));
    assert_eq!(guest.transport.write(0x50, &0_u32.to_le_bytes()), Wake::Notify(0));
    assert_eq!(guest.transport.write(0x50, &0x1_0000_u32.to_le_bytes()), Wake::Nothing);
    assert_eq!(guest.transport.write(0x50, &[0, 0]), Wake::Nothing);
    assert_eq!(guest.transport.write(0x38, &0_u32.to_le_bytes()), Wake::Nothing);
}

#[test]
fn interrupts_are_raised_acknowledged_and_suppressed() {
    let mut guest = Guest::running(Device::Rng(Rng::new()));
    guest.send(0, &[(BUFFERS, 16, WRITE)]);
    assert_eq!((guest.interrupts(), guest.get(0x60)), (1, 1));
    guest.set(0x64, 2);
    assert_eq!(guest.get(0x60), 1);
    guest.set(0x64, 1);
    assert_eq!(guest.get(0x60), 0);
    guest.transport.notify(0);
    assert_eq!(guest.interrupts(), 1, "nothing was completed");
    guest.write(guest.rings(0).available, &1_u16.to_le_bytes());
    guest.send(0, &[(BUFFERS, 16, WRITE)]);
    assert_eq!((guest.interrupts(), guest.used(0).len()), (1, 2), "the driver asked for none");
    assert_eq!(guest.transport.counters().interrupts, 1);
}

#[test]
fn a_reset_forgets_everything_and_the_next_driver_starts_over() {
    let mut guest = Guest::running(Device::Rng(Rng::new()));
    guest.send(0, &[(BUFFERS, 16, WRITE)]);
    guest.publish(0, 0);
    guest.set(0x70, 0);
    guest.transport.notify(0);
    assert_eq!(guest.used(0).len(), 1, "what was published before the reset stays unanswered");
    guest.set(0x30, 0);
    assert_eq!((guest.get(0x70), guest.get(0x60), guest.get(0x44)), (0, 0, 0));
    guest.write(guest.rings(0).available, &[0; 32]);
    guest.write(guest.rings(0).used, &[0; 32]);
    guest.start();
    guest.send(0, &[(BUFFERS, 8, WRITE)]);
    assert_eq!(guest.used(0), [(0, 8)]);
}

#[test]
fn a_driver_that_failed_is_not_served() {
    let mut guest = Guest::running(Device::Rng(Rng::new()));
    guest.set(0x70, DRIVER_OK | 128);
    guest.send(0, &[(BUFFERS, 16, WRITE)]);
    assert_eq!(guest.used(0), []);
    assert!(!guest.transport.is_running());
}
