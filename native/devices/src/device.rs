//! The closed set of devices, and what a transport needs to know of each.

use crate::balloon::Balloon;
use crate::block::Block;
use crate::chain::Chain;
use crate::console::Console;
use crate::counters::Counters;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::net::Net;
use crate::queue::{QUEUES_MAX, Queue};
use crate::rng::Rng;
use crate::state::{Reader, StateError};

/// Bytes of the largest device configuration.
pub const CONFIG_BYTES: usize = 64;
/// `VIRTIO_F_VERSION_1`: the only transport feature, and a driver must accept it.
pub const FEATURE_VERSION_1: u64 = 1 << 32;

/// A virtio device. Exhaustive on purpose: a new device is a new arm everywhere, and the compiler
/// lists where.
#[derive(Debug)]
pub enum Device {
    /// A disk.
    Block(Block),
    /// The control pipe.
    Console(Console),
    /// The entropy source.
    Rng(Rng),
    /// A network card.
    Net(Net),
    /// The way back for memory that the guest does not use.
    Balloon(Balloon),
}

/// Active queues, by number. All are empty unless the driver is running.
pub type Queues = [Option<Queue>; QUEUES_MAX];

/// What a device works with while it processes a queue.
#[derive(Debug)]
pub struct Context<'a> {
    pub memory: &'a Memory,
    pub counters: &'a mut Counters,
    pub chain: &'a mut Chain,
    /// What the driver took of the features.
    pub features: u64,
    /// As the monitor told last, in nanoseconds of its monotonic clock.
    pub now: u64,
    /// Set by a device that leaves the next request in the queue until then, because of its rate.
    pub held: Option<u64>,
}

impl Device {
    /// Device id (virtio 1.2, section 5).
    pub(crate) fn id(&self) -> u32 {
        match self {
            Self::Net(_) => 1,
            Self::Block(_) => 2,
            Self::Console(_) => 3,
            Self::Rng(_) => 4,
            Self::Balloon(_) => 5,
        }
    }

    /// Distinguishes devices in saved state, more finely than the id.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Block(block) => block.kind().code(),
            Self::Console(_) => 3,
            Self::Rng(_) => 4,
            Self::Net(_) => 5,
            Self::Balloon(_) => 6,
        }
    }

    /// All features offered. Fixed for each kind of device.
    pub(crate) fn features(&self) -> u64 {
        FEATURE_VERSION_1
            | match self {
                Self::Block(block) => block.features(),
                Self::Console(_) => Console::FEATURES,
                Self::Rng(_) => 0,
                Self::Net(_) => Net::FEATURES,
                Self::Balloon(_) => Balloon::FEATURES,
            }
    }

    /// The longest ring of each queue, by number.
    #[must_use]
    pub fn queue_sizes(&self) -> &'static [u16] {
        match self {
            Self::Block(_) => &Block::QUEUE_SIZES,
            Self::Console(_) => &Console::QUEUE_SIZES,
            Self::Rng(_) => &Rng::QUEUE_SIZES,
            Self::Net(_) => &Net::QUEUE_SIZES,
            Self::Balloon(_) => &Balloon::QUEUE_SIZES,
        }
    }

    /// The device's configuration; what follows it is zero.
    pub(crate) fn config(&self) -> [u8; CONFIG_BYTES] {
        match self {
            Self::Block(block) => block.config(),
            Self::Console(_) => Console::config(),
            // The balloon's: no pages are wanted, and none are in it.
            Self::Rng(_) | Self::Balloon(_) => [0; CONFIG_BYTES],
            Self::Net(net) => net.config(),
        }
    }

    /// Back to what the device was before any driver.
    pub(crate) fn reset(&mut self) {
        match self {
            Self::Console(console) => console.reset(),
            Self::Net(net) => net.reset(),
            Self::Block(_) | Self::Rng(_) | Self::Balloon(_) => {}
        }
    }

    /// Does one pass over a queue that has something new.
    pub(crate) fn process(
        &mut self,
        index: usize,
        queues: &mut Queues,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        match self {
            Self::Console(console) => console.process(index, queues, context),
            Self::Net(net) => net.process(index, queues, context),
            Self::Block(block) => match queues.get_mut(index).and_then(Option::as_mut) {
                Some(queue) => block.process(queue, context),
                None => Ok(()),
            },
            Self::Rng(rng) => match queues.get_mut(index).and_then(Option::as_mut) {
                Some(queue) => rng.process(queue, context),
                None => Ok(()),
            },
            Self::Balloon(balloon) => match queues.get_mut(index).and_then(Option::as_mut) {
                Some(queue) => balloon.process(index, queue, context),
                None => Ok(()),
            },
        }
    }

    /// Appends the device's own state.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        match self {
            Self::Console(console) => console.save(out),
            Self::Block(_) | Self::Rng(_) | Self::Net(_) | Self::Balloon(_) => {}
        }
    }

    /// Reads back what [`Self::save`] wrote.
    pub(crate) fn restore(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        match self {
            Self::Console(console) => console.restore(state),
            Self::Block(_) | Self::Rng(_) | Self::Net(_) | Self::Balloon(_) => Ok(()),
        }
    }
}
