//! A cgroup per VM and worker: memory, CPU time, number of tasks, and whether they go on.
//!
//! Version 2 where the unified hierarchy has the controllers, version 1 otherwise (which hybrid hosts
//! are). The groups lie in `casemate/<instance>/` of each hierarchy; the instance is a hash of the run
//! directory, so that two Casemates of one host do not sweep each other's VMs.
//!
//! A container's group holds its monitor and, below it, the app's group, which the OCI runtime makes in each hierarchy of
//! the host. Version 2 wants no processes beside groups with limits, so there the monitor has a group as well.

mod limits;
mod tree;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_ticket::bytes::{Digest, encode_hex};

pub use limits::Limits;
use limits::{v1_cpu, v1_memory, v1_pids, v2_all, write_all};

/// Name of a container's app's group.
const INNER: &str = "app";
/// Name of its monitor's group, in version 2.
const OUTER: &str = "monitor";
/// How long a restarted spawn waits for what its predecessor left to die.
const SWEEP_WAIT: Duration = Duration::from_secs(10);

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// Mount points of one hierarchy per controller.
    V1 {
        memory: PathBuf,
        cpu: PathBuf,
        pids: PathBuf,
        /// Not every host mounts it.
        freezer: Option<PathBuf>,
    },
    /// Mount point of the unified hierarchy.
    V2(PathBuf),
}

/// Makes groups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Layout,
    /// `casemate/<instance>`.
    below: PathBuf,
    /// Mount points of hierarchies that only an OCI runtime makes groups in.
    others: Vec<PathBuf>,
}

/// One group; [`Cgroup::remove`] it when its last process is gone.
#[derive(Debug)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
    memory: PathBuf,
    freezer: Option<Freezer>,
    is_v2: bool,
    /// Of the same name, in hierarchies without limits of ours.
    others: Vec<PathBuf>,
    /// Where a container's monitor is, in version 2.
    outer: Option<PathBuf>,
}

/// The file that stops every process of a group where it is, and what is written to it.
#[derive(Clone, Debug)]
struct Freezer {
    file: PathBuf,
    stop: &'static str,
    go_on: &'static str,
}

impl Freezer {
    fn v1(directory: &Path) -> Self {
        Self { file: directory.join("freezer.state"), stop: "FROZEN", go_on: "THAWED" }
    }

    fn v2(directory: &Path) -> Self {
        Self { file: directory.join("cgroup.freeze"), stop: "1", go_on: "0" }
    }

    /// Lets the group go on, and those below it, which the OCI runtime stops where it kills by group.
    fn let_go_on(&self) {
        let Some((directory, name)) = self.file.parent().zip(self.file.file_name()) else { return };
        for group in tree::groups(directory, 0) {
            let _ = fs::write(group.join(name), self.go_on);
        }
    }
}

/// Mount points of cgroup file systems in the text of /proc/self/mountinfo: type, options, directory.
fn mounts(mountinfo: &str) -> Vec<(&str, &str, &str)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let directory = left.split(' ').nth(4)?;
            let mut right = right.split(' ');
            let (kind, _source, options) = (right.next()?, right.next()?, right.next()?);
            matches!(kind, "cgroup" | "cgroup2").then_some((kind, options, directory))
        })
        .collect()
}

