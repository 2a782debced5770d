//! guest-init: process 1 of the virtual machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("guest-init is process 1 of a virtual machine and does nothing elsewhere");
        return ExitCode::FAILURE;
    }
    let args: Vec<String> =
        std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    guest_init::boot::main(&args)
}
