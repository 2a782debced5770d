//! The control pipe: a multiport console (virtio 1.2, section 5.3) with one generic port.
//!
//! Port 0 exists only as two queues that Linux always makes; it is never announced and what comes
//! there is ignored. Port 1, `casemate.control`, is announced when the driver says it is ready, and
//! carries bytes both ways. Neither direction grows: what the guest sends stays in its own ring
//! until the monitor takes it, what the host sends waits in a ring of fixed size.

mod control;

use std::collections::VecDeque;

use control::{Control, Outgoing};

use crate::chain::Chain;
use crate::device::{CONFIG_BYTES, Context, Queues};
use crate::fault::Fault;
use crate::number::{bump, narrow, widen};
use crate::queue::Queue;
use crate::state::{Reader, StateError};

/// Name of the port, in the guest's /sys/class/virtio-ports/*/name.
pub const CONSOLE_PORT_NAME: &str = "casemate.control";
/// The most bytes the host can have waiting: one frame of streams (native/wire) and its header.
pub const CONSOLE_INPUT_BYTES_MAX: usize = 65_536 + 8;
/// The most bytes the guest sends in one chain. Linux sends at most 32 KiB.
pub const CONSOLE_CHAIN_BYTES_MAX: u32 = 65_536;
/// The queue whose notification means that [`crate::MmioTransport::console_output`] has work.
pub const CONSOLE_OUTPUT_QUEUE: u16 = 5;

const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
const PORT_IN: usize = 4;
const PORT_OUT: usize = 5;
const BUFFER_BYTES: usize = 4096;

/// How a call of [`crate::MmioTransport::console_output`] ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Everything that was in the ring was taken; the next notification tells of more.
    #[default]
    Drained,
    /// The sink asked to stop: call again when it can take more.
    Stopped,
}

/// The console device.
#[derive(Debug)]
pub struct Console {
    control: Control,
    input: VecDeque<u8>,
    buffer: Box<[u8; BUFFER_BYTES]>,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// `VIRTIO_CONSOLE_F_MULTIPORT`. No size, no emergency write.
    pub(crate) const FEATURES: u64 = 1 << 1;
    pub(crate) const QUEUE_SIZES: [u16; 6] = [2, 2, 16, 16, 32, 32];

    /// A console nobody has opened.
    #[must_use]
    pub fn new() -> Self {
        Self {
            control: Control::default(),
            input: VecDeque::with_capacity(CONSOLE_INPUT_BYTES_MAX),
            buffer: Box::new([0; BUFFER_BYTES]),
        }
    }

