//! Random rings: whatever they hold, no panic, and no byte changes that the guest did not offer.

use casemate_devices::{Backend, Block, BlockKind, Console, Device, Rng, Scratch};

use crate::guest::{Guest, INDIRECT, NEXT, Random, Rings, WRITE, file_of};
use crate::net::card_with_frames;
use crate::verity::verified;

const MEMORY: u64 = 0x4_0000;
const BUFFERS: u64 = 0x3_0000;
const ROUNDS: u64 = 400;

fn device(random: &mut Random) -> Device {
    match random.below(5) {
        0 => Device::Rng(Rng::new()),
        1 => Device::Console(Console::new()),
        2 => Device::Net(card_with_frames()),
        3 => {
            let backend = Backend::Verified(verified(3, b"s"));
            Device::Block(Block::new(BlockKind::Image, backend, "x").unwrap())
        }
        _ => {
            let file = file_of(&[3; 0x4000]);
            let backend = Backend::Scratch(Scratch::new(file, 0x4000).unwrap());
            Device::Block(Block::new(BlockKind::Scratch, backend, "x").unwrap())
        }
    }
}

fn small(device: Device) -> Guest {
    use vm_memory::{GuestAddress, GuestMemoryMmap};
    let ranges = [(GuestAddress(0), MEMORY as usize)];
    Guest::with_memory(device, GuestMemoryMmap::from_ranges(&ranges).unwrap())
}

/// A driver that runs, with queues 0x1000 apart: all below the buffers.
fn start(guest: &mut Guest) {
    guest.negotiate();
    for queue in 0..6 {
        let size = guest.size_max(queue);
        if size > 0 {
            let base = 0x1_0000 + u64::from(queue) * 0x2000;
            let (descriptors, available, used) = (base, base + 0x1000, base + 0x1400);
            guest.configure(queue, Rings { size, descriptors, available, used });
        }
    }
    guest.set(0x70, 15);
    assert!(guest.transport.is_running());
}

/// True once in `often` times.
fn seldom(random: &mut Random, often: u64) -> bool {
    random.below(often) == 0
}

/// A buffer that is right more often than not.
fn buffer(random: &mut Random, len: u32) -> (u64, u32) {
    let address = match random.below(120) {
        0 => random.next(),
        1 => MEMORY - random.below(64),
        _ => BUFFERS + random.below((MEMORY - BUFFERS) / 16 - 0x101) * 16,
    };
    let len = match random.below(120) {
        0 => 0,
        1 => random.next() as u32,
        _ => len,
    };
    (address, len)
}

/// Writes chains one after the other into the queue's table, some of them wrong, and publishes
/// them; gives every range that the device may write.
fn fill(guest: &Guest, queue: u16, random: &mut Random) -> Vec<(u64, u64)> {
    let rings = guest.rings(queue);
    let size = rings.size as u16;
    let mut writable = vec![(rings.used, 4 + u64::from(rings.size) * 8)];
    let mut index = 0;
    for _ in 0..random.below(5) {
        let head = index;
        // As most requests are: a header, data one way, and a byte for the status.
        let (readable, into) = match (queue, guest.rings(1).size) {
            (0 | 2 | 4, 2 | 256) => (0, 1 + random.below(2)),
            (1 | 3 | 5, 2 | 256) => (1, 0),
            _ => (random.below(3), 1 + random.below(2)),
        };
        let count = (readable + into) as u16;
        if index + count > size {
            break;
        }
        for place in 0..count {
            let last = place + 1 == count;
            let len = match (u64::from(place) < readable, place) {
                (true, 0) => random.pick(&[16, 16, 8]),
                _ if last => random.pick(&[1, 513, 8, 64]),
                _ => random.pick(&[512, 1024, 4096, 16]),
            };
            let (address, len) = buffer(random, len);
            let mut flags = if u64::from(place) < readable { 0 } else { WRITE };
            flags ^= if seldom(random, 60) { WRITE } else { 0 };
            flags |= if last { 0 } else { NEXT };
            flags |= if seldom(random, 100) { random.pick(&[INDIRECT, NEXT]) } else { 0 };
            let next = if seldom(random, 60) { random.next() as u16 } else { index + 1 };
            guest.descriptor(queue, index, (address, len, flags), next % (size + 1));
            if flags & WRITE != 0 {
                writable.push((address, len.into()));
            }
            index += 1;
        }
        let odd = seldom(random, 60);
        guest.publish(queue, if odd { random.next() as u16 } else { head });
    }
    if seldom(random, 60) {
        guest.set_available_index(queue, random.next() as u16);
    }
    writable
}

