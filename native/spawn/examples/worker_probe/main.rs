//! What the tests start as a worker. It does what its argument says: tell what the jail lets it do, or try what no
//! worker may.

#[expect(unsafe_code, reason = "calls that must not be made in the jail")]
mod probe_unsafe;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Lines of /proc/self/status that are reported.
const STATUS: [&str; 8] =
    ["Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"];

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let Some(request) = probe_unsafe::take(3) else { return ExitCode::from(99) };
    let Some(answer) = probe_unsafe::take(4) else { return ExitCode::from(98) };
    let mut answer = File::from(answer);
    match word.as_str() {
        "report" => match report(request) {
            Ok(text) => answer.write_all(text.as_bytes()).map_or(97.into(), |()| ExitCode::SUCCESS),
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        "sleeps" => {
            let _ = answer.write_all(b"working\n");
            std::thread::sleep(Duration::from_secs(1000));
            ExitCode::FAILURE
        }
        "fails" => {
            eprintln!("what went wrong");
            ExitCode::from(3)
        }
        "fork" => end(probe_unsafe::fork()),
        "socket" => end(probe_unsafe::socket()),
        "unshare" => end(probe_unsafe::unshare()),
        "ptrace" => end(probe_unsafe::ptrace()),
        _ => ExitCode::from(96),
    }
}

/// The call came back.
fn end(result: i64) -> ExitCode {
    eprintln!("{result}");
    ExitCode::from(95)
}

fn report(request: OwnedFd) -> std::io::Result<String> {
    let mut lines = vec![format!("pid {}", std::process::id())];
    for line in std::fs::read_to_string("/proc/self/status")?.lines() {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if STATUS.contains(&name) {
            let words: Vec<&str> = value.split_whitespace().collect();
            lines.push(format!("{name} {}", words.join(" ")));
        }
    }
    let interfaces = std::fs::read_to_string("/proc/net/dev")?;
    let interfaces: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .collect();
    lines.push(format!("interfaces {}", interfaces.join(" ")));
    let is_process =
        |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = std::fs::read_dir("/proc")?.flatten();
    let processes = processes.filter(|entry| is_process(&entry.file_name())).count();
    lines.push(format!("processes {processes}"));
    let limit = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
    lines.push(format!("files {} open {}", limit(Resource::Fsize), limit(Resource::Nofile)));
    let written = std::fs::write("/tmp/casemate-worker-test", "x");
    lines.push(if written.is_ok() { "wrote" } else { "cannot write" }.into());
    let mut environment: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    environment.sort();
    lines.push(format!("environment {}", environment.join(" ")));
    let mut text = String::new();
    File::from(request).read_to_string(&mut text)?;
    lines.push(format!("request {text}\n"));
    Ok(lines.join("\n"))
}
