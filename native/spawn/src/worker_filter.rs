//! What a worker may not ask of the kernel: a classic BPF program for seccomp.
//!
//! A worker has no user namespace of its own, so the limit that keeps a VMM from making one
//! (`max_user_namespaces`) would be the host's. In a user namespace it would have every capability,
//! and with them a large part of the kernel to attack. So the calls that make or enter one are
//! refused here, with the others that attacks on kernels begin with and no worker needs.

use std::ffi::c_long;

use libc::sock_filter;

/// Refused with EPERM.
const DENIED: [c_long; 10] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

// Instructions, linux/bpf_common.h: load a word of seccomp_data, jump if equal, at least, any bit.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Offsets in seccomp_data, linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// `AUDIT_ARCH_X86_64`: a call of another table (i386) has other numbers and ends the worker.
const X86_64: u32 = 0xc000_003e;
/// Calls of the x32 table begin here.
const X32: u32 = 0x4000_0000;

// Places in the program, behind the list.
const CLONE3: usize = 4 + DENIED.len();
const CLONE: usize = CLONE3 + 1;
const CLONE_FLAGS: usize = CLONE + 1;
const CLONE_TEST: usize = CLONE_FLAGS + 1;
const ALLOW: usize = CLONE_TEST + 1;
const DENY: usize = ALLOW + 1;
const UNKNOWN: usize = DENY + 1;
const KILL: usize = UNKNOWN + 1;
/// Instructions of the program.
pub const LENGTH: usize = KILL + 1;

/// The program. Makes no allocation: it is built between clone and exec.
pub fn program() -> [sock_filter; LENGTH] {
    std::array::from_fn(|at| {
        let jump = |code, k, yes, no| sock_filter { code, jt: skip(at, yes), jf: skip(at, no), k };
        let next = at.wrapping_add(1);
        let plain = |code, k| sock_filter { code, jt: 0, jf: 0, k };
        match at {
            0 => plain(LOAD, ARCHITECTURE),
            1 => jump(EQUAL, X86_64, next, KILL),
            2 => plain(LOAD, NUMBER),
            3 => jump(AT_LEAST, X32, DENY, next),
            // Its flags lie in memory, where no filter sees them: libraries then use clone.
            CLONE3 => jump(EQUAL, number(libc::SYS_clone3), UNKNOWN, next),
            CLONE => jump(EQUAL, number(libc::SYS_clone), next, ALLOW),
            CLONE_FLAGS => plain(LOAD, FIRST_ARGUMENT),
            CLONE_TEST => jump(ANY_BIT, libc::CLONE_NEWUSER.unsigned_abs(), DENY, ALLOW),
            ALLOW => plain(RETURN, libc::SECCOMP_RET_ALLOW),
            DENY => plain(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
            UNKNOWN => plain(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
            KILL => plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
            _ => {
                let call = DENIED.get(at.wrapping_sub(4)).copied().unwrap_or(-1);
                jump(EQUAL, number(call), DENY, next)
            }
        }
    })
}

/// Instructions between two places.
fn skip(from: usize, to: usize) -> u8 {
    u8::try_from(to.wrapping_sub(from).wrapping_sub(1)).unwrap_or(u8::MAX)
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}
