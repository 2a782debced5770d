//! `resize`: more of the scratch disk for a pod that runs. Spawn made the file and makes it longer; the VMM tells its
//! guest, whose init grows the file system and says so. Only the last step is the guest's word.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_wire::control::FromSpawn;
use casemate_wire::payload::Resized;
use rustix::fs::FileType;

use crate::answers::number;
use crate::clients::Answer;
use crate::daemon::Daemon;
use crate::packets;
use crate::pod::Question;
use crate::pods::{Pod, busy, not_running};
use crate::refusal::{Refusal, Result};

/// How long the guest may take to grow its file system, before who asked is told that it is not known.
const GUEST_WAIT: Duration = Duration::from_mins(2);
/// Guests that may be asked at a time: each that says nothing holds a connection of the agent's.
const WAITING_MAX: usize = 16;
/// What is left free of the disk that scratch files lie on.
pub const FREE_BYTES_MIN: u64 = 2 << 30;

/// The scratch disk of a running pod, which its VMM has open as well.
#[derive(Debug)]
pub struct ScratchDisk {
    /// Without a name.
    pub file: OwnedFd,
    /// What the guest has of it.
    pub size: DiskSize,
}

/// How large a scratch disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSize {
    /// Bytes that the guest may use.
    pub bytes: u64,
    /// Bytes that there may be, by the spec.
    pub bytes_max: u64,
}

/// A resize that the guest has not answered.
#[derive(Clone, Copy, Debug)]
pub struct Resizing {
    client: u64,
    /// When its client is told that nothing is known.
    pub until: Instant,
}

impl ScratchDisk {
    fn check(&self, bytes: u64) -> Result<()> {
        let DiskSize { bytes: size, bytes_max: most } = self.size;
        if bytes < size {
            let message = format!("the disk has {size} bytes and cannot be made smaller");
            return Err(Refusal::new("SCRATCH_SHRINK", message));
        }
        if bytes > most {
            let message = format!("the disk of this pod may have {most} bytes at most");
            return Err(Refusal::new("SCRATCH_TOO_LARGE", message));
        }
        if bytes == size {
            return Ok(());
        }
        let free = free_bytes(&self.file).map_err(crate::launch::no_resources)?;
        // All that the guest could write from now on: the file is sparse.
        if free.saturating_sub(bytes.saturating_sub(size)) < FREE_BYTES_MIN {
            let message = format!(
                "the host's disk has {free} bytes left, and {FREE_BYTES_MIN} of them stay free"
            );
            return Err(Refusal::new("HOST_FULL", message));
        }
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.size.bytes {
            rustix::fs::ftruncate(&self.file, bytes).map_err(crate::launch::no_resources)?;
        }
        Ok(())
    }

    /// Bytes that it takes of the host's disk; `None` when the kernel does not say.
    pub fn used_bytes(&self) -> Option<u64> {
        let facts = rustix::fs::fstat(&self.file).ok()?;
        u64::try_from(facts.st_blocks).ok()?.checked_mul(512)
    }
}

/// Whether it is a file without a name, as scratch disks are.
pub fn is_scratch(fd: BorrowedFd<'_>) -> bool {
    let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
    rustix::fs::fstat(fd).is_ok_and(|facts| is_file(facts.st_mode) && facts.st_nlink == 0)
}

/// Bytes that the file system of a file has left.
///
/// # Errors
/// What the kernel answers.
pub fn free_bytes(file: &OwnedFd) -> io::Result<u64> {
    let facts = rustix::fs::fstatvfs(file)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

impl Daemon {
    /// `resize`: answered when the guest has. The same size again asks the guest again.
    pub(crate) fn ask_resize(&mut self, client: u64, pod: &str, bytes: u64) -> Result<()> {
        let waiting = self.pods.values().filter(|pod| pod.resizing.is_some()).count();
        let pod = self.running(pod)?;
        if pod.paused {
            return Err(Refusal::new("POD_PAUSED", "the pod is paused; resume it first"));
        }
        let (false, None, None) = (pod.is_starting(), pod.stop_until, pod.end_until) else {
            let message = "the pod is being started or stopped; its disk stays as it is";
            return Err(Refusal::new("POD_BUSY", message));
        };
        if pod.said.resized == Question::Asked {
            let message = "the guest has not answered the resize before this one";
            return Err(Refusal::new("POD_BUSY", message));
        }
        if waiting >= WAITING_MAX {
            let message = "too many guests are growing their file systems; ask again";
            return Err(Refusal::new("SPAWN_BUSY", message));
        }
        // Every pod has one; a template has none, and no launch id.
        let scratch = pod.scratch.as_mut().ok_or_else(not_running)?;
        scratch.check(bytes)?;
        scratch.grow(bytes)?;
        scratch.size.bytes = bytes;
        // Before anybody can notice it: the next spawn counts from there.
        pod.write_down();
        let control = pod.control.as_ref().ok_or_else(not_running)?;
        packets::send(control.as_fd(), FromSpawn::Resize { bytes }, None).map_err(|_| busy())?;
        pod.said.resized = Question::Asked;
        let until = Instant::now();
        let until = until.checked_add(GUEST_WAIT).unwrap_or(until);
        pod.resizing = Some(Resizing { client, until });
        Ok(())
    }

    /// The guest may have answered.
    pub(crate) fn answer_resize(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        let Question::Answered(resized) = pod.said.resized else { return };
        pod.said.resized = Question::None;
        if let Some(Resizing { client, .. }) = pod.resizing.take() {
            self.answer(client, told(resized));
        }
    }

    /// Who waits for a pod that has ended, or for a guest that says nothing.
    pub(crate) fn give_up_resize(&mut self, resizing: Option<Resizing>, ended: bool) {
        let Some(Resizing { client, .. }) = resizing else { return };
        let silent = || {
            let message =
                "the disk has grown, and the guest does not say whether its file system has";
            Refusal::new("RESIZE_UNCONFIRMED", message)
        };
        self.answer(client, Err(if ended { not_running() } else { silent() }));
    }
}

fn told(Resized { errno, bytes }: Resized) -> Result<Answer> {
    if errno == 0 {
        return Ok(Answer::new(vec![("scratch_bytes", number(bytes))]));
    }
    let message = format!(
        "the disk has {bytes} bytes, and the guest could not grow its file system: errno {errno}"
    );
    Err(Refusal::new("RESIZE_FAILED", message))
}

impl Pod {
    /// A resize whose time is over.
    pub(crate) fn take_late_resize(&mut self, now: Instant) -> Option<Resizing> {
        self.resizing.take_if(|resizing| resizing.until <= now)
    }
}
