//! The system calls that rustix does not offer and that are used outside the jail's child: making a
//! process in new namespaces, waiting for signals on a descriptor, Landlock rule sets, questions to KVM.

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// What [`clone3`] gives to each of the two processes that return from it.
pub enum Cloned {
    /// This is the new process.
    Child,
    /// This is the old one.
    Parent {
        /// The new process, as the caller's pid namespace numbers it.
        pid: i32,
        /// The new process for ever, also after its number was given to another one.
        pidfd: OwnedFd,
    },
}

/// `struct clone_args`, version 2 (Linux 5.7): the first with `cgroup`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clone flag that `libc` gives no `u64` for: the child starts inside a version 2 cgroup.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Clone flag: the parent gets a pidfd.
const CLONE_PIDFD: u64 = 0x1000;

fn number(fd: RawFd) -> u64 {
    u64::try_from(fd).unwrap_or(u64::MAX)
}

/// Makes a process like fork(2), in the namespaces of `flags` (`CLONE_NEW*`) and, when given, in the
/// version 2 cgroup that `cgroup` is an open directory of.
///
/// The child runs on a copy of this memory. Spawn has one thread, so no lock is held in the copy;
/// even so the child should do nothing but what `jail_child_unsafe` does.
///
/// # Errors
/// What clone3(2) says; `EAGAIN` when a limit on processes is reached.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: u64::try_from(ptr::from_mut(&mut pidfd).expose_provenance()).unwrap_or(0),
        exit_signal: number(libc::SIGCHLD),
        ..CloneArgs::default()
    };
    if flags & number(libc::CLONE_PARENT) != 0 {
        // The kernel takes that of the caller's own parent.
        args.exit_signal = 0;
    }
    if let Some(directory) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = number(directory.as_raw_fd());
    }
    // SAFETY: `args` is a valid clone_args of the given size, `pidfd` outlives the call, and without
    // CLONE_VM the child has its own copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel stored a fresh descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks these signals and returns a non-blocking descriptor that becomes readable when one comes.
///
/// # Errors
/// What signalfd(2) says.
pub fn signals(numbers: &[libc::c_int]) -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is memory for one sigset_t, which sigemptyset initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has initialised it.
    let mut set = unsafe { set.assume_init() };
    for signal in numbers {
        // SAFETY: `set` is initialised; what is no signal's number is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` is initialised; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    owned(fd.into())
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: a system call that makes a descriptor has just returned it; nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the descriptor of this number, which whoever started this process left open for it, close-on-exec. Nothing else
/// in this process may own it: to be called before anything is opened.
///
/// # Errors
/// When none of this number is open.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: changes flags of a descriptor, if it is one.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller says that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. To be called before anything is opened: whoever owns one of them would go on
/// with a number that is another's.
pub fn close_from(first: libc::c_uint) {
    let flags: libc::c_uint = 0;
    // SAFETY: the caller says that nothing in this process owns one of them.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
}

/// How a process ended that somebody has reaped, as wait(2) encodes it; the kernel keeps it with the pidfd since Linux
/// 6.15 (`PIDFD_INFO_EXIT`). `None` before it is reaped, and on older kernels.
pub fn exit_of_reaped(pidfd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: a struct of integers, for which zeros are values.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = libc::PIDFD_INFO_EXIT.into();
    // SAFETY: the request says how large the struct is that it may write, and this is one.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    let is_told = info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    (result == 0 && is_told).then_some(info.exit_code)
}

/// `struct landlock_ruleset_attr` (ABI 6 and later; older kernels take a shorter prefix).
#[repr(C)]
pub struct LandlockRules {
    /// `LANDLOCK_ACCESS_FS_*` bits that are denied unless a rule allows them.
    pub handled_fs: u64,
    /// `LANDLOCK_ACCESS_NET_*` bits, ABI 4 and later.
    pub handled_net: u64,
    /// `LANDLOCK_SCOPE_*` bits, ABI 6 and later.
    pub scoped: u64,
}

/// `struct landlock_path_beneath_attr`; the kernel's is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_int = 1;

/// The kernel's Landlock ABI, or `None` when it has none or it is switched off.
pub fn landlock_abi() -> Option<i64> {
    let none = ptr::null::<LandlockRules>();
    // SAFETY: with this flag the kernel reads no attribute.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    (abi > 0).then_some(abi)
}

/// Makes a Landlock rule set; `size` is the length of the prefix of `rules` that the ABI knows.
///
/// # Errors
/// What `landlock_create_ruleset(2)` says.
pub fn landlock_ruleset(rules: &LandlockRules, size: usize) -> io::Result<OwnedFd> {
    let size = size.min(size_of::<LandlockRules>());
    // SAFETY: `rules` is readable for `size` bytes.
    owned(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::from_ref(rules), size, 0_u32)
    })
}

