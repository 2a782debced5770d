//! Makes one system call in a child of its own under compiled programs, and says what became of the child.
//!
//! A crate that keeps lists has an example whose `main` is [`answer`], so that `cargo test` builds it and no installation
//! does, and tests that [`ask`] it. The programs are the asker's own, given as arguments: a set of them for each kind of
//! filter, as hexadecimal bytes with commas between. A question is a line of hexadecimal numbers, `SET WAY NUMBER A0 A1 A2
//! A3 A4 A5`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "tests stop at the first surprise"
)]

#[expect(unsafe_code, reason = "forks, and makes arbitrary system calls")]
mod child_unsafe;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use crate::{Program, Rule};

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Below the programs lies another that answers every call with an error that does not exist. The kernel takes the
    /// stricter verdict of all, so a call is stopped or comes back with that error, and is never made; but prctl, seccomp
    /// and `exit_group` are, which the probe itself needs.
    Dry,
    /// For good.
    Real,
    /// As `Dry`, through the 32-bit entry, where numbers mean other calls.
    I386,
}

/// One call under one kind of filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<K> {
    /// Whose filter.
    pub kind: K,
    /// How.
    pub way: Way,
    /// System call number.
    pub call: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// SIGSYS.
    Killed,
    /// It passed all programs, and was not made.
    Passed,
    /// Another signal.
    Signal(i32),
    /// It came back with this errno, 0 for none, or ended the process with that code.
    Ended(i32),
}

/// The number of a call or the like, as arguments are.
#[must_use]
pub fn number(call: i64) -> u64 {
    u64::try_from(call).unwrap()
}

/// Arguments that meet all conditions of a rule; those it says nothing of are 0.
#[must_use]
pub fn arguments_of(rule: &Rule) -> [u64; 6] {
    let mut arguments = [0; 6];
    for when in rule.when {
        arguments[usize::from(when.argument)] |= when.value;
    }
    assert!(rule.is_met(rule.call, &arguments), "{}: {rule:?}", rule.name());
    arguments
}

/// What became of each, in their order. `sets` has the programs of each kind, in the order they are installed in.
pub fn ask<K: Copy + PartialEq + std::fmt::Debug>(
    example: &str,
    sets: &[(K, Vec<Program>)],
    questions: &[Question<K>],
) -> Vec<Fate> {
    let here = std::env::current_exe().unwrap();
    let file = here.parent().unwrap().parent().unwrap().join("examples").join(example);
    assert!(file.exists(), "{} is missing: `cargo build --examples`", file.display());
    let hexadecimal = |one: &Program| -> String {
        one.bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    };
    let joined =
        |(_, set): &(K, Vec<Program>)| set.iter().map(hexadecimal).collect::<Vec<_>>().join(",");
    let mut child = Command::new(file)
        .args(sets.iter().map(joined))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut text = String::new();
    for Question { kind, way, call, arguments } in questions {
        let set = sets.iter().position(|(other, _)| other == kind).expect("a kind with programs");
        let way = [Way::Dry, Way::Real, Way::I386].iter().position(|other| other == way).unwrap();
        write!(text, "{set:x} {way:x} {call:x}").unwrap();
        for argument in arguments {
            write!(text, " {argument:x}").unwrap();
        }
        text.push('\n');
    }
    // Beside the reading: neither pipe holds everything.
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let fates: Vec<Fate> = lines.map(|line| read(&line.unwrap())).collect();
    assert!(child.wait().unwrap().success(), "the probe gave up");
    writer.join().unwrap().unwrap();
    assert_eq!(fates.len(), questions.len());
    fates
}

fn read(line: &str) -> Fate {
    match line.split_once(' ').map_or((line, 0), |(word, code)| (word, code.parse().unwrap())) {
        ("killed", _) => Fate::Killed,
        ("passed", _) => Fate::Passed,
        ("signal", code) => Fate::Signal(code),
        ("ended", code) => Fate::Ended(code),
        _ => panic!("the probe said {line}"),
    }
}

/// The probe: answers the questions on standard input, a line each. Call it from the `main` of an example.
#[must_use]
pub fn answer() -> ExitCode {
    let sets: Vec<Vec<Vec<u8>>> = std::env::args()
        .skip(1)
        .map(|set| set.split(',').map(|program| bytes(program).expect("a program")).collect())
        .collect();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let numbers = line.unwrap();
        let numbers: Vec<u64> =
            numbers.split(' ').map(|word| u64::from_str_radix(word, 16).unwrap()).collect();
        let [set, way, call @ ..] = numbers.as_slice() else { panic!("no question") };
        let way = [Way::Dry, Way::Real, Way::I386][usize::try_from(*way).unwrap()];
        let set = &sets[usize::try_from(*set).unwrap()];
        let fate = child_unsafe::attempt(set, way, call.try_into().unwrap());
        let text = match fate {
            Fate::Killed => "killed".to_owned(),
            Fate::Passed => "passed".to_owned(),
            Fate::Signal(code) => format!("signal {code}"),
            Fate::Ended(code) => format!("ended {code}"),
        };
        writeln!(output, "{text}").unwrap();
    }
    output.flush().unwrap();
    ExitCode::SUCCESS
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
