//! The VMM's own system-call filters: one for each kind of thread, kept as data in which each entry says why.
//!
//! A thread installs its filter after everything it needs exists and before the first guest instruction. Nothing in
//! the lists opens, connects, executes, forks, or maps executable memory; new descriptors arrive only by recvmsg on the
//! control socket. What is not listed kills the process, and the kernel's audit line names the call.

mod control;
mod io;
mod start;
mod vcpu;

use std::collections::BTreeMap;

use casemate_ticket::bytes::Digest;
use casemate_wire::control::Reason;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::failure::{Failure, failure};

/// A condition on one argument: its low 32 bits, or all 64, compared after masking.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Argument number, from 0.
    pub argument: u8,
    /// Bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// One allowed call. A call with several entries is allowed when one of them matches.
#[derive(Clone, Copy, Debug)]
pub struct Allow {
    /// System call number (x86-64).
    pub call: i64,
    /// All of these must hold.
    pub when: &'static [When],
    /// Why the thread needs it.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people and by the tests"))]
    pub why: &'static str,
}

/// The kinds of threads, each with its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The main thread: talks to spawn.
    Control,
    /// Serves the devices and the control pipe.
    Io,
    /// Runs guest code.
    Vcpu,
}

impl Kind {
    const fn list(self) -> &'static [Allow] {
        match self {
            Self::Control => control::LIST,
            Self::Io => io::LIST,
            Self::Vcpu => vcpu::LIST,
        }
    }
}

/// A compiled filter and the digest of its bytes.
#[derive(Debug)]
pub struct Filter {
    program: BpfProgram,
    /// SHA-256 of the program's instructions, 8 bytes each as `struct sock_filter`.
    pub digest: Digest,
}

/// Compiles the filter of `kind`.
///
/// # Errors
/// `SECCOMP` when the list does not compile, which no list that passed the tests does.
pub fn compile(kind: Kind) -> Result<Filter, Failure> {
    build(kind.list(), SeccompAction::KillProcess, SeccompAction::Allow)
}

/// Installs the filter on the calling thread; `no_new_privs` comes with it.
///
/// # Errors
/// `SECCOMP` when the kernel refuses.
pub fn install(filter: &Filter) -> Result<(), Failure> {
    seccompiler::apply_filter(&filter.program)
        .map_err(|error| failure(Reason::Seccomp, format_args!("{error}")))
}

/// Installs what every thread of the process lives under from its first line on: nothing is opened, executed or
/// connected, even while ticket, descriptors and template are still being read.
///
/// # Errors
/// `SECCOMP` when the kernel refuses.
pub fn install_start() -> Result<(), Failure> {
    install(&build(start::LIST, SeccompAction::Allow, SeccompAction::KillProcess)?)
}

fn build(
    list: &[Allow],
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<Filter, Failure> {
    let refuse = |error: seccompiler::BackendError| {
        failure(Reason::Seccomp, format_args!("the filter does not compile: {error}"))
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allow in list {
        let entry = rules.entry(allow.call).or_default();
        if !allow.when.is_empty() {
            let conditions = allow.when.iter().map(condition).collect::<Result<_, _>>();
            entry.push(SeccompRule::new(conditions.map_err(refuse)?).map_err(refuse)?);
        }
    }
    let filter =
        SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64).map_err(refuse)?;
    let program = BpfProgram::try_from(filter).map_err(refuse)?;
    let mut bytes = Vec::new();
    for instruction in &program {
        bytes.extend(instruction.code.to_le_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_le_bytes());
    }
    Ok(Filter { program, digest: Digest::of(&bytes) })
}

fn condition(when: &When) -> Result<SeccompCondition, seccompiler::BackendError> {
    let operator = SeccompCmpOp::MaskedEq(when.mask);
    SeccompCondition::new(when.argument, SeccompCmpArgLen::Qword, operator, when.value)
}

/// The argument equals `value` where the kernel takes an `int`: it reads the low 32 bits, and callers may leave
/// anything in the others.
const fn is(argument: u8, value: u64) -> When {
    When { argument, mask: 0xffff_ffff, value }
}

/// The argument equals `value` where the kernel takes a `size_t`.
const fn is_size(argument: u8, value: u64) -> When {
    When { argument, mask: u64::MAX, value }
}

/// The argument has none of `bits`.
const fn lacks(argument: u8, bits: u64) -> When {
    When { argument, mask: bits, value: 0 }
}

/// The argument has all of `bits`.
const fn has(argument: u8, bits: u64) -> When {
    When { argument, mask: bits, value: bits }
}

/// `PROT_EXEC`, as an argument.
const PROT_EXEC: u64 = 4;
/// `MAP_PRIVATE | MAP_ANONYMOUS`, as an argument.
const MAP_PRIVATE_ANONYMOUS: u64 = 0x22;

#[cfg(test)]
mod tests;
