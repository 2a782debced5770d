//! The OCI runtime, asked to run one container.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use casemate_ticket::app::App;
use casemate_ticket::config::Config;
use casemate_ticket::mounts::{self as wanted, Mount, Volume};
use casemate_wire::payload::{ErrorCode, Resized};
use guest_init::failure::{Failure, OrFailure};
use guest_init::grow::grow_mounted;
use guest_init::mounts::{self, Brought};
use guest_init::namespaces::Kinds;
use guest_init::report;
use guest_init::running::{Begun, Running, pipe};
use guest_init::session::Machine;
use guest_init::site::Site;
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::bundle::{self, CONFIG, FILES, PASSED, PROGRAM, REPORT};
use crate::hand_unsafe::Handing;
use crate::idmap_unsafe::{self, Map};
use crate::root::{ROOT, SCRATCH, Scratch};
use crate::{groups, inside, loop_unsafe};

/// Where the runtime keeps what it knows of its containers.
const STATE: &str = "/tmp/runtime";
const BUNDLE: &str = "/tmp/bundle";
/// Where a part of a volume is looked for.
const VOLUME: &str = "/tmp/volume";
const PID_FILE: &str = "/tmp/pid";
const LOG: &str = "/tmp/log";
/// Bytes of what the runtime says that a sentence has room for.
const WORDS_MAX: usize = 160;

/// A container that is not there yet.
#[derive(Debug)]
pub struct Runtime {
    /// The runtime's own program.
    pub oci: OwnedFd,
    /// Ours, sealed.
    pub program: OwnedFd,
    /// What is run in it: the payload of a CONFIG frame.
    pub config: String,
    /// `config.json`.
    pub bundle: String,
    /// First of its ids.
    pub ids: u32,
    /// The inner cgroup, as a path below each mount point.
    pub group: String,
    /// The file of the inner cgroup with a line `oom_kill N`.
    pub oom: PathBuf,
    /// The launch id.
    pub pod: String,
    /// Its scratch disk.
    pub scratch: Scratch,
    /// Disks of its volumes, in the order in which they are among the app's mounts. What is locked is free again when the
    /// last of these descriptors and of the loop devices is gone.
    pub volumes: Vec<File>,
    /// Paths of the host, likewise: trees that are mounted nowhere yet, and harmless.
    pub host_paths: Vec<OwnedFd>,
}

impl Machine for Runtime {
    fn start(&self, app: &App, _config: &Config, files: &[u8]) -> Result<Running, Failure> {
        let (child_stdin, stdin) = pipe()?;
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let (report, child_report) = report::pair()?;
        for ours in [&stdin, &stdout, &stderr] {
            fcntl_setfl(ours, OFlags::NONBLOCK).or_failure(ErrorCode::Other, "prepare pipes")?;
        }
        for theirs in [&child_stdin, &child_stdout, &child_stderr] {
            // The container's root, so that it can give them to the app's user.
            fchown(theirs, Some(self.ids), Some(self.ids))
                .or_failure(ErrorCode::Other, "give the container its pipes")?;
        }
        let config = sealed(self.config.as_bytes())
            .or_failure(ErrorCode::Other, "write the app's configuration")?;
        let files = sealed(files).or_failure(ErrorCode::Other, "write the app's files")?;
        self.write_bundle().or_failure(ErrorCode::Other, "write the bundle")?;
        let mut command = self.command();
        command.args(["run", "--detach", "--bundle", BUNDLE, "--pid-file", PID_FILE]);
        let brought = Brought {
            volumes: self.mount_volumes(&app.mounts)?,
            host_paths: self.host_paths().or_failure(ErrorCode::Other, "have descriptors")?,
        };
        let trees = mounts::bring(Path::new(SCRATCH), &app.mounts, self.ids, brought)?;
        let passed = PASSED.saturating_add(i32::try_from(trees.len()).unwrap_or(i32::MAX));
        command.args(["--preserve-fds", &passed.to_string(), &self.pod]);
        command.stdin(Stdio::from(child_stdin)).stdout(Stdio::from(child_stdout));
        command.stderr(Stdio::from(child_stderr));
        let always = [
            (self.program.as_fd(), PROGRAM),
            (child_report.as_fd(), REPORT),
            (config.as_fd(), CONFIG),
            (files.as_fd(), FILES),
        ];
        let trees = trees.iter().map(AsFd::as_fd).zip(PROGRAM.saturating_add(PASSED)..);
        let handing = Handing::new(always.into_iter().chain(trees))
            .or_failure(ErrorCode::Other, "hand descriptors on")?;
        let ended = handing.status(&mut command);
        // What the command holds of the pipes is the runtime's alone from here on.
        drop((command, handing, child_report));
        let status = ended.or_failure(ErrorCode::Other, "start the OCI runtime")?;
        if !status.success() {
            let text = format!("the OCI runtime did not make the container: {}", said());
            return Err(Failure::new(ErrorCode::Other, text));
        }
        let pid = pid().or_failure(ErrorCode::Other, "read the container's process id")?;
        let process = pidfd_open(pid, PidfdFlags::empty())
            .or_failure(ErrorCode::Other, "watch the container's process")?;
        let (oom, stop_signal) = (Some(self.oom.clone()), i32::from(app.stop_signal));
        let kinds = Kinds::Container;
        let begun = Begun { pid, process, stdin, stdout, stderr, report, oom, stop_signal, kinds };
        Ok(Running::of(begun))
    }

