//! Raw calls of the probe. The process has one thread, so a child may do what its parent may.

use casemate_vmm::seccomp::{Filter, install};

/// How the call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Above a filter that lets nothing through.
    Dry,
    /// For good.
    Real,
    /// As `Dry`, by `int 0x80`.
    I386,
}

/// An errno that no call has.
const MARK: u32 = 4_001;
/// How a child ends whose call came back with [`MARK`]; no errno is as large.
const ALLOWED: i32 = 200;
/// How a child ends that could not install its filters.
const NOT_READY: i32 = 201;

/// Asks and waits for the answer.
pub fn ask(filter: &Filter, way: Way, call: [u64; 7]) -> String {
    // SAFETY: one thread; the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        attempt(filter, way, call);
    }
    let mut status = 0;
    // SAFETY: the child is ours and not yet waited for.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return "no child".into();
    }
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGSYS => "killed".into(),
            other => format!("signal {other}"),
        };
    }
    match libc::WEXITSTATUS(status) {
        ALLOWED => "allowed".into(),
        NOT_READY => "no filter".into(),
        code => format!("ended {code}"),
    }
}

fn attempt(filter: &Filter, way: Way, call: [u64; 7]) -> ! {
    if (way != Way::Real && !install_floor()) || install(filter).is_err() {
        end(NOT_READY);
    }
    let result = if way == Way::I386 { by_int80(call) } else { by_syscall(call) };
    match result.checked_neg().filter(|error| (1..=4_095).contains(error)) {
        Some(error) if error == i64::from(MARK) => end(ALLOWED),
        Some(error) => end(i32::try_from(error).unwrap_or(NOT_READY)),
        None => end(0),
    }
}

fn end(code: i32) -> ! {
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Every call comes back with [`MARK`], but those that install the next filter and end the child.
fn install_floor() -> bool {
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let (load, equal) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let give = libc::BPF_RET | libc::BPF_K;
    // AUDIT_ARCH_X86_64; offsets in struct seccomp_data: 4 architecture, 0 number.
    let mut program = [
        step(load, 0, 0, 4),
        step(equal, 0, 4, 0xc000_003e),
        step(load, 0, 0, 0),
        step(equal, 3, 0, number(libc::SYS_seccomp)),
        step(equal, 2, 0, number(libc::SYS_prctl)),
        step(equal, 1, 0, number(libc::SYS_exit_group)),
        step(give, 0, 0, libc::SECCOMP_RET_ERRNO | MARK),
        step(give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 8, filter: program.as_mut_ptr() };
    // SAFETY: takes away a privilege of this child.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return false;
    }
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: a valid program, which the kernel copies.
    unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) == 0 }
}

/// What the kernel leaves in rax.
fn by_syscall([number, a0, a1, a2, a3, a4, a5]: [u64; 7]) -> i64 {
    let result;
    // SAFETY: what the call does is the caller's wish; it is this child's last but one, and memory is not looked at again.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a0, in("rsi") a1, in("rdx") a2, in("r10") a3, in("r8") a4, in("r9") a5,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// As [`by_syscall`], with what the 32-bit entry takes: numbers and arguments of 32 bits, of which the first is zero here
/// (its register is the compiler's).
fn by_int80([number, _, a1, a2, a3, a4, _]: [u64; 7]) -> i64 {
    let result;
    // SAFETY: as above; the register that is borrowed is given back.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "xor ebx, ebx",
            "int 0x80",
            "pop rbx",
            inlateout("rax") number => result,
            in("rcx") a1, in("rdx") a2, in("rsi") a3, in("rdi") a4,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    result
}
