//! Calls that somebody who runs code in a VMM would try, written out by hand: nothing here is taken from the lists.

use casemate_filter::probe::number;
use casemate_vmm::seccomp::Kind::{self, Control, Io, Start, Vcpu};

use crate::probe::{Question, dry, passes};

/// Bits above those of an `int`, which the kernel does not read.
const UPPER: u64 = 0xdead_beef_0000_0000;

const NO: bool = false;
const YES: bool = true;

type Edge = (Kind, i64, [u64; 6], bool);

const KVM_RUN: u64 = 0xae80;
const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const KVM_SET_MSRS: u64 = 0x4008_ae89;
const KVM_CREATE_VCPU: u64 = 0xae41;
const KVM_CREATE_DEVICE: u64 = 0xc00c_aee0;
const KVM_SET_NESTED_STATE: u64 = 0x4080_aebf;
const KVM_MEMORY_ENCRYPT_OP: u64 = 0xc008_aeba;
const TIOCSTI: u64 = 0x5412;

/// Descriptors of a VMM (docs/formats.md section 6).
const CONTROL: u64 = 4;
const STREAM: u64 = 5;
const KVM: u64 = 6;
const IMAGE: u64 = 11;
const SCRATCH: u64 = 12;
const LOG: u64 = 13;

const NOSIGNAL_DONTWAIT: u64 = 0x4040;
const CLOEXEC: u64 = 0x4000_0000;
const ANONYMOUS_PRIVATE: u64 = 0x22;
const NOBODY: u64 = 0xffff_ffff;

