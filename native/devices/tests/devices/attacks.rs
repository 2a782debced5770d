//! What a driver that is not a driver does to rings. Whatever it does, the device stops believing
//! it, says so, and does not touch guest memory again until it is reset.

use casemate_devices::{Backend, Block, BlockKind, Console, Device, Fault, Rng, Wake};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::guest::{
    BUFFERS, DRIVER_OK, Guest, HIGH, HIGH_END, INDIRECT, LOW_END, NEEDS_RESET, NEXT, Rings, WRITE,
};

fn rng() -> Device {
    Device::Rng(Rng::new())
}

fn disk() -> Device {
    Device::Block(Block::new(BlockKind::Image, Backend::Absent, "attack").unwrap())
}

/// Starts a driver with these rings and gives what the device thinks of them.
fn start(rings: Rings) -> Option<Fault> {
    let mut guest = Guest::new(disk());
    guest.negotiate();
    guest.configure(0, rings);
    let wake = guest.transport.write(0x70, &DRIVER_OK.to_le_bytes());
    let fault = guest.transport.fault();
    assert_eq!(wake, if fault.is_some() { Wake::Failed } else { Wake::Nothing });
    let expected = if fault.is_some() { DRIVER_OK | NEEDS_RESET } else { DRIVER_OK };
    assert_eq!(guest.get(0x70), expected);
    assert_eq!(guest.transport.counters().faults, u64::from(fault.is_some()));
    if fault.is_some() {
        assert_eq!((guest.interrupts(), guest.get(0x60)), (1, 2), "a configuration interrupt");
    }
    guest.transport.notify(0);
    fault
}

#[test]
fn ring_sizes_are_small_powers_of_two() {
    for size in [0, 3, 6, 127, 255, 256, 512, 65_535, 65_536, 0x1_0080, u32::MAX] {
        let rings = Rings { size, ..Rings::of(0, 8) };
        assert_eq!(start(rings), Some(Fault::QueueSize(size)));
    }
    for size in [1, 2, 4, 64, 128] {
        assert_eq!(start(Rings::of(0, size)), None, "{size}");
    }
}

#[test]
fn rings_lie_inside_one_region_of_memory() {
    let good = Rings::of(0, 128);
    let outside = [
        LOW_END,       // the first byte beyond
        LOW_END - 16,  // begins inside, ends outside
        0xd000_0000,   // where the devices are
        HIGH - 16,     // in the hole, runs into memory
        HIGH_END - 16, // at the very end
        HIGH_END,      // beyond it
        !15,           // wraps around
        (!15) - 256,   // ends at the last address there is
    ];
    for address in outside {
        for rings in [
            Rings { descriptors: address, ..good },
            Rings { available: address, ..good },
            Rings { used: address, ..good },
        ] {
            assert_eq!(start(rings), Some(Fault::QueueOutsideMemory(address)), "{rings:x?}");
        }
    }
    for end in [LOW_END, HIGH_END] {
        assert_eq!(start(Rings { descriptors: end - 128 * 16, ..good }), None);
        assert_eq!(start(Rings { available: end - 4 - 128 * 2, ..good }), None);
        assert_eq!(start(Rings { used: end - 4 - 128 * 8, ..good }), None);
    }
}

#[test]
fn rings_are_aligned() {
    let good = Rings::of(0, 8);
    for rings in [
        Rings { descriptors: good.descriptors + 8, ..good },
        Rings { available: good.available + 1, ..good },
        Rings { used: good.used + 2, ..good },
    ] {
        assert!(matches!(start(rings), Some(Fault::QueueAlignment(_))), "{rings:x?}");
    }
}

/// One bad queue among several is enough, and leaves none of them active.
#[test]
fn one_bad_queue_stops_the_device() {
    let mut guest = Guest::new(Device::Console(Console::new()));
    guest.negotiate();
    for queue in 0..5 {
        guest.configure(queue, Rings::of(queue, 2));
    }
    guest.configure(5, Rings { size: 64, ..Rings::of(5, 2) });
    guest.set(0x70, DRIVER_OK);
    assert_eq!(guest.transport.fault(), Some(Fault::QueueSize(64)));
    guest.transport.notify(3);
    assert_eq!(guest.transport.counters().ignored_notify, 1);
}

