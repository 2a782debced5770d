//! What both processes of the monitor give up once everything is set up.

use std::io;

use casemate_ticket::app::App;
use casemate_ticket::spec::Level;
use guest_init::privileges::drop_bounding;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, clear_ambient_capability_set,
    set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::filter;

/// What an OCI runtime takes that makes a container with a user namespace, and what it takes to enter one: cgroups and
/// mounts (`SYS_ADMIN`, `SYS_CHROOT`, `SYS_PTRACE`, `DAC_OVERRIDE`), ids (`SETUID`, `SETGID`, `CHOWN`), modes of others'
/// files (`FOWNER`), signals to processes with other ids (`KILL`), limits and room on the disk beyond the host's
/// (`SYS_RESOURCE`).
const RUNTIME: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE);

/// What it takes where no user namespace gives them all: nodes in its `/dev`, and those that the app's process gives up.
const RUNTIME_OF_HOST: CapabilitySet =
    RUNTIME.union(CapabilitySet::MKNOD).union(CapabilitySet::SETPCAP);

/// What the session of a pod keeps, as bits.
#[must_use]
pub fn of_session(level: Level, apps: &[App]) -> u64 {
    let own = apps.iter().fold(0, |all, app| all | app.process.capabilities.bounding);
    match level {
        Level::Host => RUNTIME_OF_HOST.bits() | own,
        _ => RUNTIME.bits(),
    }
}

/// What the first process of an app begins with, as bits: in a container all, which are of its user namespace. A host's
/// root may lack some itself.
///
/// # Errors
/// What the kernel answers.
pub fn of_first(level: Level, apps: &[App]) -> io::Result<u64> {
    match level {
        Level::Host => Ok(of_session(level, apps) & capabilities(None)?.permitted.bits()),
        _ => Ok(u64::MAX),
    }
}

/// Leaves the session, and what it starts on the host, what it needs.
///
/// # Errors
/// What the kernel answers.
pub fn keep(bits: u64) -> io::Result<()> {
    let kept = CapabilitySet::from_bits_retain(bits);
    bound(kept)?;
    hold(capabilities(None)?.permitted & kept)
}

/// Becomes a user of the host that no process of a container, no machine and nobody else is, without a privilege, under
/// a list of system calls.
///
/// # Errors
/// What the kernel answers.
pub fn give_all_up(id: u32) -> io::Result<()> {
    let filter = filter::compile()?;
    bound(CapabilitySet::empty())?;
    set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    hold(CapabilitySet::empty())?;
    filter.install()
}

/// No program that is executed from here on has others than these.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    drop_bounding(kept.bits())?;
    Ok(clear_ambient_capability_set()?)
}

fn hold(held: CapabilitySet) -> io::Result<()> {
    let inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: held, permitted: held, inheritable })?)
}
