//! One VM: what spawn holds of it, what the VMM said, and what is told of its end.
//!
//! What a VMM says is counted, not trusted: each message comes once, in its turn, and in a layout
//! without text but FAILURE's. Anything else is a VMM that was taken over, and is killed.

use std::time::Instant;

use casemate_ticket::bytes::Digest;
use casemate_ticket::json::Value;
use casemate_ticket::shape::{ShapeError, boolean, fields, text, wrong};
use casemate_ticket::spec::{Level, Spec, Vmm};
use casemate_wire::control::{FromVmm, Reason};
use casemate_wire::metrics::Metrics;
use casemate_wire::payload::{Exit, Resized};

use crate::kmsg;
use crate::sys_unsafe::signal_name;

/// Why spawn killed a VMM itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// A request `kill`.
    Asked,
    /// A request `stop`, whose time passed.
    StopTimeout,
    /// The filters it installed are not those of the spec.
    Filters,
    /// It said something it may not say, or not then.
    Protocol,
    /// The guest did not take its configuration in time.
    BootTimeout,
    /// It reported the app's exit and did not end.
    Lingering,
    /// Spawn ends.
    Shutdown,
}

/// Each reason, and its word in the ledger.
const KILLED: [(Killed, &str); 7] = [
    (Killed::Asked, "asked"),
    (Killed::StopTimeout, "stop-timeout"),
    (Killed::Filters, "filters"),
    (Killed::Protocol, "protocol"),
    (Killed::BootTimeout, "boot-timeout"),
    (Killed::Lingering, "lingering"),
    (Killed::Shutdown, "shutdown"),
];

impl Killed {
    /// Its word in the ledger.
    pub fn word(self) -> &'static str {
        KILLED.iter().find(|(why, _)| *why == self).map_or("", |(_, word)| word)
    }

    /// The reason of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        KILLED.iter().find(|(_, known)| *known == word).map(|(why, _)| *why)
    }
}

/// Virtual CPUs and MiB of memory.
pub type Shape = (u32, u32);

/// How the process ended, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// exit(2).
    Code(i32),
    /// A signal.
    Signal(i32),
    /// The kernel says no more: another process has reaped it, and nothing is kept of it.
    Unknown,
}

/// What spawn asked, and the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Question<T> {
    /// Nothing is asked.
    #[default]
    None,
    /// An answer is due.
    Asked,
    /// It came.
    Answered(T),
}

/// What the VMM has said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    started: bool,
    ready: bool,
    template: bool,
    /// The counters.
    pub metrics: Question<Box<Metrics>>,
    /// What the guest made of a larger disk.
    pub resized: Question<Resized>,
    exit: Option<Exit>,
    failure: Option<(Reason, String)>,
    /// The packets, but for answers: what the next spawn is told.
    pub heard: Vec<Vec<u8>>,
    /// The last packet that the spawn before wrote down. It may have died before it took it off the socket.
    again: Option<Vec<u8>>,
    /// Counters that may still come because the spawn before asked for them.
    stale_answers: u8,
    /// The spawn before may have told the guest of a larger disk, and its answer is nobody's.
    stale_resizes: u8,
}

/// Everything known when a pod has ended.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What the VMM said.
    pub said: &'a Said,
    /// Why spawn killed it, if it did.
    pub killed: Option<Killed>,
    /// How it ended.
    pub status: Status,
    /// Whether its cgroup ran out of memory.
    pub oom: bool,
    /// The system call its filter stopped, from the kernel's audit line.
    pub syscall: Option<i64>,
}

/// The end of a pod as `list` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodExit {
    how: String,
    value: i64,
    guest_reported: bool,
    cause: String,
    text: Option<String>,
}

/// Ways of an end, as `how` names them.
const WAYS: [&str; 5] = ["code", "signal", "oom", "vmm", "failure"];
/// Bytes of a sentence.
const SENTENCE_BYTES_MAX: usize = 1024;

/// What to do after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Fine,
    /// The guest runs: the boot's time limit is met.
    Ready,
    /// The pod is about to end by itself.
    Ending,
    /// Two descriptors of a template came along.
    Template {
        /// Bytes of state.
        state_size: u64,
        /// Bytes of memory.
        memory_size: u64,
    },
    /// Kill it.
    Kill(Killed),
}

impl Said {
    /// What a VMM said to the spawn before, or `None` when no VMM says that.
    pub fn replay(packets: &[Vec<u8>], expected: &Vmm) -> Option<Self> {
        let mut said = Self::default();
        for packet in packets {
            if matches!(said.hear(packet, expected, false), Verdict::Kill(_)) {
                return None;
            }
        }
        said.again = packets.last().cloned();
        said.stale_answers = 1;
        said.stale_resizes = 1;
        Some(said)
    }

    /// Whether its last word was that it ends.
    pub fn is_ending(&self) -> bool {
        self.exit.is_some() || self.failure.is_some()
    }

