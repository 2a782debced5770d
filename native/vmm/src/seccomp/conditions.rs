//! Conditions that more than one list has.

use casemate_filter::{When, is, is_wide};

use crate::descriptors::VOLUMES;

/// The first argument is this descriptor, a number where spawn put what `descriptors.rs` says. All that a thread could put
/// there instead, by close and recvmsg, is a pod stream: a socket, which has no positions to read or write at, and which in
/// the tap's place would be used as it may be anyway.
pub(super) const fn on(descriptor: i32) -> When {
    descriptor_is(0, descriptor)
}

/// As [`on`], for another argument.
pub(super) const fn descriptor_is(argument: u8, descriptor: i32) -> When {
    let [b0, b1, b2, b3] = descriptor.to_le_bytes();
    is(argument, u64::from_le_bytes([b0, b1, b2, b3, 0, 0, 0, 0]))
}

/// As [`on`], for the descriptors of volumes: four numbers, the first a multiple of four.
pub(super) const fn on_volume() -> When {
    When { mask: 0xffff_fffc, ..on(VOLUMES) }
}

/// `FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG`, the form the standard library waits with.
const WAIT: u64 = 137;
/// `FUTEX_WAKE | FUTEX_PRIVATE_FLAG`.
const WAKE: u64 = 129;

/// Waiting without a time, so that nothing has to be restarted after a stop. The allocator's lock waits in another form
/// (`FUTEX_WAIT`), which is not here: of the running threads one alone allocates.
pub(super) const FUTEX_WAIT: &[When] = &[is(1, WAIT), is_wide(3, 0)];
/// Waking who waits so.
pub(super) const FUTEX_WAKE: &[When] = &[is(1, WAKE)];
/// An eventfd takes and gives 8 bytes.
pub(super) const EVENTFD: &[When] = &[is_wide(2, 8)];
