//! The devices a guest sees, and nothing else of the virtual machine.
//!
//! [`MmioTransport`] is one virtio-mmio (version 2) window with one [`Device`] behind it: a
//! [`Block`], a [`Console`], an [`Rng`], a [`Net`] or a [`Balloon`]. [`Serial`] is the boot log. The monitor owns memory,
//! threads and interrupts; it calls in from two kinds of thread, behind one lock per transport:
//!
//! - a vCPU thread, on a register access: [`MmioTransport::read`], [`MmioTransport::write`].
//!   Neither allocates nor touches guest memory.
//! - the I/O thread, when a queue's doorbell rang: [`MmioTransport::advance`], which tells the device
//!   the time, and [`MmioTransport::notify`]; when [`MmioTransport::wake_at`] has come:
//!   [`MmioTransport::advance`]; and for the console
//!   [`MmioTransport::console_output`] and [`MmioTransport::console_push`].
//!
//! The guest is hostile. The one rule that everything here follows: what the guest wrote is copied
//! once into host memory, the copy is checked, and only the copy is used. Queue addresses and sizes
//! are copied and checked when the driver sets `DRIVER_OK` and cannot change until it resets the
//! device. No buffer here grows with anything a guest says.

#![forbid(unsafe_code)]

mod balloon;
mod block;
mod chain;
mod console;
mod counters;
mod device;
mod fault;
mod layout;
mod memory;
mod net;
mod number;
mod port;
mod queue;
mod rate;
mod rng;
mod serial;
mod state;
mod transport;

pub use balloon::{BALLOON_PASS_BYTES_MAX, Balloon, Reclaim};
pub use block::{
    AttachError, Backend, Block, BlockKind, REQUEST_BYTES_MAX, SECTOR_BYTES, Scratch, ScratchError,
    VERITY_BLOCK_BYTES, Verified, Verity, VerityError,
};
pub use console::{
    CONSOLE_CHAIN_BYTES_MAX, CONSOLE_INPUT_BYTES_MAX, CONSOLE_OUTPUT_QUEUE, CONSOLE_PORT_NAME,
    Console, Output,
};
pub use counters::Counters;
pub use device::Device;
pub use fault::Fault;
pub use layout::{
    HIGH_MEMORY_BASE, IRQ_BASE, LOW_MEMORY_END, MMIO_BASE, MMIO_WINDOW_BYTES, QUEUE_NOTIFY_OFFSET,
    SLOT_BALLOON, SLOT_CONSOLE, SLOT_COUNT, SLOT_IMAGE, SLOT_INIT, SLOT_NET, SLOT_RNG,
    SLOT_SCRATCH, SLOT_VOLUME, VOLUME_SLOTS, cmdline_entry, irq, window, window_of,
};
pub use net::{FRAME_BYTES_MAX, Interest, NET_RECEIVE_QUEUE, NET_TRANSMIT_QUEUE, Net, Network};
pub use port::{I8042, PortAction};
pub use queue::{QUEUE_SIZE_MAX, QUEUES_MAX};
pub use rate::{BucketSize, Rate};
pub use rng::{RNG_REQUEST_BYTES_MAX, Rng};
pub use serial::Serial;
pub use state::{Reader, StateError};
pub use transport::{Interrupt, MmioTransport, Wake};
