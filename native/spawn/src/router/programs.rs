//! The two programs of the host that make interfaces and rules (packages iproute2 and nftables). Both read what to do
//! from their standard input, and run with what the router holds: one capability.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where distributions have them.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// What a program was handed in the place of its standard output, which neither uses for what it is asked here.
pub const DESCRIPTOR: &str = "/proc/self/fd/1";
/// Of what a program says when it fails.
const COMPLAINT_BYTES_MAX: u64 = 1024;

/// Runs ip(8) on these commands; the first that fails ends it.
///
/// # Errors
/// What it said.
pub fn ip(commands: &str) -> Result<(), String> {
    run("ip", &["-batch", "-"], commands, Stdio::null())
}

/// The same for commands that name `descriptor`, as [`DESCRIPTOR`].
///
/// # Errors
/// What it said.
pub fn ip_with(commands: &str, descriptor: OwnedFd) -> Result<(), String> {
    run("ip", &["-batch", "-"], commands, Stdio::from(descriptor))
}

/// Has nft(8) do all of this in one transaction, or nothing.
///
/// # Errors
/// What it said.
pub fn nft(rules: &str) -> Result<(), String> {
    run("nft", &["-f", "-"], rules, Stdio::null())
}

fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

fn run(name: &str, words: &[&str], input: &str, stdout: Stdio) -> Result<(), String> {
    let program = find(name).ok_or_else(|| format!("this host has no {name}: install it"))?;
    let run = || -> std::io::Result<(bool, String)> {
        let mut child = Command::new(program)
            .args(words)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read everything says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let mut complaint = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint)?;
        }
        let status = child.wait()?;
        Ok((status.success(), String::from_utf8_lossy(&complaint).into_owned()))
    };
    match run() {
        Ok((true, _)) => Ok(()),
        Ok((false, complaint)) => {
            Err(format!("{name}: {}", complaint.lines().next().unwrap_or("it failed")))
        }
        Err(error) => Err(format!("{name}: {error}")),
    }
}
