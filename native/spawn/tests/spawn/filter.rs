//! Spawn's filter and the workers': every call number under each, conditions on both sides, and that a running spawn has
//! it. Every question goes to a child under the real programs (`examples/call_probe.rs`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use casemate_filter::probe::{self, Fate, Way, arguments_of, number};
use casemate_filter::{Program, Rule};
use casemate_spawn::filter::{Filter, Kind};

use crate::host::host;

/// How far the table goes. What lies beyond is no call yet.
const LAST: u64 = 470;
/// uretprobe and uprobe: the kernel asks no filter about them (Linux 6.14 and later), and they do nothing but return from
/// a probe that root set.
const UNASKED: [u64; 2] = [335, 336];
/// Bit of numbers of the x32 table.
const X32: u64 = 0x4000_0000;

/// Held by who kills children that the kernel writes a line about, and by who waits for such a line.
pub static KERNEL_LOG: std::sync::Mutex<()> = std::sync::Mutex::new(());

type Question = probe::Question<Kind>;

fn question(kind: Kind, call: u64, arguments: [u64; 6]) -> Question {
    Question { kind, way: Way::Dry, call, arguments }
}

/// What became of each, in their order: done, killed, or not there. A worker's calls go through both filters, as they do.
fn ask(questions: &[Question]) -> Vec<&'static str> {
    let programs = |kind: Kind| -> Vec<Program> {
        Filter::compile(kind).unwrap().programs().map(Clone::clone).into()
    };
    let (spawn, worker) = (programs(Kind::Spawn), programs(Kind::Worker));
    let both = [spawn.clone(), worker].concat();
    let sets = [(Kind::Spawn, spawn), (Kind::Worker, both)];
    // These three the probe itself needs: the kernel answers them, and never that there is no such call.
    let made = [libc::SYS_prctl, libc::SYS_seccomp, libc::SYS_exit_group].map(number);
    let writes = KERNEL_LOG.lock();
    let fates = probe::ask("call_probe", &sets, questions);
    drop(writes);
    let word = |(fate, question): (Fate, &Question)| match fate {
        Fate::Killed => "killed",
        Fate::Passed => "yes",
        Fate::Ended(libc::ENOSYS) => "-",
        Fate::Ended(_) if made.contains(&question.call) => "yes",
        other => panic!("{question:x?}: {other:?}"),
    };
    fates.into_iter().zip(questions).map(word).collect()
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
            let trials = [[0; 6], [u64::MAX; 6]].into_iter().chain(own.map(arguments_of));
            trials.map(move |arguments| question(kind, call, arguments))
        })
        .collect();
    let mut seen: BTreeMap<u64, std::collections::BTreeSet<&str>> = BTreeMap::new();
    for (question, word) in questions.iter().zip(ask(&questions)) {
        seen.entry(question.call).or_default().insert(word);
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

/// What meets a rule of this kind that has conditions, and the same with one bit changed of what a condition looks at
/// so that it meets no other rule either.
fn both_sides(kind: Kind) -> (Vec<Question>, Vec<Question>) {
    let rules: Vec<&Rule> = kind.permitted().collect();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for rule in rules.iter().filter(|rule| !rule.when.is_empty()) {
        let call = number(rule.call);
        good.push(question(kind, call, arguments_of(rule)));
        let before = bad.len();
        for (when, bit) in rule.when.iter().flat_map(|when| (0..64).map(move |bit| (when, bit))) {
            let mut arguments = arguments_of(rule);
            arguments[usize::from(when.argument)] ^= when.mask & 1 << bit;
            if !rules.iter().any(|other| other.is_met(rule.call, &arguments)) {
                bad.push(question(kind, call, arguments));
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
            assert_eq!(*answer, "yes", "{question:?}");
        }
        for (answer, question) in ask(&bad).iter().zip(&bad) {
            assert_ne!(*answer, "yes", "{question:?}");
        }
    }
}

#[test]
fn no_family_of_sockets_but_this_hosts_and_no_mount_but_the_jails() {
    let families = (0..=46).filter(|family| *family != 1);
    let mut questions: Vec<Question> = families
        .flat_map(|family| {
            [libc::SYS_socket, libc::SYS_socketpair]
                .map(|call| question(Kind::Spawn, number(call), [family, 1, 0, 0, 0, 0]))
        })
        .collect();
    // Bind, move, remount, shared, with devices, with set-user-id files, with programs.
    for flags in [4096, 8192, 32, 32 | 4096, 1 << 20, 0b1010, 0b1100, 0b0110, 0] {
        questions.push(question(Kind::Spawn, number(libc::SYS_mount), [0, 0, 0, flags, 0, 0]));
    }
    // The jail's own flags with one above an int's: mount takes a long.
    for flags in [0b1110, 0b1111, 0x4_4000] {
        let wide = 1 << 32 | flags;
        questions.push(question(Kind::Spawn, number(libc::SYS_mount), [0, 0, 0, wide, 0, 0]));
    }
    // A namespace that is no cgroup namespace, by unshare and by clone.
    for flag in [0x2_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        questions.push(question(Kind::Spawn, number(libc::SYS_unshare), [flag, 0, 0, 0, 0, 0]));
        questions.push(question(
            Kind::Spawn,
            number(libc::SYS_clone),
            [flag | 0x11, 0, 0, 0, 0, 0],
        ));
    }
    for (answer, question) in ask(&questions).iter().zip(&questions) {
        assert_eq!(*answer, "-", "{question:?}");
    }
}

/// Numbers of the x32 table mean the same calls, and a filter sees them as x86-64.
#[test]
fn no_call_is_done_by_its_x32_number() {
    let questions: Vec<Question> = Kind::ALL
        .into_iter()
        .flat_map(|kind| calls().map(move |call| question(kind, X32 | call, [0; 6])))
        .collect();
    assert!(ask(&questions).iter().all(|answer| *answer == "-"));
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
