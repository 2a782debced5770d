//! From fork to exec of a process beside the app: into what the app is in, and under all that the app is under, by
//! the same code (rkt's CVE-2019-10144, 10145 and 10147 were an `enter` without seccomp, cgroup and dropped
//! capabilities). No program of ours is executed inside the app's root, and none of its descriptors or files is
//! reachable from there (CVE-2019-5736, CVE-2024-21626).

use std::os::fd::{AsFd, BorrowedFd};

use casemate_ticket::app::App;
use casemate_ticket::errand::Errand;
use casemate_wire::payload::{ErrorCode, Size};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, chdir, set_dumpable_behavior, setsid, umask};

use crate::child::{Stdio, finish, identify, take_stdio};
use crate::failure::{Failure, OrFailure};
use crate::namespaces::Namespaces;
use crate::report::Reporter;
use crate::site::Site;
use crate::users::Identity;
use crate::{cgroup, errand, process_unsafe, terminal};

/// What to start, and beside what.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The app, with the process' own arguments, environment, directory and user in place of its own.
    pub app: &'a App,
    /// What to do in place of a program.
    pub errand: Option<&'a Errand>,
    /// Of the app.
    pub namespaces: &'a Namespaces,
    /// The app's cgroup is among what it says.
    pub site: &'a Site,
}

/// What becomes 0, 1 and 2.
#[derive(Debug)]
pub enum Streams {
    /// Three pipes.
    Pipes(Stdio),
    /// A terminal, which is still to be made; init gets its other end.
    Terminal(Size),
}

/// Becomes the process, or reports why not and ends. Called in the forked process only.
pub fn run(plan: &Plan<'_>, streams: Streams, report: &Reporter) -> ! {
    let failure = match (prepare(plan, streams, report), plan.errand) {
        (Ok(identity), None) => finish(plan.app, &identity, plan.site.glibc_tunables.as_deref()),
        (Ok(identity), Some(errand)) => errand::run(errand, plan.app, &identity, report),
        (Err(failure), _) => failure,
    };
    report.fail(&failure);
    process_unsafe::exit_now(127)
}

/// Into the app's cgroup and namespaces, with no descriptor but those and 0, 1 and 2.
pub(crate) fn enter(
    namespaces: &Namespaces,
    site: &Site,
    kept: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    // The app sees this process from now on, and it still is what init is (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .or_failure(ErrorCode::Other, "close the process to others")?;
    site.groups.iter().try_for_each(|group| cgroup::enter(group))?;
    // Before it is where the app could look for them, whatever else were to go wrong.
    let mut kept = kept.to_vec();
    kept.extend(namespaces.descriptors());
    process_unsafe::close_all_but(&kept).or_failure(ErrorCode::Other, "close descriptors")?;
    namespaces.enter()
}

fn prepare(plan: &Plan<'_>, streams: Streams, report: &Reporter) -> Result<Identity, Failure> {
    let mut kept = vec![report.as_fd()];
    if let Streams::Pipes(stdio) = &streams {
        kept.extend([stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd()]);
    }
    enter(plan.namespaces, plan.site, &kept)?;
    setsid().or_failure(ErrorCode::Other, "begin a session")?;
    process_unsafe::default_signals().or_failure(ErrorCode::Other, "reset signals")?;
    umask(Mode::empty());
    let process = &plan.app.process;
    let identity = identify(&process.user)?;
    match streams {
        Streams::Pipes(stdio) => take_stdio(stdio, &identity)?,
        Streams::Terminal(size) => {
            let other = terminal::take(size, identity.uid)?;
            report.hand_over(&[other.as_fd()])?;
        }
    }
    process_unsafe::close_all_but(&[report.as_fd()])
        .or_failure(ErrorCode::Other, "close descriptors")?;
    let cwd = process.cwd.as_str();
    chdir(cwd).or_failure(ErrorCode::Cwd, format!("enter {cwd:?}"))?;
    Ok(identity)
}
