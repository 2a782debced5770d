//! What is killed from the first line of the VMM on, in every thread, before its own filter and beside it.

use super::{Allow, PROT_EXEC, has};

const WHY_OPEN: &str = "every file arrives as a descriptor";
const WHY_EXECUTE: &str = "nothing is ever executed";
const WHY_NETWORK: &str = "every socket arrives as a descriptor";
const WHY_OTHERS: &str = "no other process is any business of a VMM";
const WHY_KERNEL: &str = "large kernel interfaces that a VMM has no use for";

const fn deny(call: i64, why: &'static str) -> Allow {
    Allow { call, when: &[], why }
}

pub(super) const LIST: &[Allow] = &[
    deny(libc::SYS_open, WHY_OPEN),
    deny(libc::SYS_openat, WHY_OPEN),
    deny(libc::SYS_openat2, WHY_OPEN),
    deny(libc::SYS_creat, WHY_OPEN),
    deny(libc::SYS_open_by_handle_at, WHY_OPEN),
    deny(libc::SYS_execve, WHY_EXECUTE),
    deny(libc::SYS_execveat, WHY_EXECUTE),
    deny(libc::SYS_fork, WHY_EXECUTE),
    deny(libc::SYS_vfork, WHY_EXECUTE),
    deny(libc::SYS_socket, WHY_NETWORK),
    deny(libc::SYS_socketpair, WHY_NETWORK),
    deny(libc::SYS_connect, WHY_NETWORK),
    deny(libc::SYS_bind, WHY_NETWORK),
    deny(libc::SYS_listen, WHY_NETWORK),
    deny(libc::SYS_accept, WHY_NETWORK),
    deny(libc::SYS_accept4, WHY_NETWORK),
    deny(libc::SYS_ptrace, WHY_OTHERS),
    deny(libc::SYS_process_vm_readv, WHY_OTHERS),
    deny(libc::SYS_process_vm_writev, WHY_OTHERS),
    deny(libc::SYS_pidfd_open, WHY_OTHERS),
    deny(libc::SYS_pidfd_getfd, WHY_OTHERS),
    deny(libc::SYS_kill, WHY_OTHERS),
    deny(libc::SYS_unshare, WHY_OTHERS),
    deny(libc::SYS_setns, WHY_OTHERS),
    deny(libc::SYS_mount, WHY_KERNEL),
    deny(libc::SYS_umount2, WHY_KERNEL),
    deny(libc::SYS_pivot_root, WHY_KERNEL),
    deny(libc::SYS_chroot, WHY_KERNEL),
    deny(libc::SYS_fsopen, WHY_KERNEL),
    deny(libc::SYS_open_tree, WHY_KERNEL),
    deny(libc::SYS_move_mount, WHY_KERNEL),
    deny(libc::SYS_bpf, WHY_KERNEL),
    deny(libc::SYS_perf_event_open, WHY_KERNEL),
    deny(libc::SYS_userfaultfd, WHY_KERNEL),
    deny(libc::SYS_io_uring_setup, WHY_KERNEL),
    deny(libc::SYS_io_uring_enter, WHY_KERNEL),
    deny(libc::SYS_io_uring_register, WHY_KERNEL),
    deny(libc::SYS_keyctl, WHY_KERNEL),
    deny(libc::SYS_add_key, WHY_KERNEL),
    deny(libc::SYS_request_key, WHY_KERNEL),
    deny(libc::SYS_init_module, WHY_KERNEL),
    deny(libc::SYS_finit_module, WHY_KERNEL),
    deny(libc::SYS_kexec_load, WHY_KERNEL),
    Allow { call: libc::SYS_mmap, when: &[has(2, PROT_EXEC)], why: "no memory becomes executable" },
    Allow {
        call: libc::SYS_mprotect,
        when: &[has(2, PROT_EXEC)],
        why: "no memory becomes executable",
    },
    Allow {
        call: libc::SYS_pkey_mprotect,
        when: &[has(2, PROT_EXEC)],
        why: "no memory becomes executable",
    },
];
