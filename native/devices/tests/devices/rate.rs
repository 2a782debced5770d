//! Rate limits as a driver meets them, with the time that the test says it is.

use casemate_devices::{
    Backend, Block, BlockKind, BucketSize, Counters, Device, RNG_REQUEST_BYTES_MAX, Rate, Rng,
    Scratch,
};

use crate::block::{DATA, HEADER, OK, READ, WRITE_OUT, request};
use crate::guest::{BUFFERS, Guest, Random, WRITE, file_of};

const SECOND: u64 = 1_000_000_000;
const SIZE: u64 = 0x10_0000;
const STATUS: u64 = BUFFERS + 0x100;

fn size(capacity: u64, refill_per_second: u64) -> BucketSize {
    BucketSize { capacity, burst: 0, refill_per_second }
}

fn scratch(read: Rate, write: Rate) -> Guest {
    let file = file_of(&vec![7; SIZE as usize]);
    let backend = Backend::Scratch(Scratch::new(file, SIZE).unwrap());
    let block = Block::new(BlockKind::Scratch, backend, "scratch").unwrap();
    Guest::running(Device::Block(block.limited(read, write)))
}

/// Publishes a request like `request` does, without a look at the answer.
fn put(guest: &mut Guest, kind: u32, data: &[(u64, u32, u16)]) {
    guest.write(HEADER, &[u64::from(kind).to_le_bytes(), [0; 8]].concat());
    let all = [&[(HEADER, 16, 0)], data, &[(STATUS, 1, WRITE)]].concat();
    guest.send(0, &all);
}

#[test]
fn a_request_that_may_not_go_stays_in_the_queue_until_its_instant() {
    let mut guest = scratch(Rate::new(Some(size(2, 4)), None), Rate::default());
    guest.transport.advance(10 * SECOND);
    for _ in 0..2 {
        assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), OK);
    }
    assert_eq!(guest.transport.wake_at(), None);
    guest.write(DATA, &[0; 512]);
    put(&mut guest, READ, &[(DATA, 512, WRITE)]);
    let due = 10 * SECOND + SECOND / 4;
    assert_eq!((guest.used(0).len(), guest.transport.wake_at()), (2, Some(due)));
    // However often the bell rings.
    let interrupts = guest.interrupts();
    for passed in 0..50 {
        guest.transport.advance(10 * SECOND + passed);
        guest.transport.notify(0);
    }
    guest.transport.advance(due - 1);
    assert_eq!((guest.used(0).len(), guest.interrupts()), (2, interrupts));
    assert_eq!(guest.bytes(DATA, 512), vec![0; 512]);
    assert_eq!(guest.transport.wake_at(), Some(due));
    guest.transport.advance(due);
    assert_eq!((guest.used(0).len(), guest.interrupts()), (3, interrupts + 1));
    assert_eq!(guest.bytes(DATA, 512), vec![7; 512]);
    assert_eq!(guest.transport.wake_at(), None);
    assert_eq!(guest.transport.counters().throttled_ns, SECOND / 4);
    guest.transport.advance(due + SECOND);
    assert_eq!(guest.transport.counters().throttled_ns, SECOND / 4, "nothing waited then");
}

/// Everything behind it waits as well: answers come in the order of requests.
#[test]
fn what_is_behind_a_held_request_keeps_its_place() {
    let mut guest = scratch(Rate::default(), Rate::new(None, Some(size(512, 512))));
    guest.write(HEADER, &[u64::from(WRITE_OUT).to_le_bytes(), [0; 8]].concat());
    guest.write(HEADER + 32, &[u64::from(READ).to_le_bytes(), [0; 8]].concat());
    for (head, header, data) in [
        (0, HEADER, (DATA, 512, 0)),
        (4, HEADER, (DATA, 512, 0)),
        (8, HEADER + 32, (DATA, 512, WRITE)),
    ] {
        guest.chain(0, head, &[(header, 16, 0), data, (STATUS, 1, WRITE)]);
        guest.publish(0, head);
    }
    guest.transport.notify(0);
    assert_eq!(guest.used(0), [(0, 1)]);
    guest.transport.advance(SECOND);
    assert_eq!(guest.used(0), [(0, 1), (4, 1), (8, 513)]);
}

