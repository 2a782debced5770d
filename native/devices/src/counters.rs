//! What a device did and what it refused, for the monitor's report.

/// Plain counters of one transport since it was made. They are not part of saved state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Register accesses of an unknown offset, a wrong width or a read-only register.
    pub bad_access: u64,
    /// Writes to queue or feature registers at a time when they are frozen.
    pub frozen_write: u64,
    /// Status writes that skip a step or clear a bit.
    pub bad_status: u64,
    /// Notifications of a queue that does not exist or is not active.
    pub ignored_notify: u64,
    /// Times the device set `NEEDS_RESET` because of what the driver did.
    pub faults: u64,
    /// Descriptor chains completed.
    pub chains: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Bytes that went from the device into guest memory.
    pub bytes_in: u64,
    /// Bytes that the device took from guest memory; a balloon: that went back to the host.
    pub bytes_out: u64,
    /// Block requests answered with an I/O error, for whatever cause; pieces that a balloon could
    /// not give back.
    pub io_errors: u64,
    /// Block requests of a kind that is not offered.
    pub unsupported: u64,
    /// Reads whose bytes are not those of the Merkle root.
    pub verity_failures: u64,
    /// Console control messages of a wrong length, kind, port or order.
    pub bad_control: u64,
    /// Nanoseconds in which a request waited for the device's rate limit.
    pub throttled_ns: u64,
    /// Frames of the guest whose fields do not fit each other or the frame.
    pub dropped_malformed: u64,
    /// Frames from a hardware address, or about one, that is not the guest's.
    pub dropped_mac: u64,
    /// Frames from an address, or about one, that is not the guest's.
    pub dropped_address: u64,
    /// Frames of the guest of a kind that it may not send.
    pub dropped_protocol: u64,
    /// Frames for the guest that it has no use for or no room.
    pub dropped_receive: u64,
}

impl Counters {
    /// In the order in which they are reported (`casemate_wire::metrics::DEVICE_COUNTERS`).
    #[must_use]
    pub const fn in_order(&self) -> [u64; 19] {
        [
            self.chains,
            self.interrupts,
            self.bytes_in,
            self.bytes_out,
            self.io_errors,
            self.verity_failures,
            self.unsupported,
            self.faults,
            self.ignored_notify,
            self.bad_access,
            self.frozen_write,
            self.bad_status,
            self.bad_control,
            self.throttled_ns,
            self.dropped_malformed,
            self.dropped_mac,
            self.dropped_address,
            self.dropped_protocol,
            self.dropped_receive,
        ]
    }
}
