//! What every thread of the process may do from its first line on, until it installs its own filter; a VMM that builds a
//! template, which runs our kernel and our init and nothing of a tenant, does all its work under this one.
//!
//! What running threads may do is allowed here too (a filter can only take away) and not repeated.

use casemate_filter::{Rule, call, is, is_wide, lacks};

use super::conditions::on;
use crate::descriptors::{CONTROL, KERNEL, NET};

/// All bits of `prot` but `PROT_READ` and `PROT_WRITE`.
const NEITHER_READ_NOR_WRITE: u64 = !3;

const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_DUPFD_CLOEXEC: u64 = 1030;
const F_ADD_SEALS: u64 = 1033;
const F_GET_SEALS: u64 = 1034;
const SEEK_SET: u64 = 0;
const SEEK_CUR: u64 = 1;
const SEEK_DATA: u64 = 3;
const SEEK_HOLE: u64 = 4;
/// `EFD_CLOEXEC | EFD_NONBLOCK`.
const EFD_FLAGS: u64 = 0x8_0800;
/// `TFD_CLOEXEC | TFD_NONBLOCK`.
const TFD_FLAGS: u64 = 0x8_0800;
const EPOLL_CLOEXEC: u64 = 0x8_0000;
const CLOCK_MONOTONIC: u64 = 1;
const CLOCK_BOOTTIME: u64 = 7;
const PR_SET_NAME: u64 = 15;
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
/// The C library's own signal, for which `pthread_create` installs a handler.
const SIGSETXID: u64 = 33;
/// `SIGRTMIN` of the C library.
const SIGNAL_OF_PAUSE: u64 = 34;
const MSG_NOSIGNAL: u64 = 0x4000;
/// `FUTEX_WAIT | FUTEX_PRIVATE_FLAG`.
const FUTEX_WAIT_PLAIN: u64 = 128;
/// `FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME`, shared with the kernel, which wakes it.
const FUTEX_JOIN: u64 = 0x109;

/// A request to KVM: its number has direction, size of the argument, KVM's type 0xae, and which it is.
macro_rules! request {
    ($number:literal, $why:literal) => {
        call!(SYS_ioctl, $why).when(&[is(1, $number)])
    };
}

