//! Starting a process in its jail: everything is made here, before the clone; the steps themselves
//! are in `jail_child_unsafe`.

use std::ffi::c_char;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::cgroup::Cgroup;
use crate::filter::Filter;
use crate::jail_child_unsafe::{Child, Program, Root, run, step_name};
use crate::refusal::{Refusal, Result};
use crate::sys_unsafe::{Cloned, clone3, raise_descriptor};

/// Descriptors that the child needs are moved up to here, out of the way of the numbers it fills.
const LOWEST: RawFd = 1024;

/// Namespaces of every jailed process beside that of mounts, but of the monitor of a pod at level host.
const NAMESPACES: [libc::c_int; 4] =
    [libc::CLONE_NEWPID, libc::CLONE_NEWIPC, libc::CLONE_NEWUTS, libc::CLONE_NEWNET];

/// A jail to be entered.
pub struct Jail<'a> {
    /// Whether the process gets a user namespace in which only its own id exists.
    pub own_user_namespace: bool,
    /// User and group id on the host, and inside as well.
    pub id: (u32, u32),
    /// Its cgroup; a monitor is moved into its own by spawn.
    pub cgroup: Option<&'a Cgroup>,
    /// Whether it is a monitor: root as it was, and a child of spawn's although spawn's starter makes it.
    pub is_monitor: bool,
    /// The host's network, where all but the mounts is the host's: of a monitor at level host.
    pub host: Option<BorrowedFd<'a>>,
    /// Resource limits, hard and soft.
    pub limits: &'a [(Resource, u64)],
    /// The file system it sees.
    pub root: Root<'a>,
    /// What become descriptors 0, 1, 2, ...
    pub descriptors: &'a [Option<BorrowedFd<'a>>],
    /// Landlock rules.
    pub landlock: Option<BorrowedFd<'a>>,
    /// A filter of system calls beside spawn's, which every child has.
    pub filter: Option<&'a Filter>,
    /// What it becomes.
    pub program: Program<'a>,
}

/// A process on its way to exec.
#[derive(Debug)]
pub struct Jailed {
    /// Its pid.
    pub pid: i32,
    /// The process itself.
    pub pidfd: OwnedFd,
    /// End of file when it has exec'd; before that, [`failure`] reads what it wrote.
    pub channel: OwnedFd,
}

/// Starts the process. It has its ids and its cgroup when this returns and goes through the jail's
/// steps by itself, once `before` was called with it: until then it waits, and ends when spawn does.
///
/// # Errors
/// `JAIL_FAILED`, with the step's name, or what `before` refuses; no process is left then.
pub fn start(jail: &Jail<'_>, before: impl FnOnce(&Jailed) -> Result<()>) -> Result<Jailed> {
    let jailed = begin(jail)?;
    let ids = jail.own_user_namespace.then_some(jail.id);
    let_in(jailed, ids, jail.cgroup, before)
}

/// Lets a process that [`begin`] has made go on, in its cgroup and once `before` was called with it.
///
/// # Errors
/// As of [`start`]; no process is left then.
pub fn let_in(
    jailed: Jailed,
    ids: Option<(u32, u32)>,
    cgroup: Option<&Cgroup>,
    before: impl FnOnce(&Jailed) -> Result<()>,
) -> Result<Jailed> {
    let told = |(step, error): Failed| failed(step, &error);
    let released = admit(ids, cgroup, &jailed)
        .map_err(told)
        .and_then(|()| before(&jailed))
        .and_then(|()| release(&jailed).map_err(told));
    if let Err(refusal) = released {
        kill_and_reap(&jailed.pidfd);
        return Err(refusal);
    }
    Ok(jailed)
}

fn failed(step: &str, error: &io::Error) -> Refusal {
    Refusal::new("JAIL_FAILED", format!("the jail could not be made, step \"{step}\": {error}"))
}

