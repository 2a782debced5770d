//! A driver made of bytes: registers, rings, doorbells, saved state, in any order, on every device.
//! Nothing panics, nothing outside guest memory is touched (the sanitizer watches), and a state
//! that was saved comes back the same.

#![no_main]

use std::fs::File;
use std::io::Write;

use casemate_devices::{
    Backend, Balloon, Block, BlockKind, BucketSize, Console, Device, Interrupt, MmioTransport, Net,
    Network, Rate, Reader, Reclaim, Rng, Scratch, Verified, Verity,
};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Memory below the hole and above it.
const LOW: usize = 0x2_0000;
const HIGH: u64 = 0x1_0000_0000;
const HIGH_BYTES: usize = 0x1000;
const RING_BYTES: u64 = 0x1000;
const BUFFERS: u64 = 0x8000;
const OPERATIONS_MAX: usize = 256;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// SHA-256 of a block of zeros: the root of a disk of one block without salt.
const ZERO_ROOT: [u8; 32] = [
    0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9, 0x66, 0xc0, 0x04, 0xd7, 0xd1, 0xd1, 0x6b, 0x02,
    0x4f, 0x58, 0x05, 0xff, 0x7c, 0xb4, 0x7c, 0x7a, 0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7,
];

/// Memory goes nowhere, but a device may only name what is there, in whole pages.
#[derive(Debug)]
struct Judge;

impl Reclaim for Judge {
    fn give_back(&self, address: u64, bytes: u64) -> bool {
        let end = address.checked_add(bytes).expect("an end");
        assert!(address % 4096 == 0 && bytes % 4096 == 0 && bytes > 0);
        assert!(end <= LOW as u64 || (address >= HIGH && end <= HIGH + HIGH_BYTES as u64));
        address % 8192 == 0
    }
}

struct NoInterrupt;

impl Interrupt for NoInterrupt {
    fn raise(&self) {}
}

