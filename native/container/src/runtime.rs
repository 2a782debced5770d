//! The OCI runtime, asked to run a container for each app.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use casemate_ticket::app::App;
use casemate_ticket::config::Config;
use casemate_ticket::host_path;
use casemate_ticket::mounts::{self as wanted, Mount, Volume};
use casemate_ticket::spec::Level;
use casemate_wire::apps::number_of;
use casemate_wire::payload::{ErrorCode, Resized};
use guest_init::failure::{Failure, OrFailure};
use guest_init::grow::grow_mounted;
use guest_init::mounts::{self, Brought};
use guest_init::report;
use guest_init::running::{Begun, Running, pipe};
use guest_init::session::Machine;
use guest_init::site::Site;
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open, set_child_subreaper};

use crate::bundle::{self, CONFIG, FILES, PASSED, PROGRAM, REPORT};
use crate::groups::Groups;
use crate::hand_unsafe::Handing;
use crate::loops::Loops;
use crate::root::{SCRATCH, Scratch};
use crate::{groups, idmap_unsafe, inside, loop_unsafe, root};

/// Where the runtime keeps what it knows of its containers.
const STATE: &str = "/tmp/runtime";
const BUNDLES: &str = "/tmp/bundle";
/// Where a part of a volume is looked for.
const VOLUME: &str = "/tmp/volume";
const PID_FILES: &str = "/tmp/pid";
const LOG: &str = "/tmp/log";
/// Bytes of what the runtime says that a sentence has room for.
const WORDS_MAX: usize = 160;

/// Containers that are not there yet.
#[derive(Debug)]
pub struct Runtime {
    /// The runtime's own program.
    pub oci: OwnedFd,
    /// Ours, sealed.
    pub program: OwnedFd,
    /// What is run in them: the payload of a CONFIG frame.
    pub config: String,
    /// Level container or host.
    pub level: Level,
    /// What the session keeps to start them, as bits.
    pub capabilities: u64,
    /// What their first processes begin with, as bits.
    pub first_capabilities: u64,
    /// First of its ids; `None` where they are the host's.
    pub ids: Option<u32>,
    /// Their cgroups.
    pub groups: Groups,
    /// Bytes of memory of the pod, and so the most of each app.
    pub memory_bytes: u64,
    /// The same for tasks.
    pub pids: u32,
    /// The launch id.
    pub pod: String,
    /// Its scratch disk.
    pub scratch: Scratch,
    /// Disks of its volumes, in the order in which the apps' mounts name them. What is locked is free again when the
    /// last of these descriptors and of the loop devices is gone.
    pub volumes: Vec<File>,
    /// Paths of the host, likewise: trees that are mounted nowhere yet, and harmless.
    pub host_paths: Vec<OwnedFd>,
    /// What they are mounted by.
    pub loops: Loops,
}

impl Machine for Runtime {
    /// The monitor has made it, and set what is set in it.
    fn prepare(&self, _config: &Config) -> Result<(), Failure> {
        Ok(())
    }

