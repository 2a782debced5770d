//! What a worker may do: Node, one script of ours, the descriptors it was given. Measured with strace over builds of images
//! of all packings and compilations of profiles; the rest of each group is for errors and other hosts.
//!
//! It has no user namespace of its own, so the limit that keeps a VMM from making one would be the host's: here it makes
//! none because it makes no process. It opens files for reading only, reaches no socket, and starts nothing: after its
//! own start, which is this filter's first call, another execveat would only make it another worker.

use casemate_filter::{Rule, call, calls, has, is, is_wide, lacks};

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACES: u64 = 0x7e02_0000;
/// `CLONE_VM | CLONE_SIGHAND | CLONE_THREAD`.
const THREAD: u64 = 0x1_0900;
/// `O_ACCMODE | O_CREAT | O_TRUNC`.
const WRITING: u64 = 0o1103;
const AT_FDCWD: u64 = 0xffff_ff9c;
/// `TCGETS`: is it a terminal.
const TCGETS: u64 = 0x5401;
const FIONBIO: u64 = 0x5421;
const FIOCLEX: u64 = 0x5451;
const SIGABRT: u64 = 6;

const CONDITIONAL: &[Rule] = &[
    call!(SYS_execveat, "spawn starts it").when(&[is(0, AT_FDCWD), is(4, 0)]),
    // clone3 does not exist here: its flags lie in memory, where no filter sees them. The C library falls back to clone.
    call!(SYS_clone, "threads of Node, nothing else").when(&[has(0, THREAD), lacks(0, NAMESPACES)]),
    call!(SYS_openat, "Node, libraries, our scripts").when(&[lacks(2, WRITING)]),
    call!(SYS_open, "Node, libraries, our scripts").when(&[lacks(1, WRITING)]),
    call!(SYS_ioctl, "is it a terminal").when(&[is(1, TCGETS)]),
    call!(SYS_ioctl, "a descriptor that does not wait").when(&[is(1, FIONBIO)]),
    call!(SYS_ioctl, "a descriptor for this program alone").when(&[is(1, FIOCLEX)]),
    call!(SYS_fcntl, "F_GETFD").when(&[is(1, 1)]),
    call!(SYS_fcntl, "F_SETFD").when(&[is(1, 2)]),
    call!(SYS_fcntl, "F_GETFL").when(&[is(1, 3)]),
    call!(SYS_fcntl, "F_SETFL").when(&[is(1, 4)]),
    call!(SYS_fcntl, "F_DUPFD_CLOEXEC").when(&[is(1, 1030)]),
    call!(SYS_prctl, "PR_SET_NAME, of threads").when(&[is(0, 15)]),
    call!(SYS_prctl, "PR_GET_NAME, of threads").when(&[is(0, 16)]),
    call!(SYS_prctl, "PR_CAPBSET_READ: Node looks whether it was made privileged")
        .when(&[is(0, 23)]),
    call!(SYS_prctl, "PR_SET_VMA: V8 names its memory").when(&[is(0, 0x5356_4d41)]),
    call!(SYS_prlimit64, "reading and lowering its own limits").when(&[is(0, 0)]),
    call!(SYS_tgkill, "its own end, when it finds itself broken").when(&[is(2, SIGABRT)]),
    call!(SYS_seccomp, "SECCOMP_SET_MODE_FILTER without one: libseccomp asks what flags there are")
        .when(&[is(0, 1), is_wide(2, 0)]),
    call!(SYS_seccomp, "SECCOMP_SET_MODE_STRICT with a flag, always refused: libseccomp asks")
        .when(&[is(0, 0), is(1, 1)]),
    call!(SYS_seccomp, "SECCOMP_GET_ACTION_AVAIL: libseccomp asks").when(&[is(0, 2)]),
    call!(SYS_seccomp, "SECCOMP_GET_NOTIF_SIZES: libseccomp asks").when(&[is(0, 3)]),
];

const PLAIN: &[Rule] = calls![
    "its descriptors: request, answer, layers, output":
        SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_lseek SYS_close SYS_fstat SYS_ftruncate
        SYS_fsync SYS_fdatasync SYS_dup3;
    "where Node, libraries and scripts are":
        SYS_stat SYS_lstat SYS_newfstatat SYS_statx SYS_access SYS_faccessat SYS_faccessat2 SYS_readlink SYS_readlinkat
        SYS_getcwd SYS_getdents64 SYS_statfs;
    "libseccomp writes a program to one": SYS_memfd_create;
    "Node asks what its standard descriptors are": SYS_getsockname SYS_getsockopt;
    "Node's event loop":
        SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_poll SYS_ppoll SYS_eventfd2 SYS_pipe2
        SYS_nanosleep SYS_clock_nanosleep SYS_restart_syscall;
    "clocks, where they cannot be read without a call":
        SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_time;
    "memory; V8 writes machine code":
        SYS_mmap SYS_mprotect SYS_munmap SYS_mremap SYS_madvise SYS_brk SYS_mincore;
    "threads of V8 and libuv, and the C library's start of a process":
        SYS_futex SYS_set_robust_list SYS_rseq SYS_set_tid_address SYS_arch_prctl SYS_exit SYS_exit_group
        SYS_sched_yield SYS_sched_getaffinity SYS_sched_getparam SYS_sched_getscheduler SYS_getpriority SYS_getcpu
        SYS_membarrier SYS_sigaltstack;
    "signals": SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn;
    "who and where it is":
        SYS_getpid SYS_getppid SYS_gettid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_capget SYS_uname
        SYS_sysinfo SYS_getrusage SYS_times SYS_getrlimit;
    "entropy": SYS_getrandom;
];

/// Everything.
pub(super) const LIST: &[&[Rule]] = &[CONDITIONAL, PLAIN];