pub(super) const LIST: &[Rule] = &[
    // Descriptors: what spawn left, looked at and read.
    call!(SYS_fcntl, "is there a descriptor of this number").when(&[is(1, F_GETFD)]),
    call!(SYS_fcntl, "how it may be used").when(&[is(1, F_GETFL)]),
    call!(SYS_fcntl, "whether it can still change").when(&[is(1, F_GET_SEALS)]),
    call!(SYS_fcntl, "a second handle on an eventfd").when(&[is(1, F_DUPFD_CLOEXEC)]),
    call!(SYS_fstat, "kind and size of a file"),
    call!(SYS_statx, "size of a disk"),
    call!(SYS_pread64, "document, template state, and the scratch disk as it was made"),
    call!(SYS_read, "the kernel, into guest memory").when(&[on(KERNEL)]),
    call!(SYS_lseek, "the parts of the kernel").when(&[on(KERNEL), is(2, SEEK_SET)]),
    call!(SYS_lseek, "the next note of the kernel").when(&[on(KERNEL), is(2, SEEK_CUR)]),
    call!(SYS_lseek, "where a sparse file holds data").when(&[is(2, SEEK_DATA)]),
    call!(SYS_lseek, "where it has holes").when(&[is(2, SEEK_HOLE)]),
    call!(SYS_ioctl, "TUNGETIFF: is it a tap, and how was it made")
        .when(&[on(NET), is(1, 0x8004_54d2)]),
    call!(SYS_ioctl, "TUNGETVNETHDRSZ: how its frames begin").when(&[on(NET), is(1, 0x8004_54d7)]),
    call!(SYS_ioctl, "TUNSETOFFLOAD: what the card may leave to others")
        .when(&[on(NET), is(1, 0x4004_54d0)]),
    call!(SYS_clock_gettime, "whether the ticket is still good")
        .when(&[is(0, CLOCK_BOOTTIME)])
        .rare("the host's clock cannot be read without a call"),
    // The machine.
    request!(0xae01, "KVM_CREATE_VM: the machine"),
    request!(0xae04, "KVM_GET_VCPU_MMAP_SIZE: how much of a processor's descriptor is mapped"),
    request!(0xae47, "KVM_SET_TSS_ADDR: pages that VMX takes in real mode"),
    request!(0x4008_ae48, "KVM_SET_IDENTITY_MAP_ADDR: a page more of that kind"),
    request!(0xae60, "KVM_CREATE_IRQCHIP: interrupt controllers"),
    request!(
        0x4068_aea3,
        "KVM_ENABLE_CAP: refused registers become exits, and nothing paravirtual that is not shown"
    ),
    request!(0x4188_aec6, "KVM_X86_SET_MSR_FILTER: which registers are refused"),
    request!(0x4020_ae46, "KVM_SET_USER_MEMORY_REGION: guest memory"),
    request!(0xae41, "KVM_CREATE_VCPU: its processors"),
    request!(0x4040_ae79, "KVM_IOEVENTFD: doorbells"),
    request!(0x4020_ae76, "KVM_IRQFD: interrupts of devices"),
    request!(0xc008_ae05, "KVM_GET_SUPPORTED_CPUID: what the processor's features are taken from"),
    request!(0x4008_ae90, "KVM_SET_CPUID2: features that the guest sees"),
    request!(0x8138_ae83, "KVM_GET_SREGS: to boot, and into a template"),
    request!(0x4138_ae84, "KVM_SET_SREGS: to boot, and from a template"),
    request!(0x8090_ae81, "KVM_GET_REGS: into a template"),
    request!(0x4090_ae82, "KVM_SET_REGS: to boot, and from a template"),
    request!(0xc004_ae02, "KVM_GET_MSR_INDEX_LIST: into a template"),
    request!(0xc008_ae88, "KVM_GET_MSRS: to boot, and into a template"),
    request!(0x4008_ae89, "KVM_SET_MSRS: to boot, and from a template"),
    request!(0xc008_ae91, "KVM_GET_CPUID2: into a template"),
    request!(0xaea3, "KVM_GET_TSC_KHZ: into a template, and whether it is the same here"),
    request!(0xaea2, "KVM_SET_TSC_KHZ: from a template")
        .rare("the processor's counter does not run as fast as where the template was made"),
    request!(0x8004_ae98, "KVM_GET_MP_STATE: into a template"),
    request!(0x4004_ae99, "KVM_SET_MP_STATE: from a template"),
    request!(0x9000_aea4, "KVM_GET_XSAVE: into a template"),
    request!(0x5000_aea5, "KVM_SET_XSAVE: from a template"),
    request!(0x8188_aea6, "KVM_GET_XCRS: into a template"),
    request!(0x4188_aea7, "KVM_SET_XCRS: from a template"),
    request!(0x8400_ae8e, "KVM_GET_LAPIC: into a template"),
    request!(0x4400_ae8f, "KVM_SET_LAPIC: from a template"),
    request!(0x8040_ae9f, "KVM_GET_VCPU_EVENTS: into a template"),
    request!(0x4040_aea0, "KVM_SET_VCPU_EVENTS: from a template"),
    request!(0x8080_aea1, "KVM_GET_DEBUGREGS: into a template"),
    request!(0x4080_aea2, "KVM_SET_DEBUGREGS: from a template"),
    request!(0xc208_ae62, "KVM_GET_IRQCHIP: into a template"),
    request!(0x8208_ae63, "KVM_SET_IRQCHIP: from a template"),
    request!(0x8030_ae7c, "KVM_GET_CLOCK: into a template"),
    request!(0x4030_ae7b, "KVM_SET_CLOCK: from a template"),
    call!(SYS_mmap, "guest memory, template, processors, stacks and heap; never executable")
        .when(&[lacks(2, NEITHER_READ_NOR_WRITE)]),
    call!(SYS_mprotect, "stacks with a guard page; never executable")
        .when(&[lacks(2, NEITHER_READ_NOR_WRITE)]),
    call!(SYS_munmap, "give back what was read and is no longer needed"),
    call!(SYS_eventfd2, "doorbells and interrupts").when(&[is(1, EFD_FLAGS)]),
    call!(SYS_timerfd_create, "when a device's rate limit gives way")
        .when(&[is(0, CLOCK_MONOTONIC), is(1, TFD_FLAGS)]),
    call!(SYS_epoll_create1, "what the I/O thread waits with").when(&[is(0, EPOLL_CLOEXEC)]),
    // Threads, by the C library and the standard library.
    call!(SYS_clone3, "make the threads"),
    call!(SYS_rseq, "of every new thread"),
    call!(SYS_set_robust_list, "of every new thread"),
    call!(SYS_rt_sigprocmask, "while a thread is made"),
    call!(SYS_rt_sigaction, "with the first thread").when(&[is(0, SIGSETXID)]),
    call!(SYS_prctl, "name a thread").when(&[is(0, PR_SET_NAME)]),
    call!(SYS_sched_getaffinity, "of every new thread, to find its stack"),
    call!(SYS_gettid, "of every new thread"),
    call!(SYS_sigaltstack, "of every new thread, to tell a stack that is too small"),
    call!(SYS_futex, "the allocator's lock")
        .when(&[is(1, FUTEX_WAIT_PLAIN)])
        .rare("two threads allocate at that moment"),
    call!(SYS_prctl, "before a filter").when(&[is(0, PR_SET_NO_NEW_PRIVS)]),
    call!(SYS_seccomp, "the thread's own filter").when(&[is(0, SECCOMP_SET_MODE_FILTER), is(1, 0)]),
    // A template: the processors are stopped with a signal, and state and memory become files.
    call!(SYS_rt_sigaction, "the signal that stops a processor").when(&[is(0, SIGNAL_OF_PAUSE)]),
    call!(SYS_getpid, "to send it"),
    call!(SYS_tgkill, "to send it").when(&[is(2, SIGNAL_OF_PAUSE)]),
    call!(SYS_rt_sigreturn, "after it"),
    call!(SYS_clock_nanosleep, "before it is sent again"),
    call!(SYS_exit, "a vCPU thread of a template ends"),
    call!(SYS_futex, "wait for its end")
        .when(&[is(1, FUTEX_JOIN), is_wide(3, 0)])
        .rare("the thread is not quite gone when it is waited for"),
    call!(SYS_memfd_create, "state and memory"),
    call!(SYS_ftruncate, "size of the memory"),
    call!(SYS_pwrite64, "their content"),
    call!(SYS_fcntl, "they cannot change any more").when(&[is(1, F_ADD_SEALS)]),
    call!(SYS_sendmsg, "hand them to spawn").when(&[on(CONTROL), is(2, MSG_NOSIGNAL)]),
];
