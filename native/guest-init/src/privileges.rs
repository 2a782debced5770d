//! Limits, identity, capabilities and seccomp: everything the app loses before it runs, in the
//! order in which each step still has the right to be taken.

use casemate_ticket::app::{App, Capabilities, RESOURCES};
use casemate_wire::payload::ErrorCode;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::failure::{Failure, OrFailure};
use crate::process_unsafe;
use crate::users::Identity;

/// Takes everything from the calling process that the app does not have. Only exec comes after it.
///
/// # Errors
/// [`ErrorCode::User`] for identity, [`ErrorCode::Seccomp`] for the program, else
/// [`ErrorCode::Other`].
pub fn apply(app: &App, identity: &Identity) -> Result<(), Failure> {
    let process = &app.process;
    for limit in &process.rlimits {
        let name = usize::try_from(limit.resource).ok().and_then(|number| RESOURCES.get(number));
        process_unsafe::set_limit(limit.resource, limit.soft, limit.hard)
            .or_failure(ErrorCode::Other, format!("set {}", name.unwrap_or(&"a limit")))?;
    }
    umask(Mode::WGRP | Mode::WOTH);
    drop_bounding(process.capabilities.bounding)
        .or_failure(ErrorCode::Other, "drop a bounding capability")?;
    take_identity(identity, &process.additional_gids)?;
    let program = app.seccomp.as_ref().map(|seccomp| seccomp.program.as_slice());
    if process.no_new_privileges {
        take_capabilities(process.capabilities)?;
        set_no_new_privs(true).or_failure(ErrorCode::Other, "set no_new_privs")?;
        install(program)
    } else {
        // Without no_new_privs the kernel wants CAP_SYS_ADMIN for a filter, so capabilities go
        // after it and the program has to allow capset and prctl, as with other OCI runtimes.
        if program.is_some() {
            let held = capabilities(None).or_failure(ErrorCode::Other, "read capabilities")?;
            let sets = CapabilitySets { effective: CapabilitySet::SYS_ADMIN, ..held };
            set_capabilities(None, sets).or_failure(ErrorCode::Seccomp, "use CAP_SYS_ADMIN")?;
        }
        install(program)?;
        take_capabilities(process.capabilities)
    }
}

/// No program that is executed from here on has other capabilities than these bits.
///
/// # Errors
/// What the kernel answers.
pub fn drop_bounding(keep: u64) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let bit = 1_u64.checked_shl(number).unwrap_or(0);
        if keep & bit != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
            Ok(()) => {}
            // The kernel has no capability of that number, and so none above it.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn take_identity(identity: &Identity, additional_gids: &[u32]) -> Result<(), Failure> {
    let mut groups: Vec<u32> = identity.groups.iter().chain(additional_gids).copied().collect();
    groups.sort_unstable();
    groups.dedup();
    let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_keep_capabilities(true).or_failure(ErrorCode::User, "keep capabilities")?;
    set_thread_groups(&groups).or_failure(ErrorCode::User, "set supplementary groups")?;
    set_thread_res_gid(gid, gid, gid).or_failure(ErrorCode::User, "set the group")?;
    set_thread_res_uid(uid, uid, uid).or_failure(ErrorCode::User, "set the user")
}

fn take_capabilities(wanted: Capabilities) -> Result<(), Failure> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(wanted.effective),
        permitted: CapabilitySet::from_bits_retain(wanted.permitted),
        inheritable: CapabilitySet::from_bits_retain(wanted.inheritable),
    };
    set_capabilities(None, sets).or_failure(ErrorCode::Other, "set capabilities")?;
    clear_ambient_capability_set().or_failure(ErrorCode::Other, "clear ambient capabilities")?;
    for bit in CapabilitySet::from_bits_retain(wanted.ambient).iter() {
        configure_capability_in_ambient_set(bit, true)
            .or_failure(ErrorCode::Other, "raise an ambient capability")?;
    }
    Ok(())
}

fn install(program: Option<&[u8]>) -> Result<(), Failure> {
    program.map_or(Ok(()), |program| {
        process_unsafe::install_seccomp(program)
            .or_failure(ErrorCode::Seccomp, "install the seccomp program")
    })
}
