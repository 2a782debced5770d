//! What a spec of level host has not (docs/formats.md section 2): a process section in a mount namespace, and so whatever
//! it says of the kernel it says of the host's.

use crate::app::{App, CAPABILITIES};
use crate::host_path;
use crate::shape::{ShapeError, wrong};
use crate::spec::{Level, Spec};

/// Capabilities that an app may have there. Each is one over the host: these are what a service of the host's has that
/// changes its user, listens below port 1024 and owns its own files. `policy/nouns/capability.ts` has the same.
const PERMITTED: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Whether a spec is what its level can have, as far as level host has less than others.
///
/// # Errors
/// The first member that is more.
pub(crate) fn check(spec: &Spec) -> Result<(), ShapeError> {
    if spec.level != Level::Host {
        return Ok(());
    }
    if spec.network.is_some() {
        return Err(wrong("network", "is the host's at level host"));
    }
    if !spec.sysctls.is_empty() {
        return Err(wrong("sysctls", "are the host's at level host"));
    }
    spec.apps.iter().try_for_each(check_app)
}

fn check_app(app: &App) -> Result<(), ShapeError> {
    if app.seccomp.is_none() {
        return Err(wrong("apps.seccomp", "must be there at level host"));
    }
    if host_path::of(&app.mounts).next().is_some() {
        return Err(wrong("apps.mounts", "have a path of the host at level host"));
    }
    let sets = app.process.capabilities;
    let all = [sets.ambient, sets.bounding, sets.effective, sets.inheritable, sets.permitted];
    if all.into_iter().any(|set| set & !permitted() != 0) {
        let text = "have one that is over the host at level host";
        return Err(wrong("apps.process.capabilities", text));
    }
    Ok(())
}

/// As bits by number.
fn permitted() -> u64 {
    (0_u32..)
        .zip(CAPABILITIES)
        .filter(|(_, name)| PERMITTED.contains(name))
        .fold(0, |set, (number, _)| set | 1_u64.checked_shl(number).unwrap_or(0))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::{PERMITTED, permitted};

    #[test]
    fn each_permitted_capability_has_its_bit() {
        assert_eq!(permitted().count_ones(), u32::try_from(PERMITTED.len()).unwrap());
        // CAP_CHOWN is number 0, CAP_NET_BIND_SERVICE 10; CAP_NET_RAW 13 and CAP_SYS_ADMIN 21 are none of them.
        assert_eq!(permitted() & (1 | 1 << 10), 1 | 1 << 10);
        assert_eq!(permitted() & (1 << 13 | 1 << 21), 0);
    }
}