#[rustfmt::skip]
const EDGES: &[Edge] = &[
    // A vCPU thread runs its processor and asks KVM for nothing else.
    (Vcpu, libc::SYS_ioctl, [20, KVM_RUN, 0, 0, 0, 0], YES),
    (Vcpu, libc::SYS_ioctl, [20, UPPER | KVM_RUN, 0, 0, 0, 0], YES),
    (Vcpu, libc::SYS_ioctl, [20, KVM_RUN, 1, 0, 0, 0], NO),
    (Vcpu, libc::SYS_ioctl, [20, KVM_SET_USER_MEMORY_REGION, 0, 0, 0, 0], NO),
    (Vcpu, libc::SYS_ioctl, [20, KVM_SET_MSRS, 0, 0, 0, 0], NO),
    (Vcpu, libc::SYS_ioctl, [0, TIOCSTI, 0, 0, 0, 0], NO),
    (Io, libc::SYS_ioctl, [20, KVM_RUN, 0, 0, 0, 0], NO),
    (Control, libc::SYS_ioctl, [20, KVM_RUN, 0, 0, 0, 0], NO),
    (Start, libc::SYS_ioctl, [KVM, KVM_CREATE_VCPU, 0, 0, 0, 0], YES),
    (Start, libc::SYS_ioctl, [KVM, KVM_CREATE_DEVICE, 0, 0, 0, 0], NO),
    (Start, libc::SYS_ioctl, [KVM, KVM_SET_NESTED_STATE, 0, 0, 0, 0], NO),
    (Start, libc::SYS_ioctl, [KVM, KVM_MEMORY_ENCRYPT_OP, 0, 0, 0, 0], NO),
    (Start, libc::SYS_ioctl, [0, TIOCSTI, 0, 0, 0, 0], NO),
    // Memory: nobody maps anything once the guest runs, and nothing becomes executable before.
    (Io, libc::SYS_mmap, [0, 4096, 3, ANONYMOUS_PRIVATE, NOBODY, 0], NO),
    (Control, libc::SYS_mmap, [0, 4096, 3, ANONYMOUS_PRIVATE, NOBODY, 0], NO),
    (Vcpu, libc::SYS_brk, [0, 0, 0, 0, 0, 0], NO),
    (Control, libc::SYS_brk, [0, 0, 0, 0, 0, 0], NO),
    (Start, libc::SYS_mmap, [0, 4096, 3, ANONYMOUS_PRIVATE, NOBODY, 0], YES),
    (Start, libc::SYS_mmap, [0, 4096, 4, ANONYMOUS_PRIVATE, NOBODY, 0], NO),
    (Start, libc::SYS_mmap, [0, 4096, 1 | 4, ANONYMOUS_PRIVATE, NOBODY, 0], NO),
    (Start, libc::SYS_mmap, [0, 4096, 1 | 2 | 4, ANONYMOUS_PRIVATE, NOBODY, 0], NO),
    (Start, libc::SYS_mmap, [0, 4096, UPPER | 1 | 2 | 4, ANONYMOUS_PRIVATE, NOBODY, 0], NO),
    (Start, libc::SYS_mprotect, [4096, 4096, 1 | 2, 0, 0, 0], YES),
    (Start, libc::SYS_mprotect, [4096, 4096, 1 | 4, 0, 0, 0], NO),
    (Start, libc::SYS_mprotect, [4096, 4096, UPPER | 4, 0, 0, 0], NO),
    (Start, libc::SYS_pkey_mprotect, [4096, 4096, 1, 0, 0, 0], NO),
    (Io, libc::SYS_mprotect, [4096, 4096, 1, 0, 0, 0], NO),
    (Io, libc::SYS_mremap, [4096, 4096, 8192, 1, 0, 0], NO),
    // MADV_DONTNEED on the thread of the balloon; neither WILLNEED, REMOVE, HUGEPAGE nor DONTNEED_LOCKED.
    (Io, libc::SYS_madvise, [4096, 4096, 4, 0, 0, 0], YES),
    (Io, libc::SYS_madvise, [4096, 4096, 3, 0, 0, 0], NO),
    (Io, libc::SYS_madvise, [4096, 4096, 9, 0, 0, 0], NO),
    (Io, libc::SYS_madvise, [4096, 4096, 14, 0, 0, 0], NO),
    (Io, libc::SYS_madvise, [4096, 4096, 24, 0, 0, 0], NO),
    (Vcpu, libc::SYS_madvise, [4096, 4096, 4, 0, 0, 0], NO),
    (Control, libc::SYS_madvise, [4096, 4096, 4, 0, 0, 0], NO),
    // Descriptors come in on the control socket and nowhere else.
    (Control, libc::SYS_recvmsg, [CONTROL, 0, CLOEXEC, 0, 0, 0], YES),
    (Control, libc::SYS_recvmsg, [UPPER | CONTROL, 0, UPPER | CLOEXEC, 0, 0, 0], YES),
    (Control, libc::SYS_recvmsg, [STREAM, 0, CLOEXEC, 0, 0, 0], NO),
    (Control, libc::SYS_recvmsg, [CONTROL, 0, 0, 0, 0, 0], NO),
    (Io, libc::SYS_recvmsg, [CONTROL, 0, CLOEXEC, 0, 0, 0], NO),
    (Io, libc::SYS_recvmmsg, [CONTROL, 0, 1, CLOEXEC, 0, 0], NO),
    (Io, libc::SYS_sendmsg, [CONTROL, 0, NOSIGNAL_DONTWAIT, 0, 0, 0], NO),
    (Io, libc::SYS_dup, [LOG, 0, 0, 0, 0, 0], NO),
    (Io, libc::SYS_dup2, [LOG, IMAGE, 0, 0, 0, 0], NO),
    (Io, libc::SYS_dup3, [LOG, IMAGE, 0, 0, 0, 0], NO),
    (Io, libc::SYS_fcntl, [LOG, 0, 0, 0, 0, 0], NO),
    // Sockets talk to their peer, without waiting and without a signal.
    (Io, libc::SYS_sendto, [STREAM, 0, 9, NOSIGNAL_DONTWAIT, 0, 0], YES),
    (Io, libc::SYS_sendto, [STREAM, 0, 9, UPPER | NOSIGNAL_DONTWAIT, 0, 0], YES),
    (Io, libc::SYS_sendto, [STREAM, 0, 9, NOSIGNAL_DONTWAIT, 4096, 16], NO),
    (Io, libc::SYS_sendto, [STREAM, 0, 9, NOSIGNAL_DONTWAIT, 1 << 32, 16], NO),
    (Io, libc::SYS_sendto, [STREAM, 0, 9, 0x40, 0, 0], NO),
    (Io, libc::SYS_sendto, [STREAM, 0, 9, NOSIGNAL_DONTWAIT | 1, 0, 0], NO),
    (Io, libc::SYS_recvfrom, [STREAM, 0, 9, 0x40, 0, 0], YES),
    (Io, libc::SYS_recvfrom, [STREAM, 0, 9, 0, 0, 0], NO),
    (Io, libc::SYS_recvfrom, [STREAM, 0, 9, 0x40, 4096, 4096], NO),
    // Files: each for what it is.
    (Io, libc::SYS_pwrite64, [SCRATCH, 0, 512, 0, 0, 0], YES),
    (Io, libc::SYS_pwrite64, [LOG, 0, 512, 0, 0, 0], YES),
    (Io, libc::SYS_pwrite64, [IMAGE, 0, 512, 0, 0, 0], NO),
    (Io, libc::SYS_pwrite64, [LOG + (1 << 31), 0, 512, 0, 0, 0], NO),
    (Io, libc::SYS_pread64, [IMAGE, 0, 512, 0, 0, 0], YES),
    (Io, libc::SYS_pread64, [LOG, 0, 512, 0, 0, 0], NO),
    (Io, libc::SYS_pread64, [STREAM, 0, 512, 0, 0, 0], NO),
    (Io, libc::SYS_fallocate, [SCRATCH, 3, 0, 4096, 0, 0], YES),
    (Io, libc::SYS_fallocate, [SCRATCH, 0, 0, 4096, 0, 0], NO),
    (Io, libc::SYS_fallocate, [SCRATCH, 2, 0, 4096, 0, 0], NO),
    (Io, libc::SYS_fallocate, [SCRATCH, 8, 0, 4096, 0, 0], NO),
    (Io, libc::SYS_fallocate, [SCRATCH, 0x10, 0, 4096, 0, 0], NO),
    (Io, libc::SYS_fallocate, [LOG, 3, 0, 4096, 0, 0], NO),
    (Io, libc::SYS_fdatasync, [SCRATCH, 0, 0, 0, 0, 0], YES),
    (Io, libc::SYS_fdatasync, [LOG, 0, 0, 0, 0, 0], NO),
    (Io, libc::SYS_read, [20, 0, 8, 0, 0, 0], YES),
    (Io, libc::SYS_read, [STREAM, 0, 4096, 0, 0, 0], NO),
    (Io, libc::SYS_write, [20, 0, 8, 0, 0, 0], YES),
    (Io, libc::SYS_write, [20, 0, 9, 0, 0, 0], NO),
    (Io, libc::SYS_write, [20, 0, 8 | 1 << 32, 0, 0, 0], NO),
    (Vcpu, libc::SYS_write, [20, 0, 4096, 0, 0, 0], NO),
    (Io, libc::SYS_writev, [LOG, 0, 1, 0, 0, 0], NO),
    (Io, libc::SYS_epoll_ctl, [9, 1, 20, 0, 0, 0], YES),
    (Io, libc::SYS_epoll_ctl, [9, 2, 20, 0, 0, 0], NO),
    (Io, libc::SYS_epoll_ctl, [9, 3, 20, 0, 0, 0], YES),
    (Io, libc::SYS_timerfd_settime, [20, 1, 4096, 0, 0, 0], YES),
    (Io, libc::SYS_timerfd_settime, [20, 0, 4096, 0, 0, 0], NO),
    (Io, libc::SYS_timerfd_settime, [20, 3, 4096, 0, 0, 0], NO),
    (Start, libc::SYS_timerfd_create, [1, 0x8_0800, 0, 0, 0, 0], YES),
    (Start, libc::SYS_timerfd_create, [0, 0x8_0800, 0, 0, 0, 0], NO),
    (Io, libc::SYS_getrandom, [0, 32, 0, 0, 0, 0], YES),
    (Io, libc::SYS_getrandom, [0, 32, 2, 0, 0, 0], NO),
    (Io, libc::SYS_clock_gettime, [1, 0, 0, 0, 0, 0], YES),
    (Io, libc::SYS_clock_gettime, [3, 0, 0, 0, 0, 0], NO),
    // Futexes: wait and wake, among own threads, without requeueing, priorities or a time.
    (Vcpu, libc::SYS_futex, [0, 0x89, 2, 0, 0, NOBODY], YES),
    (Vcpu, libc::SYS_futex, [0, UPPER | 0x89, 2, 0, 0, NOBODY], YES),
    (Vcpu, libc::SYS_futex, [0, 0x89, 2, 4096, 0, NOBODY], NO),
    (Vcpu, libc::SYS_futex, [0, 0x9, 2, 0, 0, NOBODY], NO),
    (Vcpu, libc::SYS_futex, [0, 0x81, 1, 0, 0, 0], YES),
    (Vcpu, libc::SYS_futex, [0, 0x83, 1, 0, 0, 0], NO),
    (Vcpu, libc::SYS_futex, [0, 0x86, 1, 0, 0, 0], NO),
    (Vcpu, libc::SYS_futex, [0, 0x8b, 1, 0, 0, 0], NO),
    (Vcpu, libc::SYS_futex, [0, 0x8c, 1, 0, 0, 0], NO),
    // A thread alone does not end, no signal is sent or handled, nothing is restarted.
    (Vcpu, libc::SYS_exit, [0, 0, 0, 0, 0, 0], NO),
    (Vcpu, libc::SYS_tgkill, [1, 1, 9, 0, 0, 0], NO),
    (Vcpu, libc::SYS_rt_sigaction, [11, 0, 0, 8, 0, 0], NO),
    (Vcpu, libc::SYS_rt_sigreturn, [0, 0, 0, 0, 0, 0], NO),
    (Io, libc::SYS_restart_syscall, [0, 0, 0, 0, 0, 0], NO),
    // PR_GET_AUXV: on kernels that lack it rustix opens a file, so nothing here may come to need it.
    (Start, libc::SYS_prctl, [0x4155_5856, 0, 0, 0, 0, 0], NO),
    (Start, libc::SYS_prctl, [15, 0, 0, 0, 0, 0], YES),
    // Filters only: no mode that asks another process, no way to look at them.
    (Io, libc::SYS_seccomp, [1, 0, 0, 0, 0, 0], NO),
    (Io, libc::SYS_prctl, [22, 2, 0, 0, 0, 0], NO),
];

