//! One descriptor chain, copied from the guest and checked.

use crate::fault::Fault;
use crate::memory::Memory;
use crate::number::{narrow, widen};
use crate::queue::{QUEUE_SIZE_MAX, Used};

/// A buffer inside one region of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub address: u64,
    pub len: u32,
}

/// The segments of one chain: first all readable ones, then all writable ones. Made once for each
/// transport with room for the longest chain, and reused: it never grows.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_len: u32,
    writable_len: u32,
}

impl Chain {
    pub fn new() -> Self {
        let room = usize::from(QUEUE_SIZE_MAX);
        Self {
            head: 0,
            readable: Vec::with_capacity(room),
            writable: Vec::with_capacity(room),
            readable_len: 0,
            writable_len: 0,
        }
    }

    pub fn begin(&mut self, head: u16) {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        self.readable_len = 0;
        self.writable_len = 0;
    }

    /// Adds a checked segment. `Ok(false)`: a readable one after a writable one. The bytes of a
    /// chain must fit 32 bits (virtio 1.2, section 2.7.5.1).
    pub fn add(&mut self, segment: Segment, writable: bool) -> Result<bool, Fault> {
        if !writable && !self.writable.is_empty() {
            return Ok(false);
        }
        let (list, len) = if writable {
            (&mut self.writable, &mut self.writable_len)
        } else {
            (&mut self.readable, &mut self.readable_len)
        };
        *len = len.checked_add(segment.len).ok_or(Fault::ChainTooLong)?;
        list.push(segment);
        Ok(true)
    }

    /// The chain as it is given back, with the number of bytes written into it.
    pub fn used(&self, written: u32) -> Used {
        Used { head: self.head, written }
    }

    /// The buffers the device may write.
    pub fn writable(&self) -> &[Segment] {
        &self.writable
    }

    /// Bytes the device may read.
    pub fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// Bytes the device may write.
    pub fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// Copies readable bytes from `offset` on; all of `bytes`, or a fault.
    pub fn read(&self, memory: &Memory, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        let mut skip = u64::from(offset);
        for segment in &self.readable {
            let Some((address, len)) = part(*segment, &mut skip, rest.len()) else { continue };
            let (now, later) = rest.split_at_mut_checked(len).ok_or(Fault::Memory)?;
            memory.read(address, now)?;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Fault::WrongDirection) }
    }

    /// Copies into writable bytes from `offset` on; all of `bytes`, or a fault.
    pub fn write(&self, memory: &Memory, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        let mut skip = u64::from(offset);
        for segment in &self.writable {
            let Some((address, len)) = part(*segment, &mut skip, rest.len()) else { continue };
            let (now, later) = rest.split_at_checked(len).ok_or(Fault::Memory)?;
            memory.write(address, now)?;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Fault::WrongDirection) }
    }
}

/// The part of a segment after `skip` bytes, of at most `wanted` bytes; takes the segment's share
/// off `skip`.
fn part(segment: Segment, skip: &mut u64, wanted: usize) -> Option<(u64, usize)> {
    let len = u64::from(segment.len);
    let Some(left) = len.checked_sub(*skip).filter(|left| *left > 0) else {
        *skip = skip.saturating_sub(len);
        return None;
    };
    let address = segment.address.checked_add(*skip)?;
    *skip = 0;
    Some((address, narrow(left.min(widen(wanted)))))
}