    /// `struct virtio_console_config`: cols, rows, `max_nr_ports` = 2, `emerg_wr`.
    pub(crate) fn config() -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        if let Some(ports) = config.get_mut(4) {
            *ports = 2;
        }
        config
    }

    pub(crate) fn reset(&mut self) {
        self.control = Control::default();
        self.input.clear();
    }

    /// Takes as many bytes for the guest as there is room for and gives their number.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let room = CONSOLE_INPUT_BYTES_MAX.saturating_sub(self.input.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.input.extend(taken);
        taken.len()
    }

    /// Bytes that wait for the guest.
    pub(crate) fn pending(&self) -> usize {
        self.input.len()
    }

    /// Whether a process in the guest has the port open.
    pub(crate) fn is_open(&self) -> bool {
        self.control.guest_open()
    }

    pub(crate) fn process(
        &mut self,
        index: usize,
        queues: &mut Queues,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if index == CONTROL_OUT {
            self.receive_control(queues, context)?;
        }
        if matches!(index, CONTROL_IN | CONTROL_OUT) {
            self.send_control(queues, context)?;
        }
        if matches!(index, PORT_IN | CONTROL_OUT) {
            self.send_input(queues, context)?;
        }
        Ok(())
    }

    /// Takes every control message of the guest's. A bad one is counted and answered by nothing.
    fn receive_control(
        &mut self,
        queues: &mut Queues,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Some(queue) = active(queues, CONTROL_OUT) else { return Ok(()) };
        let mut pass = queue.pass(context.memory)?;
        while queue.take(&mut pass, context.memory, context.chain)? {
            if context.chain.writable_len() != 0 {
                return Err(Fault::WrongDirection);
            }
            let mut message = [0; control::MESSAGE_BYTES];
            let exact = narrow(u64::from(context.chain.readable_len())) == message.len();
            if exact {
                context.chain.read(context.memory, 0, &mut message)?;
            }
            if !exact || !self.control.receive(message) {
                bump(&mut context.counters.bad_control);
            }
            queue.complete(context.memory, context.chain, 0)?;
            bump(&mut context.counters.chains);
        }
        Ok(())
    }

    /// Gives the guest what is to be said, as far as it has buffers for it.
    fn send_control(
        &mut self,
        queues: &mut Queues,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Some(queue) = active(queues, CONTROL_IN) else { return Ok(()) };
        let mut pass = queue.pass(context.memory)?;
        while let Some(outgoing) = self.control.outgoing() {
            if !queue.take(&mut pass, context.memory, context.chain)? {
                break;
            }
            writable_only(context.chain)?;
            let message: Outgoing = outgoing.encode();
            let bytes = message.bytes();
            // A buffer that is too small for a message is the driver's error; Linux gives a page.
            context.chain.write(context.memory, 0, bytes)?;
            let written = u32::try_from(bytes.len()).unwrap_or(0);
            queue.complete(context.memory, context.chain, written)?;
            bump(&mut context.counters.chains);
            self.control.sent(outgoing);
        }
        Ok(())
    }

    /// Copies waiting bytes into the guest's buffers while a process has the port open: Linux drops
    /// what comes for a closed port.
    pub(crate) fn send_input(
        &mut self,
        queues: &mut Queues,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if !self.control.guest_open() || self.input.is_empty() {
            return Ok(());
        }
        let Some(queue) = active(queues, PORT_IN) else { return Ok(()) };
        let mut pass = queue.pass(context.memory)?;
        while !self.input.is_empty() && queue.take(&mut pass, context.memory, context.chain)? {
            writable_only(context.chain)?;
            let room = narrow(u64::from(context.chain.writable_len()));
            let count = self.input.len().min(room);
            let mut offset = 0_u32;
            let (front, back) = self.input.as_slices();
            let mut left = count;
            for part in [front, back] {
                let bytes = part.get(..left).unwrap_or(part);
                context.chain.write(context.memory, offset, bytes)?;
                left = left.saturating_sub(bytes.len());
                offset = offset.saturating_add(u32::try_from(bytes.len()).unwrap_or(0));
            }
            queue.complete(context.memory, context.chain, offset)?;
            self.input.drain(..count);
            bump(&mut context.counters.chains);
            context.counters.bytes_in = context.counters.bytes_in.saturating_add(widen(count));
        }
        Ok(())
    }

    /// Hands the guest's bytes to `sink`, chain by chain in pieces of at most 4 KiB, until there
    /// are none or the sink says false. A chain is always handed over whole.
    pub(crate) fn output(
        &mut self,
        queues: &mut Queues,
        context: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Output, Fault> {
        let Some(queue) = active(queues, PORT_OUT) else { return Ok(Output::Drained) };
        let mut pass = queue.pass(context.memory)?;
        while queue.take(&mut pass, context.memory, context.chain)? {
            let go_on = self.output_chain(context, sink)?;
            queue.complete(context.memory, context.chain, 0)?;
            bump(&mut context.counters.chains);
            if !go_on {
                return Ok(Output::Stopped);
            }
        }
        Ok(Output::Drained)
    }

    fn output_chain(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, Fault> {
        if context.chain.writable_len() != 0 {
            return Err(Fault::WrongDirection);
        }
        let len = context.chain.readable_len();
        if len > CONSOLE_CHAIN_BYTES_MAX {
            return Err(Fault::ChainTooLong);
        }
        let mut go_on = true;
        let mut offset = 0_u32;
        while let Some(left) = len.checked_sub(offset).filter(|left| *left > 0) {
            let count = narrow(u64::from(left)).min(BUFFER_BYTES);
            let bytes = self.buffer.get_mut(..count).ok_or(Fault::Memory)?;
            context.chain.read(context.memory, offset, bytes)?;
            go_on &= sink(bytes);
            offset = offset.saturating_add(u32::try_from(count).unwrap_or(left));
            context.counters.bytes_out = context.counters.bytes_out.saturating_add(widen(count));
        }
        Ok(go_on)
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        self.control.save(out);
        let len = u32::try_from(self.input.len()).unwrap_or(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend(&self.input);
    }

    pub(crate) fn restore(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        let control = Control::restore(state)?;
        let len = narrow(u64::from(state.u32()?));
        if len > CONSOLE_INPUT_BYTES_MAX {
            return Err(StateError::Value("console input length"));
        }
        let input = state.bytes(len)?;
        self.control = control;
        self.input.clear();
        self.input.extend(input);
        Ok(())
    }
}

fn active(queues: &mut Queues, index: usize) -> Option<&mut Queue> {
    queues.get_mut(index).and_then(Option::as_mut)
}

/// A buffer to fill has something to fill and nothing to read.
fn writable_only(chain: &Chain) -> Result<(), Fault> {
    if chain.readable_len() != 0 || chain.writable_len() == 0 {
        return Err(Fault::WrongDirection);
    }
    Ok(())
}
