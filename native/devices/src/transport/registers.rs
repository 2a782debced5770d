//! What the driver wrote into the window, unchecked.

use crate::queue::{QUEUES_MAX, QueueConfig};

/// The window's registers that hold something.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    pub status: u32,
    pub device_features_select: u32,
    pub driver_features_select: u32,
    pub driver_features: u64,
    pub queue_select: u32,
    pub interrupt_status: u32,
    /// Free-running: differs whenever the device's configuration may differ.
    pub config_generation: u32,
    pub queues: [QueueConfig; QUEUES_MAX],
}

impl Registers {
    pub fn queue_index(&self) -> usize {
        usize::try_from(self.queue_select).unwrap_or(usize::MAX)
    }

    pub fn queue(&self) -> Option<&QueueConfig> {
        self.queues.get(self.queue_index())
    }

    pub fn queue_mut(&mut self) -> Option<&mut QueueConfig> {
        let index = self.queue_index();
        self.queues.get_mut(index)
    }

    pub fn set_driver_features(&mut self, value: u32) {
        match self.driver_features_select {
            0 => QueueHalf::Low.set(&mut self.driver_features, value),
            1 => QueueHalf::High.set(&mut self.driver_features, value),
            // There are 64 features. Bits beyond them are none that was offered.
            _ => {}
        }
    }
}

/// 32 bits of a 64-bit value, by selector: 0 the low ones, 1 the high ones, nothing beyond.
pub fn half(value: u64, select: u32) -> u32 {
    let [l0, l1, l2, l3, h0, h1, h2, h3] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([l0, l1, l2, l3]),
        1 => u32::from_le_bytes([h0, h1, h2, h3]),
        _ => 0,
    }
}

/// Which half of a 64-bit register a 32-bit write sets.
#[derive(Clone, Copy, Debug)]
pub enum QueueHalf {
    Low,
    High,
}

impl QueueHalf {
    pub fn set(self, register: &mut u64, value: u32) {
        let value = u64::from(value);
        *register = match self {
            Self::Low => (*register & !0xffff_ffff) | value,
            Self::High => (*register & 0xffff_ffff) | (value << 32),
        };
    }
}
