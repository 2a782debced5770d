//! The way in to a container that runs: no runtime, no program, no path of the image. A process in between enters the
//! cgroup and the namespaces, by descriptors that were opened before anything of the image ran, makes the one that stays
//! there, and ends.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use casemate_ticket::app::App;
use casemate_wire::payload::ErrorCode;
use guest_init::child::Stdio;
use guest_init::failure::{Failure, OrFailure};
use guest_init::health::doors::{Doors, Forked};
use guest_init::namespaces::Namespaces;
use guest_init::report::Reporter;
use guest_init::running::pipe;
use rustix::fs::{Gid, Uid, fchown};
use rustix::process::{
    DumpableBehavior, Pid, WaitId, WaitIdOptions, set_dumpable_behavior, waitid,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::fork_unsafe::{self, Fork};
use crate::limits_unsafe;
use crate::runtime::Runtime;

/// Bytes of what the process in between says; a pipe takes as many at once.
const WORDS_MAX: usize = 1024;

impl Doors for Runtime {
    fn fork_beside(
        &self,
        namespaces: &Namespaces,
        pipes: &Stdio,
        _report: &Reporter,
    ) -> Result<Forked, Failure> {
        let root = (Some(Uid::from_raw(self.ids)), Some(Gid::from_raw(self.ids)));
        for end in [&pipes.stdin, &pipes.stdout, &pipes.stderr] {
            fchown(end, root.0, root.1).or_failure(ErrorCode::Other, "give away a pipe")?;
        }
        let (told, teller) = pipe()?;
        match fork_unsafe::fork().or_failure(ErrorCode::Other, "make a process")? {
            Fork::Parent(between) => {
                drop(teller);
                let words = hear(told, between)?;
                let pid = words.parse().ok().and_then(Pid::from_raw);
                pid.map(Forked::Parent).ok_or_else(|| Failure::new(ErrorCode::Other, words))
            }
            Fork::Child => match enter(namespaces, &self.group).and_then(|()| stay()) {
                Ok(Fork::Child) => {
                    drop(teller);
                    Ok(Forked::Child)
                }
                Ok(Fork::Parent(pid)) => say(teller, &pid.as_raw_nonzero().to_string()),
                Err(failure) => say(teller, &failure.text),
            },
        }
    }

    fn within(&self, mut app: App) -> App {
        limits_unsafe::within(&mut app.process.rlimits);
        app
    }

    fn glibc_tunables(&self) -> Option<&str> {
        None
    }
}

/// What the process in between says before it ends: in one piece, since the end of the pipe may be long in coming. The
/// other process has it too, and the app may stop that where it is.
fn hear(told: OwnedFd, between: Pid) -> Result<String, Failure> {
    let mut words = [0; WORDS_MAX];
    let heard = File::from(told).read(&mut words);
    let waited = waitid(WaitId::Pid(between), WaitIdOptions::EXITED);
    let length = heard.or_failure(ErrorCode::Other, "hear of the process")?;
    waited.or_failure(ErrorCode::Other, "wait for the process in between")?;
    let words = String::from_utf8_lossy(words.get(..length).unwrap_or_default()).into_owned();
    // Such as for want of memory in the container.
    Ok(if words.is_empty() {
        "the process was killed on its way into the container".into()
    } else {
        words
    })
}

fn say(teller: OwnedFd, words: &str) -> ! {
    let _ = File::from(teller).write_all(words.as_bytes());
    fork_unsafe::exit_now(0)
}

/// In the process in between, everything that needs the host's root.
fn enter(namespaces: &Namespaces, group: &str) -> Result<(), Failure> {
    // The container sees this process' child, which is what the monitor is (CVE-2016-9962).
    keep_closed()?;
    for procs in groups(group)? {
        // 0 is who writes.
        fs::write(&procs, "0")
            .or_failure(ErrorCode::Other, format!("enter {}", procs.display()))?;
    }
    namespaces.enter()?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .or_failure(ErrorCode::Other, "become the container's root")
}

fn stay() -> Result<Fork, Failure> {
    let made = fork_unsafe::sibling().or_failure(ErrorCode::Other, "make a process in it")?;
    if matches!(made, Fork::Child) {
        // Lost with the change of user.
        keep_closed()?;
    }
    Ok(made)
}

fn keep_closed() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .or_failure(ErrorCode::Other, "close the process to others")
}

/// The files by which the app's group is entered, one for each hierarchy that it is in.
fn groups(group: &str) -> Result<Vec<PathBuf>, Failure> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").or_failure(ErrorCode::Other, "find cgroups")?;
    let found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| procs_of(place, group))
        })
        .filter(|procs| procs.exists())
        .collect();
    if found.is_empty() {
        return Err(Failure::new(ErrorCode::Other, "the container has no cgroup to enter"));
    }
    Ok(found)
}

fn procs_of(place: &str, group: &str) -> PathBuf {
    Path::new(place).join(group.trim_start_matches('/')).join("cgroup.procs")
}
