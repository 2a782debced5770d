//! The VMM's own system-call filters: one for each kind of thread, kept as data in which each rule says why.
//!
//! A thread installs its filter after everything it needs exists and before the first guest instruction. Nothing in
//! the lists opens, connects, executes, forks, or maps memory; new descriptors arrive only by recvmsg on the control
//! socket. What is not listed kills the process, and the kernel's audit line names the call.
//!
//! `casemate-vmm --filters` prints the lists; native/vmm/README.md says which tests hold them.

mod conditions;
mod control;
mod io;
mod start;
mod vcpu;

use casemate_filter::{Action, Program, Rule};
use casemate_ticket::bytes::Digest;
use casemate_ticket::json::{self, Value};
use casemate_wire::control::Reason;

use crate::failure::{Failure, failure};

/// The kinds of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every thread from its first line on, below its own: while ticket, descriptors and template are being read.
    Start,
    /// The main thread: talks to spawn.
    Control,
    /// Serves the devices and the control pipe.
    Io,
    /// Runs guest code.
    Vcpu,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Start, Self::Control, Self::Io, Self::Vcpu];

    /// As `--digests` and `--filters` call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Control => "control",
            Self::Io => "io",
            Self::Vcpu => "vcpu",
        }
    }

    /// The rules written down for it.
    #[must_use]
    pub const fn rules(self) -> &'static [Rule] {
        match self {
            Self::Start => start::LIST,
            Self::Control => control::LIST,
            Self::Io => io::LIST,
            Self::Vcpu => vcpu::LIST,
        }
    }

    /// The rules it allows calls by. Filters only ever take away, so the start has to leave every thread its own. These
    /// come first, because every call of a running thread goes through both filters.
    pub fn allowed(self) -> impl Iterator<Item = &'static Rule> + Clone {
        let threads: &[Self] =
            if self == Self::Start { &[Self::Control, Self::Io, Self::Vcpu] } else { &[] };
        threads.iter().flat_map(|kind| kind.rules()).chain(self.rules())
    }
}

/// A compiled filter and the digest of its bytes.
#[derive(Debug)]
pub struct Filter {
    /// What the kernel runs.
    pub program: Program,
    /// SHA-256 of the program's instructions, 8 bytes each as `struct sock_filter`.
    pub digest: Digest,
}

/// Compiles the filter of `kind`.
///
/// # Errors
/// `SECCOMP` when the list does not compile, which no list that passed the tests does.
pub fn compile(kind: Kind) -> Result<Filter, Failure> {
    let program =
        Program::compile(&kind.allowed(), Action::Kill, Action::Allow).map_err(|error| {
            failure(Reason::Seccomp, format_args!("the filter does not compile: {error}"))
        })?;
    let digest = Digest::of(&program.bytes());
    Ok(Filter { program, digest })
}

/// Installs the filter on the calling thread; `no_new_privs` comes with it.
///
/// # Errors
/// `SECCOMP` when the kernel refuses.
pub fn install(filter: &Filter) -> Result<(), Failure> {
    filter.program.install().map_err(|error| failure(Reason::Seccomp, format_args!("{error}")))
}

/// All filters with their digests and rules as canonical JSON, for `--filters`. Masks and values are hexadecimal.
///
/// # Errors
/// `SECCOMP` when a list does not compile.
pub fn print() -> Result<String, Failure> {
    let describe = |kind: Kind| -> Result<(String, Value), Failure> {
        let digest = Value::String(compile(kind)?.digest.to_string());
        let rules = Value::Array(kind.rules().iter().map(describe_rule).collect());
        let members = vec![("digest".to_owned(), digest), ("rules".to_owned(), rules)];
        Ok((kind.name().to_owned(), Value::object(members)))
    };
    let members = Kind::ALL.into_iter().map(describe).collect::<Result<_, _>>()?;
    Ok(json::write(&Value::object(members)))
}

fn describe_rule(rule: &Rule) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let conditions = rule.when.iter().map(|when| {
        Value::object(vec![
            ("argument".to_owned(), Value::Integer(when.argument.into())),
            ("mask".to_owned(), text(&format!("{:#x}", when.mask))),
            ("value".to_owned(), text(&format!("{:#x}", when.value))),
        ])
    });
    Value::object(vec![
        ("call".to_owned(), text(rule.name())),
        ("number".to_owned(), Value::Integer(rule.call)),
        ("rare".to_owned(), rule.rare.map_or(Value::Null, text)),
        ("when".to_owned(), Value::Array(conditions.collect())),
        ("why".to_owned(), text(rule.why)),
    ])
}