#[test]
fn nothing_is_written_but_used_rings_and_writable_buffers() {
    let mut random = Random(0x5eed_0001);
    let mut chains = 0;
    let mut faults = 0;
    for round in 0..ROUNDS {
        let mut guest = small(device(&mut random));
        start(&mut guest);
        let kinds = [0_u32, 1, 4, 8, 11, 13, 77];
        let words = (BUFFERS..MEMORY).step_by(16).flat_map(|_| {
            [u64::from(random.pick(&kinds)).to_le_bytes(), random.below(20).to_le_bytes()]
        });
        guest.write(BUFFERS, &words.flatten().collect::<Vec<u8>>());
        let mut writable = vec![];
        for queue in 0..6 {
            if guest.size_max(queue) > 0 {
                writable.extend(fill(&guest, queue, &mut random));
            }
        }
        let before = guest.bytes(0, MEMORY as usize);
        guest.transport.console_push(&[b'h'; 3000]);
        for queue in [2, 3, 0, 1, 4, 5] {
            guest.transport.notify(queue);
        }
        guest.transport.console_output(&mut |piece| piece.len() <= 4096);
        let after = guest.bytes(0, MEMORY as usize);
        for (page, (old, new)) in before.chunks(64).zip(after.chunks(64)).enumerate() {
            if old == new {
                continue;
            }
            for (address, (old, new)) in (page as u64 * 64..).zip(old.iter().zip(new)) {
                let allowed = writable
                    .iter()
                    .any(|(start, len)| address.checked_sub(*start).is_some_and(|at| at < *len));
                assert!(old == new || allowed, "round {round}: wrote {address:#x}");
            }
        }
        chains += guest.transport.counters().chains;
        faults += guest.transport.counters().faults;
    }
    // The rounds are worth something only when both outcomes are common.
    assert!(chains > ROUNDS, "{chains} chains");
    assert!(faults > ROUNDS / 8 && faults < ROUNDS, "{faults} faults");
}

#[test]
fn random_register_writes_and_memory_never_panic() {
    let mut random = Random(0x5eed_0003);
    let registers = [
        0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4,
        0x100, 0x13c,
    ];
    for _ in 0..60 {
        let mut guest = small(device(&mut random));
        // Small numbers, so that addresses, lengths and indices are often possible ones.
        let masks = [0x3_ffff, 0xff, 0x0003_0003_0000_0fff];
        let words = (0..MEMORY)
            .step_by(8)
            .flat_map(|_| (random.next() & random.pick(&masks)).to_le_bytes());
        guest.write(0, &words.collect::<Vec<u8>>());
        if random.below(2) == 0 {
            start(&mut guest);
        }
        for _ in 0..200 {
            let register = random.pick(&registers);
            let value = match random.below(4) {
                0 => random.next() as u32,
                1 => random.pick(&[0, 1, 3, 11, 15]),
                _ => random.below(0x4_0000) as u32,
            };
            guest.set(register, value);
            guest.transport.notify(random.below(7) as u16);
            let mut data = [0; 8];
            let len = random.below(9) as usize;
            guest.transport.read(random.below(0x1010), &mut data[..len]);
            guest.transport.console_output(&mut |_| true);
            guest.transport.console_push(b"0123456789");
        }
    }
}
