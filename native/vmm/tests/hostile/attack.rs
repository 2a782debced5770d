//! What is tried, and what must come of it.

use casemate_wire::control::Reason;
use casemate_wire::metrics::{DEVICE_COUNTERS, DEVICES, MACHINE_COUNTERS, Metrics};

use crate::host::{self, Outcome};

/// One attack: words for the guest's command line, and the machine it gets.
#[derive(Clone, Copy)]
pub struct Attack {
    /// Name and numbers (hexadecimal), as the guest's command line has them.
    pub words: &'static str,
    pub vcpus: i64,
    /// Until a guest that does not say HELLO is given up.
    pub boot_ms: i64,
    /// Whether it may change its scratch disk.
    pub writes: bool,
    /// Whether it uses all of its memory.
    pub touches: bool,
    /// Whether its machine is restored from a template.
    pub restored: bool,
}

/// An attack that never ends by itself gets no more than this.
const SHORT_MS: i64 = 2_000;

pub fn attack(words: &'static str) -> Attack {
    Attack { words, vcpus: 1, boot_ms: 120_000, writes: false, touches: false, restored: false }
}

impl Attack {
    pub fn on(self, vcpus: i64) -> Self {
        Self { vcpus, ..self }
    }

    pub fn endless(self) -> Self {
        self.within(SHORT_MS)
    }

    /// Its guest is given up after so many milliseconds.
    pub fn within(self, boot_ms: i64) -> Self {
        Self { boot_ms, ..self }
    }

    pub fn writing(self) -> Self {
        Self { writes: true, ..self }
    }

    pub fn touching(self) -> Self {
        Self { touches: true, ..self }
    }

    /// From a template of its own rather than by a cold boot: its guest says HELLO on its way.
    pub fn restored(self) -> Self {
        Self { restored: true, ..self }
    }

    /// Runs it on every build.
    fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        host::builds().into_iter().map(|build| {
            let template = self.restored.then(|| host::template(&build, self));
            host::run(&build, self, template.as_ref())
        })
    }

    /// It comes to its end, says `lines` on its way, and the VMM answers afterwards.
    pub fn survives(self, lines: &[&str]) -> Vec<Outcome> {
        self.outcomes()
            .inspect(|outcome| {
                assert!(outcome.survived, "{}: {outcome:?}", self.words);
                self.expect_lines(outcome, lines);
            })
            .collect()
    }

    /// The VM ends for `reason`, with `text` in the sentence, after the guest said `lines`.
    pub fn ends(self, reason: Reason, text: &str, lines: &[&str]) {
        for outcome in self.outcomes() {
            assert_eq!(outcome.reason, reason, "{}: {outcome:?}", self.words);
            assert!(outcome.text.contains(text), "{}: {outcome:?}", self.words);
            self.expect_lines(&outcome, lines);
        }
    }

    /// The VM goes on, or ends for one of `reasons`: which of these, the guest's processor decides.
    pub fn survives_or_ends(self, reasons: &[Reason], lines: &[&str]) {
        for outcome in self.outcomes() {
            let known = outcome.survived || reasons.contains(&outcome.reason);
            assert!(known, "{}: {outcome:?}", self.words);
            self.expect_lines(&outcome, lines);
        }
    }

    /// A device refuses its driver, and the VM ends for it.
    pub fn breaks_device(self, text: &str) {
        self.ends(Reason::DeviceQueue, text, &[]);
    }

    fn expect_lines(&self, outcome: &Outcome, lines: &[&str]) {
        for line in lines {
            let said = outcome.console.lines().any(|found| found == *line);
            assert!(said, "{}: no {line:?} in {:?}", self.words, outcome.console);
        }
    }
}

/// A counter of a device, by their names.
pub fn of_device(metrics: &Metrics, device: &str, counter: &str) -> u64 {
    let device = DEVICES.iter().position(|name| *name == device).unwrap();
    metrics.devices[device][DEVICE_COUNTERS.iter().position(|name| *name == counter).unwrap()]
}

/// A counter of the machine, by its name.
pub fn of_machine(metrics: &Metrics, counter: &str) -> u64 {
    metrics.machine[MACHINE_COUNTERS.iter().position(|name| *name == counter).unwrap()]
}