fn layout(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Option<Layout> {
    let mounts = mounts(mountinfo);
    for (kind, _, directory) in &mounts {
        let root = PathBuf::from(directory);
        let available = controllers(&root);
        let has = |name: &str| available.split_whitespace().any(|word| word == name);
        if *kind == "cgroup2" && has("memory") && has("cpu") && has("pids") {
            return Some(Layout::V2(root));
        }
    }
    let v1 = |name: &str| {
        let with = |options: &str| options.split(',').any(|word| word == name);
        let found = mounts.iter().find(|(kind, options, _)| *kind == "cgroup" && with(options));
        found.map(|(_, _, directory)| PathBuf::from(directory))
    };
    let (memory, cpu, pids) = (v1("memory")?, v1("cpu")?, v1("pids")?);
    Some(Layout::V1 { memory, cpu, pids, freezer: v1("freezer") })
}

impl Cgroups {
    /// Finds the hierarchies and makes the instance's directories in them.
    ///
    /// # Errors
    /// A host without the controllers memory, cpu and pids, or one that refuses the directories.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let read =
            |root: &Path| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let layout = layout(&mountinfo, read).ok_or_else(|| {
            io::Error::new(
                ErrorKind::NotFound,
                "no cgroup hierarchy has memory, cpu and pids; mount cgroup2",
            )
        })?;
        let digest = Digest::of(run_dir.as_os_str().as_encoded_bytes());
        let instance = encode_hex(digest.0.get(..8).unwrap_or_default());
        let below = Path::new("casemate").join(instance);
        let mut groups = Self { layout, below, others: Vec::new() };
        let roots = groups.roots();
        let all = mounts(&mountinfo).into_iter().map(|(_, _, directory)| directory.into());
        groups.others = all.filter(|root| !roots.contains(root)).collect();
        for root in groups.roots() {
            if matches!(groups.layout, Layout::V2(_)) {
                enable_controllers(&root)?;
                make(&root.join("casemate"))?;
                enable_controllers(&root.join("casemate"))?;
            }
            make(&root.join("casemate"))?;
            make(&root.join(&groups.below))?;
            if matches!(groups.layout, Layout::V2(_)) {
                enable_controllers(&root.join(&groups.below))?;
            }
        }
        Ok(groups)
    }

    /// Whether this kernel can keep a group's memory out of swap; where it can, every group's is.
    pub fn limits_swap(&self) -> bool {
        let (root, file) = match &self.layout {
            Layout::V1 { memory, .. } => (memory, "memory.memsw.limit_in_bytes"),
            Layout::V2(root) => (root, "memory.swap.max"),
        };
        root.join(&self.below).join(file).exists()
    }

    fn roots(&self) -> Vec<PathBuf> {
        match &self.layout {
            Layout::V1 { memory, cpu, pids, freezer } => {
                let mut roots = vec![memory.clone(), cpu.clone(), pids.clone()];
                roots.extend(freezer.clone());
                roots.dedup();
                roots
            }
            Layout::V2(root) => vec![root.clone()],
        }
    }

    /// Makes the group `name`, which must be a plain file name, with its limits.
    ///
    /// # Errors
    /// What the kernel says; nothing stays behind then.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<Cgroup> {
        let mut group = self.group(name);
        let settings = match &self.layout {
            Layout::V1 { .. } => vec![v1_memory(limits), v1_cpu(limits), v1_pids(limits)],
            Layout::V2(_) => vec![v2_all(limits)],
        };
        let settings = settings.into_iter().chain(std::iter::once(Vec::new()));
        let directories = std::mem::take(&mut group.directories);
        for (directory, settings) in directories.into_iter().zip(settings) {
            group.directories.push(directory.clone());
            let made = make(&directory).and_then(|()| write_all(&directory, &settings));
            if let Err(error) = made {
                let _ = group.remove();
                return Err(error);
            }
        }
        group.directories.dedup();
        Ok(group)
    }

    /// As [`Cgroups::create`], for a container's monitor and the app's group below.
    ///
    /// # Errors
    /// What the kernel says; nothing stays behind then.
    pub fn create_nested(&self, name: &str, limits: &Limits) -> io::Result<Cgroup> {
        let mut group = self.create(name, limits)?;
        if group.is_v2 {
            let outer = group.memory.join(OUTER);
            if let Err(error) = make(&outer).and_then(|()| enable_controllers(&group.memory)) {
                let _ = group.remove();
                return Err(error);
            }
            group.outer = Some(outer);
        }
        Ok(group)
    }

    /// The app's group of the container `name`, as a path below each mount point.
    pub fn inner(&self, name: &str) -> String {
        format!("/{}/{name}/{INNER}", self.below.display())
    }

    /// The group `name` of an earlier spawn, if it is there.
    pub fn find(&self, name: &str) -> Option<Cgroup> {
        let mut group = self.group(name);
        group.directories.dedup();
        let outer = group.memory.join(OUTER);
        group.outer = (group.is_v2 && outer.is_dir()).then_some(outer);
        group.directories.iter().all(|directory| directory.is_dir()).then_some(group)
    }

    /// Where a group of this name is: the directories of memory, cpu and pids, then the freezer's.
    fn group(&self, name: &str) -> Cgroup {
        let at = |root: &Path| root.join(&self.below).join(name);
        let others = self.others.iter().map(|root| at(root)).collect();
        let outer = None;
        match &self.layout {
            Layout::V1 { memory, cpu, pids, freezer } => {
                let mut directories = vec![at(memory), at(cpu), at(pids)];
                directories.extend(freezer.as_deref().map(at));
                let freezer = freezer.as_deref().map(|root| Freezer::v1(&at(root)));
                let memory = at(memory);
                Cgroup { memory, directories, freezer, is_v2: false, others, outer }
            }
            Layout::V2(root) => {
                let directory = at(root);
                let freezer = Some(Freezer::v2(&directory));
                let directories = vec![directory.clone()];
                let memory = directory;
                Cgroup { memory, directories, freezer, is_v2: true, others, outer }
            }
        }
    }

    /// Removes the instance's directories, when spawn ends and its groups are gone. `casemate` itself
    /// stays: another instance may be about to make its own in it.
    pub fn close(&self) {
        for root in self.roots().iter().chain(&self.others) {
            let _ = fs::remove_dir(root.join(&self.below));
        }
    }

    /// Kills whatever an earlier spawn left in this instance's groups, but those that are taken over, and removes them:
    /// nothing is known of them, and their user ids are about to be handed out again. A process that takes no signal, as one
    /// that waits for a disk for ever, must not keep a spawn from starting: it would be the end of all other pods.
    ///
    /// # Errors
    /// When the groups cannot be listed.
    pub fn sweep(&self, taken_over: &[&str]) -> io::Result<Swept> {
        let mut swept = Swept::default();
        let is_left = |entry: &fs::DirEntry| {
            is_group(entry) && !taken_over.iter().any(|name| entry.file_name() == *name)
        };
        self.let_go_on(is_left)?;
        for root in self.roots() {
            for entry in fs::read_dir(root.join(&self.below))? {
                let entry = entry?;
                if is_left(&entry) {
                    match kill_all(&entry.path()) {
                        Ok(()) => swept.ended = swept.ended.saturating_add(1),
                        Err(_) => swept.stuck.push(entry.path()),
                    }
                }
            }
        }
        // Nobody is in these any more, who was not stuck in one above.
        for root in &self.others {
            let below = fs::read_dir(root.join(&self.below));
            for entry in below.into_iter().flatten().flatten().filter(&is_left) {
                let _ = tree::remove(&entry.path());
            }
        }
        Ok(swept)
    }

    /// A stopped process of version 1 takes no signal, SIGKILL neither.
    fn let_go_on(&self, is_left: impl Fn(&fs::DirEntry) -> bool) -> io::Result<()> {
        let Layout::V1 { freezer: Some(root), .. } = &self.layout else { return Ok(()) };
        for entry in fs::read_dir(root.join(&self.below))? {
            let entry = entry?;
            if is_left(&entry) {
                Freezer::v1(&entry.path()).let_go_on();
            }
        }
        Ok(())
    }
}