/// Publishes what `prepare` wrote and gives the fault; checks that the device then is silent.
fn attack(device: Device, queue: u16, prepare: impl FnOnce(&mut Guest)) -> Option<Fault> {
    let mut guest = Guest::running(device);
    prepare(&mut guest);
    guest.transport.notify(queue);
    let fault = guest.transport.fault();
    if fault.is_some() {
        assert_eq!(guest.get(0x70), DRIVER_OK | NEEDS_RESET);
        assert_eq!(guest.get(0x60) & 2, 2);
        // A good chain afterwards is not answered: nothing at all changes in memory.
        let used = guest.used(queue);
        guest.chain(queue, 4, &[(BUFFERS + 0x8000, 64, WRITE)]);
        guest.publish(queue, 4);
        let before = guest.bytes(0, 0x20_0000);
        guest.transport.notify(queue);
        guest.transport.resume();
        assert_eq!(guest.used(queue), used);
        assert!(guest.bytes(0, 0x20_0000) == before);
        // And a reset makes it a device again.
        guest.set(0x70, 0);
        assert_eq!((guest.transport.fault(), guest.get(0x70)), (None, 0));
    }
    fault
}

#[test]
fn the_available_index_cannot_run_ahead() {
    for jump in [9, 255, 0x7fff, 0xffff] {
        let fault = attack(rng(), 0, |guest| guest.set_available_index(0, jump));
        assert_eq!(fault, Some(Fault::AvailableJump(jump)));
    }
    // Backwards is a jump as well.
    let fault = attack(rng(), 0, |guest| {
        guest.send(0, &[(BUFFERS, 8, WRITE)]);
        guest.set_available_index(0, 0);
    });
    assert_eq!(fault, Some(Fault::AvailableJump(0)));
}

#[test]
fn heads_and_next_indices_are_inside_the_table() {
    for head in [8, 9, 0x7fff, 0xffff] {
        let fault = attack(rng(), 0, |guest| guest.publish(0, head));
        assert_eq!(fault, Some(Fault::DescriptorIndex(head)));
        let fault = attack(rng(), 0, |guest| {
            guest.descriptor(0, 0, (BUFFERS, 8, WRITE | NEXT), head);
            guest.publish(0, 0);
        });
        assert_eq!(fault, Some(Fault::DescriptorIndex(head)));
    }
}

#[test]
fn a_chain_cannot_loop() {
    let itself = attack(rng(), 0, |guest| {
        guest.descriptor(0, 3, (BUFFERS, 8, WRITE | NEXT), 3);
        guest.publish(0, 3);
    });
    assert_eq!(itself, Some(Fault::DescriptorSeenTwice(3)));
    let two = attack(rng(), 0, |guest| {
        guest.descriptor(0, 3, (BUFFERS, 8, WRITE | NEXT), 5);
        guest.descriptor(0, 5, (BUFFERS, 8, WRITE | NEXT), 3);
        guest.publish(0, 3);
    });
    assert_eq!(two, Some(Fault::DescriptorSeenTwice(3)));
    // A chain longer than the ring can only be one that meets a descriptor again.
    let longer = attack(rng(), 0, |guest| {
        guest.chain(0, 0, &[(BUFFERS, 8, WRITE | NEXT); 8]);
        guest.descriptor(0, 7, (BUFFERS, 8, WRITE | NEXT), 0);
        guest.publish(0, 0);
    });
    assert_eq!(longer, Some(Fault::DescriptorSeenTwice(0)));
    let longest = attack(rng(), 0, |guest| {
        guest.chain(0, 0, &[(BUFFERS, 8, WRITE); 8]);
        guest.publish(0, 0);
    });
    assert_eq!(longest, None);
}

/// CVE-2026-45782: the same head twice among what is available.
#[test]
fn a_head_is_published_once() {
    let fault = attack(rng(), 0, |guest| {
        guest.chain(0, 2, &[(BUFFERS, 8, WRITE)]);
        guest.publish(0, 2);
        guest.publish(0, 2);
    });
    assert_eq!(fault, Some(Fault::DescriptorSeenTwice(2)));
    let shared_tail = attack(rng(), 0, |guest| {
        guest.descriptor(0, 0, (BUFFERS, 8, WRITE | NEXT), 2);
        guest.descriptor(0, 1, (BUFFERS, 8, WRITE | NEXT), 2);
        guest.descriptor(0, 2, (BUFFERS, 8, WRITE), 0);
        guest.publish(0, 0);
        guest.publish(0, 1);
    });
    assert_eq!(shared_tail, Some(Fault::DescriptorSeenTwice(2)));
}

#[test]
fn a_head_that_came_back_can_be_published_again() {
    let mut guest = Guest::running(rng());
    for round in 1..600 {
        guest.chain(0, 0, &[(BUFFERS, 8, WRITE)]);
        guest.chain(0, 1, &[(BUFFERS + 8, 9, WRITE)]);
        guest.publish(0, 0);
        guest.publish(0, 1);
        guest.transport.notify(0);
        assert_eq!(guest.transport.counters().chains, round * 2);
    }
    assert_eq!(guest.transport.fault(), None);
}

