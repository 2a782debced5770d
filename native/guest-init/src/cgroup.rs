//! The apps' cgroups (version 2): so that a kill by the guest's memory limit can be told from any
//! other SIGKILL, and init keeps a little memory whatever apps do. There is one for all of them, and one in it for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use casemate_wire::payload::ErrorCode;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Failure, OrFailure};

/// Memory the app cannot have: what init needs to report that the app ran out of it.
const RESERVE_BYTES: u64 = 4 * 1_048_576;
/// The file of a group that counts what it ran out of.
pub const EVENTS: &str = "memory.events";
/// How often who is left in a group is killed, and how long the kernel has in between to end them.
const ROUNDS: u32 = 100;
const ROUND: Duration = Duration::from_millis(2);
/// What stops a group and lets it go on, in version 1 and 2.
const FREEZERS: [(&str, &str, &str); 2] =
    [("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")];

/// Makes the apps' cgroup below `root`, where cgroup2 is mounted. `None` when the kernel has no
/// memory controller to offer: then an OOM kill is reported as a signal.
#[must_use]
pub fn create(root: &Path) -> Option<PathBuf> {
    fs::write(root.join("cgroup.subtree_control"), "+memory").ok()?;
    // Both are a service to the app, which sees them as its own limits; it runs without them too.
    for controller in ["+pids", "+cpu"] {
        let _ = fs::write(root.join("cgroup.subtree_control"), controller);
    }
    let group = root.join("app");
    fs::create_dir(&group).ok()?;
    for controller in ["+memory", "+pids", "+cpu"] {
        let _ = fs::write(group.join("cgroup.subtree_control"), controller);
    }
    Some(group)
}

/// That of the app at `place`, below the one of all.
#[must_use]
pub fn of_app(group: &Path, place: usize) -> PathBuf {
    group.join(place.to_string())
}

/// Makes that of the app at `place`. Together apps get what is available when the first one starts, less a reserve, and
/// each sees that as its own limit.
///
/// # Errors
/// [`ErrorCode::Other`] when the kernel takes no limit.
pub fn make(group: &Path, place: usize) -> Result<(), Failure> {
    let own = of_app(group, place);
    fs::create_dir(&own).or_failure(ErrorCode::Other, "make the app's cgroup")?;
    if place == 0 {
        limit(group)?;
    }
    let bytes = fs::read_to_string(group.join("memory.max"));
    let bytes = bytes.or_failure(ErrorCode::Other, "read the limit of the pod's memory")?;
    fs::write(own.join("memory.max"), bytes.trim())
        .or_failure(ErrorCode::Other, "limit the app's memory")
}

fn limit(group: &Path) -> Result<(), Failure> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let Some(bytes) = available(&meminfo).and_then(|bytes| bytes.checked_sub(RESERVE_BYTES)) else {
        return Ok(());
    };
    fs::write(group.join("memory.max"), bytes.to_string())
        .or_failure(ErrorCode::Other, "limit the app's memory")
}

/// Moves the calling process into the group.
///
/// # Errors
/// [`ErrorCode::Other`] when the kernel refuses.
pub fn enter(group: &Path) -> Result<(), Failure> {
    fs::write(group.join("cgroup.procs"), "0")
        .or_failure(ErrorCode::Other, "enter the app's cgroup")
}

/// Kills all that are in a group, of which these are the folders, one for each hierarchy. They stand still meanwhile, as
/// far as the host can have them, so that nobody forks away from it. Who waits for a disk is left to who removes the group.
pub fn kill(folders: &[PathBuf]) {
    for _ in 0..ROUNDS {
        let members = members(folders);
        if members.is_empty() {
            return;
        }
        freeze(folders, true);
        for member in members {
            let _ = kill_process(member, Signal::KILL);
        }
        freeze(folders, false);
        sleep(ROUND);
    }
}

fn members(folders: &[PathBuf]) -> Vec<Pid> {
    let read = |folder: &PathBuf| fs::read_to_string(folder.join("cgroup.procs"));
    let texts = folders.iter().filter_map(|folder| read(folder).ok());
    let pids = |text: String| {
        text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect::<Vec<_>>()
    };
    texts.flat_map(pids).collect()
}

fn freeze(folders: &[PathBuf], stop: bool) {
    for folder in folders {
        for (file, stopped, going) in FREEZERS {
            // A folder has one of them, or none.
            let _ = fs::write(folder.join(file), if stop { stopped } else { going });
        }
    }
}

/// How many processes of a group the kernel has killed for want of memory, by the group's file of `events`.
#[must_use]
pub fn oom_kills(events: &Path) -> u64 {
    fs::read_to_string(events).map_or(0, |events| killed(&events))
}

fn killed(events: &str) -> u64 {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 7\n";
        assert_eq!(killed(events), 2);
        assert_eq!(killed("oom 3\n"), 0);
        let meminfo = "MemTotal:         100000 kB\nMemAvailable:      90000 kB\n";
        assert_eq!(available(meminfo), Some(90_000 * 1024));
        assert_eq!(available("MemAvailable: lots kB\n"), None);
    }
}
