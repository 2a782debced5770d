//! Asking `filter_probe` about the VMM's filters.

use casemate_filter::probe::{self, Fate, Way, number};
use casemate_vmm::seccomp::{Kind, compile};

/// One call under one filter.
pub type Question = probe::Question<Kind>;

pub fn dry(kind: Kind, call: u64, arguments: [u64; 6]) -> Question {
    Question { kind, way: Way::Dry, call, arguments }
}

/// What became of each, in their order.
pub fn ask(questions: &[Question]) -> Vec<Fate> {
    let sets = Kind::ALL.map(|kind| (kind, vec![compile(kind).unwrap().program]));
    probe::ask("filter_probe", &sets, questions)
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
        .map(|(fate, question)| match fate {
            Fate::Killed => false,
            Fate::Passed => true,
            Fate::Signal(4) | Fate::Ended(6) if OF_UPROBES.contains(&question.call) => false,
            Fate::Ended(_) if made.contains(&question.call) => true,
            other => panic!("{question:x?}: {other:?}"),
        })
        .collect()
}
