//! The split virtqueue (virtio 1.2, section 2.7), read defensively.
//!
//! [`QueueConfig`] is what the driver wrote into registers and is never used as it is.
//! [`Queue::freeze`] copies and checks it when the driver sets `DRIVER_OK`; a [`Queue`] has no way to
//! change its size or addresses (CVE-2026-5747). Chains are completed in the order in which they are
//! taken and within one call, so nothing is ever in flight and one index serves both rings.

use std::sync::atomic::{Ordering, fence};

use crate::chain::{Chain, Segment};
use crate::fault::Fault;
use crate::memory::Memory;

/// The longest ring any queue takes.
pub const QUEUE_SIZE_MAX: u16 = 256;
/// The most queues any device has: the console's three pairs.
pub const QUEUES_MAX: usize = 6;

const DESCRIPTOR_BYTES: u64 = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;
const AVAILABLE_FLAG_NO_INTERRUPT: u16 = 1;

/// What the driver wrote, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    pub size: u32,
    pub ready: bool,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// An active queue: checked and immutable but for its position.
#[derive(Debug)]
pub struct Queue {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    /// Free-running: the next entry of both rings.
    next: u16,
    /// Something was completed since the driver was last told.
    completed: bool,
}

/// One pass over what was available when it began. Each descriptor is met at most once, so a pass
/// is at most `size` descriptors of work, whatever the rings say.
#[derive(Debug)]
pub struct Pass {
    remaining: u16,
    seen: [u64; 4],
}

/// A chain that goes back to the driver: its head and the bytes written into it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub head: u16,
    pub written: u32,
}

impl Pass {
    /// Whether all that was available when the pass began was taken.
    pub fn is_over(&self) -> bool {
        self.remaining == 0
    }

    /// Marks a descriptor; false when it was met before in this pass.
    fn first_time(&mut self, index: u16) -> bool {
        let Some(word) = self.seen.get_mut(usize::from(index >> 6)) else { return false };
        let bit = 1_u64 << (index & 63);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }
}

/// Bytes of the available ring and of the used ring of this size, without event indices.
fn ring_bytes(size: u16, entry: u64) -> u64 {
    entry.saturating_mul(u64::from(size)).saturating_add(4)
}

impl Queue {
    /// Checks a driver's configuration and freezes it. `next` is 0, except after a restore.
    pub fn freeze(
        config: &QueueConfig,
        size_max: u16,
        next: u16,
        memory: &Memory,
    ) -> Result<Self, Fault> {
        let size = u16::try_from(config.size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= size_max.min(QUEUE_SIZE_MAX))
            .ok_or(Fault::QueueSize(config.size))?;
        let rings = [
            (config.descriptors, 16, DESCRIPTOR_BYTES.saturating_mul(u64::from(size))),
            (config.available, 2, ring_bytes(size, 2)),
            (config.used, 4, ring_bytes(size, 8)),
        ];
        for (address, alignment, bytes) in rings {
            if !address.is_multiple_of(alignment) {
                return Err(Fault::QueueAlignment(address));
            }
            if !memory.holds(address, bytes) {
                return Err(Fault::QueueOutsideMemory(address));
            }
        }
        Ok(Self {
            size,
            descriptors: config.descriptors,
            available: config.available,
            used: config.used,
            next,
            completed: false,
        })
    }

    /// Position in both rings, for saved state.
    pub fn position(&self) -> u16 {
        self.next
    }

    /// Begins a pass over what is available now. What comes later comes with its own notification.
    pub fn pass(&self, memory: &Memory) -> Result<Pass, Fault> {
        let index = memory.load_u16(self.available.wrapping_add(2))?;
        let remaining = index.wrapping_sub(self.next);
        if remaining > self.size {
            return Err(Fault::AvailableJump(index));
        }
        Ok(Pass { remaining, seen: [0; 4] })
    }

    /// Copies and checks the next chain of the pass into `chain`; false when there is none.
    /// The chain stays in the ring until [`Self::complete`].
    pub fn take(&self, pass: &mut Pass, memory: &Memory, chain: &mut Chain) -> Result<bool, Fault> {
        self.take_ahead(0, pass, memory, chain)
    }

