//! Spawn that kills itself, once, at the point that `crash-at` beside its configuration names, as it comes to it for the
//! first, second, ... time: the tests look at what the next one makes of that. An example, so that `cargo test` builds it and no installation does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, getpid, kill_process};

static PASSED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    casemate_spawn::serve_watched(casemate_spawn::filter::enter, |name| {
        let config = PathBuf::from(std::env::args_os().next_back().unwrap_or_default());
        let place = config.with_file_name("crash-at");
        let wanted = std::fs::read_to_string(&place).unwrap_or_default();
        let Some((point, times)) = wanted.split_once(' ') else { return };
        if point != name {
            return;
        }
        let passed = PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if times.parse() == Ok(passed) {
            let _ = std::fs::remove_file(&place);
            let _ = kill_process(getpid(), Signal::KILL);
        }
    })
}
