//! vCPU threads: run the guest, answer its register accesses, ring an interrupt. They never allocate.

use super::{Allow, is, is_size};

const KVM_RUN: u64 = 0xae80;
/// `FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG`, the form the standard library waits with.
const FUTEX_WAIT_PRIVATE: u64 = 137;
const FUTEX_WAKE_PRIVATE: u64 = 129;

pub(super) const LIST: &[Allow] = &[
    Allow { call: libc::SYS_ioctl, when: &[is(1, KVM_RUN)], why: "run the guest" },
    Allow {
        call: libc::SYS_write,
        when: &[is_size(2, 8)],
        why: "raise an interrupt or wake the I/O thread through an eventfd",
    },
    Allow {
        call: libc::SYS_futex,
        when: &[is(1, FUTEX_WAIT_PRIVATE)],
        why: "wait for a device that the I/O thread holds",
    },
    Allow {
        call: libc::SYS_futex,
        when: &[is(1, FUTEX_WAKE_PRIVATE)],
        why: "hand a device over to the I/O thread",
    },
    Allow { call: libc::SYS_restart_syscall, when: &[], why: "go on after SIGSTOP and SIGCONT" },
    Allow { call: libc::SYS_exit_group, when: &[], why: "end the VM" },
];