    /// As [`Self::take`], with `taken` chains of this pass that were not given back yet.
    pub fn take_ahead(
        &self,
        taken: u16,
        pass: &mut Pass,
        memory: &Memory,
        chain: &mut Chain,
    ) -> Result<bool, Fault> {
        let Some(remaining) = pass.remaining.checked_sub(1) else { return Ok(false) };
        pass.remaining = remaining;
        let entry = u64::from(self.slot(taken)).wrapping_mul(2).wrapping_add(4);
        let head = memory.load_u16(self.available.wrapping_add(entry))?;
        chain.begin(head);
        let mut next = Some(head);
        while let Some(index) = next {
            next = self.descriptor(index, pass, memory, chain)?;
        }
        Ok(true)
    }

    /// Copies one descriptor, checks the copy and adds it to the chain; gives the one after it.
    fn descriptor(
        &self,
        index: u16,
        pass: &mut Pass,
        memory: &Memory,
        chain: &mut Chain,
    ) -> Result<Option<u16>, Fault> {
        if index >= self.size {
            return Err(Fault::DescriptorIndex(index));
        }
        if !pass.first_time(index) {
            return Err(Fault::DescriptorSeenTwice(index));
        }
        let mut raw = [0; 16];
        let offset = u64::from(index).wrapping_mul(DESCRIPTOR_BYTES);
        memory.read(self.descriptors.wrapping_add(offset), &mut raw)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = raw;
        let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let flags = u16::from_le_bytes([f0, f1]);
        if flags & FLAG_INDIRECT != 0 {
            return Err(Fault::Indirect(index));
        }
        if len == 0 {
            return Err(Fault::EmptyDescriptor(index));
        }
        if !memory.holds(address, u64::from(len)) {
            return Err(Fault::BufferOutsideMemory(address));
        }
        let writable = flags & FLAG_WRITE != 0;
        if !chain.add(Segment { address, len }, writable)? {
            return Err(Fault::ReadableAfterWritable(index));
        }
        Ok((flags & FLAG_NEXT != 0).then_some(u16::from_le_bytes([n0, n1])))
    }

    /// Whether the pass has met every descriptor there is: the driver can add no chain to it.
    pub fn all_met(&self, pass: &Pass) -> bool {
        let met = pass.seen.iter().fold(0_u32, |sum, word| sum.saturating_add(word.count_ones()));
        met >= u32::from(self.size)
    }

    /// Gives a chain back to the driver, with the number of bytes written into it.
    pub fn complete(&mut self, memory: &Memory, chain: &Chain, written: u32) -> Result<(), Fault> {
        self.complete_all(memory, &[chain.used(written)])
    }

    /// Gives chains back in the order in which they were taken; the driver sees all of them at once.
    pub fn complete_all(&mut self, memory: &Memory, chains: &[Used]) -> Result<(), Fault> {
        for (place, Used { head, written }) in (0_u16..).zip(chains) {
            let [h0, h1] = head.to_le_bytes();
            let [w0, w1, w2, w3] = written.to_le_bytes();
            let entry = u64::from(self.slot(place)).wrapping_mul(8).wrapping_add(4);
            memory.write(self.used.wrapping_add(entry), &[h0, h1, 0, 0, w0, w1, w2, w3])?;
        }
        self.next = self.next.wrapping_add(u16::try_from(chains.len()).unwrap_or(0));
        memory.store_u16(self.used.wrapping_add(2), self.next)?;
        self.completed = true;
        Ok(())
    }

    /// Whether the driver must be interrupted for what was completed since the last call.
    pub fn take_interrupt(&mut self, memory: &Memory) -> Result<bool, Fault> {
        if !std::mem::take(&mut self.completed) {
            return Ok(false);
        }
        // The used index must be visible before the flag is read, or a driver that clears the flag
        // and then looks at the index could miss the last chain for ever.
        fence(Ordering::SeqCst);
        Ok(memory.load_u16(self.available)? & AVAILABLE_FLAG_NO_INTERRUPT == 0)
    }

    /// The ring position of the chain `ahead` after `next`: the size is a power of two.
    fn slot(&self, ahead: u16) -> u16 {
        self.next.wrapping_add(ahead) & self.size.wrapping_sub(1)
    }
}
