//! What spawn may do, and what a child of its may until its own filter is there: the steps of the jail, the first lines
//! of a VMM, the C library's part of a worker. Measured with strace over the tests of spawn, launches of virtual
//! machines and builds of images; `rare` groups are for errors, other hosts and other C libraries.
//!
//! Not here: any socket but those of this host (no network at all), `io_uring` (libuv asks for it and does without),
//! extended attributes, message queues, semaphores, inotify, memory policies, and everything in `killed`.
//! clone3 is here with all its flags, which lie in memory where no filter sees them; a worker's list has no clone3, and
//! in a VMM's user namespace no further one can be made.
//!
//! What VMM threads call all the time has no condition here: their own lists have one, and the kernel answers for calls
//! without a condition from a table, without running a program.

use casemate_filter::{Rule, When, call, calls, is, is_wide, lacks};

const AF_UNIX: u64 = 1;
/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`: spawn makes them with clone3.
const NAMESPACES: u64 = 0x7e02_0000;
const CLONE_NEWCGROUP: u64 = 0x0200_0000;
/// `MS_NOSUID | MS_NODEV | MS_NOEXEC`.
const INERT: u64 = 0b1110;
const MS_RDONLY: u64 = 1;
/// `MS_REC | MS_PRIVATE`.
const PRIVATE: u64 = 0x4_4000;
const MNT_DETACH: u64 = 2;
const AT_FDCWD: u64 = 0xffff_ff9c;
const AT_RECURSIVE: u64 = 0x8000;

const fn prctl(option: &'static [When], why: &'static str) -> Rule {
    Rule::new(libc::SYS_prctl, "SYS_prctl", why).when(option)
}

const fn fcntl(command: &'static [When], why: &'static str) -> Rule {
    Rule::new(libc::SYS_fcntl, "SYS_fcntl", why).when(command)
}

/// With conditions on arguments.
const CONDITIONAL: &[Rule] = &[
    // Sockets.
    call!(SYS_socket, "spawn.sock; no other family").when(&[is(0, AF_UNIX)]),
    call!(SYS_socketpair, "control sockets and streams of pods").when(&[is(0, AF_UNIX)]),
    // Processes.
    call!(SYS_clone, "start a VMM to ask for its filters; threads where clone3 is not known")
        .when(&[lacks(0, NAMESPACES)]),
    call!(SYS_unshare, "the jail's cgroup namespace").when(&[is(0, CLONE_NEWCGROUP)]),
    // Mounts of the jail: nothing set-user-id, no device, no program, nothing bound or moved.
    call!(SYS_mount, "the jail's own mounts do not spread").when(&[is_wide(3, PRIVATE)]),
    call!(SYS_mount, "a VMM's root").when(&[is_wide(3, INERT | MS_RDONLY)]),
    call!(SYS_mount, "a worker's /proc, and what it must not see").when(&[is_wide(3, INERT)]),
    call!(SYS_umount2, "the old root").when(&[is(1, MNT_DETACH)]),
    call!(SYS_mount_setattr, "a worker sees the host's files read-only")
        .when(&[is(0, AT_FDCWD), is(2, AT_RECURSIVE)]),
    // prctl
    prctl(&[is(0, 38)], "PR_SET_NO_NEW_PRIVS"),
    prctl(&[is(0, 8)], "PR_SET_KEEPCAPS: a worker's capabilities are given up by name"),
    prctl(&[is(0, 24)], "PR_CAPBSET_DROP"),
    prctl(&[is(0, 23)], "PR_CAPBSET_READ: Node looks whether it was made privileged"),
    prctl(&[is(0, 47), is_wide(1, 4)], "PR_CAP_AMBIENT_CLEAR_ALL"),
    prctl(&[is(0, 27)], "PR_GET_SECUREBITS"),
    prctl(&[is(0, 28)], "PR_SET_SECUREBITS"),
    prctl(&[is(0, 62)], "PR_SCHED_CORE: a cookie, and whether there are any"),
    prctl(&[is(0, 15)], "PR_SET_NAME, of threads"),
    prctl(&[is(0, 16)], "PR_GET_NAME, of threads"),
    prctl(&[is(0, 0x4155_5856)], "PR_GET_AUXV, of the C library and rustix"),
    prctl(&[is(0, 0x5356_4d41)], "PR_SET_VMA: newer C libraries and V8 name their memory"),
    // Filters: those below add theirs. No listener, by which another process would decide.
    call!(SYS_seccomp, "SECCOMP_SET_MODE_FILTER: VMM and worker add their own")
        .when(&[is(0, 1), is(1, 0)]),
    call!(SYS_seccomp, "SECCOMP_SET_MODE_FILTER without one: libseccomp asks what flags there are")
        .when(&[is(0, 1), is_wide(2, 0)]),
    call!(SYS_seccomp, "SECCOMP_SET_MODE_STRICT with a flag, always refused: libseccomp asks")
        .when(&[is(0, 0), is(1, 1)]),
    call!(SYS_seccomp, "SECCOMP_GET_ACTION_AVAIL: libseccomp asks").when(&[is(0, 2)]),
    call!(SYS_seccomp, "SECCOMP_GET_NOTIF_SIZES: libseccomp asks").when(&[is(0, 3)]),
    // fcntl: none that sends signals, leases or notifies.
    fcntl(&[is(1, 0)], "F_DUPFD"),
    fcntl(&[is(1, 1)], "F_GETFD"),
    fcntl(&[is(1, 2)], "F_SETFD"),
    fcntl(&[is(1, 3)], "F_GETFL"),
    fcntl(&[is(1, 4)], "F_SETFL"),
    fcntl(&[is(1, 1030)], "F_DUPFD_CLOEXEC"),
    fcntl(&[is(1, 1033)], "F_ADD_SEALS"),
    fcntl(&[is(1, 1034)], "F_GET_SEALS"),
    // Files.
    call!(SYS_flock, "one spawn for each run directory").when(&[is(1, 6)]),
    call!(SYS_prlimit64, "limits of the process itself, not of others").when(&[is(0, 0)]),
];

/// Whatever their arguments are.
const PLAIN: &[Rule] = calls![
    "files by descriptor":
        SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_lseek SYS_close SYS_close_range SYS_fstat
        SYS_ftruncate SYS_fallocate SYS_fsync SYS_fdatasync SYS_ioctl SYS_dup SYS_dup2 SYS_dup3 SYS_getdents64
        SYS_fadvise64 SYS_statfs SYS_fstatfs;
    "files by path: configuration, assets, tickets, templates, cgroups, /proc; what a worker loads":
        SYS_open SYS_openat SYS_stat SYS_lstat SYS_newfstatat SYS_statx SYS_access SYS_faccessat SYS_faccessat2
        SYS_readlink SYS_readlinkat SYS_getcwd;
    "spent tickets, templates, cgroups, logs of spawn and of workers":
        SYS_mkdir SYS_mkdirat SYS_rmdir SYS_unlink SYS_unlinkat SYS_rename SYS_renameat SYS_renameat2 SYS_umask;
    "modes of run_dir, state_dir and spawn.sock, which the agent's group may use":
        SYS_chmod SYS_fchmod SYS_chown SYS_fchown;
    "sealed files: kernel, document, template; a worker's program": SYS_memfd_create;
    "sockets that are there: spawn.sock, control sockets, streams":
        SYS_bind SYS_listen SYS_accept4 SYS_getsockopt SYS_getsockname SYS_getpeername SYS_sendto SYS_recvfrom
        SYS_sendmsg SYS_recvmsg SYS_shutdown;
    "waiting":
        SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_epoll_pwait2 SYS_poll SYS_ppoll
        SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime SYS_eventfd2 SYS_pipe2 SYS_nanosleep
        SYS_clock_nanosleep SYS_restart_syscall;
    "clocks, where they cannot be read without a call":
        SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_time;
    "memory": SYS_mmap SYS_mprotect SYS_munmap SYS_mremap SYS_madvise SYS_brk SYS_mincore;
    "threads of VMM and worker, and the C library's start of a process":
        SYS_clone3 SYS_futex SYS_set_robust_list SYS_rseq SYS_set_tid_address SYS_arch_prctl SYS_exit SYS_exit_group
        SYS_sched_yield SYS_sched_getaffinity SYS_sched_getparam SYS_sched_getscheduler SYS_getpriority SYS_getcpu
        SYS_membarrier SYS_sigaltstack;
    "signals, and the end of a process that found itself broken":
        SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_tgkill;
    "ending VMs and workers, and what an earlier spawn left":
        SYS_pidfd_send_signal SYS_kill SYS_wait4 SYS_waitid;
    "a new process, from the clone to its program":
        SYS_setsid SYS_chdir SYS_pivot_root SYS_execve SYS_execveat SYS_setgroups SYS_setgid SYS_setuid SYS_setresgid
        SYS_setresuid SYS_capget SYS_capset SYS_landlock_create_ruleset SYS_landlock_add_rule
        SYS_landlock_restrict_self;
    "who and where it is":
        SYS_getpid SYS_getppid SYS_gettid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid
        SYS_getgroups SYS_uname SYS_sysinfo SYS_getrusage SYS_times SYS_getrlimit;
    "entropy": SYS_getrandom;
];

/// Everything.
pub(super) const LIST: &[&[Rule]] = &[CONDITIONAL, PLAIN];
