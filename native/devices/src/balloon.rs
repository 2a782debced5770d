//! The balloon (virtio 1.2, section 5.5), for free page reporting alone: the guest's kernel names
//! pages that it does not use, and the host takes them back until the guest touches them again.
//!
//! Nothing is ever asked of the guest: `num_pages` stays 0. How much memory a VM may have is its
//! cgroup's to say; a guest that reports nothing, or lies, harms itself only.
//!
//! What a reported page holds afterwards is undefined (section 5.5.6.6): zeros, and in a restored
//! guest what the template has there. The template holds nothing of any tenant, and the guest had
//! it from the start. A kernel that poisons or clears what it frees needs `PAGE_POISON` to keep its
//! promise; that is not offered, and Linux then does not report (`virtballoon_validate`).

use std::fmt;

use crate::device::Context;
use crate::fault::Fault;
use crate::number::bump;
use crate::queue::Queue;

/// Smallest unit of memory that can be given back.
const PAGE_BYTES: u64 = 4096;
/// The queue of reports. Linux numbers queues without those of features that were not agreed upon,
/// so statistics and hints have no number.
const REPORTING_QUEUE: usize = 2;
/// The most that one pass gives back. Walking page tables takes time, 32 pieces of 4 MiB are all
/// that Linux can send at once, and what is beyond is answered and left alone: a report is a hint.
pub const BALLOON_PASS_BYTES_MAX: u64 = 1 << 30;

/// Takes guest memory that is not in use.
pub trait Reclaim: Send + fmt::Debug {
    /// Gives the pages of `bytes` at `address` back to the host; false when that was not possible.
    /// Both are multiples of 4096 and inside one region of guest memory. Must not wait.
    fn give_back(&self, address: u64, bytes: u64) -> bool;
}

/// The device. Queues: inflate, deflate, reports.
#[derive(Debug)]
pub struct Balloon {
    host: Box<dyn Reclaim>,
}

impl Balloon {
    /// `VIRTIO_BALLOON_F_REPORTING`.
    pub(crate) const FEATURES: u64 = 1 << 5;
    /// Linux reports 32 pieces at once and refuses a shorter queue.
    pub(crate) const QUEUE_SIZES: [u16; 3] = [8, 8, 32];

    /// A device that gives memory back to `host`.
    #[must_use]
    pub fn new(host: Box<dyn Reclaim>) -> Self {
        Self { host }
    }

    pub(crate) fn process(
        &self,
        index: usize,
        queue: &mut Queue,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut left = BALLOON_PASS_BYTES_MAX;
        let mut pass = queue.pass(context.memory)?;
        while queue.take(&mut pass, context.memory, context.chain)? {
            if index == REPORTING_QUEUE {
                self.report(&mut left, context)?;
            } else if context.chain.writable_len() != 0 {
                // Page numbers, of a guest that inflates though nobody asked: its own loss.
                return Err(Fault::WrongDirection);
            }
            queue.complete(context.memory, context.chain, 0)?;
            bump(&mut context.counters.chains);
        }
        Ok(())
    }

    /// Each segment is free memory itself, not a message about it; all are checked before any goes.
    fn report(&self, left: &mut u64, context: &mut Context<'_>) -> Result<(), Fault> {
        if context.chain.readable_len() != 0 {
            return Err(Fault::WrongDirection);
        }
        let segments = context.chain.writable();
        let whole = |segment: &&crate::chain::Segment| {
            segment.address.is_multiple_of(PAGE_BYTES)
                && u64::from(segment.len).is_multiple_of(PAGE_BYTES)
        };
        if let Some(odd) = segments.iter().find(|segment| !whole(segment)) {
            return Err(Fault::NotWholePages(odd.address));
        }
        for segment in segments {
            let bytes = u64::from(segment.len);
            let Some(rest) = left.checked_sub(bytes) else { continue };
            *left = rest;
            if self.host.give_back(segment.address, bytes) {
                context.counters.bytes_out = context.counters.bytes_out.saturating_add(bytes);
            } else {
                bump(&mut context.counters.io_errors);
            }
        }
        Ok(())
    }
}
