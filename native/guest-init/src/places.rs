//! Where the apps' file systems come from. In a machine: two disks. In tests: directories.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_ticket::app::App;
use casemate_ticket::mounts::{self, Mount, Volume};
use casemate_wire::payload::ErrorCode;

use crate::failure::Failure;
use crate::volumes;

/// How long a disk may stay empty after CONFIG: the VMM has raised its configuration-change
/// interrupt before it sends CONFIG, so this is the time the guest's driver needs.
const DISK_TIMEOUT: Duration = Duration::from_secs(30);
const DISK_INTERVAL: Duration = Duration::from_millis(5);

/// Where a file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A disk, by the name of its node in /dev. Empty in a template; it gets its capacity by a
    /// configuration change after the restore.
    Disk(&'static str),
    /// A directory of this system, for tests.
    Directory(PathBuf),
}

/// Everything outside the app that starting it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The tenant's image; read-only. A disk holds EROFS.
    pub image: Source,
    /// What the app writes. A disk holds ext4; a directory is replaced by memory.
    pub scratch: Source,
    /// Disks for volumes, by name; each is empty until a pod has so many.
    pub volumes: &'static [&'static str],
    /// An empty directory to build the new root in.
    pub staging: PathBuf,
    /// The apps' cgroup (version 2), if the kernel has one.
    pub cgroup: Option<PathBuf>,
    /// The value of `GLIBC_TUNABLES` that init itself was started with: set under software KVM
    /// only, and then the app needs it as much as init does.
    pub glibc_tunables: Option<String>,
}

impl Places {
    /// The file systems of an app's volumes, mounted nowhere yet, in the order of its `mounts`. Which disk is whose is
    /// in the order of all `apps`.
    ///
    /// # Errors
    /// [`ErrorCode::Mount`] for a disk that is not there, or holds none.
    pub fn mount_volumes(&self, apps: &[App], mounts: &[Mount]) -> Result<Vec<OwnedFd>, Failure> {
        let all = mounts::of_all(apps);
        let mount = |volume: Volume<'_>| {
            let mut disks = all.iter().zip(self.volumes);
            let found = disks.find(|(known, _)| known.name == volume.name);
            let (known, disk) = found.ok_or_else(|| {
                let text = format!("there is no disk for volume {}", volume.name);
                Failure::new(ErrorCode::Mount, text)
            })?;
            let (disk, place) = (wait_for_disk(disk)?, self.staging.join("volume"));
            volumes::make(&disk, known.read_only, &volume, &place)
        };
        mounts::volumes(mounts).map(mount).collect()
    }
}

/// Waits until the disk `name` has a capacity and returns its node.
///
/// # Errors
/// [`ErrorCode::Mount`] when it stays empty.
pub fn wait_for_disk(name: &str) -> Result<PathBuf, Failure> {
    let size = PathBuf::from(format!("/sys/block/{name}/size"));
    let begin = Instant::now();
    while begin.elapsed() < DISK_TIMEOUT {
        let sectors = std::fs::read_to_string(&size).ok().and_then(|text| text.trim().parse().ok());
        if sectors.is_some_and(|sectors: u64| sectors > 0) {
            return Ok(PathBuf::from(format!("/dev/{name}")));
        }
        sleep(DISK_INTERVAL);
    }
    Err(Failure::new(
        ErrorCode::Mount,
        format!("disk {name} has no capacity after {} s", DISK_TIMEOUT.as_secs()),
    ))
}