/// Allows `access` (`LANDLOCK_ACCESS_FS_*` bits) on the file that `file` is open on.
///
/// # Errors
/// What `landlock_add_rule(2)` says.
pub fn landlock_allow(
    ruleset: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    access: u64,
) -> io::Result<()> {
    let rule = PathBeneath { allowed: access, parent: file.as_raw_fd() };
    let (set, flags) = (ruleset.as_raw_fd(), 0_u32);
    // SAFETY: `rule` is a valid landlock_path_beneath_attr, both descriptors are open.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, set, PATH_BENEATH, &raw const rule, flags)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `KVM_GET_API_VERSION`: `_IO(0xAE, 0x00)`.
const KVM_GET_API_VERSION: libc::c_ulong = 0xAE00;

/// The version of the KVM interface behind an open /dev/kvm.
///
/// # Errors
/// `ENOTTY` when the file is no KVM.
pub fn kvm_api_version(kvm: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: this request takes no argument and writes no memory, on whatever file.
    let version = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version < 0 { Err(io::Error::last_os_error()) } else { Ok(version) }
}

/// `KVM_CHECK_EXTENSION`: `_IO(0xAE, 0x03)`.
const KVM_CHECK_EXTENSION: libc::c_ulong = 0xAE03;

/// Whether the KVM behind an open /dev/kvm has a capability (`KVM_CAP_*` of linux/kvm.h).
pub fn kvm_has(kvm: BorrowedFd<'_>, capability: libc::c_ulong) -> bool {
    // SAFETY: the argument of this request is a number, and no memory is written, on whatever file.
    unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CHECK_EXTENSION, capability) > 0 }
}

/// `PR_SCHED_CORE` of prctl(2), Linux 5.14.
pub const PR_SCHED_CORE: libc::c_int = 62;
/// `PR_SCHED_CORE_GET`.
const PR_SCHED_CORE_GET: libc::c_ulong = 0;

/// Whether the kernel keeps tasks with different cookies off one core. False where no core runs two
/// threads, and on a kernel without `CONFIG_SCHED_CORE`.
pub fn core_scheduling() -> bool {
    let mut cookie = 0_u64;
    let (this_process, one_task): (libc::c_ulong, libc::c_ulong) = (0, 0);
    // SAFETY: `cookie` is room for the eight bytes that the kernel writes.
    let result = unsafe {
        libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, this_process, one_task, &raw mut cookie)
    };
    result == 0
}

/// Copies `source` to a number of at least `lowest`, close-on-exec, so that the child can fill the low
/// numbers without overwriting what it still needs.
///
/// # Errors
/// `EMFILE`.
pub fn raise_descriptor(source: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on an open descriptor; the result is a fresh descriptor.
    owned(unsafe { libc::fcntl(source.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) }.into())
}

/// The name of a signal for people, such as "SIGSYS"; the number when the C library knows no name.
pub fn signal_name(signal: i32) -> String {
    unsafe extern "C" {
        /// glibc 2.32 and later: "HUP" for 1, null for what is no signal.
        fn sigabbrev_np(signal: libc::c_int) -> *const libc::c_char;
    }
    // SAFETY: takes any number.
    let name = unsafe { sigabbrev_np(signal) };
    if name.is_null() {
        return format!("signal {signal}");
    }
    // SAFETY: not null, so it is a constant string of the C library.
    let name = unsafe { CStr::from_ptr(name) };
    format!("SIG{}", name.to_string_lossy())
}
