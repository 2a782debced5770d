//! Where processes beside the app are made, and what of their surroundings neither the app's configuration nor its
//! namespaces say.

use std::path::PathBuf;

use casemate_ticket::app::App;

/// Of one app.
#[derive(Clone, Debug)]
pub struct Site {
    /// The folders of its cgroup, one for each hierarchy.
    pub groups: Vec<PathBuf>,
    /// The file of its cgroup with a line `oom_kill N`, if there is one.
    pub oom: Option<PathBuf>,
    /// As [`crate::places::Places`] has it.
    pub glibc_tunables: Option<String>,
    /// Whose the pipes of a process are until they are its user's: root of the app's user namespace, if it has one.
    pub root: Option<u32>,
    /// What the configuration says and does not hold here.
    pub adapt: fn(&mut App),
}
