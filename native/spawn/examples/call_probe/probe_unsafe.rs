//! Raw calls of the probe. The process has one thread, so a child may do what its parent may.

use casemate_spawn::filter::Filter;

/// An errno that no call has: what a call comes back with that the filters let through.
const MARK: i64 = 4_001;
/// How a child ends whose filters could not be installed.
const NOT_READY: i64 = 4_002;

/// Makes a call (its number, its arguments) under filters in a child, and tells what became of it.
pub fn ask(filters: &[&Filter], call: [u64; 7]) -> String {
    let [number, ..] = call;
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return "no pipe".into();
    }
    let [read, write] = ends;
    // SAFETY: one thread; the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        attempt(filters, call, write);
    }
    let (mut answer, mut status) = (0_i64, 0);
    // SAFETY: this end is ours.
    unsafe { libc::close(write) };
    // SAFETY: room for eight bytes.
    let count = unsafe { libc::read(read, (&raw mut answer).cast(), 8) };
    // SAFETY: this end is ours.
    unsafe { libc::close(read) };
    // SAFETY: the child is ours and not yet waited for.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return "no child".into();
    }
    // These three the floor lets through: the kernel answers, and never that there is no such call.
    let through = [libc::SYS_prctl, libc::SYS_seccomp, libc::SYS_exit_group];
    let through = through.map(i64::unsigned_abs).contains(&number);
    match (count, libc::WIFSIGNALED(status)) {
        (_, true) if libc::WTERMSIG(status) == libc::SIGSYS => "killed".into(),
        (0, false) if through => "permitted".into(),
        (8, false) if answer == -NOT_READY => "no filter".into(),
        (8, false) if answer == -MARK => "permitted".into(),
        (8, false) if through && answer != i64::from(-libc::ENOSYS) => "permitted".into(),
        (8, false) => format!("errno {}", answer.wrapping_neg()),
        _ => format!("status {status}"),
    }
}

fn attempt(filters: &[&Filter], call: [u64; 7], answer: i32) -> ! {
    let mut result = -NOT_READY;
    if install_floor(answer) && filters.iter().all(|filter| filter.install().is_ok()) {
        result = syscall(call);
    }
    // SAFETY: the floor lets this through, and so does each filter.
    unsafe { libc::write(answer, (&raw const result).cast(), 8) };
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(0) }
}

/// Every call comes back with [`MARK`], but those that install the next filters, write the answer, and end the child. Of
/// two filters that give an errno the one that was installed last is heard.
fn install_floor(answer: i32) -> bool {
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
    let mark = u32::try_from(MARK).unwrap_or(0);
    // Offsets in struct seccomp_data: 0 number, 16 first argument.
    let mut program = [
        step(load, 0, 0, 0),
        step(equal, 5, 0, number(libc::SYS_exit_group)),
        step(equal, 4, 0, number(libc::SYS_prctl)),
        step(equal, 3, 0, number(libc::SYS_seccomp)),
        step(equal, 0, 3, number(libc::SYS_write)),
        step(load, 0, 0, 16),
        step(equal, 0, 1, answer.unsigned_abs()),
        step(give, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(give, 0, 0, libc::SECCOMP_RET_ERRNO | mark),
    ];
    let length = u16::try_from(program.len()).unwrap_or(0);
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: takes away a privilege of this child.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return false;
    }
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: a valid program, which the kernel copies.
    unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) == 0 }
}

/// What the kernel leaves in rax.
fn syscall([number, a0, a1, a2, a3, a4, a5]: [u64; 7]) -> i64 {
    let result;
    // SAFETY: the floor stops the call, unless it is one of this thread's own state alone.
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