    fn beside(&self) -> Site {
        Site {
            groups: groups::of(&self.group),
            oom: Some(self.oom.clone()),
            glibc_tunables: None,
            root: Some(self.ids),
            adapt: inside::adapt,
        }
    }

    /// The host's kernel writes out what the container leaves, and unmounts it.
    fn settle(&self, _app: &App) {}

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

    fn host_paths(&self) -> io::Result<Vec<OwnedFd>> {
        self.host_paths.iter().map(OwnedFd::try_clone).collect()
    }

    /// Ends whatever is left of the container. What cannot be cleared away here spawn clears away.
    pub fn clear_away(&self) {
        let mut command = self.command();
        command.args(["delete", "--force", &self.pod]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }

    /// Their file systems, whose ids are the pod's.
    fn mount_volumes(&self, mounts: &[Mount]) -> Result<Vec<OwnedFd>, Failure> {
        let disks = self.volumes.iter().zip(wanted::volumes(mounts));
        let mount = |(disk, volume): (&File, Volume<'_>)| {
            let name = volume.name;
            let attached = loop_unsafe::attach(disk.as_fd(), volume.read_only);
            let (device, path) = attached
                .or_failure(ErrorCode::Mount, format!("have volume {name} as a loop device"))?;
            let place = Path::new(VOLUME);
            let tree = guest_init::volumes::make(Path::new(&path), &volume, place)?;
            drop(device);
            let mapped = idmap_unsafe::namespace(Map::of_pod(self.ids))
                .and_then(|namespace| idmap_unsafe::map(tree.as_fd(), namespace.as_fd()));
            mapped.or_failure(ErrorCode::Mount, format!("map the ids of volume {name}"))?;
            Ok(tree)
        };
        disks.map(mount).collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.oci.as_raw_fd()));
        command.arg0("runc").env_clear().current_dir("/");
        command.args(["--root", STATE, "--log", LOG, "--log-format", "json"]);
        command
    }

    fn write_bundle(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(BUNDLE)?;
        fs::write(format!("{BUNDLE}/config.json"), &self.bundle)
    }
}

/// The configuration of the bundle of a pod.
pub fn bundle_of(pod: &bundle::Pod<'_>) -> String {
    bundle::write(pod, ROOT)
}

fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("app", flags)?;
    io::Write::write_all(&mut File::from(file.try_clone()?), bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn pid() -> io::Result<Pid> {
    let text = fs::read_to_string(PID_FILE)?;
    let number: i32 = text.trim().parse().map_err(io::Error::other)?;
    Pid::from_raw(number.max(0)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The runtime's last words.
fn said() -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let line = log.lines().rfind(|line| line.contains("\"error\"")).unwrap_or("it said nothing");
    let words = line.split("\"msg\":\"").nth(1).unwrap_or(line);
    words.chars().take(WORDS_MAX).collect()
}