/// What a sweep came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// Groups that are gone.
    pub ended: usize,
    /// Directories of groups with a process that did not end.
    pub stuck: Vec<PathBuf>,
}

impl Swept {
    /// The user ids of what did not end: nobody else may get one of them.
    pub fn uids(&self) -> Vec<u32> {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let pids = self.stuck.iter().flat_map(|directory| tree::members(directory));
        let statuses = pids.map(|pid| read(format!("/proc/{pid}/status")));
        statuses.filter_map(|status| uid_of(&status)).collect()
    }
}

/// The first number of the line `Uid:` of /proc/PID/status.
fn uid_of(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn is_group(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn kill_all(directory: &Path) -> io::Result<()> {
    let end = Instant::now().checked_add(SWEEP_WAIT);
    loop {
        tree::kill_members(directory);
        match tree::remove(directory) {
            Ok(()) => return Ok(()),
            Err(error) if end.is_some_and(|end| Instant::now() > end) => return Err(error),
            Err(_) => sleep(Duration::from_millis(5)),
        }
    }
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn enable_controllers(directory: &Path) -> io::Result<()> {
    fs::write(directory.join("cgroup.subtree_control"), "+memory +cpu +pids")
}

impl Cgroup {
    /// The directory to clone into (version 2), or `None`: then [`Cgroup::add`] the process after the clone.
    ///
    /// # Errors
    /// What opening it says.
    pub fn clone_target(&self) -> io::Result<Option<OwnedFd>> {
        if !self.is_v2 {
            return Ok(None);
        }
        let directory = fs::File::open(&self.memory)?;
        Ok(Some(directory.into()))
    }

    /// Puts a process into the group (version 1, and a monitor; in version 2 a VMM is there from its first instruction).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        match &self.outer {
            Some(outer) => return fs::write(outer.join("cgroup.procs"), pid.to_string()),
            None if self.is_v2 => return Ok(()),
            None => {}
        }
        self.directories
            .iter()
            .try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Stops every process of the group where it is, or lets them go on.
    ///
    /// # Errors
    /// `Unsupported` on a host with version 1 and without its freezer; otherwise what the kernel says.
    pub fn pause(&self, paused: bool) -> io::Result<()> {
        let Some(Freezer { file, stop, go_on }) = &self.freezer else {
            return Err(ErrorKind::Unsupported.into());
        };
        fs::write(file, if paused { stop } else { go_on })
    }

    /// The text of a file of the group, in whichever hierarchy has one of this name.
    pub fn read(&self, file: &str) -> Option<String> {
        self.directories.iter().find_map(|directory| fs::read_to_string(directory.join(file)).ok())
    }

    /// The same, of a container's app's group.
    pub fn read_inner(&self, file: &str) -> Option<String> {
        let mut all = self.directories.iter().chain(&self.others);
        all.find_map(|directory| fs::read_to_string(directory.join(INNER).join(file)).ok())
    }

    /// Whether the group is stopped, or about to be.
    pub fn is_paused(&self) -> bool {
        let Some(Freezer { file, go_on, .. }) = &self.freezer else { return false };
        fs::read_to_string(file).is_ok_and(|state| state.trim() != *go_on)
    }

    /// Whether the process is in the group.
    pub fn holds(&self, pid: i32) -> bool {
        let group = self.outer.as_ref().unwrap_or(&self.memory);
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        text.lines().any(|line| line.parse() == Ok(pid))
    }

    /// Whether the kernel killed a process of the group for want of memory.
    pub fn was_oom_killed(&self) -> bool {
        let text = fs::read_to_string(self.memory.join(self.oom_file())).unwrap_or_default();
        oom_kills(&text) > 0
    }

    /// The file of a container's app's group that has a line `oom_kill N`.
    pub fn inner_oom_file(&self) -> PathBuf {
        self.memory.join(INNER).join(self.oom_file())
    }

    const fn oom_file(&self) -> &'static str {
        if self.is_v2 { "memory.events" } else { "memory.oom_control" }
    }

    /// Kills whoever is in the group and in those below it.
    pub fn kill(&self) {
        // Version 1 delivers no signal to who stands still. Where there is no freezer, nobody does.
        if let Some(freezer) = &self.freezer {
            freezer.let_go_on();
        }
        tree::kill(&self.memory);
    }

    /// Removes the group, and those below it. Safe to repeat. The instance's own stays, also where the OCI runtime made it: another
    /// container's may be about to be made in it.
    ///
    /// # Errors
    /// While the kernel still holds something in it.
    pub fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for directory in self.directories.iter().chain(&self.others) {
            if let Err(error) = tree::remove(directory) {
                result = Err(error);
            }
        }
        result
    }
}

/// The line `oom_kill N`, the same in both versions.
fn oom_kills(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "cgroup_tests.rs"]
mod tests;
