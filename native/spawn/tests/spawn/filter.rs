//! Spawn's filter and the workers': every call number under each, conditions on both sides, and that a running spawn has
//! it. Every question goes to a child under the real programs (`examples/call_probe`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use casemate_spawn::filter::Kind;
use casemate_spawn::filter::rule::Rule;

use crate::host::{example, host};

/// How far the table goes. What lies beyond is no call yet.
const LAST: u64 = 470;
/// uretprobe and uprobe: the kernel asks no filter about them (Linux 6.14 and later), and they do nothing but return from
/// a probe that root set.
const UNASKED: [u64; 2] = [335, 336];
/// Bit of numbers of the x32 table.
const X32: u64 = 0x4000_0000;

/// Whose filter, the call, its arguments.
type Question = (Kind, u64, [u64; 6]);

fn ask(questions: &[Question]) -> Vec<String> {
    let mut probe = Command::new(example("call_probe"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = probe.stdin.take().unwrap();
    let mut text = String::new();
    for (kind, call, arguments) in questions {
        let kind = if *kind == Kind::Spawn { "spawn" } else { "worker" };
        let words = arguments.map(|argument| argument.to_string()).join(" ");
        writeln!(text, "{kind} {call} {words}").unwrap();
    }
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = probe.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

fn number(call: i64) -> u64 {
    u64::try_from(call).unwrap()
}

/// Arguments that meet all conditions of a rule.
fn meeting(rule: &Rule) -> [u64; 6] {
    let mut arguments = [0; 6];
    for when in rule.when {
        arguments[usize::from(when.argument)] |= when.value;
    }
    arguments
}

/// Every rule that a process of this kind is under.
fn rules(kind: Kind) -> Vec<&'static Rule> {
    let kinds = if kind == Kind::Worker { &Kind::ALL[..] } else { &Kind::ALL[..1] };
    kinds.iter().flat_map(|kind| kind.permitted().chain(kind.killed())).collect()
}

fn calls() -> impl Iterator<Item = u64> + Clone {
    (0..=LAST).filter(|call| !UNASKED.contains(call))
}

/// What became of each number, over arguments of zeros, of ones, and what any rule of it asks for.
fn column(kind: Kind) -> Vec<String> {
    let questions: Vec<Question> = calls()
        .flat_map(|call| {
            let own = rules(kind).into_iter().filter(move |rule| number(rule.call) == call);
            let trials = [[0; 6], [u64::MAX; 6]].into_iter().chain(own.map(meeting));
            trials.map(move |arguments| (kind, call, arguments))
        })
        .collect();
    let mut seen: BTreeMap<u64, std::collections::BTreeSet<String>> = BTreeMap::new();
    for ((_, call, _), answer) in questions.iter().zip(ask(&questions)) {
        let word = match answer.as_str() {
            "permitted" => "yes",
            "errno 38" => "-",
            other => other,
        };
        seen.entry(*call).or_default().insert(word.to_owned());
    }
    seen.into_values().map(|words| words.into_iter().rev().collect::<Vec<_>>().join("/")).collect()
}

fn table() -> String {
    let names: BTreeMap<u64, &str> =
        rules(Kind::Worker).iter().map(|rule| (number(rule.call), rule.name())).collect();
    let (spawn, worker) = (column(Kind::Spawn), column(Kind::Worker));
    let mut text = format!(
        "System calls 0 to {LAST} of x86-64, each made under the filters of casemate-spawn.\n\
         yes: done; killed: ends the process; -: there is no such call (ENOSYS). Several: it depends on arguments.\n\
         A number without a line is `-` for both; 335 and 336 are not asked.\n\n\
         number  name                     spawn         worker\n"
    );
    for (call, (spawn, worker)) in calls().zip(spawn.iter().zip(&worker)) {
        if spawn != "-" || worker != "-" {
            let name = names.get(&call).copied().unwrap_or("without a rule");
            writeln!(text, "{call:6}  {name:23}  {spawn:12}  {worker}").unwrap();
        }
    }
    let done = |column: &[String]| column.iter().filter(|word| word.contains("yes")).count();
    let (spawn, worker) = (done(&spawn), done(&worker));
    writeln!(text, "\ndone, at least sometimes: spawn {spawn}, worker {worker}").unwrap();
    text
}

/// `UPDATE_GOLDEN=1 cargo test -p casemate-spawn` writes the file anew.
#[test]
fn table_of_calls_is_the_one_that_was_reviewed() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spawn/calls.txt");
    let found = table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&place, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&place).unwrap_or_default());
}

