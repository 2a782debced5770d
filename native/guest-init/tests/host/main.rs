//! Runs the session of guest-init on the host's kernel: as root, in a mount namespace of its own,
//! with directories in place of disks and a socket in place of the control port. The test program
//! plays all parts: the host (this file), init (`--init`) and the app (`app`, inside the image).
//!
//! What needs a machine is not here: disks, reseeding, re-execution, memory limits, power off.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test that fails may panic"
)]

mod app;
#[expect(unsafe_code, reason = "a signal handler has no safe wrapper")]
mod app_unsafe;
mod cases;
mod config;
mod machine;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use guest_init::places::{Places, Source};
use guest_init::session;
use rustix::fs::{OFlags, fcntl_setfl};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--init") => init(&args[2]),
        Some("app") => app::main(&args[2..]),
        Some("--list") => ExitCode::SUCCESS,
        filter => run_cases(filter.filter(|filter| !filter.starts_with('-')).unwrap_or("")),
    }
}

/// The part of process 1: the control pipe is its standard input.
fn init(directory: &str) -> ExitCode {
    let pipe = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    fcntl_setfl(&pipe, OFlags::NONBLOCK).unwrap();
    let directory = PathBuf::from(directory);
    let places = Places {
        image: Source::Directory(directory.join("image")),
        scratch: Source::Directory(directory.clone()),
        volumes: &[],
        staging: directory.join("staging"),
        cgroup: None,
        glibc_tunables: std::env::var("GLIBC_TUNABLES").ok(),
    };
    match session::run(&pipe, &places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::from(3)
        }
    }
}

fn run_cases(filter: &str) -> ExitCode {
    let mut chosen = cases::all();
    chosen.retain(|(name, _)| name.contains(filter));
    println!("\nrunning {} tests", chosen.len());
    if !rustix::process::geteuid().is_root() {
        println!("skipped: guest-init's session needs root to make namespaces and mounts");
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored", chosen.len());
        return ExitCode::SUCCESS;
    }
    let failed = chosen.iter().filter(|(name, case)| !passes(name, *case)).count();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {failed} failed; 0 ignored", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str, case: fn()) -> bool {
    let passed = std::panic::catch_unwind(case).is_ok();
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    passed
}