#[test]
fn calls_at_the_edges_are_judged_as_written_here() {
    let questions: Vec<Question> = EDGES
        .iter()
        .map(|(kind, call, arguments, _)| dry(*kind, number(*call), *arguments))
        .collect();
    for ((question, passed), edge) in questions.iter().zip(passes(&questions)).zip(EDGES) {
        assert_eq!(passed, edge.3, "{question:x?}");
    }
}

/// What nobody in a VMM may do at any time, from its first line on.
#[test]
fn no_filter_lets_a_vmm_open_execute_connect_or_look_elsewhere() {
    let never = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_creat,
        libc::SYS_open_by_handle_at,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_kill,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_shmat,
        libc::SYS_memfd_secret,
        libc::SYS_remap_file_pages,
        libc::SYS_modify_ldt,
    ];
    let questions: Vec<Question> = Kind::ALL
        .into_iter()
        .flat_map(|kind| {
            let tries = [[0; 6], [1; 6], [u64::MAX; 6]];
            never.into_iter().flat_map(move |call| tries.map(|a| dry(kind, number(call), a)))
        })
        .collect();
    let passed = passes(&questions).into_iter().zip(&questions).find(|(passed, _)| *passed);
    assert_eq!(passed, None);
}

/// And what only the start may.
#[test]
fn running_threads_cannot_make_threads_files_mappings_or_descriptors() {
    let never = [
        libc::SYS_clone3,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_memfd_create,
        libc::SYS_eventfd2,
        libc::SYS_epoll_create1,
        libc::SYS_fcntl,
        libc::SYS_sendmsg,
    ];
    let questions: Vec<Question> = [Control, Io, Vcpu]
        .into_iter()
        .flat_map(|kind| never.map(|call| dry(kind, number(call), [0; 6])))
        .collect();
    assert!(passes(&questions).iter().all(|passed| !passed));
}
