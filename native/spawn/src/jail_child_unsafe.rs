//! What the new process does between clone3 and exec: the jail, step by step, in the order of [`STEPS`].
//!
//! Everything it needs was made before the clone. It allocates nothing, takes no lock and returns
//! never: after a step that fails it says which one and ends.

use std::ffi::{CStr, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags};

use crate::filter::Filter;
use crate::sys_unsafe::PR_SCHED_CORE;

/// The file system the process sees.
#[derive(Clone, Copy)]
pub enum Root<'a> {
    /// An empty read-only tmpfs.
    Empty,
    /// The host's files, read-only, with a proc of its own and these directories hidden.
    Host {
        /// Existing directories that become empty.
        hidden: &'a [&'a CStr],
    },
    /// The host's files, with a proc of its own: of a monitor, which makes a container's root itself.
    Monitor,
}

/// The program to become.
#[derive(Clone, Copy)]
pub enum Program<'a> {
    /// This open file, with these arguments and an empty environment.
    Descriptor {
        /// A static ELF file.
        file: BorrowedFd<'a>,
        /// Arguments, null-terminated array.
        argv: &'a [*const c_char],
    },
    /// A path of the host.
    Path {
        /// Absolute.
        path: &'a CStr,
        /// Arguments, null-terminated array.
        argv: &'a [*const c_char],
        /// Environment, null-terminated array.
        envp: &'a [*const c_char],
    },
}

/// All that the child needs, made before the clone.
pub struct Child<'a> {
    /// Stream socket to spawn: one byte releases the child; a failure is reported on it; exec closes it.
    pub channel: BorrowedFd<'a>,
    /// Spawn's end of it, of which the child has a copy.
    pub spawns_end: BorrowedFd<'a>,
    /// User and group, as the new user namespace (if any) names them.
    pub id: (u32, u32),
    /// Whether this process is in a user namespace of its own. There it may not touch supplementary
    /// groups (spawn itself has none to inherit); outside it clears them.
    pub own_user_namespace: bool,
    /// Hard and soft limits.
    pub limits: &'a [(Resource, u64)],
    /// The file system.
    pub root: Root<'a>,
    /// What becomes descriptor 0, 1, 2, ...; every number here is far above them.
    pub descriptors: &'a [Option<RawFd>],
    /// Whether it keeps what root may: a monitor, which starts an OCI runtime.
    pub is_monitor: bool,
    /// The host's network, to be entered: of a monitor at level host. Spawn and its starter are in another.
    pub host: Option<BorrowedFd<'a>>,
    /// A Landlock rule set to enter.
    pub landlock: Option<BorrowedFd<'a>>,
    /// A filter of system calls to enter, beside the one that is inherited.
    pub filter: Option<&'a Filter>,
    /// The program.
    pub program: Program<'a>,
}

struct Run<'a> {
    child: &'a Child<'a>,
    channel: RawFd,
    landlock: Option<RawFd>,
    file: Option<RawFd>,
}

type StepFunction = fn(&mut Run<'_>) -> Result<()>;

/// The steps of the jail by name, in their order. Identity is given up before the descriptors are
/// placed, capabilities after the last step that needs one, Landlock last because it also stops us.
const STEPS: [(&str, StepFunction); 16] = [
    ("wait for spawn", wait),
    ("signals", signals),
    ("session", session),
    ("cgroup namespace", cgroup_namespace),
    ("the host's network", host_network),
    ("core scheduling", core_scheduling),
    ("no further user namespaces", no_user_namespaces),
    ("file system", file_system),
    ("resource limits", resource_limits),
    ("user and group", identity),
    ("descriptors", descriptors),
    ("capabilities", capabilities),
    ("no_new_privs", no_new_privs),
    ("landlock", landlock),
    ("system calls", system_calls),
    ("exec", exec),
];

/// The name of the step with this index.
pub fn step_name(index: usize) -> Option<&'static str> {
    STEPS.get(index).map(|(name, _)| *name)
}

/// Runs the steps. What is written to the channel on failure: the step's index, then errno (i32, little endian).
pub fn run(child: &Child<'_>) -> ! {
    let channel = child.channel.as_raw_fd();
    let mut run = Run { child, channel, landlock: None, file: None };
    for (index, (_, step)) in STEPS.iter().enumerate() {
        if let Err(errno) = step(&mut run) {
            let mut report = [0_u8; 5];
            let [first, code @ ..] = &mut report;
            *first = u8::try_from(index).unwrap_or(u8::MAX);
            *code = errno.raw_os_error().to_le_bytes();
            // SAFETY: `report` is readable; a failing write changes nothing, the process ends anyway.
            unsafe { libc::write(run.channel, report.as_ptr().cast(), report.len()) };
            break;
        }
    }
    // SAFETY: ends this process without running the parent's exit handlers.
    unsafe { libc::_exit(127) }
}

