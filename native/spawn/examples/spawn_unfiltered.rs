//! Spawn without a filter on itself and what it starts: the tests of the jail try its other walls, each of which must
//! hold alone. An example, so that `cargo test` builds it and no installation does.

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_spawn::serve(|| Ok(()))
}
