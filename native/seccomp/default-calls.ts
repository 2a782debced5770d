/**
 * The system calls of the default profile, by what they are for. The set is the one that Docker
 * allows by default on x86-64, so that images which run there run here; io_uring is in neither
 * (its calls bypass the filter, and most kernel escapes of 2022 and 2023 went through it).
 *
 * One line of names per theme: a call is looked for, not read.
 */

const words = (text: string): readonly string[] => text.trim().split(/\s+/u)

const files = words(`
  access cachestat chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat
  faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync
  fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd
  getdents getdents64 getxattr ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr
  lseek lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2
  pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
  removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink
  symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes
  vmsplice write writev`)

const events = words(`
  epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
  epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1
  inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit pipe pipe2 poll
  ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime`)

const memory = words(`
  brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall
  mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
  process_mrelease remap_file_pages shmat shmctl shmdt shmget`)

const processes = words(`
  alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait
  futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups
  getitimer getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid
  gettid getuid ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
  landlock_restrict_self modify_ldt pause pidfd_open pidfd_send_signal prctl prlimit64
  process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending
  rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
  sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
  sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
  sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid
  setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid
  setrlimit setsid setuid sigaltstack sysinfo tgkill times tkill uname vfork wait4 waitid`)

const talking = words(`
  accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify
  mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg
  semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shutdown socketpair`)

/** adjtimex and clock_adjtime change nothing without CAP_SYS_TIME: the kernel checks. */
const clocks = words(`
  adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getrandom gettimeofday nanosleep
  time timer_create timer_delete timer_getoverrun timer_gettime timer_settime`)

/** Allowed to everybody, whatever the arguments. */
export const ALWAYS_ALLOWED: readonly string[] = [
  ...files,
  ...events,
  ...memory,
  ...processes,
  ...talking,
  ...clocks,
].toSorted()

/** Allowed as well to a process that may hold the capability. */
export const ALLOWED_WITH: Readonly<Record<string, readonly string[]>> = {
  CAP_BPF: ['bpf'],
  CAP_DAC_READ_SEARCH: ['open_by_handle_at'],
  CAP_PERFMON: ['perf_event_open'],
  CAP_SYS_ADMIN: words(`
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
    move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
    umount2 unshare`),
  CAP_SYS_BOOT: ['reboot'],
  CAP_SYS_CHROOT: ['chroot'],
  CAP_SYS_MODULE: ['delete_module', 'finit_module', 'init_module'],
  CAP_SYS_NICE: ['get_mempolicy', 'mbind', 'set_mempolicy', 'set_mempolicy_home_node'],
  CAP_SYS_PACCT: ['acct'],
  CAP_SYS_PTRACE: ['kcmp', 'pidfd_getfd', 'process_madvise'],
  CAP_SYS_RAWIO: ['ioperm', 'iopl'],
  CAP_SYS_TIME: ['clock_settime', 'settimeofday'],
  CAP_SYS_TTY_CONFIG: ['vhangup'],
  CAP_SYSLOG: ['syslog'],
}
