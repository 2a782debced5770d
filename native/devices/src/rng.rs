//! Entropy for the guest (virtio 1.2, section 5.4), from the host's getrandom.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::device::Context;
use crate::fault::Fault;
use crate::number::{bump, narrow, widen};
use crate::queue::Queue;
use crate::rate::Rate;

/// The most bytes one request gets, whatever its length (Firecracker 1.16 allocated what the guest
/// asked for). The driver asks again for more.
pub const RNG_REQUEST_BYTES_MAX: usize = 4096;

/// The entropy device. One queue of writable buffers.
#[derive(Debug)]
pub struct Rng {
    buffer: Box<[u8; RNG_REQUEST_BYTES_MAX]>,
    rate: Rate,
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng {
    pub(crate) const QUEUE_SIZES: [u16; 1] = [8];

    /// A device on the host's generator.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Box::new([0; RNG_REQUEST_BYTES_MAX]), rate: Rate::default() }
    }

    /// The same device with a limit.
    #[must_use]
    pub fn limited(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }

    pub(crate) fn process(
        &mut self,
        queue: &mut Queue,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut pass = queue.pass(context.memory)?;
        while queue.take(&mut pass, context.memory, context.chain)? {
            if context.chain.readable_len() != 0 || context.chain.writable_len() == 0 {
                return Err(Fault::WrongDirection);
            }
            let wanted = narrow(u64::from(context.chain.writable_len())).min(RNG_REQUEST_BYTES_MAX);
            if let Err(ready) = self.rate.admit(widen(wanted), context.now) {
                context.held = Some(ready);
                break;
            }
            let filled = self.fill(wanted);
            let bytes = self.buffer.get(..filled).unwrap_or(&[]);
            context.chain.write(context.memory, 0, bytes)?;
            let written = u32::try_from(filled).unwrap_or(0);
            queue.complete(context.memory, context.chain, written)?;
            bump(&mut context.counters.chains);
            context.counters.bytes_in = context.counters.bytes_in.saturating_add(widen(filled));
        }
        Ok(())
    }

    /// Fills the first `wanted` bytes of the buffer and gives how many. Fewer only when the host's
    /// generator fails, and then the driver sees a short answer rather than made-up bytes.
    fn fill(&mut self, wanted: usize) -> usize {
        let mut filled = 0_usize;
        while let Some(rest) = self.buffer.get_mut(filled..wanted).filter(|rest| !rest.is_empty()) {
            match getrandom(rest, GetRandomFlags::empty()) {
                Ok(count) if count > 0 => filled = filled.saturating_add(count),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        filled
    }
}
