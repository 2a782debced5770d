//! Points at which a killed spawn leaves something half done. The tests end it there; a spawn in service passes by.

use std::sync::OnceLock;

/// Called with the name of each point that is passed.
pub type Step = fn(&'static str);

static STEP: OnceLock<Step> = OnceLock::new();

/// Has `step` called from here on; once for each process.
pub fn watch(step: Step) {
    let _ = STEP.set(step);
}

/// Passes the point `name`.
pub fn at(name: &'static str) {
    if let Some(step) = STEP.get() {
        step(name);
    }
}
