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

mod adopt;
mod answers;
mod assets;
mod autopsy;
mod cgroup;
mod clients;
mod config;
pub mod connection;
mod counters;
mod daemon;
mod ending;
pub mod filter;
mod handover;
mod host;
mod jail;
mod keeper;
mod kmsg;
mod landlock;
mod launch;
mod ledger;
mod machine;
mod network;
mod packets;
mod pod;
mod pods;
mod poller;
pub mod refusal;
pub mod request;
mod resize;
mod router;
mod sparse;
mod spent;
mod steps;
mod store;
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
/// other walls of the jail without it. With `--keep` before its arguments it is not spawn but who keeps one running.
pub fn serve(enter: impl FnOnce() -> Result<()>) -> ExitCode {
    match run(enter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            log(&refusal.to_string());
            ExitCode::FAILURE
        }
    }
}

/// As [`serve`], and calls `step` with the name of each point at which something is half done: for the tests.
pub fn serve_watched(enter: impl FnOnce() -> Result<()>, step: fn(&'static str)) -> ExitCode {
    steps::watch(step);
    serve(enter)
}

fn run(enter: impl FnOnce() -> Result<()>) -> Result<()> {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    if matches!(given.as_slice(), [only] if only == "--router") {
        return router::serve::serve();
    }
    let (keep, path) = arguments(&given)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Refusal::new(
            "NOT_ROOT",
            "spawn makes namespaces, cgroups and user ids: start it as root",
        ));
    }
    if keep {
        return keeper::run(&path);
    }
    // Before anything is opened that could have their numbers.
    let mut descriptors = store::inherited().unwrap_or_else(|error| {
        log(&format!("no descriptors are taken over: {error}"));
        adopt::Descriptors::default()
    });
    // Before the host's network is left, to which the name of a socket may belong.
    let store = store::Store::open()
        .map_err(|error| Refusal::new("START", format!("NOTIFY_SOCKET: {error}")))?;
    // The one process that stays in the host's network, with nothing but that.
    let router = router::Router::start();
    // Whatever else is done is done without the host's network.
    let networks = Networks::enter(descriptors.remove(store::NETWORK), router);
    if let Err(sentence) = &networks {
        log(&format!("{sentence}; pods get no network"));
    }
    enter()?;
    let config = config::load(&path)?;
    let mut daemon = Daemon::start(config, networks, descriptors, store)?;
    daemon.announce()?;
    log("ready");
    daemon.run().map_err(|error| Refusal::new("EVENT_LOOP", error.to_string()))
}

/// Whether to keep a spawn running, and the configuration.
fn arguments(arguments: &[std::ffi::OsString]) -> Result<(bool, PathBuf)> {
    let usage = || Refusal::new("USAGE", "usage: casemate-spawn [--keep] --config FILE");
    let (keep, rest) = match arguments.split_first() {
        Some((first, rest)) if first == "--keep" => (true, rest),
        _ => (false, arguments),
    };
    match rest {
        [flag, path] if flag == "--config" => Ok((keep, path.into())),
        _ => Err(usage()),
    }
}
