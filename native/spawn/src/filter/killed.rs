//! What ends the process at once: nothing of ours calls it, and attacks on kernels and hosts begin with it.

use casemate_filter::{Rule, call, calls, lacks};

/// `CLONE_THREAD`.
const THREAD: u64 = 0x1_0000;

/// For spawn and everything below it.
pub(super) const OF_ALL: &[&[Rule]] = &[calls![
    "another process's memory and descriptors":
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_kcmp;
    "programs for the kernel, and its measurements":
        SYS_bpf SYS_perf_event_open SYS_lookup_dcookie;
    "holds the kernel in the middle of a copy": SYS_userfaultfd;
    "another kernel, or code in this one":
        SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module;
    "keys of users and of the kernel": SYS_keyctl SYS_add_key SYS_request_key;
    "ports of the machine": SYS_iopl SYS_ioperm;
    "segments of 16 bits": SYS_modify_ldt;
    "the host's clock, by which tickets and records are dated":
        SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime;
    "the host itself":
        SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_quotactl_fd SYS_sethostname
        SYS_setdomainname SYS_syslog SYS_vhangup SYS_nfsservctl SYS__sysctl SYS_uselib SYS_sysfs;
    "files by number, past every directory that is in the way": SYS_open_by_handle_at;
    "devices made by number": SYS_mknod SYS_mknodat;
    "another process's namespaces": SYS_setns;
    "what a jail is made with, mount(2), is permitted in a few forms; this is the rest":
        SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_open_tree SYS_move_mount;
    "every file of a file system": SYS_fanotify_init SYS_fanotify_mark;
]];

/// For workers as well: spawn does these, and what runs in a worker never needs to.
pub(super) const OF_WORKERS: &[&[Rule]] = &[&[
    call!(SYS_clone, "another process: a worker is one, for ever").when(&[lacks(0, THREAD)]),
    call!(SYS_fork, "another process"),
    call!(SYS_vfork, "another process"),
    call!(SYS_unshare, "a namespace with every capability in it"),
    call!(SYS_mount, "mounts"),
    call!(SYS_umount2, "mounts"),
    call!(SYS_mount_setattr, "mounts"),
    call!(SYS_pivot_root, "mounts"),
    call!(SYS_chroot, "another root"),
    call!(SYS_socket, "a network, or a server of this host"),
    call!(SYS_socketpair, "a network, or a server of this host"),
    call!(SYS_connect, "a network, or a server of this host"),
    call!(SYS_bind, "a network, or a server of this host"),
    call!(SYS_kill, "other processes"),
    call!(SYS_pidfd_send_signal, "other processes"),
    call!(SYS_setuid, "another user"),
    call!(SYS_setgid, "another user"),
    call!(SYS_setresuid, "another user"),
    call!(SYS_setresgid, "another user"),
    call!(SYS_setgroups, "another user"),
    call!(SYS_capset, "a privilege"),
    call!(SYS_execve, "another program: spawn starts it with execveat"),
]];
