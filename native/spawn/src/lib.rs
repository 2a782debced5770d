//! casemate-spawn: parent of every VM and worker of a Casemate host.
//!
//! Root, without network and without policy. It starts what a ticket admits, in a jail, and tells how
//! it ended. It parses nothing but the ticket, the spec and requests, in canonical JSON, strictly.
//! docs/formats.md sections 3 to 6 and 9 are its contract.

#[expect(unsafe_code, reason = "system calls that no library offers")]
mod jail_child_unsafe;
#[expect(unsafe_code, reason = "requests about interfaces that no library offers")]
mod network_unsafe;
#[expect(unsafe_code, reason = "system calls that no library offers")]
mod sys_unsafe;

mod answers;
mod assets;
mod cgroup;
mod clients;
mod config;
pub mod connection;
mod daemon;
pub mod filter;
mod host;
mod jail;
mod kmsg;
mod landlock;
mod launch;
mod machine;
mod network;
mod packets;
mod pod;
mod pods;
mod poller;
pub mod refusal;
pub mod request;
mod sparse;
mod spent;
mod syscalls;
mod template;
mod template_store;
mod templates;
mod uids;
mod usage;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use daemon::{Daemon, log};
use network::Networks;
use refusal::{Refusal, Result};

/// Runs spawn until a signal ends it, under the filter that `enter` puts it under: [`filter::enter`]. The tests try the
/// other walls of the jail without it.
pub fn serve(enter: impl FnOnce() -> Result<()>) -> ExitCode {
    match run(enter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            log(&refusal.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(enter: impl FnOnce() -> Result<()>) -> Result<()> {
    let path = config_path(std::env::args_os().skip(1).collect())?;
    if !rustix::process::geteuid().is_root() {
        return Err(Refusal::new(
            "NOT_ROOT",
            "spawn makes namespaces, cgroups and user ids: start it as root",
        ));
    }
    // Whatever else is done is done without the host's network.
    let networks = Networks::enter();
    if let Err(sentence) = &networks {
        log(&format!("{sentence}; pods get no network"));
    }
    enter()?;
    let config = config::load(&path)?;
    let mut daemon = Daemon::start(config, networks)?;
    log("ready");
    daemon.run().map_err(|error| Refusal::new("EVENT_LOOP", error.to_string()))
}

fn config_path(arguments: Vec<std::ffi::OsString>) -> Result<PathBuf> {
    match <[std::ffi::OsString; 2]>::try_from(arguments) {
        Ok([flag, path]) if flag == "--config" => Ok(path.into()),
        _ => Err(Refusal::new("USAGE", "usage: casemate-spawn --config FILE")),
    }
}
