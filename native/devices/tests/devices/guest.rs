//! A guest: memory, one device, and a driver with as many rings as the device has queues.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_devices::{Device, Interrupt, MmioTransport, Reclaim};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Low memory ends here; above is a hole, as large as nothing needs.
pub const LOW_END: u64 = 0x80_0000;
/// A second region, above 4 GiB.
pub const HIGH: u64 = 0x1_0000_0000;
pub const HIGH_END: u64 = HIGH + 0x10_0000;
/// Where buffers start; rings are below.
pub const BUFFERS: u64 = 0x10_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 3;
pub const FEATURES_OK: u32 = 11;
pub const DRIVER_OK: u32 = 15;
pub const NEEDS_RESET: u32 = 64;
pub const VERSION_1: u64 = 1 << 32;

/// Counts what the device raises.
#[derive(Clone, Default)]
pub struct Line(Arc<AtomicU64>);

impl Interrupt for Line {
    fn raise(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a balloon gave back: pieces and bytes, and the last piece.
#[derive(Clone, Debug, Default)]
pub struct Given(Arc<[AtomicU64; 4]>);

impl Given {
    pub fn pieces_bytes_last(&self) -> (u64, u64, (u64, u64)) {
        let [pieces, bytes, address, last] = &*self.0;
        let number = |value: &AtomicU64| value.load(Ordering::SeqCst);
        (number(pieces), number(bytes), (number(address), number(last)))
    }
}

impl Reclaim for Given {
    fn give_back(&self, address: u64, bytes: u64) -> bool {
        let [pieces, all, last_address, last] = &*self.0;
        pieces.fetch_add(1, Ordering::SeqCst);
        all.fetch_add(bytes, Ordering::SeqCst);
        last_address.store(address, Ordering::SeqCst);
        last.store(bytes, Ordering::SeqCst);
        true
    }
}

/// Where a queue's rings are.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    pub size: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Rings {
    pub fn of(queue: u16, size: u32) -> Self {
        let base = 0x1_0000 + u64::from(queue) * 0x8000;
        Self { size, descriptors: base, available: base + 0x2000, used: base + 0x4000 }
    }
}

/// The machine as one device sees it.
pub struct Guest {
    pub memory: GuestMemoryMmap,
    pub transport: MmioTransport,
    line: Line,
    rings: Vec<Rings>,
}

pub fn new_memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[
        (GuestAddress(0), LOW_END as usize),
        (GuestAddress(HIGH), (HIGH_END - HIGH) as usize),
    ])
    .unwrap()
}

impl Guest {
    /// A machine whose driver has done nothing yet.
    pub fn new(device: Device) -> Self {
        Self::with_memory(device, new_memory())
    }

    pub fn with_memory(device: Device, memory: GuestMemoryMmap) -> Self {
        let line = Line::default();
        let transport = MmioTransport::new(device, memory.clone(), Box::new(line.clone()));
        let rings = (0..6).map(|queue| Rings::of(queue, 8)).collect();
        Self { memory, transport, line, rings }
    }

    /// A machine whose driver runs: all features, all queues at their longest.
    pub fn running(device: Device) -> Self {
        let mut guest = Self::new(device);
        guest.start();
        guest
    }

    pub fn start(&mut self) {
        self.negotiate();
        for queue in 0..6 {
            let size = self.size_max(queue);
            if size > 0 {
                self.configure(queue, Rings::of(queue, size));
            }
        }
        self.set(0x70, DRIVER_OK);
        assert_eq!(self.get(0x70), DRIVER_OK);
    }

    /// Everything up to `FEATURES_OK`.
    pub fn negotiate(&mut self) {
        self.set(0x70, ACKNOWLEDGE);
        self.set(0x70, DRIVER);
        let features = self.features();
        self.take_features(features);
        self.set(0x70, FEATURES_OK);
        assert_eq!(self.get(0x70), FEATURES_OK);
    }

    pub fn features(&mut self) -> u64 {
        self.set(0x14, 1);
        let high = self.get(0x10);
        self.set(0x14, 0);
        (u64::from(high) << 32) | u64::from(self.get(0x10))
    }

