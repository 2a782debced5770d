//! vCPU threads: run the guest, answer its register accesses, ring an interrupt. They never allocate.

use casemate_filter::{Rule, call, is, is_wide};

use super::conditions::{EVENTFD, FUTEX_WAIT, FUTEX_WAKE};

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: u64 = 0xae80;

pub(super) const LIST: &[Rule] = &[
    call!(SYS_ioctl, "run the guest").when(&[is(1, KVM_RUN), is_wide(2, 0)]),
    call!(SYS_write, "raise an interrupt or wake the I/O thread through an eventfd").when(EVENTFD),
    call!(SYS_futex, "wait for a device that the I/O thread holds, for the start, and for the end")
        .when(FUTEX_WAIT),
    call!(SYS_futex, "hand a device over to the I/O thread, or let the others go at the start")
        .when(FUTEX_WAKE)
        .rare("the I/O thread waits for the device at that moment"),
    call!(SYS_exit_group, "end the VM").rare("a panic: a bug in this program"),
];
