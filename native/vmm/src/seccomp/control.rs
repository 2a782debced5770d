//! The control thread: messages with spawn, and nothing else. It allocates nothing.

use casemate_filter::{Rule, call, is};

use super::conditions::{EVENTFD, FUTEX_WAIT, FUTEX_WAKE, on};
use crate::descriptors::CONTROL;

const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;

pub(super) const LIST: &[Rule] = &[
    call!(
        SYS_recvmsg,
        "messages of spawn, and a fresh pod stream with one: the only way a descriptor comes in"
    )
    .when(&[on(CONTROL), is(2, MSG_CMSG_CLOEXEC)]),
    call!(SYS_close, "close a pod stream that was replaced before anybody used it")
        .rare("two agents in a row adopt the pod before the I/O thread has looked"),
    call!(SYS_write, "wake the I/O thread through an eventfd").when(EVENTFD),
    call!(SYS_futex, "wait for the mailbox, or for the other threads at the start")
        .when(FUTEX_WAIT)
        .rare("another thread has the lock at that moment, or comes to the barrier later"),
    call!(SYS_futex, "hand the mailbox over, or let the others go at the start")
        .when(FUTEX_WAKE)
        .rare("another thread waits at that moment, or came to the barrier earlier"),
    call!(SYS_exit_group, "end the VM").rare("spawn is gone, or sends what it never sends"),
];
