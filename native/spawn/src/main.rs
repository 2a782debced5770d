//! `casemate-spawn --config FILE`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_spawn::serve(casemate_spawn::filter::enter)
}