fn check(result: i64) -> Result<()> {
    if result >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Without spawn's end, which would keep the stream open: then the child waited for a dead spawn for ever.
fn wait(run: &mut Run<'_>) -> Result<()> {
    // SAFETY: this process does not use it; in spawn it stays open.
    let _ = unsafe { libc::close(run.child.spawns_end.as_raw_fd()) };
    let mut byte = [0_u8; 1];
    match rustix::io::read(run.child.channel, &mut byte)? {
        1 => Ok(()),
        // Spawn ended or gave up.
        _ => Err(Errno::PIPE),
    }
}

/// `struct sigaction` as the kernel takes it: handler, flags, restorer, mask. Zero is the default.
#[repr(C)]
struct DefaultAction([u64; 4]);

/// Rust ignores SIGPIPE, spawn blocks what it reads from a signalfd, and whoever started spawn may
/// have ignored others; exec would hand all of that on. The kernel is asked itself because the C
/// library keeps signals 32 and 33 from us.
fn signals(_: &mut Run<'_>) -> Result<()> {
    let (default, none) = (DefaultAction([0; 4]), ptr::null::<DefaultAction>());
    let mask_bytes: usize = 8;
    for signal in 1..=64_i32 {
        // SIGKILL and SIGSTOP are refused; they have no other action anyway.
        // SAFETY: a valid action; the old one is not asked for.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, mask_bytes)
        };
    }
    let (block_none, how, nowhere) = (0_u64, libc::SIG_SETMASK, ptr::null::<u64>());
    // SAFETY: a valid mask of 64 signals; the old one is not asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const block_none, nowhere, mask_bytes)
    })
}

fn session(_: &mut Run<'_>) -> Result<()> {
    rustix::process::setsid().map(|_| ())
}

/// Here and not in the clone, so that its root is the pod's cgroup also where spawn moves the child there (v1).
fn cgroup_namespace(run: &mut Run<'_>) -> Result<()> {
    if run.child.is_monitor {
        return Ok(());
    }
    // SAFETY: a cgroup namespace changes no memory and no descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }
}

fn host_network(run: &mut Run<'_>) -> Result<()> {
    let Some(network) = run.child.host else { return Ok(()) };
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(network, kind)
}

