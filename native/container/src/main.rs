//! The program `casemate-container`; everything is in the library.

use std::process::ExitCode;

use casemate_container::{bundle, inside, monitor};
use casemate_ticket::spec::Level;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [bundle::INSIDE, place] => inside::main(Level::Container, place),
        [bundle::INSIDE_HOST, place] => inside::main(Level::Host, place),
        ["--digests"] => {
            println!(r#"{{"bundle":"{}"}}"#, bundle::digest());
            ExitCode::SUCCESS
        }
        ["--run", ids, group, oom] => monitor::main(ids, group, oom),
        _ => {
            eprintln!(
                "casemate-container is started by casemate-spawn; by hand it takes --digests"
            );
            ExitCode::FAILURE
        }
    }
}
