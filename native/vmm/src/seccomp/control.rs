//! The control thread: messages with spawn, and nothing else.

use super::{Allow, MAP_PRIVATE_ANONYMOUS, PROT_EXEC, has, is, is_size, lacks};

/// `FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG`, the form the standard library waits with.
const FUTEX_WAIT_PRIVATE: u64 = 137;
const FUTEX_WAKE_PRIVATE: u64 = 129;
const MADV_DONTNEED: u64 = 4;

const fn plain(call: i64, why: &'static str) -> Allow {
    Allow { call, when: &[], why }
}

pub(super) const LIST: &[Allow] = &[
    plain(libc::SYS_recvmsg, "messages of spawn, and a fresh pod stream with them"),
    plain(libc::SYS_close, "close a descriptor that came with a message that has no use for it"),
    Allow {
        call: libc::SYS_write,
        when: &[is_size(2, 8)],
        why: "wake the I/O thread through an eventfd",
    },
    Allow {
        call: libc::SYS_futex,
        when: &[is(1, FUTEX_WAIT_PRIVATE)],
        why: "wait for the mailbox of the I/O thread",
    },
    Allow {
        call: libc::SYS_futex,
        when: &[is(1, FUTEX_WAKE_PRIVATE)],
        why: "hand the mailbox over",
    },
    Allow {
        call: libc::SYS_mmap,
        when: &[lacks(2, PROT_EXEC), has(3, MAP_PRIVATE_ANONYMOUS)],
        why: "grow the heap, anonymous memory only",
    },
    plain(libc::SYS_munmap, "shrink the heap"),
    plain(libc::SYS_brk, "grow the heap"),
    Allow { call: libc::SYS_madvise, when: &[is(2, MADV_DONTNEED)], why: "give heap pages back" },
    plain(libc::SYS_restart_syscall, "go on after SIGSTOP and SIGCONT"),
    plain(libc::SYS_exit_group, "end the VM"),
];
