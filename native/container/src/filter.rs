//! The system calls of the process that hears spawn and the agent, once the container is being started. Whatever is not
//! here ends it, and with it the pod.

use std::io;

use casemate_filter::{Action, Program, Rule, call, is, is_wide, lacks};

const MSG_DONTWAIT: u64 = 0x40;
const MSG_NOSIGNAL: u64 = 0x4000;
/// [`crate::gather::LOG`].
const LOG_NUMBER: u64 = 9;
const PROT_EXEC: u64 = 4;
const SHUT_RDWR: u64 = 2;

const LIST: &[Rule] = &[
    call!(SYS_epoll_wait, "wait for spawn, the session, the agent and time"),
    call!(SYS_epoll_ctl, "watch them"),
    call!(SYS_close, "close a pod stream whose agent is gone"),
    call!(SYS_recvfrom, "frames of agent and session, without asking who sent them")
        .when(&[is(3, MSG_DONTWAIT), is_wide(4, 0)]),
    call!(SYS_recvmsg, "messages of spawn, with a fresh pod stream"),
    call!(SYS_sendto, "frames to agent and session, messages to spawn, to the socket's peer alone")
        .when(&[is(3, MSG_NOSIGNAL | MSG_DONTWAIT), is_wide(4, 0)]),
    call!(SYS_pwrite64, "the pod's log").when(&[is(0, LOG_NUMBER)]),
    call!(SYS_shutdown, "tell the session that it is over").when(&[is(1, SHUT_RDWR)]),
    call!(SYS_wait4, "wait for the session's end"),
    call!(SYS_read, "its last words"),
    call!(SYS_clock_gettime, "time, where it cannot be read without a call"),
    call!(SYS_getrandom, "a number of the C library's heap"),
    call!(SYS_brk, "the heap"),
    call!(SYS_mmap, "memory").when(&[lacks(2, PROT_EXEC)]),
    call!(SYS_mremap, "memory"),
    call!(SYS_munmap, "memory"),
    call!(SYS_madvise, "memory"),
    call!(SYS_exit_group, "end the pod"),
];

/// As the kernel takes it.
///
/// # Errors
/// A list that does not compile, which no list that passed the tests does.
pub fn compile() -> io::Result<Program> {
    Program::compile(&LIST.iter(), Action::Kill, Action::Allow)
}
