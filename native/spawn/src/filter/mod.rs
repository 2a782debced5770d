//! What spawn may ask of the kernel, and what a worker may: system-call filters, kept as data in which each entry says
//! why. A filter is inherited, across exec too, and can only be added to: spawn's holds for all it ever starts.
//!
//! Each filter has two lists. What is on `permitted` is done. What is on `killed` ends the process: nothing of ours makes
//! such a call, so whoever does is an attacker. Everything else does not exist (ENOSYS): C libraries and Node try calls
//! that are newer than what was measured here, and fall back. The lists are two programs, of which the kernel takes the
//! stricter answer.
//!
//! A spawn that its filter kills leaves its pods to the next one (docs/decisions/0022), a few times in a row and not for
//! ever: in a spawn that makes such a call somebody else's code runs, as root.

mod killed;
mod spawn;
mod worker;

use std::io;

use casemate_filter::{Action, Program, Rule};

use crate::refusal::{Refusal, Result};

/// Whose filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Spawn's own, installed before it does anything. It has to leave every child what it needs until that has a filter
    /// of its own, and beside it.
    Spawn,
    /// A worker's, beside spawn's.
    Worker,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spawn, Self::Worker];

    /// Calls that are done.
    pub fn permitted(self) -> impl Iterator<Item = &'static Rule> + Clone {
        let groups = match self {
            Self::Spawn => spawn::LIST,
            Self::Worker => worker::LIST,
        };
        groups.iter().copied().flatten()
    }

    /// Calls that end the process.
    pub fn killed(self) -> impl Iterator<Item = &'static Rule> + Clone {
        let groups = match self {
            Self::Spawn => killed::OF_ALL,
            Self::Worker => killed::OF_WORKERS,
        };
        groups.iter().copied().flatten()
    }
}

/// A compiled filter.
#[derive(Debug)]
pub struct Filter {
    killed: Program,
    permitted: Program,
}

impl Filter {
    /// Compiles the filter of `kind`.
    ///
    /// # Errors
    /// `SECCOMP` when a list does not compile, which no list that passed the tests does.
    pub fn compile(kind: Kind) -> Result<Self> {
        let refuse = |error: io::Error| {
            Refusal::new("SECCOMP", format!("the filter does not compile: {error}"))
        };
        Ok(Self {
            killed: Program::compile(&kind.killed(), Action::Allow, Action::Kill)
                .map_err(refuse)?,
            permitted: Program::compile(&kind.permitted(), Action::Unknown, Action::Allow)
                .map_err(refuse)?,
        })
    }

    /// In the order they are installed in: a worker's list permits no further filter.
    #[must_use]
    pub fn programs(&self) -> [&Program; 2] {
        [&self.killed, &self.permitted]
    }

    /// Installs it on the calling thread; `no_new_privs` comes with it. Allocates nothing when it succeeds.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn install(&self) -> io::Result<()> {
        self.programs().into_iter().try_for_each(Program::install)
    }
}

/// Puts the calling thread of the router, and what it starts, under what ends spawn: it needs none of it either. What
/// nft and ip call is theirs to know, so nothing else is listed.
///
/// # Errors
/// What the kernel says.
pub fn enter_router() -> io::Result<()> {
    Program::compile(&Kind::Spawn.killed(), Action::Allow, Action::Kill)?.install()
}

/// Puts this process under spawn's filter, for good.
///
/// # Errors
/// `SECCOMP` where the kernel has no filters.
pub fn enter() -> Result<()> {
    Filter::compile(Kind::Spawn)?.install().map_err(|error| {
        Refusal::new("SECCOMP", format!("the kernel takes no system-call filter: {error}"))
    })
}
