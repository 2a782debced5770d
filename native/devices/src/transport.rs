//! virtio-mmio, version 2 (virtio 1.2, section 4.2): one window of registers and its device.
//!
//! The status register is a state machine, and it decides what else is possible:
//!
//! ```text
//! 0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> `DRIVER_OK`          (one step a write, no way back)
//!                     |         |               +- queues work; their registers are frozen
//!                     |         +- queue registers can be written
//!                     +- feature registers can be written
//! writing 0 resets from anywhere; a fault adds `NEEDS_RESET` and drops the queues
//! ```
//!
//! What is refused is ignored and counted: a register write has no way to answer.

mod disk;
mod link;
mod registers;
mod saved;

use std::fmt;

use registers::{QueueHalf, Registers};
use vm_memory::GuestMemoryMmap;

use crate::chain::Chain;
use crate::console::Output;
use crate::counters::Counters;
use crate::device::{CONFIG_BYTES, Context, Device, FEATURE_VERSION_1, Queues};
use crate::fault::Fault;
use crate::memory::Memory;
use crate::number::{bump, narrow};
use crate::queue::{QUEUES_MAX, Queue};

/// How a device interrupts its driver. The monitor writes an eventfd that KVM turns into an edge.
pub trait Interrupt: Send {
    /// Raises the interrupt once. Must not block.
    fn raise(&self);
}

/// What a register write asks of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// Nothing.
    Nothing,
    /// A doorbell that no ioeventfd caught: have the I/O thread call [`MmioTransport::notify`] for
    /// this queue. It is not done here, so that a vCPU thread never does a device's work.
    Notify(u16),
    /// The device failed as its driver started it ([`MmioTransport::fault`]), which no doorbell tells.
    Failed,
}

const STATUS_ACKNOWLEDGE: u32 = 1;
const STATUS_DRIVER: u32 = 2;
const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_NEEDS_RESET: u32 = 64;
const STATUS_FAILED: u32 = 128;
const INTERRUPT_QUEUE: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = 0x4554_4d43;
const CONFIG_OFFSET: u64 = 0x100;
const WINDOW_END: u64 = 0x1000;