    fn start(&self, place: usize, config: &Config, files: &[u8]) -> Result<Running, Failure> {
        let app = config.apps.get(place);
        let app = app.ok_or_else(|| Failure::new(ErrorCode::Config, "there is no such app"))?;
        let (child_stdin, stdin) = pipe()?;
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let (report, child_report) = report::pair()?;
        for ours in [&stdin, &stdout, &stderr] {
            fcntl_setfl(ours, OFlags::NONBLOCK).or_failure(ErrorCode::Other, "prepare pipes")?;
        }
        for theirs in [&child_stdin, &child_stdout, &child_stderr] {
            // The container's root, so that it can give them to the app's user.
            fchown(theirs, self.ids, self.ids)
                .or_failure(ErrorCode::Other, "give the container its pipes")?;
        }
        let own = sealed(self.config.as_bytes())
            .or_failure(ErrorCode::Other, "write the app's configuration")?;
        let files = sealed(files).or_failure(ErrorCode::Other, "write the app's files")?;
        let bundle = self.write_bundle(place);
        let bundle = bundle.or_failure(ErrorCode::Other, "write the bundle")?;
        let mut command = self.command();
        let pid_file = format!("{PID_FILES}{place}");
        command.args(["run", "--detach", "--bundle", &bundle, "--pid-file", &pid_file]);
        let host_paths = self.host_paths(place, &config.apps);
        let brought = Brought {
            volumes: self.mount_volumes(&config.apps, &app.mounts)?,
            host_paths: host_paths.or_failure(ErrorCode::Other, "have descriptors")?,
        };
        let (owner, scratch) = (self.ids.unwrap_or(0), (Path::new(SCRATCH), place));
        let trees = mounts::bring(scratch, &app.mounts, owner, brought)?;
        let passed = PASSED.saturating_add(i32::try_from(trees.len()).unwrap_or(i32::MAX));
        command.args(["--preserve-fds", &passed.to_string(), &self.name_of(place)]);
        command.stdin(Stdio::from(child_stdin)).stdout(Stdio::from(child_stdout));
        command.stderr(Stdio::from(child_stderr));
        let always = [
            (self.program.as_fd(), PROGRAM),
            (child_report.as_fd(), REPORT),
            (own.as_fd(), CONFIG),
            (files.as_fd(), FILES),
        ];
        let trees = trees.iter().map(AsFd::as_fd).zip(PROGRAM.saturating_add(PASSED)..);
        let handing = Handing::new(always.into_iter().chain(trees))
            .or_failure(ErrorCode::Other, "hand descriptors on")?;
        let ended = self.make(&handing, &mut command);
        // What the command holds of the pipes is the runtime's alone from here on.
        drop((command, handing, child_report));
        let status = ended.or_failure(ErrorCode::Runtime, "start the OCI runtime")?;
        if !status.success() {
            let text = format!("the OCI runtime did not make the container: {}", said());
            return Err(Failure::new(ErrorCode::Runtime, text));
        }
        let bounded = self.groups.bound(self.memory_bytes, self.pids);
        bounded.or_failure(ErrorCode::Other, "bound the pod's memory and tasks")?;
        let pid = pid(&pid_file).or_failure(ErrorCode::Other, "read the container's process id")?;
        let process = pidfd_open(pid, PidfdFlags::empty())
            .or_failure(ErrorCode::Other, "watch the container's process")?;
        let (oom, stop_signal) = (Some(self.groups.oom_of_app(place)), i32::from(app.stop_signal));
        let (kinds, rest) = (inside::kinds(self.level), self.rest(place));
        let number = number_of(place, config.apps.len());
        let begun = Begun {
            number,
            pid,
            process,
            stdin,
            stdout,
            stderr,
            report,
            oom,
            stop_signal,
            kinds,
            rest,
        };
        Ok(Running::of(begun))
    }

    fn beside(&self, place: usize) -> Site {
        Site {
            groups: groups::of(&self.groups.of_app(place)),
            oom: Some(self.groups.oom_of_app(place)),
            glibc_tunables: None,
            root: self.ids,
            adapt: inside::adapt,
        }
    }

    /// The host's kernel writes out what the containers leave, and unmounts it.
    fn settle(&self, _apps: &[App]) {}

    fn grow(&self, bytes: u64) -> Resized {
        match loop_unsafe::take_size(&self.scratch.device) {
            Ok(()) => grow_mounted(self.scratch.directory.as_fd(), bytes),
            Err(error) => {
                let errno = error.raw_os_error().and_then(|errno| u32::try_from(errno).ok());
                Resized { errno: errno.unwrap_or(u32::MAX), bytes }
            }
        }
    }
}

