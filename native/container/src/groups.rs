//! The apps' cgroups, of each of which there is a folder in each hierarchy that the host has mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where they are: an only app has the pod's inner group, each of several one below it.
#[derive(Debug)]
pub struct Groups {
    /// The inner group, as a path below each mount point.
    pub group: String,
    /// Its file with a line `oom_kill N`.
    pub oom: PathBuf,
    /// How many apps there are.
    pub apps: usize,
}

impl Groups {
    /// The group of the app at `place`, as a path below each mount point.
    #[must_use]
    pub fn of_app(&self, place: usize) -> String {
        let Self { group, apps, .. } = self;
        if *apps > 1 { format!("{group}/{place}") } else { group.clone() }
    }

    /// Bounds what several apps have together, once the runtime has made the group of one. For each it has bounds itself.
    ///
    /// # Errors
    /// What the kernel says of a bound.
    pub fn bound(&self, memory_bytes: u64, pids: u32) -> io::Result<()> {
        if self.apps < 2 {
            return Ok(());
        }
        // The first is of version 2, the second of version 1.
        let bounds = [
            ("memory.max", memory_bytes),
            ("memory.limit_in_bytes", memory_bytes),
            ("pids.max", u64::from(pids)),
        ];
        for folder in of(&self.group) {
            for (file, most) in &bounds {
                let file = folder.join(file);
                if file.exists() {
                    fs::write(file, most.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// That group's file with a line `oom_kill N`.
    #[must_use]
    pub fn oom_of_app(&self, place: usize) -> PathBuf {
        match (self.oom.parent(), self.oom.file_name()) {
            (Some(folder), Some(name)) if self.apps > 1 => {
                folder.join(place.to_string()).join(name)
            }
            _ => self.oom.clone(),
        }
    }
}

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
