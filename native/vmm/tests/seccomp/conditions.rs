//! Conditions on arguments, tried from both sides. The questions come from the lists themselves, so that a condition
//! nobody wrote a test for is tried as well; what is right is computed here, without the compiler of the filters.

use std::collections::BTreeSet;

use casemate_filter::Rule;
use casemate_filter::probe::{Fate, Way, arguments_of, number};
use casemate_vmm::seccomp::Kind;

use crate::probe::{Question, ask, dry, passes};

/// What the lists say of a call.
fn expected(question: &Question) -> bool {
    let call = i64::try_from(question.call).unwrap();
    question.kind.allowed().any(|rule| rule.is_met(call, &question.arguments))
}

/// For each condition the rule's own arguments with one bit of the argument changed, for each of its 64 bits. Those outside
/// the mask are the upper half of an `int`, which the kernel does not read and a filter must not either.
fn broken(kind: Kind, rule: &Rule) -> impl Iterator<Item = (usize, Question)> {
    let right = arguments_of(rule);
    rule.when.iter().enumerate().flat_map(move |(condition, when)| {
        let call = number(rule.call);
        (0..64).map(move |bit| {
            let mut arguments = right;
            arguments[usize::from(when.argument)] ^= 1 << bit;
            (condition, dry(kind, call, arguments))
        })
    })
}

fn both_sides(kind: Kind) {
    let rules: Vec<&Rule> = kind.allowed().collect();
    let right: Vec<Question> =
        rules.iter().map(|rule| dry(kind, number(rule.call), arguments_of(rule))).collect();
    for ((rule, passed), question) in rules.iter().zip(passes(&right)).zip(&right) {
        assert!(passed, "{kind:?} kills {} as its rule allows it: {question:x?}", rule.name());
    }
    let wrong: Vec<(usize, usize, Question)> = (0..)
        .zip(&rules)
        .flat_map(|(at, rule)| broken(kind, rule).map(move |(condition, q)| (at, condition, q)))
        .collect();
    let questions: Vec<Question> = wrong.iter().map(|(.., question)| *question).collect();
    let mut killed = BTreeSet::new();
    for ((at, condition, question), passed) in wrong.iter().zip(passes(&questions)) {
        let name = rules[*at].name();
        assert_eq!(passed, expected(question), "{kind:?} {name} {question:x?}");
        if !passed {
            killed.insert((*at, *condition));
        }
    }
    // Where the start allows more than a running thread may, the thread's condition decides nothing yet.
    let lent = rules.len() - kind.rules().len();
    let idle: Vec<(&str, usize)> = (lent..)
        .zip(kind.rules())
        .flat_map(|(at, rule)| (0..rule.when.len()).map(move |condition| (at, rule, condition)))
        .filter(|(at, _, condition)| !killed.contains(&(*at, *condition)))
        .map(|(_, rule, condition)| (rule.name(), condition))
        .collect();
    assert_eq!(idle, [], "{kind:?}: each condition kills something");
}

#[test]
fn conditions_of_the_start_hold_on_both_sides() {
    both_sides(Kind::Start);
}

#[test]
fn conditions_of_the_control_thread_hold_on_both_sides() {
    both_sides(Kind::Control);
}

#[test]
fn conditions_of_the_io_thread_hold_on_both_sides() {
    both_sides(Kind::Io);
}

#[test]
fn conditions_of_vcpu_threads_hold_on_both_sides() {
    both_sides(Kind::Vcpu);
}

/// What an ordinary life goes by without, made for good: it comes back, or ends the child, and is not killed.
#[test]
fn calls_that_are_rarely_made_work_when_they_are_needed() {
    let rare = |kind: Kind| {
        let rules = kind.rules().iter().filter(|rule| rule.rare.is_some());
        rules.map(move |rule| Question {
            kind,
            way: Way::Real,
            call: number(rule.call),
            arguments: arguments_of(rule),
        })
    };
    let questions: Vec<Question> = Kind::ALL.into_iter().flat_map(rare).collect();
    for (fate, question) in ask(&questions).iter().zip(&questions) {
        assert!(matches!(fate, Fate::Ended(_)), "{question:x?}: {fate:?}");
    }
}
