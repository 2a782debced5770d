//! Asking `filter_probe`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use casemate_vmm::seccomp::{Allow, Kind, compile};

/// One call under one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub kind: Kind,
    pub way: &'static str,
    pub call: u64,
    pub arguments: [u64; 6],
}

pub fn number(call: i64) -> u64 {
    u64::try_from(call).unwrap()
}

pub fn dry(kind: Kind, call: u64, arguments: [u64; 6]) -> Question {
    Question { kind, way: "dry", call, arguments }
}

/// The arguments that meet all conditions of a rule; those it says nothing of are 0.
pub fn arguments_of(rule: &Allow) -> [u64; 6] {
    let mut arguments = [0; 6];
    for when in rule.when {
        arguments[usize::from(when.argument)] |= when.value;
    }
    assert!(rule.when.iter().all(|when| when.holds(&arguments)), "{}: {rule:?}", rule.name());
    arguments
}

/// The example, which cargo builds beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let probe = test.parent().unwrap().parent().unwrap().join("examples/filter_probe");
    assert!(probe.exists(), "{} is missing: run `cargo test -p casemate-vmm`", probe.display());
    probe
}

/// What became of each, in their order.
pub fn ask(questions: &[Question]) -> Vec<String> {
    let mut child = Command::new(program())
        .args(Kind::ALL.map(|kind| compile(kind).unwrap().digest.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut text = String::new();
    for Question { kind, way, call, arguments } in questions {
        write!(text, "{} {way} {call:x}", kind.name()).unwrap();
        for argument in arguments {
            write!(text, " {argument:x}").unwrap();
        }
        text.push('\n');
    }
    // Beside the reading: neither pipe holds everything.
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let answers: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "the probe gave up");
    writer.join().unwrap().unwrap();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// Two calls that newer kernels make themselves for uprobes, and let past every filter for that; anybody else gets SIGILL
/// or ENXIO.
const OF_UPROBES: [u64; 2] = [335, 336];

/// Whether each passed its filter.
pub fn passes(questions: &[Question]) -> Vec<bool> {
    let exit = number(libc::SYS_exit_group);
    // These three the probe itself needs, so what is beneath lets them through.
    let made = [number(libc::SYS_prctl), number(libc::SYS_seccomp), exit];
    ask(questions)
        .iter()
        .zip(questions)
        .map(|(answer, question)| match answer.as_str() {
            "killed" => false,
            "allowed" => true,
            "signal 4" | "ended 6" if OF_UPROBES.contains(&question.call) => false,
            other => {
                let made = made.contains(&question.call) && other.starts_with("ended ");
                assert!(made, "{question:x?}: {other}");
                true
            }
        })
        .collect()
}
