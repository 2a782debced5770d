//! The I/O thread: queues of the devices, the control pipe, the pod's log and stream.

use super::{Allow, MAP_PRIVATE_ANONYMOUS, PROT_EXEC, has, is, is_size, lacks};

/// `FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG`, the form the standard library waits with.
const FUTEX_WAIT_PRIVATE: u64 = 137;
const FUTEX_WAKE_PRIVATE: u64 = 129;
const MADV_DONTNEED: u64 = 4;
const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_DONTWAIT: u64 = 0x40;

const fn plain(call: i64, why: &'static str) -> Allow {
    Allow { call, when: &[], why }
}

pub(super) const LIST: &[Allow] = &[
    plain(libc::SYS_epoll_wait, "wait for doorbells, the stream and time"),
    plain(libc::SYS_epoll_ctl, "watch a fresh pod stream in place of the old one"),
    plain(libc::SYS_close, "close the old pod stream"),
    plain(libc::SYS_read, "clear an eventfd"),
    Allow {
        call: libc::SYS_write,
        when: &[is_size(2, 8)],
        why: "raise an interrupt or wake a thread through an eventfd",
    },
    plain(libc::SYS_recvfrom, "frames from the agent"),
    Allow {
        call: libc::SYS_sendto,
        when: &[is(3, MSG_NOSIGNAL | MSG_DONTWAIT)],
        why: "frames to the agent, messages to spawn",
    },
    plain(libc::SYS_pread64, "blocks of images and scratch"),
    plain(libc::SYS_pwrite64, "blocks of scratch, the pod's log"),
    plain(libc::SYS_fdatasync, "flush of scratch"),
    plain(libc::SYS_fallocate, "discard gives scratch space back"),
    plain(libc::SYS_getrandom, "entropy for the guest"),
    plain(libc::SYS_clock_gettime, "deadlines, when the vDSO falls back to the call"),
    Allow {
        call: libc::SYS_futex,
        when: &[is(1, FUTEX_WAIT_PRIVATE)],
        why: "wait for a device that a vCPU thread holds",
    },
    Allow {
        call: libc::SYS_futex,
        when: &[is(1, FUTEX_WAKE_PRIVATE)],
        why: "hand a device over to a vCPU thread",
    },
    Allow {
        call: libc::SYS_mmap,
        when: &[lacks(2, PROT_EXEC), has(3, MAP_PRIVATE_ANONYMOUS)],
        why: "grow the heap, anonymous memory only",
    },
    plain(libc::SYS_munmap, "shrink the heap"),
    plain(libc::SYS_mremap, "resize a large allocation"),
    plain(libc::SYS_brk, "grow the heap"),
    Allow { call: libc::SYS_madvise, when: &[is(2, MADV_DONTNEED)], why: "give heap pages back" },
    plain(libc::SYS_restart_syscall, "go on after SIGSTOP and SIGCONT"),
    plain(libc::SYS_exit_group, "end the VM"),
];