    /// Takes one message in, and keeps it. `expected` are the filters of the spec, `template` whether this VMM builds one.
    pub fn hear(&mut self, packet: &[u8], expected: &Vmm, template: bool) -> Verdict {
        if self.again.take().is_some_and(|last| last == packet) {
            return Verdict::Fine;
        }
        let verdict = self.judge(packet, expected, template);
        let is_answer =
            matches!(FromVmm::parse(packet), Ok(FromVmm::Metrics(_) | FromVmm::Resized(_)));
        if !is_answer && !matches!(verdict, Verdict::Kill(_)) {
            self.heard.push(packet.to_vec());
        }
        verdict
    }

    fn judge(&mut self, packet: &[u8], expected: &Vmm, template: bool) -> Verdict {
        let Ok(message) = FromVmm::parse(packet) else { return Verdict::Kill(Killed::Protocol) };
        let over = self.exit.is_some() || self.failure.is_some() || self.template;
        match message {
            FromVmm::Failure { reason, text } if self.failure.is_none() => {
                self.failure = Some((reason, text.to_owned()));
                Verdict::Ending
            }
            FromVmm::Started { control, io, vcpu } if !self.started && !over => {
                self.started = true;
                let (c, i, v) =
                    (&expected.filter_control, &expected.filter_io, &expected.filter_vcpu);
                let same = [control, io, vcpu] == [c.0, i.0, v.0];
                if same { Verdict::Fine } else { Verdict::Kill(Killed::Filters) }
            }
            FromVmm::Ready { .. } if self.started && !self.ready && !over && !template => {
                self.ready = true;
                Verdict::Ready
            }
            // Before READY too: a guest may report that the app could not be started.
            FromVmm::Exit(exit) if self.started && !over && !template => {
                self.exit = Some(exit);
                Verdict::Ending
            }
            // While it ends, too: the question may have crossed its last word.
            FromVmm::Metrics(metrics) if self.started && self.metrics == Question::Asked => {
                self.metrics = Question::Answered(Box::new(metrics));
                Verdict::Fine
            }
            FromVmm::Metrics(_) if self.started && self.stale_answers > 0 => {
                self.stale_answers = 0;
                Verdict::Fine
            }
            FromVmm::Resized(resized) if self.started && self.resized == Question::Asked => {
                self.resized = Question::Answered(resized);
                Verdict::Fine
            }
            FromVmm::Resized(_) if self.started && self.stale_resizes > 0 => {
                self.stale_resizes = 0;
                Verdict::Fine
            }
            // A builder runs under its start filter alone and announces no others.
            FromVmm::Template { state_size, memory_size } if !over && template => {
                self.template = true;
                Verdict::Template { state_size, memory_size }
            }
            _ => Verdict::Kill(Killed::Protocol),
        }
    }
}

/// What is told of the end. The kernel's word comes before spawn's, spawn's before the VMM's, the
/// VMM's before the guest's: each could be lying about what the one before it saw.
pub fn conclude(facts: &Facts<'_>) -> PodExit {
    let vmm = PodExit::of_vmm;
    if facts.status == Status::Signal(libc::SIGSYS) {
        let call = facts.syscall.map_or_else(|| "a system call".to_owned(), kmsg::describe);
        let text = format!("the VMM was killed by its own seccomp filter: it called {call}");
        return vmm(libc::SIGSYS, "VMM_SECCOMP", text);
    }
    match facts.killed {
        Some(Killed::Filters) => {
            let text = "the VMM installed other seccomp filters than the spec names and was killed";
            return vmm(libc::SIGKILL, "VMM_FILTERS", text.into());
        }
        Some(Killed::Protocol) => {
            let text = "the VMM sent what it may not send on its control socket and was killed";
            return vmm(libc::SIGKILL, "VMM_PROTOCOL", text.into());
        }
        _ => {}
    }
    if let Some((reason, text)) = &facts.said.failure {
        return PodExit {
            how: "failure".into(),
            value: reason.number().into(),
            guest_reported: false,
            cause: reason.name().into(),
            text: Some(text.clone()),
        };
    }
    if let Some(exit) = facts.said.exit {
        return guest_exit(exit);
    }
    match facts.killed {
        Some(Killed::Asked) => return vmm(libc::SIGKILL, "KILLED", "killed on request".into()),
        Some(Killed::StopTimeout) => {
            return vmm(
                libc::SIGKILL,
                "STOP_TIMEOUT",
                "did not stop in time and was killed".into(),
            );
        }
        Some(Killed::BootTimeout) => {
            let text = "the guest did not take its configuration in time and was killed";
            return vmm(libc::SIGKILL, "BOOT_TIMEOUT", text.into());
        }
        Some(Killed::Shutdown) => {
            return vmm(
                libc::SIGKILL,
                "SPAWN_STOPPED",
                "spawn was stopped, and its VMs with it".into(),
            );
        }
        _ => {}
    }
    by_status(facts)
}