/// Makes the process, which waits to be let in.
///
/// # Errors
/// `JAIL_FAILED`.
pub fn begin(jail: &Jail<'_>) -> Result<Jailed> {
    let raise = |fd: BorrowedFd<'_>| raise_descriptor(fd, LOWEST);
    let prepare = |error| failed("prepare", &error);
    let mut raised = Vec::new();
    for descriptor in jail.descriptors {
        raised.push(descriptor.map(raise).transpose().map_err(prepare)?);
    }
    let (ours, theirs) = pair(SocketType::STREAM).map_err(prepare)?;
    let theirs = raise(theirs.as_fd()).map_err(prepare)?;
    let landlock = jail.landlock.map(raise).transpose().map_err(prepare)?;
    let host = jail.host.map(raise).transpose().map_err(prepare)?;
    let file = match &jail.program {
        Program::Descriptor { file, .. } => Some(raise(*file).map_err(prepare)?),
        Program::Path { .. } => None,
    };
    let numbers: Vec<Option<RawFd>> =
        raised.iter().map(|fd| fd.as_ref().map(AsRawFd::as_raw_fd)).collect();
    let limits: Vec<(Resource, u64)> = jail.limits.iter().map(within_hard_limit).collect();
    let child = Child {
        channel: theirs.as_fd(),
        spawns_end: ours.as_fd(),
        id: jail.id,
        own_user_namespace: jail.own_user_namespace,
        limits: &limits,
        root: jail.root,
        descriptors: &numbers,
        is_monitor: jail.is_monitor,
        host: host.as_ref().map(AsFd::as_fd),
        landlock: landlock.as_ref().map(AsFd::as_fd),
        filter: jail.filter,
        program: match (&jail.program, &file) {
            (Program::Descriptor { argv, .. }, Some(file)) => {
                Program::Descriptor { file: file.as_fd(), argv }
            }
            (program, _) => *program,
        },
    };
    let target = jail.cgroup.map(Cgroup::clone_target).transpose();
    let target = target.map_err(|error| failed("cgroup", &error))?.flatten();
    match clone3(flags(jail), target.as_ref().map(AsFd::as_fd)) {
        Ok(Cloned::Child) => run(&child),
        Ok(Cloned::Parent { pid, pidfd }) => Ok(Jailed { pid, pidfd, channel: ours }),
        Err(error) => Err(failed("clone", &error)),
    }
}

/// A limit can be lowered by everybody but raised by few, not by a child in a user namespace.
fn within_hard_limit((resource, value): &(Resource, u64)) -> (Resource, u64) {
    let hard = rustix::process::getrlimit(*resource).maximum.unwrap_or(u64::MAX);
    (*resource, hard.min(*value))
}

fn flags(jail: &Jail<'_>) -> u64 {
    let user = if jail.own_user_namespace { libc::CLONE_NEWUSER } else { 0 };
    let parent = if jail.is_monitor { libc::CLONE_PARENT } else { 0 };
    // At level host what is shared by name in memory is the pod's all the same: it is charged to nobody whose maker has ended.
    let apart: &[_] = if jail.host.is_some() { &[libc::CLONE_NEWIPC] } else { &NAMESPACES };
    let all = apart.iter().fold(user | parent | libc::CLONE_NEWNS, |all, flag| all | flag);
    u64::try_from(all).unwrap_or(0)
}

type Failed = (&'static str, io::Error);

/// What only spawn can do for the child: ids, cgroup.
fn admit(
    ids: Option<(u32, u32)>,
    cgroup: Option<&Cgroup>,
    jailed: &Jailed,
) -> std::result::Result<(), Failed> {
    let pid = jailed.pid;
    if let Some((uid, gid)) = ids {
        let map = |file: &str, text: String| {
            fs::write(format!("/proc/{pid}/{file}"), text)
                .map_err(|error| ("user namespace", error))
        };
        map("setgroups", "deny".into())?;
        map("gid_map", format!("{gid} {gid} 1"))?;
        map("uid_map", format!("{uid} {uid} 1"))?;
    }
    cgroup.map_or(Ok(()), |cgroup| cgroup.add(pid)).map_err(|error| ("cgroup", error))
}

/// Lets the child go on.
fn release(jailed: &Jailed) -> std::result::Result<(), Failed> {
    rustix::io::write(&jailed.channel, b"g").map_err(|errno| ("release", errno.into()))?;
    rustix::io::ioctl_fionbio(&jailed.channel, true).map_err(|errno| ("release", errno.into()))?;
    Ok(())
}

/// Kills a process and waits for its end, which is near: nothing delays SIGKILL of a jailed process
/// but the kernel's own clean-up.
pub fn kill_and_reap(pidfd: &OwnedFd) {
    kill(pidfd);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// Kills a process. One that has ended already is no error.
pub fn kill(pidfd: impl AsFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// The sentence of what a child wrote before it gave up.
pub fn failure(report: &[u8]) -> String {
    let (step, code) = match report {
        [step, code @ ..] => (usize::from(*step), <[u8; 4]>::try_from(code).ok()),
        [] => (usize::MAX, None),
    };
    let name = step_name(step).unwrap_or("unknown");
    let error = code.map(|code| io::Error::from_raw_os_error(i32::from_le_bytes(code)));
    let reason = error.map_or_else(|| "no reason given".to_owned(), |error| error.to_string());
    format!("the jail could not be made, step \"{name}\": {reason}")
}

/// A pair of sockets, close-on-exec, blocking.
///
/// # Errors
/// No descriptors left.
pub fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// A null-terminated array of pointers to these strings, for exec.
pub fn pointers(strings: &[std::ffi::CString]) -> Vec<*const c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::failure;

    #[test]
    fn names_the_step_that_failed() {
        assert_eq!(
            failure(&[7, 1, 0, 0, 0]),
            "the jail could not be made, step \"file system\": Operation not permitted (os error 1)"
        );
        assert!(failure(&[]).contains("unknown"));
        assert!(failure(&[99, 1]).contains("no reason"));
    }
}
