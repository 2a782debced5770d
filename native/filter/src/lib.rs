//! System-call filters kept as data: what a rule is, and how a list of rules becomes a program that the kernel runs.
//! Whose lists there are, and why each rule is on one, stands with the programs they are about (`casemate-vmm`'s
//! `seccomp`, `casemate-spawn`'s `filter`).

mod program;
mod rule;

/// A list as the kernel sees it, tried in children; tests only.
#[cfg(feature = "probe")]
#[path = "../probe/mod.rs"]
pub mod probe;

pub use program::{Action, Program};
pub use rule::{Rule, When, has, is, is_wide, lacks};

#[doc(hidden)]
pub use libc;
