//! Raw calls of the probe.

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Takes the descriptor with this number.
pub fn take(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: asks whether the number is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: open, and each number is taken once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Every open number below 4096.
pub fn open_descriptors() -> impl Iterator<Item = RawFd> {
    // SAFETY: asks whether the number is open.
    (0..4096).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0)
}

fn check(result: i64) -> Result<(), i32> {
    if result >= 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1))
}

/// Real, effective and saved user id.
pub fn uids() -> [u32; 3] {
    let [mut real, mut effective, mut saved] = [0; 3];
    // SAFETY: three valid pointers.
    unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) };
    [real, effective, saved]
}

/// Real, effective and saved group id.
pub fn gids() -> [u32; 3] {
    let [mut real, mut effective, mut saved] = [0; 3];
    // SAFETY: three valid pointers.
    unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) };
    [real, effective, saved]
}

/// Capabilities that an exec could still gain.
pub fn bounding_set() -> u64 {
    // SAFETY: reads one bit.
    let has = |bit: u64| unsafe { libc::prctl(libc::PR_CAPBSET_READ, bit) } == 1;
    (0..64).filter(|bit| has(*bit)).fold(0, |set, bit| set | 1 << bit)
}

/// Names of the network interfaces of this namespace.
pub fn interfaces() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: returns a list that ends with index 0, or null.
    let list = unsafe { libc::if_nameindex() };
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: within the list.
        let libc::if_nameindex { if_index, if_name } = unsafe { ptr::read(entry) };
        if if_index == 0 {
            break;
        }
        // SAFETY: a string of the list.
        names.push(unsafe { CStr::from_ptr(if_name) }.to_string_lossy().into_owned());
        // SAFETY: the list goes on until index 0.
        entry = unsafe { entry.add(1) };
    }
    names
}

/// Becomes root.
pub fn setuid_root() -> Result<(), i32> {
    // SAFETY: changes ids of this process alone.
    check(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })
}

/// Makes a user namespace, in which it would have every capability.
pub fn user_namespace() -> Result<(), i32> {
    // SAFETY: changes namespaces of this process alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
}

/// Mounts over the root.
pub fn mount_tmpfs() -> Result<(), i32> {
    let kind = c"tmpfs".as_ptr();
    // SAFETY: valid strings.
    check(unsafe { libc::mount(kind, c"/".as_ptr(), kind, 0, ptr::null()) }.into())
}

/// Signals everybody it may (with signal 0, which only asks).
pub fn signal_all() -> Result<(), i32> {
    // SAFETY: signal 0 does nothing.
    check(unsafe { libc::kill(-1, 0) }.into())
}

/// Attaches to another process.
pub fn trace(pid: i32) -> Result<(), i32> {
    // SAFETY: attaching changes no memory of ours.
    check(unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) })
}

/// Executes the program again by the only path there could be.
pub fn exec_itself() -> Result<(), i32> {
    let path = c"/proc/self/exe".as_ptr();
    let argv = [path, ptr::null()];
    // SAFETY: null-terminated arrays of strings.
    check(unsafe { libc::execv(path, argv.as_ptr()) }.into())
}

/// Whether this task has a core-scheduling cookie.
pub fn has_core_cookie() -> bool {
    let (pr_sched_core, get) = (62, 0_u64);
    let mut cookie = 0_u64;
    // SAFETY: `cookie` is room for the eight bytes that the kernel writes.
    let result = unsafe { libc::prctl(pr_sched_core, get, 0_u64, 0_u64, &raw mut cookie) };
    result == 0 && cookie != 0
}

/// Installs a filter that kills on connect(2), and connects.
pub fn die_by_seccomp() {
    let connect = u32::try_from(libc::SYS_connect).unwrap_or(0);
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, connect),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: a valid program; no_new_privs is set.
    unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    // SAFETY: never returns.
    unsafe { libc::syscall(libc::SYS_connect, -1, 0, 0) };
}

/// Touches memory until the cgroup has no more.
pub fn use_memory() {
    loop {
        std::hint::black_box(vec![1_u8; 16 << 20].leak());
    }
}

/// Ends by a signal, as a crash does.
pub fn die_by_signal(signal: i32) {
    // SAFETY: default disposition. PID 1 of a namespace is immune to signals it has no handler for,
    // but not to faults: so it faults.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: it is not; that is the point.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) };
}