/// CVE-2019-18960: a buffer that begins in guest memory and ends outside of it.
#[test]
fn buffers_lie_inside_one_region_of_memory() {
    for (address, len) in [
        (LOW_END, 1),
        (LOW_END - 1, 2),
        (BUFFERS, u32::MAX),
        (0, u32::MAX),
        (0xd000_0000, 8),
        // Begins in one region, goes over the hole and ends in the other.
        (LOW_END - 8, (HIGH - LOW_END) as u32 + 16),
        (HIGH - 1, 2),
        (HIGH_END - 8, 9),
        (u64::MAX, 1),
        (u64::MAX - 7, 8),
        (u64::MAX - 7, 16),
        (u64::MAX - 0xffff_fffe, u32::MAX),
    ] {
        let fault = attack(rng(), 0, |guest| {
            guest.chain(0, 0, &[(address, len, WRITE)]);
            guest.publish(0, 0);
        });
        assert_eq!(fault, Some(Fault::BufferOutsideMemory(address)), "{len} at {address:#x}");
    }
    for (address, len) in [(LOW_END - 1, 1), (HIGH, 8), (HIGH_END - 8, 8)] {
        let fault = attack(rng(), 0, |guest| {
            guest.chain(0, 0, &[(address, len, WRITE)]);
            guest.publish(0, 0);
        });
        assert_eq!(fault, None, "{len} at {address:#x}");
    }
}

#[test]
fn empty_and_indirect_descriptors_are_refused() {
    let empty = attack(rng(), 0, |guest| {
        guest.chain(0, 0, &[(BUFFERS, 8, WRITE), (BUFFERS, 0, WRITE)]);
        guest.publish(0, 0);
    });
    assert_eq!(empty, Some(Fault::EmptyDescriptor(1)));
    let indirect = attack(rng(), 0, |guest| {
        guest.chain(0, 0, &[(BUFFERS, 16, INDIRECT)]);
        guest.publish(0, 0);
    });
    assert_eq!(indirect, Some(Fault::Indirect(0)));
}

#[test]
fn a_chain_reads_first_and_is_less_than_4_gib() {
    let order = attack(disk(), 0, |guest| {
        guest.chain(0, 0, &[(BUFFERS, 16, 0), (BUFFERS, 1, WRITE), (BUFFERS, 8, 0)]);
        guest.publish(0, 0);
    });
    assert_eq!(order, Some(Fault::ReadableAfterWritable(2)));
    // Aliases of one buffer: 8 GiB in a guest of 64 MiB.
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let mut guest = Guest::with_memory(disk(), memory);
    guest.start();
    guest.send(0, &[(0, 64 << 20, WRITE); 128]);
    assert_eq!(guest.transport.fault(), Some(Fault::ChainTooLong));
}

#[test]
fn a_chain_without_the_part_it_is_for_is_refused() {
    for (device, queue, segments) in [
        (rng(), 0, vec![(BUFFERS, 8, 0)]),
        (disk(), 0, vec![(BUFFERS, 16, 0)]),
        (Device::Console(Console::new()), 3, vec![(BUFFERS, 8, WRITE)]),
    ] {
        let fault = attack(device, queue, |guest| {
            guest.chain(queue, 0, &segments);
            guest.publish(queue, 0);
        });
        assert_eq!(fault, Some(Fault::WrongDirection));
    }
}

/// Good chains before a bad one are answered; nothing after it is.
#[test]
fn a_fault_in_the_middle_of_a_pass_ends_it() {
    let mut guest = Guest::running(rng());
    guest.chain(0, 0, &[(BUFFERS, 8, WRITE)]);
    guest.chain(0, 1, &[(LOW_END, 8, WRITE)]);
    guest.chain(0, 2, &[(BUFFERS + 64, 8, WRITE)]);
    for head in 0..3 {
        guest.publish(0, head);
    }
    guest.transport.notify(0);
    assert_eq!(guest.used(0), [(0, 8)]);
    assert_eq!(guest.bytes(BUFFERS + 64, 8), vec![0; 8]);
    assert_eq!(guest.transport.fault(), Some(Fault::BufferOutsideMemory(LOW_END)));
}

/// A device that writes into its own rings hurts the guest only.
#[test]
fn buffers_over_the_rings_are_the_guests_loss() {
    for target in [0x1_0000_u64, 0x1_2000, 0x1_4000] {
        let mut guest = Guest::running(rng());
        for round in 0..8 {
            guest.chain(0, round, &[(target, 128, WRITE)]);
            guest.publish(0, round);
        }
        guest.transport.notify(0);
        guest.transport.notify(0);
        assert!(guest.transport.counters().chains <= 16);
    }
}
