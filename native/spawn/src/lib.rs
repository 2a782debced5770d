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
mod container;
mod counters;
mod daemon;
mod ending;
pub mod filter;
mod handover;
mod host;
mod host_paths;
mod jail;
mod keeper;
mod kmsg;
mod landlock;
mod launch;
mod launch_files;
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
mod starter;
mod steps;
mod store;
mod syscalls;
mod template;
mod template_store;
mod templates;
mod uids;
mod usage;
mod volumes;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use daemon::{Daemon, log};
use network::Networks;
use refusal::{Refusal, Result};

/// What a process of this program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Spawn,
    /// Keeps a spawn running.
    Keeper,
    /// Starts containers for a spawn.
    Starter,
}

/// Runs spawn until a signal ends it, under the filter that `enter` puts it under: [`filter::enter`]. The tests try the
/// other walls of the jail without it. With `--keep` before its arguments it is not spawn but who keeps one running.
pub fn serve(enter: impl FnOnce() -> Result<()>) -> ExitCode {
    match run(enter) {
        Ok(code) => code,
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

fn run(enter: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    if matches!(given.as_slice(), [only] if only == "--router") {
        return router::serve::serve().map(|()| ExitCode::SUCCESS);
    }
    let (role, path) = arguments(&given)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Refusal::new(
            "NOT_ROOT",
            "spawn makes namespaces, cgroups and user ids: start it as root",
        ));
    }
    match role {
        Role::Keeper => return keeper::run(&path).map(|()| ExitCode::SUCCESS),
        Role::Starter => return Ok(starter::run(&path)),
        Role::Spawn => {}
    }
    // Before anything is opened that could have their numbers.
    let mut descriptors = store::inherited().unwrap_or_else(|error| {
        log(&format!("no descriptors are taken over: {error}"));
        adopt::Descriptors::default()
    });
    // Before the host's network is left, to which the name of a socket may belong.
    let store = store::Store::open()
        .map_err(|error| Refusal::new("START", format!("NOTIFY_SOCKET: {error}")))?;
    let host = network::own_namespace()
        .map_err(|error| Refusal::new("START", format!("the host's network: {error}")))?;
    // The one process that stays in the host's network, with nothing but that.
    let router = router::Router::start();
    // Whatever else is done is done without the host's network.
    let networks = Networks::enter(descriptors.remove(store::NETWORK), router);
    if let Err(sentence) = &networks {
        log(&format!("{sentence}; pods get no network"));
    }
    let config = config::load(&path)?;
    // It needs what spawn's filter denies to all that spawn starts.
    let starter = config.container.is_some().then_some(host).map_or_else(
        || Err("spawn.json has no containers".into()),
        |host| starter::Starter::start(&path, host),
    );
    if let (Some(_), Err(sentence)) = (&config.container, &starter) {
        log(&format!("no containers are started: {sentence}"));
    }
    enter()?;
    let mut daemon = Daemon::start(config, networks, starter, descriptors, store)?;
    daemon.announce()?;
    log("ready");
    daemon.run().map_err(|error| Refusal::new("EVENT_LOOP", error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// What to be, and the configuration.
fn arguments(arguments: &[std::ffi::OsString]) -> Result<(Role, PathBuf)> {
    let usage = || Refusal::new("USAGE", "usage: casemate-spawn [--keep] --config FILE");
    let (role, rest) = match arguments.split_first() {
        Some((first, rest)) if first == "--keep" => (Role::Keeper, rest),
        Some((first, rest)) if first == "--starter" => (Role::Starter, rest),
        _ => (Role::Spawn, arguments),
    };
    match rest {
        [flag, path] if flag == "--config" => Ok((role, path.into())),
        _ => Err(usage()),
    }
}
