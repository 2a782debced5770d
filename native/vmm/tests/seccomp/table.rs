//! Every number under every filter, compared with `allowed.txt` beside this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use casemate_filter::probe::{Fate, Way, arguments_of, number};
use casemate_vmm::seccomp::Kind;

use crate::probe::{Question, ask, dry, passes};

/// How far the table goes. What lies beyond is no call yet, and killed like everything without a rule.
const LAST: u64 = 470;
/// Bit of numbers of the x32 table.
const X32: u64 = 0x4000_0000;

/// Arguments to try a call with: none, all bits, and what any rule of it asks for.
fn trials(call: u64) -> Vec<[u64; 6]> {
    let rules = Kind::ALL.into_iter().flat_map(Kind::rules);
    let own = rules.filter(|rule| number(rule.call) == call).map(arguments_of);
    [[0; 6], [u64::MAX; 6]].into_iter().chain(own).collect()
}

/// `yes`, `if` some arguments pass, or `-`.
fn verdict(passed: &[bool]) -> &'static str {
    match (passed.iter().any(|passed| *passed), passed.iter().all(|passed| *passed)) {
        (true, true) => "yes",
        (true, false) => "if",
        _ => "-",
    }
}

/// The verdict on every number from 0 to [`LAST`].
fn column(kind: Kind) -> Vec<&'static str> {
    let trials: Vec<Vec<[u64; 6]>> = (0..=LAST).map(trials).collect();
    let questions: Vec<Question> = (0..)
        .zip(&trials)
        .flat_map(|(call, trials)| trials.iter().map(move |arguments| dry(kind, call, *arguments)))
        .collect();
    let passed = passes(&questions);
    let mut rest = passed.as_slice();
    trials
        .iter()
        .map(|trials| {
            let (own, others) = rest.split_at(trials.len());
            rest = others;
            verdict(own)
        })
        .collect()
}

fn table() -> String {
    let names: BTreeMap<u64, &str> = Kind::ALL
        .into_iter()
        .flat_map(Kind::rules)
        .map(|rule| (number(rule.call), rule.name()))
        .collect();
    let columns = Kind::ALL.map(column);
    let mut text = format!(
        "System calls 0 to {LAST} of x86-64, each made under each filter of casemate-vmm.\n\
         yes: passes; if: passes with some arguments and is killed with others; -: killed.\n\
         A number without a line is killed by all four.\n\n\
         number  name               start  control  io   vcpu\n"
    );
    for call in 0..=LAST {
        let [start, control, io, vcpu] =
            columns.each_ref().map(|column| column[usize::try_from(call).unwrap()]);
        if [start, control, io, vcpu] != ["-"; 4] {
            let name = names.get(&call).copied().unwrap_or("without a rule");
            let line = format!("{call:6}  {name:17}  {start:5}  {control:7}  {io:3}  {vcpu}");
            writeln!(text, "{line}").unwrap();
        }
    }
    let [start, control, io, vcpu] =
        columns.map(|column| column.iter().filter(|verdict| **verdict != "-").count());
    writeln!(text, " total                     {start:5}  {control:7}  {io:3}  {vcpu}").unwrap();
    text
}

/// `UPDATE_GOLDEN=1 cargo test -p casemate-vmm` writes the file anew.
#[test]
fn table_of_allowed_calls_is_the_one_that_was_reviewed() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/allowed.txt");
    let found = table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&place, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&place).unwrap_or_default());
}

/// Bounds that leave room for a device or two; Firecracker's lists have 27 calls for a vCPU, 50 for the rest and 31 for its API.
#[test]
fn lists_stay_small_and_say_why() {
    for (kind, most) in [(Kind::Vcpu, 15), (Kind::Io, 25), (Kind::Control, 25)] {
        let calls: BTreeSet<i64> = kind.rules().iter().map(|rule| rule.call).collect();
        assert!(calls.len() <= most, "{kind:?} has {}", calls.len());
    }
    for rule in Kind::ALL.into_iter().flat_map(Kind::rules) {
        assert!(!rule.why.is_empty() && rule.rare.is_none_or(|rare| !rare.is_empty()));
    }
}

/// Numbers of the x32 table mean the same calls, and a filter sees them as x86-64.
#[test]
fn no_call_is_allowed_by_its_x32_number() {
    let questions: Vec<Question> = Kind::ALL
        .into_iter()
        .flat_map(|kind| (0..=LAST).map(move |call| dry(kind, X32 | call, [0; 6])))
        .collect();
    assert!(passes(&questions).iter().all(|passed| !passed));
}

/// In the 32-bit table 1 is exit and 4 is write, but 3 is read and 11 execve: an allowed number of x86-64 is another call.
#[test]
fn no_call_is_allowed_through_the_32_bit_entry() {
    let questions: Vec<Question> = Kind::ALL
        .into_iter()
        .flat_map(|kind| {
            let ask = move |call| Question { kind, way: Way::I386, call, arguments: [0; 6] };
            (0..=LAST).map(ask)
        })
        .collect();
    let fates = ask(&questions);
    // A kernel without that entry has no such call to filter: the instruction faults.
    let refused = [Fate::Killed, Fate::Signal(11)];
    let odd = fates.iter().zip(&questions).find(|(fate, _)| !refused.contains(fate));
    assert_eq!(odd, None);
}

/// The table is worth something only if what is missing from it would be seen.
#[test]
fn a_call_that_nobody_filters_passes() {
    let question =
        |way| Question { kind: Kind::Io, way, call: number(libc::SYS_brk), arguments: [0; 6] };
    assert_eq!(ask(&[question(Way::Dry)]), [Fate::Passed]);
    assert_eq!(ask(&[question(Way::Real)]), [Fate::Ended(0)]);
}