    pub fn take_features(&mut self, features: u64) {
        self.set(0x24, 1);
        self.set(0x20, (features >> 32) as u32);
        self.set(0x24, 0);
        self.set(0x20, features as u32);
    }

    pub fn size_max(&mut self, queue: u16) -> u32 {
        self.set(0x30, queue.into());
        self.get(0x34)
    }

    /// Writes a queue's registers and says that it is ready.
    pub fn configure(&mut self, queue: u16, rings: Rings) {
        self.set(0x30, queue.into());
        self.set(0x38, rings.size);
        for (register, address) in
            [(0x80, rings.descriptors), (0x90, rings.available), (0xa0, rings.used)]
        {
            self.set(register, address as u32);
            self.set(register + 4, (address >> 32) as u32);
        }
        self.set(0x44, 1);
        self.rings[usize::from(queue)] = rings;
    }

    pub fn set(&mut self, register: u64, value: u32) {
        let _ = self.transport.write(register, &value.to_le_bytes());
    }

    pub fn get(&mut self, register: u64) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0xaa; N];
        self.transport.read(0x100 + offset, &mut data);
        data
    }

    pub fn interrupts(&self) -> u64 {
        self.line.0.load(Ordering::SeqCst)
    }

    pub fn rings(&self, queue: u16) -> Rings {
        self.rings[usize::from(queue)]
    }

    /// Takes over rings that another driver configured: nothing is written.
    pub fn set_rings(&mut self, queue: u16, rings: Rings) {
        self.rings[usize::from(queue)] = rings;
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub fn descriptor(&self, queue: u16, index: u16, descriptor: (u64, u32, u16), next: u16) {
        let (address, len, flags) = descriptor;
        let mut raw = address.to_le_bytes().to_vec();
        raw.extend(len.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend(next.to_le_bytes());
        self.write(self.rings(queue).descriptors + u64::from(index) * 16, &raw);
    }

    /// Writes a chain from descriptor `head` on, without publishing it.
    pub fn chain(&self, queue: u16, head: u16, segments: &[(u64, u32, u16)]) {
        for (index, (address, len, flags)) in (head..).zip(segments) {
            let last = usize::from(index - head) + 1 == segments.len();
            let flags = if last { *flags } else { flags | NEXT };
            self.descriptor(queue, index, (*address, *len, flags), index.wrapping_add(1));
        }
    }

    pub fn available_index(&self, queue: u16) -> u16 {
        let raw = self.bytes(self.rings(queue).available + 2, 2);
        u16::from_le_bytes([raw[0], raw[1]])
    }

    pub fn set_available_index(&self, queue: u16, index: u16) {
        self.write(self.rings(queue).available + 2, &index.to_le_bytes());
    }

    /// Publishes a head.
    pub fn publish(&self, queue: u16, head: u16) {
        let index = self.available_index(queue);
        let slot = u64::from(index) % u64::from(self.rings(queue).size);
        self.write(self.rings(queue).available + 4 + slot * 2, &head.to_le_bytes());
        self.set_available_index(queue, index.wrapping_add(1));
    }

    /// Writes and publishes a chain at descriptor 0 and rings the bell.
    pub fn send(&mut self, queue: u16, segments: &[(u64, u32, u16)]) {
        self.chain(queue, 0, segments);
        self.publish(queue, 0);
        self.transport.notify(queue);
    }

    /// What the device gave back so far: heads and lengths.
    pub fn used(&self, queue: u16) -> Vec<(u32, u32)> {
        let rings = self.rings(queue);
        let raw = self.bytes(rings.used + 2, 2);
        let count = u16::from_le_bytes([raw[0], raw[1]]);
        (0..count)
            .map(|index| {
                let slot = u64::from(index) % u64::from(rings.size);
                let raw = self.bytes(rings.used + 4 + slot * 8, 8);
                let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap());
                (word(0), word(4))
            })
            .collect()
    }

    /// The length that came with the last chain given back.
    pub fn last_used(&self, queue: u16) -> u32 {
        self.used(queue).last().unwrap().1
    }

    pub fn failed(&mut self) -> bool {
        self.get(0x70) & NEEDS_RESET != 0
    }
}

/// A file of these bytes that only this process has.
pub fn file_of(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}

/// xorshift64*: enough to be different every time and the same every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}