/// One device behind one window.
pub struct MmioTransport {
    device: Device,
    memory: Memory,
    interrupt: Box<dyn Interrupt>,
    registers: Registers,
    queues: Queues,
    chain: Chain,
    counters: Counters,
    fault: Option<Fault>,
    /// The monitor's clock, as told last.
    now: u64,
    /// By queue: when its next request may go, for one that waits for the device's rate.
    held: [Option<u64>; QUEUES_MAX],
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport")
            .field("device", &self.device)
            .field("registers", &self.registers)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl MmioTransport {
    /// A device that no driver has touched. Everything that is ever allocated is allocated here.
    #[must_use]
    pub fn new(device: Device, memory: GuestMemoryMmap, interrupt: Box<dyn Interrupt>) -> Self {
        Self {
            device,
            memory: Memory::new(memory),
            interrupt,
            registers: Registers::default(),
            queues: Queues::default(),
            chain: Chain::new(),
            counters: Counters::default(),
            fault: None,
            now: 0,
            held: [None; QUEUES_MAX],
        }
    }

    /// A guest's read at `offset` of the window. Fills all of `data`; what cannot be read is zero.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if (CONFIG_OFFSET..WINDOW_END).contains(&offset) {
            self.read_config(offset.saturating_sub(CONFIG_OFFSET), data);
            return;
        }
        match (self.register(offset), <&mut [u8; 4]>::try_from(data)) {
            (Some(value), Ok(data)) => *data = value.to_le_bytes(),
            _ => bump(&mut self.counters.bad_access),
        }
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        let len = data.len();
        if !matches!(len, 1 | 2 | 4 | 8) || !narrow(offset).is_multiple_of(len) {
            bump(&mut self.counters.bad_access);
            return;
        }
        let config: [u8; CONFIG_BYTES] = self.device.config();
        for (to, from) in data.iter_mut().zip(config.iter().skip(narrow(offset))) {
            *to = *from;
        }
    }

    fn register(&self, offset: u64) -> Option<u32> {
        let registers = &self.registers;
        Some(match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.id(),
            0x0c => VENDOR,
            0x10 => registers::half(self.device.features(), registers.device_features_select),
            0x34 => self.queue_size_max(),
            0x44 => u32::from(registers.queue().is_some_and(|queue| queue.ready)),
            0x60 => registers.interrupt_status,
            0x70 => registers.status,
            // No shared memory: a length and a base of all ones.
            0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
            0xfc => registers.config_generation,
            _ => return None,
        })
    }

    /// The longest ring of the selected queue, 0 when there is no such queue.
    fn queue_size_max(&self) -> u32 {
        let size = self.device.queue_sizes().get(self.registers.queue_index());
        u32::from(size.copied().unwrap_or(0))
    }

    /// A guest's write at `offset` of the window.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Wake {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            bump(&mut self.counters.bad_access);
            return Wake::Nothing;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x14 => self.registers.device_features_select = value,
            0x20 => self.write_features(value),
            0x24 => self.registers.driver_features_select = value,
            0x30 => self.registers.queue_select = value,
            0x38 => self.write_queue(|queue| queue.size = value),
            0x44 => self.write_queue_ready(value),
            0x50 => match u16::try_from(value) {
                Ok(queue) => return Wake::Notify(queue),
                Err(_) => bump(&mut self.counters.ignored_notify),
            },
            0x64 => self.registers.interrupt_status &= !value,
            0x70 => return self.write_status(value),
            0x80 => self.write_queue(|queue| QueueHalf::Low.set(&mut queue.descriptors, value)),
            0x84 => self.write_queue(|queue| QueueHalf::High.set(&mut queue.descriptors, value)),
            0x90 => self.write_queue(|queue| QueueHalf::Low.set(&mut queue.available, value)),
            0x94 => self.write_queue(|queue| QueueHalf::High.set(&mut queue.available, value)),
            0xa0 => self.write_queue(|queue| QueueHalf::Low.set(&mut queue.used, value)),
            0xa4 => self.write_queue(|queue| QueueHalf::High.set(&mut queue.used, value)),
            // SHMSel: there are no regions to select. Configuration: no device has a writable field.
            0xac => {}
            _ => bump(&mut self.counters.bad_access),
        }
        Wake::Nothing
    }

    fn write_features(&mut self, value: u32) {
        if self.registers.status == ACKNOWLEDGED_DRIVER {
            self.registers.set_driver_features(value);
        } else {
            bump(&mut self.counters.frozen_write);
        }
    }

    /// Changes the selected queue's configuration, while that is possible.
    fn write_queue(&mut self, change: impl FnOnce(&mut crate::queue::QueueConfig)) {
        let open = self.registers.status == FEATURES_OK_STATUS && self.queue_size_max() != 0;
        match self.registers.queue_mut().filter(|queue| open && !queue.ready) {
            Some(queue) => change(queue),
            None => bump(&mut self.counters.frozen_write),
        }
    }

    /// `QueueReady`: 1 closes the queue's registers until `DRIVER_OK`, 0 opens them again.
    fn write_queue_ready(&mut self, value: u32) {
        let open = self.registers.status == FEATURES_OK_STATUS && self.queue_size_max() != 0;
        match self.registers.queue_mut().filter(|_| open && value <= 1) {
            Some(queue) => queue.ready = value == 1,
            None => bump(&mut self.counters.frozen_write),
        }
    }

    fn write_status(&mut self, value: u32) -> Wake {
        let status = self.registers.status;
        // The device's own bit is not the driver's to write or to clear.
        let asked = value & !STATUS_NEEDS_RESET;
        let now = status & !STATUS_NEEDS_RESET;
        match (now, asked) {
            (_, 0) if value == 0 => self.reset(),
            (_, _) if asked == now => {}
            (_, _) if asked == now | STATUS_FAILED => {
                // The driver gave up; so does the device.
                self.drop_queues();
                self.registers.status |= STATUS_FAILED;
            }
            (0, STATUS_ACKNOWLEDGE) | (STATUS_ACKNOWLEDGE, ACKNOWLEDGED_DRIVER) => {
                self.registers.status = asked;
            }
            (ACKNOWLEDGED_DRIVER, FEATURES_OK_STATUS) if self.features_agree() => {
                self.registers.status = asked;
            }
            (FEATURES_OK_STATUS, RUNNING_STATUS) => return self.start(),
            _ => bump(&mut self.counters.bad_status),
        }
        Wake::Nothing
    }

    /// Whether the driver took `VERSION_1` and nothing that was not offered.
    fn features_agree(&self) -> bool {
        let taken = self.registers.driver_features;
        taken & !self.device.features() == 0 && taken & FEATURE_VERSION_1 != 0
    }

    /// `DRIVER_OK`: every ready queue is checked and frozen, or the device fails.
    fn start(&mut self) -> Wake {
        self.registers.status = RUNNING_STATUS;
        match self.freeze_queues([0; QUEUES_MAX]) {
            Ok(queues) => {
                self.queues = queues;
                Wake::Nothing
            }
            Err(fault) => {
                self.fail(fault);
                Wake::Failed
            }
        }
    }

    /// The one way from registers to active queues, at `DRIVER_OK` and after a restore.
    fn freeze_queues(&self, positions: [u16; QUEUES_MAX]) -> Result<Queues, Fault> {
        let mut queues = Queues::default();
        let sizes = self.device.queue_sizes().iter();
        let configs = self.registers.queues.iter().zip(positions);
        for ((slot, (config, next)), size) in queues.iter_mut().zip(configs).zip(sizes) {
            if config.ready {
                *slot = Some(Queue::freeze(config, *size, next, &self.memory)?);
            }
        }
        Ok(queues)
    }

    /// Nothing of the driver's is left to do. What was taken from the rates stays taken, or a driver
    /// could reset its way around them.
    fn drop_queues(&mut self) {
        self.queues = Queues::default();
        self.held = [None; QUEUES_MAX];
    }

    fn reset(&mut self) {
        self.drop_queues();
        let generation = self.registers.config_generation;
        self.registers = Registers { config_generation: generation, ..Registers::default() };
        self.fault = None;
        self.device.reset();
    }

    /// The driver broke the rules: no queue is left, so guest memory is out of reach until a reset.
    fn fail(&mut self, fault: Fault) {
        bump(&mut self.counters.faults);
        self.drop_queues();
        self.fault = Some(fault);
        self.registers.status |= STATUS_NEEDS_RESET;
        self.config_changed();
    }

    fn config_changed(&mut self) {
        self.registers.config_generation = self.registers.config_generation.wrapping_add(1);
        if self.registers.status & STATUS_DRIVER_OK != 0 {
            self.raise(INTERRUPT_CONFIG);
        }
    }

    fn raise(&mut self, cause: u32) {
        self.registers.interrupt_status |= cause;
        bump(&mut self.counters.interrupts);
        self.interrupt.raise();
    }

    /// Does one pass over a queue, because its doorbell rang. Called by the I/O thread only. A
    /// doorbell before `DRIVER_OK`, after a fault or of a queue that is not there is ignored.
    pub fn notify(&mut self, queue: u16) {
        let index = usize::from(queue);
        if self.queues.get(index).is_none_or(Option::is_none) {
            bump(&mut self.counters.ignored_notify);
            return;
        }
        let held = self.with_queues(|device, queues, context| {
            device.process(index, queues, context)?;
            Ok(context.held)
        });
        if let Some(slot) = self.held.get_mut(index) {
            *slot = held;
        }
        self.tell_link_change();
    }

    /// Tells the device that it is `now` by the monitor's monotonic clock, in nanoseconds, and has it
    /// go on with what waited for this time to come. Called by the I/O thread only.
    pub fn advance(&mut self, now: u64) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if self.wake_at().is_some() {
            self.counters.throttled_ns = self.counters.throttled_ns.saturating_add(passed);
        }
        for (queue, held) in (0_u16..).zip(self.held) {
            if held.is_some_and(|until| until <= self.now) {
                self.notify(queue);
            }
        }
    }

    /// When [`Self::advance`] is to be called: the first instant at which a request that waits for the
    /// device's rate may go. It changes with [`Self::notify`] and [`Self::advance`] only, but for a
    /// reset, after which nothing waits.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        self.held.iter().flatten().min().copied()
    }

    /// Runs device work on the active queues, then tells the driver what was completed, or fails.
    fn with_queues<T: Default>(
        &mut self,
        work: impl FnOnce(&mut Device, &mut Queues, &mut Context<'_>) -> Result<T, Fault>,
    ) -> T {
        let (memory, counters, chain) = (&self.memory, &mut self.counters, &mut self.chain);
        let features = self.registers.driver_features;
        let mut context = Context { memory, counters, chain, features, now: self.now, held: None };
        let done = work(&mut self.device, &mut self.queues, &mut context)
            .and_then(|value| Ok((value, self.take_interrupts()?)));
        match done {
            Ok((value, interrupt)) => {
                if interrupt {
                    self.raise(INTERRUPT_QUEUE);
                }
                value
            }
            Err(fault) => {
                self.fail(fault);
                T::default()
            }
        }
    }

    fn take_interrupts(&mut self) -> Result<bool, Fault> {
        let mut interrupt = false;
        for queue in self.queues.iter_mut().flatten() {
            interrupt |= queue.take_interrupt(&self.memory)?;
        }
        Ok(interrupt)
    }

    /// After a restore, when all is in place: looks at every queue once, because doorbells that
    /// rang while the state was saved are lost, and raises again what was not acknowledged. The
    /// caller then calls [`Self::console_output`] on a console.
    pub fn resume(&mut self) {
        if self.registers.interrupt_status != 0 {
            self.raise(0);
        }
        for queue in 0_u16.. {
            match self.queues.get(usize::from(queue)) {
                Some(Some(_)) => self.notify(queue),
                Some(None) => {}
                None => break,
            }
        }
    }

    /// Takes bytes for the guest, as many as there is room for, and gives their number; 0 for a
    /// device that is no console. They wait here until the guest has opened the port and has
    /// buffers.
    pub fn console_push(&mut self, bytes: &[u8]) -> usize {
        let Device::Console(console) = &mut self.device else { return 0 };
        let taken = console.push(bytes);
        self.with_queues(|device, queues, context| match device {
            Device::Console(console) => console.send_input(queues, context),
            Device::Block(_) | Device::Rng(_) | Device::Net(_) | Device::Balloon(_) => Ok(()),
        });
        taken
    }

    /// Bytes taken by [`Self::console_push`] that the guest has not got yet. When this falls, after
    /// a [`Self::notify`], there is room for more.
    #[must_use]
    pub fn console_pending(&self) -> usize {
        match &self.device {
            Device::Console(console) => console.pending(),
            Device::Block(_) | Device::Rng(_) | Device::Net(_) | Device::Balloon(_) => 0,
        }
    }

    /// Whether a process in the guest has the port open.
    #[must_use]
    pub fn console_is_open(&self) -> bool {
        matches!(&self.device, Device::Console(console) if console.is_open())
    }

    /// Hands what the guest sent to `sink`, in pieces of at most 4 KiB. When the sink answers false
    /// the rest of that chain still comes (at most [`crate::CONSOLE_CHAIN_BYTES_MAX`] bytes in all),
    /// and then nothing until the next call: the guest's bytes stay in the guest's memory.
    /// Call it when queue [`crate::CONSOLE_OUTPUT_QUEUE`] was notified, and when a sink that
    /// stopped can take more.
    pub fn console_output(&mut self, sink: &mut dyn FnMut(&[u8]) -> bool) -> Output {
        self.with_queues(|device, queues, context| match device {
            Device::Console(console) => console.output(queues, context, sink),
            Device::Block(_) | Device::Rng(_) | Device::Net(_) | Device::Balloon(_) => {
                Ok(Output::Drained)
            }
        })
    }

    /// Whether the driver has set `DRIVER_OK` and the device has not failed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.registers.status == RUNNING_STATUS
    }

    /// Why the device failed, until the driver resets it.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What the device did and refused.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

const ACKNOWLEDGED_DRIVER: u32 = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
const FEATURES_OK_STATUS: u32 = ACKNOWLEDGED_DRIVER | STATUS_FEATURES_OK;
const RUNNING_STATUS: u32 = FEATURES_OK_STATUS | STATUS_DRIVER_OK;