/// When nobody has said anything.
fn by_status(facts: &Facts<'_>) -> PodExit {
    let vmm = PodExit::of_vmm;
    let signal = match facts.status {
        Status::Signal(signal) => Some(signal),
        // The kernel's way to end who is out of memory.
        Status::Unknown => Some(libc::SIGKILL).filter(|_| facts.oom),
        Status::Code(_) => None,
    };
    match (signal, facts.status) {
        (Some(signal), _) if facts.oom => {
            let text = "the VMM's cgroup ran out of memory (guest memory and vmm_overhead_mib)";
            vmm(signal, "VMM_OOM", text.into())
        }
        (Some(signal), _) => {
            vmm(signal, "VMM_SIGNAL", format!("the VMM was killed by {}", signal_name(signal)))
        }
        (None, Status::Code(code)) => {
            vmm(code, "VMM_EXIT", format!("the VMM ended with code {code} and said nothing"))
        }
        (None, _) => {
            let text = "the VMM ended and said nothing; spawn was restarted, and this kernel tells no more";
            vmm(0, "VMM_END_UNKNOWN", text.into())
        }
    }
}

fn guest_exit(exit: Exit) -> PodExit {
    let (how, value, cause) = match exit {
        Exit::Code(code) => ("code", code, "APP_EXIT"),
        Exit::Signal(signal) => ("signal", signal, "APP_SIGNAL"),
        Exit::Oom(signal) => ("oom", signal, "APP_OOM"),
    };
    PodExit {
        how: how.into(),
        value: value.into(),
        guest_reported: true,
        cause: cause.into(),
        text: None,
    }
}

impl PodExit {
    fn of_vmm(value: i32, cause: &str, text: String) -> Self {
        Self {
            how: "vmm".into(),
            value: value.into(),
            guest_reported: false,
            cause: cause.into(),
            text: Some(text),
        }
    }

    /// In the words of a level: below vm it is a monitor that is in the VMM's place. Codes are the same at all levels.
    #[must_use]
    pub fn of(self, level: Level) -> Self {
        if level == Level::Vm {
            return self;
        }
        let words = |text: String| text.replace("VMM", "monitor").replace("VMs", "pods");
        Self { text: self.text.map(words), ..self }
    }

    /// Of a pod that this spawn could not take over from the one before, and killed.
    pub fn not_taken_over(why: &str) -> Self {
        let text = format!("spawn was restarted and could not take this pod over: {why}");
        Self::of_vmm(libc::SIGKILL, "NOT_TAKEN_OVER", text)
    }

    /// Reads what [`Self::to_value`] writes.
    ///
    /// # Errors
    /// Members that are missing, unknown or out of bounds.
    pub fn read(value: &Value) -> Result<Self, ShapeError> {
        let names = ["cause", "guest_reported", "how", "text", "value"];
        let [cause, guest_reported, how, sentence, number] = fields(value, "exit", names)?;
        let is_word = |text: &&str| {
            !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'_'))
        };
        let cause = Some(text(cause, "exit.cause", 64)?).filter(is_word);
        let how = how.as_str().filter(|how| WAYS.contains(how));
        let Value::Integer(number) = number else {
            return Err(wrong("exit.value", "must be an integer"));
        };
        Ok(Self {
            how: how.ok_or_else(|| wrong("exit.how", "must be a way of an end"))?.into(),
            value: *number,
            guest_reported: boolean(guest_reported, "exit.guest_reported")?,
            cause: cause.ok_or_else(|| wrong("exit.cause", "must be a code"))?.into(),
            text: match sentence {
                Value::Null => None,
                sentence => Some(text(sentence, "exit.text", SENTENCE_BYTES_MAX)?.into()),
            },
        })
    }

    /// As docs/formats.md section 6 spells it.
    pub fn to_value(&self) -> Value {
        let text = |text: &str| Value::String(text.to_owned());
        Value::object(vec![
            ("how".into(), text(&self.how)),
            ("value".into(), Value::Integer(self.value)),
            ("guest_reported".into(), Value::Bool(self.guest_reported)),
            ("cause".into(), text(&self.cause)),
            ("text".into(), self.text.as_deref().map_or(Value::Null, text)),
        ])
    }

    /// The sentence, for a template build that failed.
    pub fn sentence(&self) -> String {
        let cause = &self.cause;
        self.text.as_ref().map_or_else(|| cause.clone(), |text| format!("{cause}: {text}"))
    }
}

/// Who a pod is, for `list`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Launch id.
    pub pod: String,
    /// Tenant.
    pub tenant: String,
    /// Digest of the spec.
    pub spec: Digest,
}

impl Identity {
    /// Of a spec with these bytes.
    pub fn of(spec: &Spec, bytes: &[u8]) -> Self {
        let (pod, tenant) = (spec.launch_id.clone(), spec.tenant.clone());
        Self { pod, tenant, spec: Digest::of(bytes) }
    }
}

/// A pod that has ended and waits to be forgotten.
#[derive(Clone, Debug)]
pub struct Exited {
    /// Who it was.
    pub identity: Identity,
    /// Its pid, for the records; another process may have it by now.
    pub pid: i32,
    /// How it ended.
    pub exit: PodExit,
    /// When.
    pub at: Instant,
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "pod_tests.rs"]
mod tests;
