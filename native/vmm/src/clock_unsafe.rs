//! The clocks of tickets and of devices.

use std::mem::MaybeUninit;

/// `CLOCK_BOOTTIME` in nanoseconds: the clock of tickets, which goes on in suspend and starts anew with the host.
pub fn boottime_ns() -> u64 {
    nanoseconds(libc::CLOCK_BOOTTIME)
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of devices and of their timer.
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

/// From the C library, which knows where the kernel left its clock. rustix reads that from `/proc/self/auxv` on kernels
/// before 6.4, and a VMM that opens anything is killed.
fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the place is writable; both clocks exist since Linux 2.6.39.
    unsafe { libc::clock_gettime(clock, now.as_mut_ptr()) };
    // SAFETY: written by the call, or zero.
    let now = unsafe { now.assume_init() };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
