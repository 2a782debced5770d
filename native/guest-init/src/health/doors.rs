//! The way in to the app for a process of init's: as for those that somebody executes beside it.

use std::os::fd::AsFd;

use casemate_ticket::app::App;
use casemate_wire::payload::ErrorCode;
use rustix::fs::{Gid, Uid, fchown};
use rustix::process::Pid;

use crate::beside_child;
use crate::child::Stdio;
use crate::failure::{Failure, OrFailure};
use crate::namespaces::Namespaces;
use crate::process_unsafe::{self, Fork};
use crate::report::Reporter;
use crate::site::Site;

/// Which process goes on after [`Site::fork_beside`].
#[derive(Clone, Copy, Debug)]
pub enum Forked {
    /// The one that called; with the id of its child.
    Parent(Pid),
    /// The new one, which is beside the app.
    Child,
}

impl Site {
    /// Makes a child of this process that is in the app's namespaces and cgroup, and could give `pipes` to the app's
    /// user. A child that does not get there says why by `report`, and ends.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] when there is no child.
    pub fn fork_beside(
        &self,
        namespaces: &Namespaces,
        pipes: &Stdio,
        report: &Reporter,
    ) -> Result<Forked, Failure> {
        self.own(pipes)?;
        match namespaces.fork().or_failure(ErrorCode::Other, "make a process")? {
            Fork::Parent(pid) => Ok(Forked::Parent(pid)),
            Fork::Child => {
                let Stdio { stdin, stdout, stderr } = pipes;
                let kept = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), report.as_fd()];
                match beside_child::enter(namespaces, self, &kept) {
                    Ok(()) => Ok(Forked::Child),
                    Err(failure) => {
                        report.fail(&failure);
                        process_unsafe::exit_now(127)
                    }
                }
            }
        }
    }

    /// Pipes of a process are root's of the app's user namespace, which can give them to another user of it.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with what the kernel answers.
    pub fn own(&self, pipes: &Stdio) -> Result<(), Failure> {
        let Some(root) = self.root else { return Ok(()) };
        let owner = (Some(Uid::from_raw(root)), Some(Gid::from_raw(root)));
        for end in [&pipes.stdin, &pipes.stdout, &pipes.stderr] {
            fchown(end, owner.0, owner.1)
                .or_failure(ErrorCode::Other, "give the process its pipes")?;
        }
        Ok(())
    }

    /// The app as it is here: what the host does not give, its processes cannot have. Called in the child.
    #[must_use]
    pub fn within(&self, mut app: App) -> App {
        (self.adapt)(&mut app);
        app
    }
}