impl Runtime {
    /// All that it holds open.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let Scratch { device, directory } = &self.scratch;
        let own = [self.oci.as_fd(), self.program.as_fd(), device.as_fd(), directory.as_fd()];
        let volumes = self.volumes.iter().map(AsFd::as_fd);
        own.into_iter().chain(volumes).chain(self.host_paths.iter().map(AsFd::as_fd)).collect()
    }

    fn host_paths(&self, place: usize, apps: &[App]) -> io::Result<Vec<OwnedFd>> {
        let count = |app: &App| host_path::of(&app.mounts).count();
        let before: usize = apps.iter().take(place).map(count).sum();
        let own = apps.get(place).map_or(0, count);
        self.host_paths.iter().skip(before).take(own).map(OwnedFd::try_clone).collect()
    }

    /// Runs what makes a container, whose first process is this process's child then. At level host what apps leave behind
    /// is the host's first process's at any other time.
    fn make(&self, handing: &Handing, command: &mut Command) -> io::Result<ExitStatus> {
        set_child_subreaper(Some(getpid()))?;
        let ended = handing.status(command);
        if self.level == Level::Host {
            set_child_subreaper(None)?;
        }
        ended
    }

    /// The folders of an app's cgroup, where no namespace of processes ends with the first of them.
    fn rest(&self, place: usize) -> Vec<PathBuf> {
        let is_host = self.level == Level::Host;
        if is_host { groups::of(&self.groups.of_app(place)) } else { Vec::new() }
    }

    /// Ends whatever is left of the containers. What cannot be cleared away here spawn clears away.
    pub fn clear_away(&self) {
        for place in 0..self.groups.apps {
            let mut command = self.command();
            command.args(["delete", "--force", &self.name_of(place)]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = command.status();
        }
    }

    /// The name by which the runtime knows the container of an app.
    fn name_of(&self, place: usize) -> String {
        if place == 0 { self.pod.clone() } else { format!("{}-{place}", self.pod) }
    }

    /// Their file systems, whose ids are the apps'.
    fn mount_volumes(&self, apps: &[App], mounts: &[Mount]) -> Result<Vec<OwnedFd>, Failure> {
        let all = wanted::of_all(apps);
        let mount = |volume: Volume<'_>| {
            let name = volume.name;
            let mut disks = self.volumes.iter().zip(&all);
            let found = disks.find(|(_, known)| known.name == name);
            let (disk, known) = found.ok_or_else(|| {
                Failure::new(ErrorCode::Mount, format!("there is no disk for volume {name}"))
            })?;
            let attached = self.loops.of(name, disk, known.read_only);
            let path = attached
                .or_failure(ErrorCode::Mount, format!("have volume {name} as a loop device"))?;
            let (path, place) = (Path::new(&path), Path::new(VOLUME));
            let tree = guest_init::volumes::make(path, known.read_only, &volume, place)?;
            let mapped =
                self.ids.map_or(Ok(()), |first| idmap_unsafe::map_from(tree.as_fd(), first));
            mapped.or_failure(ErrorCode::Mount, format!("map the ids of volume {name}"))?;
            Ok(tree)
        };
        wanted::volumes(mounts).map(mount).collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.oci.as_raw_fd()));
        command.arg0("runc").env_clear().current_dir("/");
        command.args(["--root", STATE, "--log", LOG, "--log-format", "json"]);
        command
    }

    /// Answers where it is.
    fn write_bundle(&self, place: usize) -> io::Result<String> {
        let (folder, group) = (format!("{BUNDLES}{place}"), self.groups.of_app(place));
        let Self { level, ids, first_capabilities: capabilities, memory_bytes, pids, .. } = *self;
        let ids = ids.unwrap_or(0);
        let pod =
            bundle::Pod { level, ids, capabilities, group: &group, place, memory_bytes, pids };
        DirBuilder::new().mode(0o700).create(&folder)?;
        fs::write(format!("{folder}/config.json"), bundle::write(&pod, &root::of_app(place)))?;
        Ok(folder)
    }
}

fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("app", flags)?;
    io::Write::write_all(&mut File::from(file.try_clone()?), bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn pid(file: &str) -> io::Result<Pid> {
    let text = fs::read_to_string(file)?;
    let number: i32 = text.trim().parse().map_err(io::Error::other)?;
    Pid::from_raw(number.max(0)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The runtime's last words. They name paths of the host.
fn said() -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let line = log.lines().rfind(|line| line.contains("\"error\"")).unwrap_or("it said nothing");
    let words = line.split("\"msg\":\"").nth(1).unwrap_or(line);
    words.chars().take(WORDS_MAX).collect()
}
