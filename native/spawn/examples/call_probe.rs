//! Tries calls under the filters of spawn and workers, for tests: `casemate_filter::probe` says how.

fn main() -> std::process::ExitCode {
    casemate_filter::probe::answer()
}