/// The input, taken from the front; zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        now
    }

    fn number(&mut self, width: usize) -> u64 {
        let mut raw = [0; 8];
        let bytes = self.bytes(width);
        raw[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(raw)
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memfd"));
    file.write_all(bytes).expect("written");
    file
}

fn scratch() -> Backend {
    Backend::Scratch(Scratch::new(file(&[0; 0x4000]), 0x4000).expect("a good file"))
}

fn image() -> Backend {
    let verity = Verity { data_blocks: 1, root: ZERO_ROOT, salt: vec![] };
    Backend::Verified(Verified::new(file(&[0; 0x1000]), 0x1000, verity).expect("a good file"))
}

fn device(kind: u64) -> Device {
    let block = |kind, backend| {
        Device::Block(Block::new(kind, backend, "fuzz").expect("a backend that fits"))
    };
    match kind % 9 {
        0 => Device::Rng(Rng::new()),
        1 => block(BlockKind::Image, image()),
        2 => block(BlockKind::Scratch, scratch()),
        3 => block(BlockKind::Scratch, Backend::Absent),
        6 => Device::Net(Net::new()),
        7 => Device::Net(card()),
        8 => Device::Balloon(Balloon::new(Box::new(Judge))),
        _ => Device::Console(Console::new()),
    }
}

/// A card whose tap has frames and takes none: what is sent is refused, as by an interface that is
/// down. A rate so low that frames wait.
fn card() -> Net {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (tap, host) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("a pair");
    for len in [13, 72, 1526, 3000] {
        rustix::io::write(&host, &vec![0; len]).expect("a frame");
    }
    let size = BucketSize { capacity: 2000, burst: 1000, refill_per_second: 1_000_000 };
    let mut net = Net::new();
    net.connect(Network {
        tap,
        mac: MAC,
        addresses: vec![[10, 0, 0, 7].into()],
        mtu: 1500,
        receive: Rate::new(None, Some(size)),
        transmit: Rate::new(None, Some(size)),
    });
    net
}

fn set(transport: &mut MmioTransport, register: u64, value: u32) {
    let _ = transport.write(register, &value.to_le_bytes());
}

/// Where the well-meaning part of the driver has a queue's rings.
fn ring(queue: u64) -> u64 {
    (queue % 6) * RING_BYTES
}

/// A driver that does all right, so that the rings are reached.
fn start(transport: &mut MmioTransport) {
    set(transport, 0x70, 0);
    set(transport, 0x70, 1);
    set(transport, 0x70, 3);
    for half in 0..2 {
        set(transport, 0x14, half);
        let mut features = [0; 4];
        transport.read(0x10, &mut features);
        set(transport, 0x24, half);
        let _ = transport.write(0x20, &features);
    }
    set(transport, 0x70, 11);
    for queue in 0..6_u32 {
        set(transport, 0x30, queue);
        let mut size = [0; 4];
        transport.read(0x34, &mut size);
        let size = u32::from_le_bytes(size).min(32);
        let base = ring(queue.into()) as u32;
        set(transport, 0x38, size);
        set(transport, 0x80, base);
        set(transport, 0x90, base + 0x400);
        set(transport, 0xa0, base + 0x800);
        set(transport, 0x44, 1);
    }
    set(transport, 0x70, 15);
}

/// Writes where the guest has memory; elsewhere there is nothing to write.
fn poke(memory: &GuestMemoryMmap, address: u64, bytes: &[u8]) {
    let _ = memory.write_slice(bytes, GuestAddress(address));
}

fn descriptor(memory: &GuestMemoryMmap, input: &mut Input<'_>) {
    let slot = ring(input.number(1)) + (input.number(1) % 32) * 16;
    let address = input.number(3);
    let address =
        if address & 0x80_0000 == 0 { address & 0x3_ffff } else { HIGH + address % 0x1100 };
    let mut raw = address.to_le_bytes().to_vec();
    raw.extend((input.number(2) as u32).to_le_bytes());
    raw.extend((input.number(1) as u16 & 7).to_le_bytes());
    raw.extend((input.number(1) as u16 % 40).to_le_bytes());
    poke(memory, slot, &raw);
}

fn publish(memory: &GuestMemoryMmap, queue: u64, head: u16) {
    let available = ring(queue) + 0x400;
    let index: u16 = memory.read_obj(GuestAddress(available + 2)).expect("inside memory");
    for size in [8, 32] {
        poke(memory, available + 4 + u64::from(index % size) * 2, &head.to_le_bytes());
    }
    poke(memory, available + 2, &index.wrapping_add(1).to_le_bytes());
}

/// A chain as a driver makes it, for the right queue and with sizes that mean something: without
/// these the mutator finds a whole chain once in ten thousand inputs.
fn send(kind: u64, transport: &mut MmioTransport, memory: &GuestMemoryMmap, input: &mut Input<'_>) {
    let shape = input.number(1);
    let queue = match kind % 9 {
        0..4 => 0,
        4 | 5 => shape % 6,
        8 => shape % 3,
        _ => shape % 2,
    };
    let first = (input.number(1) % 8) * 4;
    let (readable, writable) = ((shape >> 3) % 3, (shape >> 5) % 3);
    let count = readable + writable;
    for place in 0..count {
        let mut raw = (BUFFERS + (input.number(1) % 0x40) * 0x100).to_le_bytes().to_vec();
        let lens: [u32; 8] = [16, 8, 1, 512, 4096, 21, 0x1001, 0x8000];
        raw.extend(lens[input.number(1) as usize % 8].to_le_bytes());
        let next = if place + 1 < count { 1_u16 } else { 0 };
        let write = if place < readable { 0_u16 } else { 2 };
        raw.extend((next | write).to_le_bytes());
        raw.extend(((first + place + 1) as u16).to_le_bytes());
        poke(memory, ring(queue) + (first + place) * 16, &raw);
    }
    publish(memory, queue, first as u16);
    transport.notify(queue as u16);
}

/// The start of a buffer: a block request's header or a console's control message.
fn header(memory: &GuestMemoryMmap, input: &mut Input<'_>) {
    let at = BUFFERS + (input.number(1) % 0x40) * 0x100;
    let what = input.number(1) as u32;
    if what == 0x7f {
        let kinds: [u16; 4] = [0x0800, 0x0806, 0x86dd, 0x8100];
        let kind = kinds[input.number(1) as usize % 4].to_be_bytes();
        poke(memory, at, &[[0; 18].as_slice(), &MAC, &kind].concat());
    } else if what & 0x80 == 0 {
        poke(memory, at, &(what % 16).to_le_bytes());
        poke(memory, at + 8, &input.number(1).to_le_bytes());
    } else {
        let message = [1, 0, 0, 0, (what & 7) as u8, 0, (what >> 3 & 1) as u8, 0];
        poke(memory, at, &message);
    }
}

fn save(transport: &MmioTransport) -> Vec<u8> {
    let mut out = vec![];
    transport.save(&mut out);
    out
}

fn operation(
    kind: u64,
    transport: &mut MmioTransport,
    memory: &GuestMemoryMmap,
    input: &mut Input<'_>,
) {
    match input.number(1) % 16 {
        0 => set(transport, input.number(1) & !3, input.number(4) as u32),
        1 => {
            let address = input.number(3) % 0x2_1000;
            let count = input.number(1) as usize;
            poke(memory, address, input.bytes(count));
        }
        2 => {
            let what = input.number(1);
            transport.notify(what as u16 % 8);
            if let Some(due) = transport.wake_at().filter(|_| what & 0x80 != 0) {
                transport.advance(due);
                assert!(transport.wake_at().is_none_or(|next| next > due));
            }
        }
        3 => {
            let count = input.number(1) as usize;
            let bytes = input.bytes(count);
            assert!(transport.console_push(bytes) <= bytes.len());
        }
        4 => {
            let go_on = input.number(1) % 2 == 0;
            transport.console_output(&mut |piece| {
                assert!(!piece.is_empty() && piece.len() <= 4096);
                go_on
            });
        }
        5 => {
            let mut data = [0; 16];
            let count = input.number(1) as usize % 17;
            transport.read(input.number(2), &mut data[..count]);
        }
        6 => start(transport),
        7 | 8 => descriptor(memory, input),
        9 => publish(memory, input.number(1), input.number(1) as u16 % 40),
        10 => {
            let state = save(transport);
            let mut other = MmioTransport::new(device(kind), memory.clone(), Box::new(NoInterrupt));
            other.restore(&mut Reader::new(&state)).expect("what was saved can be restored");
            assert_eq!(save(&other), state);
        }
        11 => {
            let mut state = save(transport);
            for _ in 0..input.number(1) % 4 {
                let at = input.number(2) as usize % state.len();
                state[at] = input.number(1) as u8;
            }
            if transport.restore(&mut Reader::new(&state)).is_ok() {
                transport.resume();
            }
        }
        12 => {
            let _ = transport.attach(scratch());
        }
        13 => header(memory, input),
        _ => send(kind, transport, memory, input),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LOW), (GuestAddress(HIGH), HIGH_BYTES)])
            .expect("memory");
    let kind = input.number(1);
    let mut transport = MmioTransport::new(device(kind), memory.clone(), Box::new(NoInterrupt));
    if kind & 0x80 == 0 {
        start(&mut transport);
    }
    for _ in 0..OPERATIONS_MAX {
        if input.0.is_empty() {
            break;
        }
        operation(kind, &mut transport, &memory, &mut input);
    }
});
