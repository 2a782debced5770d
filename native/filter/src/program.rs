//! Compiling a list, and installing what came of it.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::rule::{Rule, When};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It does not exist: ENOSYS. C libraries that try a newer call fall back.
    Unknown,
    /// It ends the process by SIGSYS, and the kernel's audit line names it.
    Kill,
}

impl From<Action> for SeccompAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Unknown => Self::Errno(libc::ENOSYS.unsigned_abs()),
            Action::Kill => Self::KillProcess,
        }
    }
}

/// A compiled list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(BpfProgram);

impl Program {
    /// Compiles a list: `met` for what a rule is about, `otherwise` for everything else, calls of other architectures and
    /// the x32 table among it. Rules of one call are tried in their order.
    ///
    /// # Errors
    /// `InvalidInput` when the list does not compile: it is empty, or too long for a program.
    pub fn compile<'a>(
        rules: &(impl Iterator<Item = &'a Rule> + Clone),
        otherwise: Action,
        met: Action,
    ) -> io::Result<Self> {
        Self::build(rules, otherwise, met)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn build<'a>(
        rules: &(impl Iterator<Item = &'a Rule> + Clone),
        otherwise: Action,
        met: Action,
    ) -> Result<Self, BackendError> {
        let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for rule in rules.clone() {
            let entry = calls.entry(rule.call).or_default();
            // To the compiler a call without rules is one that is always met: one rule without conditions makes it so.
            let mut same = rules.clone().filter(|other| other.call == rule.call);
            if same.all(|other| !other.when.is_empty()) {
                let conditions = rule.when.iter().map(condition).collect::<Result<_, _>>()?;
                entry.push(SeccompRule::new(conditions)?);
            }
        }
        SeccompFilter::new(calls, otherwise.into(), met.into(), TargetArch::x86_64)?
            .try_into()
            .map(Self)
    }

    /// Its instructions, 8 bytes each as `struct sock_filter`.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for instruction in &self.0 {
            bytes.extend(instruction.code.to_le_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_le_bytes());
        }
        bytes
    }

    /// Installs it on the calling thread; `no_new_privs` comes with it. Allocates nothing when it succeeds.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn install(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.0).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
            _ => io::ErrorKind::InvalidInput.into(),
        })
    }
}

fn condition(when: &When) -> Result<SeccompCondition, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(when.mask);
    SeccompCondition::new(when.argument, SeccompCmpArgLen::Qword, operator, when.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BPF_RET | BPF_K`, and three of its answers.
    const RETURN: [u8; 2] = [0x06, 0];
    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ENOSYS: u32 = 0x0005_0026;

    const RULES: &[Rule] = &[
        crate::call!(SYS_read, "a call whatever its arguments are"),
        crate::call!(SYS_ioctl, "one of two").when(&[crate::is(1, 1)]),
        crate::call!(SYS_ioctl, "the other").when(&[crate::is(1, 2)]),
    ];

    fn answers(otherwise: Action, met: Action) -> std::collections::BTreeSet<u32> {
        let bytes = Program::compile(&RULES.iter(), otherwise, met).map(|program| program.bytes());
        let instructions = bytes.unwrap_or_default();
        let (instructions, _) = instructions.as_chunks::<8>();
        let returns = instructions.iter().filter(|step| step.starts_with(&RETURN));
        returns.map(|[.., k0, k1, k2, k3]| u32::from_le_bytes([*k0, *k1, *k2, *k3])).collect()
    }

    /// A thread that is killed alone would leave the others running, with whatever it had locked.
    #[test]
    fn killing_is_of_the_whole_process() {
        assert!(answers(Action::Kill, Action::Allow).into_iter().eq([ALLOW, KILL_PROCESS]));
    }

    /// Another architecture's calls have other numbers: they kill whatever the list says of ours.
    #[test]
    fn what_is_unknown_does_not_exist() {
        let found = answers(Action::Unknown, Action::Allow);
        assert!(found.into_iter().eq([ENOSYS, ALLOW, KILL_PROCESS]));
    }

    #[test]
    fn a_list_that_decides_nothing_does_not_compile() {
        assert!(Program::compile(&RULES.iter(), Action::Allow, Action::Allow).is_err());
    }
}
