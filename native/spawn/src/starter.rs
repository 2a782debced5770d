//! What starts containers: a process of spawn's own program that never took spawn's filter.
//!
//! A filter is inherited for good, and an OCI runtime needs most of what spawn's list denies. So monitors are made by a
//! small process that is started before spawn takes its filter, holds no descriptor but one end of a socket pair, and
//! answers spawn alone. It believes spawn nothing that matters: it has read the configuration itself, checks the ticket
//! itself, once for each ticket, and knows the monitor and the runtime by their bytes as they were when it began.
//!
//! Monitors become spawn's children, not the starter's (`CLONE_PARENT`), so all that holds for VMMs holds for them: spawn
//! lets them in, waits for them and reaps them, and the next spawn takes them over. The starter ends with its spawn.

mod paths;
mod serve;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate_ticket::bytes::Digest;
use casemate_ticket::mounts::VOLUMES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;

use crate::connection;
use crate::jail::{Jailed, pair};
use crate::refusal::{Refusal, Result};

pub use serve::run;

/// How long hashing both programs may take, and starting a monitor.
const PATIENCE: Duration = Duration::from_secs(30);
/// The code for a starter that has ended, or that answers too late to be understood.
const GONE: &str = "STARTER_GONE";
/// Most bytes of a packet, either way.
const PACKET_BYTES_MAX: usize = 4096;
/// Most descriptors that ride along.
const DESCRIPTORS_MAX: usize = 8 + VOLUMES_MAX;

/// What runs containers here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of the part of the bundle that all pods share.
    pub bundle: Digest,
    /// SHA-256 of the monitor.
    pub monitor: Digest,
    /// SHA-256 of the OCI runtime.
    pub runtime: Digest,
    /// What the runtime says of its version.
    pub version: String,
}

/// Spawn's side of it.
#[derive(Debug)]
pub struct Starter {
    socket: OwnedFd,
    /// What it starts.
    pub facts: Facts,
}

/// What a monitor is made for.
#[derive(Debug)]
pub struct Order<'a> {
    /// First of the pod's ids.
    pub ids: u32,
    /// The app's cgroup below each mount point.
    pub group: &'a str,
    /// That group's file with a line `oom_kill N`.
    pub oom: &'a Path,
}

impl Starter {
    /// Starts it with the configuration at `path`, and the host's network for pods that share it. To be called before
    /// spawn takes its filter.
    ///
    /// # Errors
    /// Why no containers can be started, as a sentence.
    pub fn start(path: &Path, network: OwnedFd) -> std::result::Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("what starts containers could not be started: {error}")
        };
        let (socket, theirs) = pair(SocketType::SEQPACKET).map_err(|error| failed(&error))?;
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.arg("--starter").arg("--config").arg(path).env_clear();
        // It ends with spawn's end of the socket pair; spawn reaps it with its own end.
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(network))
            .spawn()
            .map_err(|error| failed(&error))?;
        drop(command);
        let (text, _) = answer(&socket).map_err(|refusal| refusal.message)?;
        let facts = Facts::read(&text).ok_or_else(|| failed(&"it says nothing that is known"))?;
        Ok(Self { socket, facts })
    }

    /// Has a monitor made, with these descriptors from 3 on; it waits to be let in.
    ///
    /// # Errors
    /// Whatever the starter refuses, `STARTER_GONE`.
    pub fn begin(&self, order: &Order<'_>, descriptors: &[OwnedFd]) -> Result<Jailed> {
        let text = format!("{}\n{}\n{}", order.ids, order.group, order.oom.display());
        connection::send(self.socket.as_fd(), text.as_bytes(), descriptors).map_err(|_| gone())?;
        let begun = answer(&self.socket).and_then(|(text, descriptors)| {
            let pid = text.parse().map_err(|_| gone())?;
            let [pidfd, channel] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| gone())?;
            Ok(Jailed { pid, pidfd, channel })
        });
        if begun.as_ref().is_err_and(|refusal| refusal.code == GONE) {
            // An answer that came later would be taken for that of another launch.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
        begun
    }
}

impl Facts {
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut digest = || lines.next().and_then(Digest::parse);
        let (bundle, monitor, runtime) = (digest()?, digest()?, digest()?);
        Some(Self { bundle, monitor, runtime, version: lines.next()?.to_owned() })
    }

    fn write(&self) -> String {
        let Self { bundle, monitor, runtime, version } = self;
        format!("{bundle}\n{monitor}\n{runtime}\n{version}")
    }
}

/// What the starter says next: `+` and a text, with descriptors, or `-`, a code and a sentence.
fn answer(socket: &OwnedFd) -> Result<(String, Vec<OwnedFd>)> {
    let timeout = Timespec::try_from(PATIENCE).unwrap_or_default();
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    if !poll(&mut ready, Some(&timeout)).is_ok_and(|count| count > 0) {
        return Err(gone());
    }
    let (bytes, descriptors) = serve::receive(socket.as_fd()).map_err(|_| gone())?;
    let text = String::from_utf8(bytes).map_err(|_| gone())?;
    match text.split_at_checked(1) {
        Some(("+", text)) => Ok((text.to_owned(), descriptors)),
        Some(("-", text)) => {
            let (code, sentence) = text.split_once('\n').unwrap_or(("", text));
            Err(Refusal::new(serve::known(code), sentence))
        }
        _ => Err(gone()),
    }
}

fn gone() -> Refusal {
    let message = "what starts containers has ended or does not answer; restart casemate-spawn";
    Refusal::new(GONE, message)
}
