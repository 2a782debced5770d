//! What a VMM counts, as spawn asks for it: numbers in a fixed order, each at its top value rather than wrapped.
//! They come from a process that may have been taken over, so they are shown and never decided by.

use crate::bytes::{Cursor, Packet};

/// Names of the machine's counters, in the order of the message.
pub const MACHINE_COUNTERS: [&str; 5] =
    ["exits_mmio", "exits_port", "exits_other", "refused_msrs", "stray_accesses"];
/// Names of a device's counters, in the order of the message; docs/formats.md says what each counts.
pub const DEVICE_COUNTERS: [&str; 19] = [
    "requests",
    "interrupts",
    "bytes_to_guest",
    "bytes_from_guest",
    "io_errors",
    "verity_failures",
    "unsupported_requests",
    "invalid_queues",
    "ignored_notifications",
    "bad_accesses",
    "frozen_writes",
    "bad_status_writes",
    "bad_control_messages",
    "throttled_ns",
    "dropped_malformed",
    "dropped_mac",
    "dropped_address",
    "dropped_protocol",
    "dropped_receive",
];
/// Names of the devices, in the order of the message.
pub const DEVICES: [&str; 11] = [
    "init", "image", "scratch", "console", "rng", "net", "balloon", "volume1", "volume2",
    "volume3", "volume4",
];

/// Bytes of the numbers.
pub(crate) const METRICS_BYTES: usize =
    8 * (MACHINE_COUNTERS.len() + DEVICES.len() * DEVICE_COUNTERS.len());

/// All counters of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Of [`MACHINE_COUNTERS`].
    pub machine: [u64; MACHINE_COUNTERS.len()],
    /// Of [`DEVICE_COUNTERS`], for each of [`DEVICES`].
    pub devices: [[u64; DEVICE_COUNTERS.len()]; DEVICES.len()],
}

impl Metrics {
    /// Nothing was counted.
    pub const NONE: Self = Self {
        machine: [0; MACHINE_COUNTERS.len()],
        devices: [[0; DEVICE_COUNTERS.len()]; DEVICES.len()],
    };

    pub(crate) fn put<const N: usize>(&self, packet: Packet<N>) -> Packet<N> {
        let all = self.machine.iter().chain(self.devices.iter().flatten());
        all.fold(packet, |packet, number| packet.with(&number.to_le_bytes()))
    }

    pub(crate) fn take(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut metrics = Self::NONE;
        let all = metrics.machine.iter_mut().chain(metrics.devices.iter_mut().flatten());
        for number in all {
            *number = cursor.u64()?;
        }
        Some(metrics)
    }
}
