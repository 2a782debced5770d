//! The way in to the app for a process of init's, which differs between a machine and a container.

use casemate_ticket::app::App;
use casemate_wire::payload::ErrorCode;
use rustix::process::Pid;

use crate::beside_child;
use crate::child::Stdio;
use crate::failure::{Failure, OrFailure};
use crate::namespaces::Namespaces;
use crate::places::Places;
use crate::process_unsafe::{self, Fork};
use crate::report::Reporter;

/// Which process goes on after [`Doors::fork_beside`].
#[derive(Clone, Copy, Debug)]
pub enum Forked {
    /// The one that called; with the id of its child.
    Parent(Pid),
    /// The new one, which is beside the app.
    Child,
}

/// The way in to the app, which differs between a machine and a container.
pub trait Doors {
    /// Makes a child of this process that is in the app's namespaces and cgroup, and could give `pipes` to the app's
    /// user. A child that does not get there says why by `report`, and ends.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] when there is no child.
    fn fork_beside(
        &self,
        namespaces: &Namespaces,
        pipes: &Stdio,
        report: &Reporter,
    ) -> Result<Forked, Failure>;

    /// The app as it is here: what the host does not give, its processes cannot have. Called in the child.
    fn within(&self, app: App) -> App {
        app
    }

    /// The value of `GLIBC_TUNABLES` that programs need here.
    fn glibc_tunables(&self) -> Option<&str>;
}

impl Doors for Places {
    fn fork_beside(
        &self,
        namespaces: &Namespaces,
        _pipes: &Stdio,
        report: &Reporter,
    ) -> Result<Forked, Failure> {
        // It is in the app's process namespace from the start, since init's children are.
        match process_unsafe::fork().or_failure(ErrorCode::Other, "make a process")? {
            Fork::Parent(pid) => Ok(Forked::Parent(pid)),
            Fork::Child => match beside_child::enter(namespaces, self) {
                Ok(()) => Ok(Forked::Child),
                Err(failure) => {
                    report.fail(&failure);
                    process_unsafe::exit_now(127)
                }
            },
        }
    }

    fn glibc_tunables(&self) -> Option<&str> {
        self.glibc_tunables.as_deref()
    }
}
