//! Parameters of the kernel that are the app's own: written by its process into the namespaces that it is in, before
//! /proc/sys becomes read-only for it.

use std::fs;

use casemate_ticket::sysctls::Sysctl;
use casemate_wire::payload::ErrorCode;

use crate::failure::{Failure, OrFailure};

/// Sets all of them.
///
/// # Errors
/// [`ErrorCode::Other`] with the one that this kernel does not have, or refuses.
pub fn apply(sysctls: &[Sysctl]) -> Result<(), Failure> {
    sysctls.iter().try_for_each(|sysctl| {
        fs::write(sysctl.path(), &sysctl.value)
            .or_failure(ErrorCode::Other, format!("set {} to {:?}", sysctl.name, sysctl.value))
    })
}
