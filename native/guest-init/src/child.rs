//! From fork to exec: the child of init that becomes the app. It is process 1 of the app's pid
//! namespace from the start; every step that fails is reported, and a successful exec ends the report.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use casemate_ticket::app::App;
use casemate_ticket::config::Config;
use casemate_wire::payload::ErrorCode;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::process::{chdir, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::thread::UnshareFlags;

use crate::failure::{Failure, OrFailure};
use crate::mounts::Outside;
use crate::namespaces::{Kinds, Namespaces};
use crate::places::Places;
use crate::report::Reporter;
use crate::users::{self, DATABASE_BYTES_MAX, Identity};
use crate::{cgroup, exec, mounts, names, privileges, process_unsafe, root, seal};

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The app.
    pub app: &'a App,
    /// Its place among the pod's.
    pub place: usize,
    /// Its pod, of which it has the names.
    pub config: &'a Config,
    /// Content of its files.
    pub files: &'a [u8],
    /// Where its file systems are.
    pub places: &'a Places,
}

/// The app's ends of its pipes.
#[derive(Debug)]
pub struct Stdio {
    /// Reading end.
    pub stdin: OwnedFd,
    /// Writing end.
    pub stdout: OwnedFd,
    /// Writing end.
    pub stderr: OwnedFd,
}

/// Becomes the app, or reports why not and ends. Called in the forked process only.
pub fn run(plan: &Plan<'_>, stdio: Stdio, report: &Reporter) -> ! {
    let failure = match prepare(plan, stdio, report) {
        Ok(identity) => finish(plan.app, &identity, plan.places.glibc_tunables.as_deref()),
        Err(failure) => failure,
    };
    report.fail(&failure);
    process_unsafe::exit_now(127)
}

/// Everything that needs more than the app's own privileges.
fn prepare(plan: &Plan<'_>, stdio: Stdio, report: &Reporter) -> Result<Identity, Failure> {
    let Plan { app, place, config, files, places } = plan;
    if let Some(group) = &places.cgroup {
        cgroup::enter(&cgroup::of_app(group, *place))?;
    }
    let apart = UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP;
    process_unsafe::unshare(apart).or_failure(ErrorCode::Other, "make namespaces for the app")?;
    report.hand_over(&Namespaces::of_self(Kinds::Machine)?.descriptors())?;
    setsid().or_failure(ErrorCode::Other, "begin a session")?;
    process_unsafe::default_signals().or_failure(ErrorCode::Other, "reset signals")?;
    umask(Mode::empty());
    let trees = root::enter(places, (*place, &config.apps), app, |root| {
        let names = |network| names::write(root, network, &config.hostname);
        config.network.as_ref().map_or(Ok(()), names)
    })?;
    let identity = identify(&app.process.user)?;
    take_stdio(stdio, &identity)?;
    settle(app, Outside { trees, files }, report)?;
    Ok(identity)
}

/// What is left to do inside the new root, whoever made it.
fn settle(app: &App, outside: Outside<'_>, report: &Reporter) -> Result<(), Failure> {
    mounts::apply(&app.mounts, outside)?;
    // From here on a descriptor of init or of the old root can be reached by no path, such as a
    // working directory of /proc/self/fd/7 (CVE-2024-21626).
    process_unsafe::close_all_but(&[report.as_fd()])
        .or_failure(ErrorCode::Other, "close descriptors")?;
    let cwd = app.process.cwd.as_str();
    fs::create_dir_all(cwd).or_failure(ErrorCode::Cwd, format!("make {cwd:?}"))?;
    seal::apply(app.read_only_root)?;
    // Entered only now: entered before, /proc/sys would be the one below the read-only mount.
    chdir(cwd).or_failure(ErrorCode::Cwd, format!("enter {cwd:?}"))
}

/// Becomes the app in a container, of which a runtime has made the namespaces of these `kinds`, the root and its file
/// systems, and of which 0, 1 and 2 are the pipes. The runtime has left more capabilities, of which the app keeps its own.
pub fn run_in_container(
    app: &App,
    kinds: Kinds,
    config: &Config,
    outside: Outside<'_>,
    report: &Reporter,
) -> ! {
    let prepared = Namespaces::of_self(kinds)
        .and_then(|namespaces| report.hand_over(&namespaces.descriptors()))
        .and_then(|()| prepare_in_container(app, config, outside, report));
    report.fail(&prepared.map_or_else(|failure| failure, |who| finish(app, &who, None)));
    process_unsafe::exit_now(127)
}

fn prepare_in_container(
    app: &App,
    config: &Config,
    outside: Outside<'_>,
    report: &Reporter,
) -> Result<Identity, Failure> {
    process_unsafe::default_signals().or_failure(ErrorCode::Other, "reset signals")?;
    umask(Mode::empty());
    if let Some(network) = &config.network {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())
            .or_failure(ErrorCode::Network, "open the root")?;
        names::write(root.as_fd(), network, &config.hostname)?;
    }
    root::make_temporary(app.read_only_root)?;
    let identity = identify(&app.process.user)?;
    own_stdio([stdin(), stdout(), stderr()], &identity)?;
    settle(app, outside, report)?;
    Ok(identity)
}

/// Gives up what the app does not have and becomes its program; answers why not.
pub(crate) fn finish(app: &App, identity: &Identity, tunables: Option<&str>) -> Failure {
    let process = &app.process;
    let env = exec::environment(process, &identity.home, tunables);
    match privileges::apply(app, identity) {
        Ok(()) => exec::run(&process.args, &env),
        Err(failure) => failure,
    }
}

/// The user of the image, by files of the image, read inside its root.
pub(crate) fn identify(user: &str) -> Result<Identity, Failure> {
    let passwd = read_database("/etc/passwd")?;
    let group = read_database("/etc/group")?;
    users::resolve(user, &passwd, &group)
        .map_err(|error| Failure::new(ErrorCode::User, error.to_string()))
}

/// A regular file of bounded size; one that is absent counts as empty.
fn read_database(path: &str) -> Result<String, Failure> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let Ok(file) = File::options().read(true).custom_flags(flags).open(path) else {
        return Ok(String::new());
    };
    let regular = file.metadata().is_ok_and(|data| data.is_file());
    let mut bytes = Vec::new();
    let limit = DATABASE_BYTES_MAX.saturating_add(1);
    file.take(u64::try_from(limit).unwrap_or(0))
        .read_to_end(&mut bytes)
        .or_failure(ErrorCode::User, format!("read {path}"))?;
    if !regular || bytes.len() > DATABASE_BYTES_MAX {
        let text = format!("{path} is no regular file of at most {DATABASE_BYTES_MAX} bytes");
        return Err(Failure::new(ErrorCode::User, text));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The pipes become 0, 1 and 2, and the app's own, so that it may open /dev/stdout again.
pub(crate) fn take_stdio(stdio: Stdio, identity: &Identity) -> Result<(), Failure> {
    let Stdio { stdin, stdout, stderr } = stdio;
    own_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], identity)?;
    dup2_stdin(&stdin)
        .and_then(|()| dup2_stdout(&stdout))
        .and_then(|()| dup2_stderr(&stderr))
        .or_failure(ErrorCode::Other, "connect the app's streams")
}

fn own_stdio(pipes: [BorrowedFd<'_>; 3], identity: &Identity) -> Result<(), Failure> {
    let owner = (Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)));
    for pipe in pipes {
        fchown(pipe, owner.0, owner.1).or_failure(ErrorCode::Other, "give the app its pipes")?;
    }
    Ok(())
}