/// A cookie of its own, which its threads inherit and exec keeps: nothing else then runs on the other
/// threads of its core, where it could watch caches and buffers.
fn core_scheduling(_: &mut Run<'_>) -> Result<()> {
    let (create, this_process, one_task): (libc::c_ulong, libc::c_ulong, libc::c_ulong) = (1, 0, 0);
    let none: libc::c_ulong = 0;
    // SAFETY: changes how this task is scheduled, no memory.
    let result = unsafe { libc::prctl(PR_SCHED_CORE, create, this_process, one_task, none) };
    match check(result.into()) {
        // No core with two threads, or a kernel without it: `describe` says so, and the agent judges.
        Err(Errno::NODEV | Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// A process that may make a user namespace has every capability in it, and with them a large part of
/// the kernel to attack. The limit is this namespace's own: the host's is another.
fn no_user_namespaces(run: &mut Run<'_>) -> Result<()> {
    if !run.child.own_user_namespace {
        return Ok(());
    }
    let path = c"/proc/sys/user/max_user_namespaces";
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let limit = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::write(limit, b"0").map(|_| ())
}

fn file_system(run: &mut Run<'_>) -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    match &run.child.root {
        Root::Empty => empty_root(),
        Root::Host { hidden } => host_root(hidden),
        Root::Monitor => own_proc(),
    }
}

const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

fn empty_root() -> Result<()> {
    let flags = INERT.union(MountFlags::RDONLY);
    // One inode: the root. Any directory serves as its first place; spawn itself needs /proc.
    let options = c"size=4096,nr_inodes=1,mode=0555";
    rustix::mount::mount(c"none", c"/proc", c"tmpfs", flags, options)?;
    rustix::process::chdir(c"/proc")?;
    // The old root lands on top of the new one, and is what "." then names.
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn own_proc() -> Result<()> {
    rustix::mount::mount(c"proc", c"/proc", c"proc", INERT, None)
}

fn host_root(hidden: &[&CStr]) -> Result<()> {
    own_proc()?;
    for directory in hidden {
        rustix::mount::mount(c"none", *directory, c"tmpfs", INERT, c"size=4096,mode=0000")?;
    }
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = libc::c_uint::try_from(libc::AT_RECURSIVE).unwrap_or(0);
    let size = size_of::<libc::mount_attr>();
    let (root, path) = (libc::AT_FDCWD, c"/".as_ptr());
    // SAFETY: path and attributes are valid for the call.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, root, path, recursive, &raw const attributes, size)
    })
}

fn resource_limits(run: &mut Run<'_>) -> Result<()> {
    for (resource, value) in run.child.limits {
        let limit = Rlimit { current: Some(*value), maximum: Some(*value) };
        rustix::process::setrlimit(*resource, limit)?;
    }
    Ok(())
}

fn identity(run: &mut Run<'_>) -> Result<()> {
    if run.child.is_monitor {
        return Ok(());
    }
    let (uid, gid) = run.child.id;
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    if !run.child.own_user_namespace {
        rustix::thread::set_thread_groups(&[])?;
        // The move away from root must not take the capabilities the next steps give up by name.
        rustix::thread::set_keep_capabilities(true)?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if !run.child.own_user_namespace {
        // KEEPCAPS keeps the permitted set alone.
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective = sets.permitted;
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}

fn place(source: RawFd, target: RawFd, flags: libc::c_int) -> Result<RawFd> {
    // SAFETY: dup3 on numbers; this process owns no descriptor object that could be confused by it.
    check(unsafe { libc::dup3(source, target, flags) }.into())?;
    Ok(target)
}

/// Fills 0, 1, 2, ... and closes everything else; what is still needed until exec sits just above, close-on-exec.
fn descriptors(run: &mut Run<'_>) -> Result<()> {
    let mut target: RawFd = 0;
    for source in run.child.descriptors {
        match source {
            Some(source) => place(*source, target, 0).map(|_| ())?,
            // SAFETY: closes whatever spawn happened to have there; this process does not use it.
            None => drop(unsafe { libc::close(target) }),
        }
        target = target.wrapping_add(1);
    }
    let mut keep = |source: RawFd| {
        let placed = place(source, target, libc::O_CLOEXEC)?;
        target = target.wrapping_add(1);
        Ok(placed)
    };
    run.channel = keep(run.channel)?;
    if let Some(ruleset) = &run.child.landlock {
        run.landlock = Some(keep(ruleset.as_raw_fd())?);
    }
    if let Program::Descriptor { file, .. } = &run.child.program {
        run.file = Some(keep(file.as_raw_fd())?);
    }
    let first = libc::c_uint::try_from(target).unwrap_or(0);
    let flags: libc::c_uint = 0;
    // SAFETY: closes what this process does not use.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) })
}

fn capabilities(run: &mut Run<'_>) -> Result<()> {
    if run.child.is_monitor {
        return Ok(());
    }
    for capability in 0..libc::c_ulong::from(64_u32) {
        // SAFETY: changes the calling thread's bounding set.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) }.into()) {
            Ok(()) => {}
            // The first number that is no capability of this kernel.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(locked)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

fn no_new_privs(run: &mut Run<'_>) -> Result<()> {
    if run.child.is_monitor {
        return Ok(());
    }
    rustix::thread::set_no_new_privs(true)
}

fn landlock(run: &mut Run<'_>) -> Result<()> {
    let Some(ruleset) = run.landlock else { return Ok(()) };
    let flags: libc::c_uint = 0;
    // SAFETY: restricts this thread, the only one.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, flags) })
}

/// A VMM installs filters of its own, thread by thread; until then it has spawn's.
fn system_calls(run: &mut Run<'_>) -> Result<()> {
    let Some(filter) = run.child.filter else { return Ok(()) };
    let refused = |error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
    filter.install().map_err(refused)
}

fn exec(run: &mut Run<'_>) -> Result<()> {
    let nothing: [*const c_char; 1] = [ptr::null()];
    let (at, path, argv, envp) = match &run.child.program {
        Program::Descriptor { argv, .. } => (run.file, c"".as_ptr(), *argv, nothing.as_slice()),
        Program::Path { path, argv, envp } => (None, path.as_ptr(), *argv, *envp),
    };
    let flags = if at.is_some() { libc::AT_EMPTY_PATH } else { 0 };
    let (at, argv, envp) = (at.unwrap_or(libc::AT_FDCWD), argv.as_ptr(), envp.as_ptr());
    // SAFETY: both arrays end with null and point to strings that live until the exec.
    check(unsafe { libc::syscall(libc::SYS_execveat, at, path, argv, envp, flags) })
}