fn met(rule: &Rule, arguments: &[u64; 6]) -> bool {
    rule.when.iter().all(|when| arguments[usize::from(when.argument)] & when.mask == when.value)
}

/// What meets a rule of this kind that has conditions, and the same with one bit changed of what a condition looks at
/// so that it meets no other rule either.
fn both_sides(kind: Kind) -> (Vec<Question>, Vec<Question>) {
    let rules: Vec<&Rule> = kind.permitted().collect();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for rule in rules.iter().filter(|rule| !rule.when.is_empty()) {
        let call = number(rule.call);
        good.push((kind, call, meeting(rule)));
        let before = bad.len();
        for (when, bit) in rule.when.iter().flat_map(|when| (0..64).map(move |bit| (when, bit))) {
            let mut arguments = meeting(rule);
            arguments[usize::from(when.argument)] ^= when.mask & 1 << bit;
            let is_other = |other: &&&Rule| other.call == rule.call && met(other, &arguments);
            if !rules.iter().any(|other| is_other(&other)) {
                bad.push((kind, call, arguments));
            }
        }
        assert!(bad.len() > before, "{rule:?} has conditions that change nothing");
    }
    (good, bad)
}

#[test]
fn conditions_hold_on_both_sides() {
    for (good, bad) in Kind::ALL.map(both_sides) {
        for (answer, question) in ask(&good).iter().zip(&good) {
            assert_eq!(answer, "permitted", "{question:?}");
        }
        for (answer, question) in ask(&bad).iter().zip(&bad) {
            assert!(["errno 38", "killed"].contains(&answer.as_str()), "{question:?}: {answer}");
        }
    }
}

#[test]
fn no_family_of_sockets_but_this_hosts_and_no_mount_but_the_jails() {
    let families = (0..=46).filter(|family| *family != 1);
    let mut questions: Vec<Question> = families
        .flat_map(|family| {
            [libc::SYS_socket, libc::SYS_socketpair]
                .map(|call| (Kind::Spawn, number(call), [family, 1, 0, 0, 0, 0]))
        })
        .collect();
    // Bind, move, remount, shared, with devices, with set-user-id files, with programs.
    for flags in [4096, 8192, 32, 32 | 4096, 1 << 20, 0b1010, 0b1100, 0b0110, 1 << 32 | 0b1110, 0] {
        questions.push((Kind::Spawn, number(libc::SYS_mount), [0, 0, 0, flags, 0, 0]));
    }
    // A namespace that is no cgroup namespace, by unshare and by clone.
    for flag in [0x2_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        questions.push((Kind::Spawn, number(libc::SYS_unshare), [flag, 0, 0, 0, 0, 0]));
        questions.push((Kind::Spawn, number(libc::SYS_clone), [flag | 0x11, 0, 0, 0, 0, 0]));
    }
    for (answer, question) in ask(&questions).iter().zip(&questions) {
        assert_eq!(answer, "errno 38", "{question:?}");
    }
}

/// Numbers of the x32 table mean the same calls, and a filter sees them as x86-64.
#[test]
fn no_call_is_done_by_its_x32_number() {
    let questions: Vec<Question> = Kind::ALL
        .into_iter()
        .flat_map(|kind| calls().map(move |call| (kind, X32 | call, [0; 6])))
        .collect();
    assert!(ask(&questions).iter().all(|answer| answer == "errno 38"));
}

#[test]
fn lists_say_why_and_no_call_is_on_both() {
    for kind in Kind::ALL {
        assert!(kind.permitted().chain(kind.killed()).all(|rule| !rule.why.is_empty()));
        for rule in kind.killed().filter(|rule| rule.when.is_empty()) {
            assert!(kind.permitted().all(|other| other.call != rule.call), "{}", rule.name());
        }
        // A call that is always done needs no second rule.
        for rule in kind.permitted().filter(|rule| rule.when.is_empty()) {
            let same = kind.permitted().filter(|other| other.call == rule.call).count();
            assert_eq!(same, 1, "{}", rule.name());
        }
    }
}

#[test]
fn a_running_spawn_is_under_its_filter_and_hands_it_on() {
    let Some(host) = host() else { return };
    let filters = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        ["Seccomp:", "Seccomp_filters:", "NoNewPrivs:"].map(value)
    };
    assert_eq!(filters(host.pid()), ["2", "2", "1"]);
    let (_, pid, stream) = host.start(&["serve"]);
    assert_eq!(crate::client::read_exactly(&stream, 5), b"hello", "past its runtime's start");
    assert_eq!(filters(pid.unsigned_abs()), ["2", "2", "1"]);
}
