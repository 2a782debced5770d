//! The app's cgroup, of which there is a folder in each hierarchy that the host has mounted.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the group `group`, which is below each mount point.
#[must_use]
pub fn of(group: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = group.trim_start_matches('/');
    points(&mounts).map(|point| Path::new(point).join(below)).filter(|path| path.is_dir()).collect()
}

/// Mount points of hierarchies, as `proc_pid_mountinfo(5)` has them: no path of these needs its escapes.
fn points(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let kind = tail.split(' ').next()?;
        matches!(kind, "cgroup" | "cgroup2").then(|| head.split(' ').nth(4))?
    })
}

#[cfg(test)]
mod tests {
    use super::points;

    #[test]
    fn finds_hierarchies_of_both_versions_and_nothing_else() {
        let text = "30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                    31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    32 24 0:28 / /tmp/cgroup rw - tmpfs cgroup rw\n";
        assert!(points(text).eq(["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"]));
    }
}