#[test]
fn reads_and_writes_have_buckets_of_their_own() {
    let one = || Rate::new(Some(size(1, 1)), None);
    let mut guest = scratch(one(), one());
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), OK);
    assert_eq!(request(&mut guest, WRITE_OUT, 0, &[(DATA, 512, 0)]), OK);
    // A flush is work of the writing side, and what is unknown is not free either.
    put(&mut guest, 4, &[]);
    assert_eq!((guest.used(0).len(), guest.transport.wake_at()), (2, Some(SECOND)));
    guest.transport.advance(SECOND);
    assert_eq!(guest.used(0).len(), 3);
    put(&mut guest, 99, &[]);
    assert_eq!(guest.used(0).len(), 4);
    put(&mut guest, 99, &[]);
    assert_eq!((guest.used(0).len(), guest.transport.wake_at()), (4, Some(2 * SECOND)));
}

/// A driver cannot get at fresh buckets.
#[test]
fn a_reset_gives_nothing_back_and_leaves_nothing_waiting() {
    let mut guest = scratch(Rate::new(Some(size(1, 1)), None), Rate::default());
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), OK);
    put(&mut guest, READ, &[(DATA, 512, WRITE)]);
    assert_eq!(guest.transport.wake_at(), Some(SECOND));
    guest.set(0x70, 0);
    assert_eq!(guest.transport.wake_at(), None);
    for queue in 0..6 {
        let rings = guest.rings(queue);
        guest.write(rings.available, &[0; 4]);
        guest.write(rings.used, &[0; 4]);
    }
    guest.start();
    put(&mut guest, READ, &[(DATA, 512, WRITE)]);
    assert_eq!((guest.used(0).len(), guest.transport.wake_at()), (0, Some(SECOND)));
    // Nor by breaking the device.
    guest.set_available_index(0, 999);
    guest.transport.advance(SECOND);
    assert!(guest.failed());
    assert_eq!(guest.transport.wake_at(), None);
}

/// Seeds, sizes and rates of all kinds, a driver that always has requests waiting, and a monitor that
/// wakes when the device says: what is done in a time is what the bucket gives, to one request.
#[test]
fn the_rate_is_kept_over_simulated_time() {
    for seed in 1..40_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let refill = 1 + random.below(1 << 24);
        let capacity = 512 + random.below(1 << 16);
        let limited = || Rate::new(None, Some(size(capacity, refill)));
        let kind = random.pick(&[READ, WRITE_OUT]);
        let mut guest = scratch(limited(), limited());
        let (mut now, mut largest) = (0, 0);
        for _ in 0..200 {
            let sectors = 1 + random.below(128);
            largest = largest.max(sectors * 512);
            let flags = if kind == READ { WRITE } else { 0 };
            put(&mut guest, kind, &[(DATA, (sectors * 512) as u32, flags)]);
            while let Some(due) = guest.transport.wake_at() {
                assert!(due > now);
                now = due;
                guest.transport.advance(now);
            }
            let Counters { bytes_in, bytes_out, throttled_ns, .. } = *guest.transport.counters();
            let done = u128::from(bytes_in + bytes_out);
            let back = u128::from(refill) * u128::from(now) / u128::from(SECOND);
            let most = u128::from(capacity + largest.saturating_sub(capacity)) + back;
            assert!(done <= most, "seed {seed}: {done} of {most}");
            assert!(done + u128::from(largest + capacity) >= back, "seed {seed}: too slow");
            assert_eq!(throttled_ns, now, "all the time there is was waited for");
        }
    }
}

#[test]
fn entropy_is_limited_by_what_is_given_not_by_what_is_asked_for() {
    let most = RNG_REQUEST_BYTES_MAX as u64;
    let rate = Rate::new(None, Some(size(2 * most, most)));
    let mut guest = Guest::running(Device::Rng(Rng::new().limited(rate)));
    for _ in 0..2 {
        guest.send(0, &[(BUFFERS, 0x40_0000, WRITE)]);
    }
    assert_eq!((guest.used(0).len(), guest.transport.wake_at()), (2, None));
    guest.send(0, &[(BUFFERS, most as u32 / 2, WRITE)]);
    assert_eq!((guest.used(0).len(), guest.transport.wake_at()), (2, Some(SECOND / 2)));
    guest.transport.advance(SECOND / 2);
    assert_eq!((guest.used(0).len(), guest.last_used(0)), (3, most as u32 / 2));
}
