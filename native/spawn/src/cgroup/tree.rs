//! A group with the groups below it: a container's has one for the app, which the OCI runtime makes.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// How deep the runtime's groups lie; what is deeper is not ours to make out.
const DEPTH_MAX: u32 = 8;
/// A process may fork before it is killed; all of a container's end with its first one, which is among them.
const ROUNDS: u32 = 64;

/// The group and all below it, the deepest first.
pub fn groups(directory: &Path, depth: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if depth < DEPTH_MAX {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.extend(groups(&entry.path(), depth.saturating_add(1)));
            }
        }
    }
    found.push(directory.to_owned());
    found
}

/// The pids in all of them, as text.
pub fn members(directory: &Path) -> Vec<String> {
    let read = |group: PathBuf| fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let texts = groups(directory, 0).into_iter().map(read);
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Sends SIGKILL to all that are in them, and says whether there was anybody.
pub fn kill_members(directory: &Path) -> bool {
    let members = members(directory);
    for pid in &members {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    !members.is_empty()
}

/// The same until nobody is left to be killed, as far as that can be seen without waiting.
pub fn kill(directory: &Path) {
    for _ in 0..ROUNDS {
        if !kill_members(directory) {
            return;
        }
    }
}

/// Removes them. One that is not there is no error.
///
/// # Errors
/// While the kernel still holds something in one.
pub fn remove(directory: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for group in groups(directory, 0) {
        match fs::remove_dir(&group) {
            Err(error) if error.kind() != ErrorKind::NotFound => result = Err(error),
            _ => {}
        }
    }
    result
}
