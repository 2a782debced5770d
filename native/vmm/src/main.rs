//! The program `casemate-vmm`; everything is in the library, where fuzz targets reach it too.

use std::process::ExitCode;

use casemate_vmm::failure::Failure;
use casemate_vmm::{run, seccomp};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => run::main(),
        (Some("--digests"), None) => print(run::digests()),
        (Some("--filters"), None) => print(seccomp::print()),
        _ => {
            eprintln!(
                "casemate-vmm is started by casemate-spawn; by hand it takes --digests or --filters"
            );
            ExitCode::FAILURE
        }
    }
}

fn print(answer: Result<String, Failure>) -> ExitCode {
    match answer {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("casemate-vmm: {failure}");
            ExitCode::FAILURE
        }
    }
}
