//! The I/O thread: queues of the devices, the control pipe, the pod's log and stream. Its heap grows by brk alone: what
//! is large is made before the filter.

use casemate_filter::{Rule, call, is, is_wide};

use super::conditions::{EVENTFD, FUTEX_WAIT, FUTEX_WAKE, descriptor_is, on, on_volume};
use crate::descriptors::{IMAGE, INIT, LOG, NET, SCRATCH};

const EPOLL_CTL_ADD: u64 = 1;
const EPOLL_CTL_DEL: u64 = 2;
const EPOLL_CTL_MOD: u64 = 3;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_NOSIGNAL: u64 = 0x4000;
/// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE`.
const PUNCH_HOLE: u64 = 3;
const TFD_TIMER_ABSTIME: u64 = 1;
const MADV_DONTNEED: u64 = 4;
const CLOCK_REALTIME: u64 = 0;
const CLOCK_MONOTONIC: u64 = 1;
const CLOCK_BOOTTIME: u64 = 7;

pub(super) const LIST: &[Rule] = &[
    call!(SYS_epoll_wait, "wait for doorbells, the stream and time"),
    call!(SYS_epoll_ctl, "watch a fresh pod stream, or the tap").when(&[is(1, EPOLL_CTL_ADD)]),
    call!(SYS_epoll_ctl, "watch the pod stream, or the tap, for what can be done with it now")
        .when(&[is(1, EPOLL_CTL_MOD)]),
    call!(SYS_epoll_ctl, "no longer watch the tap")
        .when(&[is(1, EPOLL_CTL_DEL), descriptor_is(2, NET)])
        .rare("the pod's tap is gone, or its guest's driver let go of the card"),
    call!(SYS_close, "close a pod stream whose agent is gone"),
    call!(SYS_read, "clear an eventfd").when(EVENTFD),
    call!(SYS_write, "raise an interrupt or wake a thread through an eventfd").when(EVENTFD),
    call!(SYS_read, "frames for the guest, from the tap")
        .when(&[on(NET)])
        .rare("the pod has a network, and another pod on it says something"),
    call!(SYS_write, "frames of the guest, to the tap")
        .when(&[on(NET)])
        .rare("the pod has a network, and its kernel or its app says something"),
    call!(SYS_recvfrom, "frames from the agent, without asking who sent them")
        .when(&[is(3, MSG_DONTWAIT), is_wide(4, 0)]),
    call!(SYS_sendto, "frames to the agent and messages to spawn, to the socket's peer alone")
        .when(&[is(3, MSG_NOSIGNAL | MSG_DONTWAIT), is_wide(4, 0)]),
    call!(SYS_pread64, "blocks of the init disk")
        .when(&[on(INIT)])
        .rare("the guest boots, or its template had not read everything"),
    call!(SYS_pread64, "blocks of the tenant's image").when(&[on(IMAGE)]),
    call!(SYS_pread64, "blocks of scratch").when(&[on(SCRATCH)]),
    call!(SYS_pwrite64, "blocks of scratch").when(&[on(SCRATCH)]),
    call!(SYS_pread64, "blocks of a volume").when(&[on_volume()]).rare("the pod has a volume"),
    call!(SYS_pwrite64, "blocks of a volume").when(&[on_volume()]).rare("the pod has a volume"),
    call!(SYS_fdatasync, "flush of a volume").when(&[on_volume()]).rare("the pod has a volume"),
    call!(SYS_fallocate, "discard gives a volume's space back, and never makes the file larger")
        .when(&[on_volume(), is(1, PUNCH_HOLE)])
        .rare("the pod has a volume, and deletes files there"),
    call!(SYS_pwrite64, "the pod's log").when(&[on(LOG)]),
    call!(SYS_fdatasync, "flush of scratch").when(&[on(SCRATCH)]),
    call!(SYS_fallocate, "discard gives scratch space back, and never makes the file larger")
        .when(&[on(SCRATCH), is(1, PUNCH_HOLE)]),
    call!(SYS_madvise, "memory that the guest does not use goes back to the host")
        .when(&[is(2, MADV_DONTNEED)])
        .rare("the guest's kernel has had pieces of 512 KiB of free memory for two seconds"),
    call!(SYS_getrandom, "entropy for the guest").when(&[is(2, 0)]),
    call!(SYS_clock_gettime, "the time of a line of the log")
        .when(&[is(0, CLOCK_REALTIME)])
        .rare("the host's clock cannot be read without a call"),
    call!(SYS_clock_gettime, "deadlines")
        .when(&[is(0, CLOCK_MONOTONIC)])
        .rare("the host's clock cannot be read without a call"),
    call!(SYS_clock_gettime, "whether the ticket of a process beside the app is still good")
        .when(&[is(0, CLOCK_BOOTTIME)])
        .rare("the host's clock cannot be read without a call, and such a process is asked for"),
    call!(SYS_timerfd_settime, "wake when a device's rate limit gives way")
        .when(&[is(1, TFD_TIMER_ABSTIME)])
        .rare("a device does more than its limits let it"),
    call!(SYS_futex, "wait for a device that a vCPU thread holds, and for the start")
        .when(FUTEX_WAIT)
        .rare("another thread has the lock at that moment, or comes to the barrier later"),
    call!(SYS_futex, "hand a device over to a vCPU thread, or let the others go at the start")
        .when(FUTEX_WAKE)
        .rare("another thread waits at that moment, or came to the barrier earlier"),
    call!(SYS_brk, "grow and shrink the heap").rare("the heap has no room left"),
    call!(SYS_exit_group, "end the VM"),
];
