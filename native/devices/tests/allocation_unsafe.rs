//! After it was made, a device allocates nothing, whatever its driver does. vCPU threads must not
//! enter the allocator (their system call filter has no brk and no mmap), and memory that a guest
//! can make grow is memory it can take from its neighbours.

#![allow(
    unsafe_code,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "counts allocations, which only a global allocator can; otherwise as the other tests"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use casemate_devices::{
    Backend, Balloon, Block, BlockKind, Console, Device, Net, Rng, Scratch, Serial,
};

use guest::{BUFFERS, Guest, LOW_END, Random, WRITE, file_of};

#[path = "devices/guest.rs"]
mod guest;

thread_local! {
    /// Of this thread: the test's runner has one of its own, which allocates when it likes.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; `alloc` gave System's pointer.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The number of allocations that `work` makes.
fn count(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn devices() -> Vec<Device> {
    let scratch = Scratch::new(file_of(&[0; 0x4000]), 0x4000).unwrap();
    let block = Block::new(BlockKind::Scratch, Backend::Scratch(scratch), "scratch").unwrap();
    vec![
        Device::Rng(Rng::new()),
        Device::Console(Console::new()),
        Device::Block(block),
        Device::Net(Net::new()),
        Device::Balloon(Balloon::new(Box::new(guest::Given::default()))),
    ]
}

/// All in one test: others in this process would be counted too.
#[test]
fn nothing_is_allocated_once_a_device_is_made() {
    assert_eq!(count(|| drop(black_box(Box::new(1_u8)))), 1, "the counter counts");
    for device in devices() {
        let mut guest = Guest::running(device);
        let mut random = Random(0x5eed_0004);
        let queues = (0..6).filter(|queue| guest.size_max(*queue) > 0).count() as u64;
        for _ in 0..2000 {
            let queue = random.below(queues) as u16;
            let address = random.pick(&[BUFFERS, BUFFERS + 0x1_0000, LOW_END - 8]);
            let request = [(BUFFERS, 16, 0), (address, 4096, random.pick(&[0, WRITE]))];
            let status = (BUFFERS, 1, WRITE);
            match random.below(3) {
                0 => guest.chain(queue, 0, &[request[0], request[1], status]),
                1 => guest.chain(queue, 0, &[(address, 64, WRITE), status]),
                _ => guest.chain(queue, 0, &[(address, 8, 0)]),
            }
            guest.publish(queue, random.pick(&[0, 0, 0, 1, 500]));
            let register = random.below(0x110) & !3;
            let value = random.pick(&[0, 1, 3, 11, 15, 0xffff_ffff]);
            let allocations = count(|| {
                guest.transport.notify(queue);
                guest.transport.console_push(&[7; 5000]);
                guest.transport.console_output(&mut |_| true);
                let _ = guest.transport.write(register, &u32::to_le_bytes(value));
                let mut data = [0; 8];
                guest.transport.read(register, &mut data[..4]);
                guest.transport.read(0x100, &mut data);
            });
            assert_eq!(allocations, 0, "queue {queue}, register {register:#x} = {value:#x}");
            if !guest.transport.is_running() {
                guest.set(0x70, 0);
                for queue in 0..6 {
                    guest.set_available_index(queue, 0);
                }
                assert_eq!(count(|| guest.set(0x70, 0)), 0);
                guest.start();
            }
        }
        let chains = guest.transport.counters().chains;
        assert!(chains > 100, "{chains} chains are too few to say");
    }
    let mut serial = Serial::new(1000);
    assert_eq!(count(|| (0..5000).for_each(|_| serial.write(0, b'x'))), 0);
}
