//! Raw calls of the probe. The process has one thread, so a child may do what its parent may.

use super::{Fate, Way};

/// An errno that no call has.
const MARK: u32 = 4_001;
/// How a child ends whose call came back with [`MARK`]; no errno is as large.
const PASSED: i32 = 200;
/// How a child ends that could not install its filters.
const NOT_READY: i32 = 201;

/// Makes a call (its number, its arguments) under `programs` in a child, and waits for what becomes of it.
pub fn attempt(programs: &[Vec<u8>], way: Way, call: [u64; 7]) -> Fate {
    // SAFETY: one thread; the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        run(programs, way, call);
    }
    let mut status = 0;
    // SAFETY: the child is ours and not yet waited for.
    assert!(child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } == child);
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGSYS => Fate::Killed,
            other => Fate::Signal(other),
        };
    }
    match libc::WEXITSTATUS(status) {
        PASSED => Fate::Passed,
        code => {
            assert_ne!(code, NOT_READY, "the kernel takes a program");
            Fate::Ended(code)
        }
    }
}

fn run(programs: &[Vec<u8>], way: Way, call: [u64; 7]) -> ! {
    let floor = [floor()];
    let floor = if way == Way::Real { &[] } else { &floor[..] };
    // SAFETY: takes away a privilege of this child.
    let mut is_ready = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    // The floor first: of several programs that give an errno the one that was installed last is heard.
    for program in floor.iter().chain(programs) {
        is_ready = is_ready && install(program);
    }
    if !is_ready {
        end(NOT_READY);
    }
    let result = if way == Way::I386 { by_int80(call) } else { by_syscall(call) };
    match result.checked_neg().filter(|error| (1..=4_095).contains(error)) {
        Some(error) if error == i64::from(MARK) => end(PASSED),
        Some(error) => end(i32::try_from(error).unwrap_or(NOT_READY)),
        None => end(0),
    }
}

fn end(code: i32) -> ! {
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Instructions, 8 bytes each as `struct sock_filter`.
fn install(program: &[u8]) -> bool {
    let (steps, _) = program.as_chunks::<8>();
    let mut steps: Vec<libc::sock_filter> = steps
        .iter()
        .map(|[c0, c1, jt, jf, k @ ..]| libc::sock_filter {
            code: u16::from_le_bytes([*c0, *c1]),
            jt: *jt,
            jf: *jf,
            k: u32::from_le_bytes(*k),
        })
        .collect();
    let length = u16::try_from(steps.len()).unwrap_or(0);
    let program = libc::sock_fprog { len: length, filter: steps.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: a program of that many steps, which the kernel checks and copies.
    unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) == 0 }
}

/// Every call comes back with [`MARK`], but those that install the next program and end the child.
fn floor() -> Vec<u8> {
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let (load, equal) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let give = libc::BPF_RET | libc::BPF_K;
    // AUDIT_ARCH_X86_64; offsets in struct seccomp_data: 4 architecture, 0 number.
    let steps = [
        (load, 0, 0, 4),
        (equal, 0, 4, 0xc000_003e),
        (load, 0, 0, 0),
        (equal, 3, 0, number(libc::SYS_seccomp)),
        (equal, 2, 0, number(libc::SYS_prctl)),
        (equal, 1, 0, number(libc::SYS_exit_group)),
        (give, 0, 0, libc::SECCOMP_RET_ERRNO | MARK),
        (give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let bytes = |(code, jt, jf, k): (u32, u8, u8, u32)| {
        let [c0, c1, ..] = code.to_le_bytes();
        let [k0, k1, k2, k3] = k.to_le_bytes();
        [c0, c1, jt, jf, k0, k1, k2, k3]
    };
    steps.into_iter().flat_map(bytes).collect()
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
