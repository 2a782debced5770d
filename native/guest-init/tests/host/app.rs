//! The app's part: small things that show what it can see and do.

use std::fs;
use std::io::{Read, Write, copy, stdin, stdout};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::app_unsafe;

pub fn main(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        ["both"] => {
            println!("to stdout");
            eprintln!("to stderr");
        }
        ["args", rest @ ..] => println!("{rest:?}"),
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["print", paths @ ..] => {
            for path in paths {
                print!("{}", tell(fs::read_to_string(path)));
            }
        }
        ["list", path] => list(path),
        ["write", path] => print!("{}", tell(fs::write(path, "new").map(|()| "written".into()))),
        ["fill", path] => print!("{}", fill(path)),
        ["mode", paths @ ..] => {
            for path in paths {
                print!("{:o} ", fs::metadata(path).unwrap().permissions().mode() & 0o7777);
            }
        }
        ["owner", path] => {
            let found = fs::metadata(path).unwrap();
            print!("{}:{}", found.uid(), found.gid());
        }
        ["cwd"] => print!("{}", tell(std::env::current_dir().map(|d| d.display().to_string()))),
        ["node", path] => node(path),
        ["copy"] => drop(copy(&mut stdin(), &mut stdout()).unwrap()),
        ["close-stdin"] => close_stdin(),
        ["flood", bytes] => flood(bytes.parse().unwrap()),
        ["abort"] => std::process::abort(),
        ["wait"] => wait(),
        ["wait-for-term"] => {
            app_unsafe::exit_on_term(7);
            wait();
        }
        ["deaf"] => {
            app_unsafe::ignore_hang_up();
            wait();
        }
        ["links", of] => {
            for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
                println!(
                    "{name} {}",
                    fs::read_link(format!("/proc/{of}/ns/{name}")).unwrap().display()
                );
            }
        }
        ["terminal"] => terminal(),
        ["wander"] => wander(),
        ["fake-terminals"] => fake_terminals(),
        ["leave-orphan"] => leave_orphan(),
        ["again"] => {
            print!("{}", tell(fs::write("/dev/stdout", "once more\n").map(|()| String::new())));
        }
        other => checked(other),
    }
    ExitCode::SUCCESS
}

/// Parts of apps with a health check, and of what asks them.
fn checked(args: &[&str]) {
    match args {
        ["leave", what] => {
            let child = Command::new("/bin/app").args(["app", what]).spawn().unwrap();
            // Whose it is from now on is what the test is about.
            std::mem::forget(child);
        }
        ["serve", port, answers @ ..] => serve(port.parse().unwrap(), answers),
        ["count", path] => count(path),
        ["mark", path] => {
            fs::write(path, "").unwrap();
            wait();
        }
        ["until-dead", path] => {
            while !fs::read_to_string(path).unwrap().contains(") Z 1 ") {
                sleep(Duration::from_millis(5));
            }
        }
        ["until", path] => {
            while !fs::exists(path).unwrap() {
                sleep(Duration::from_millis(5));
            }
        }
        other => panic!("the app does not know {other:?}"),
    }
}

fn tell(answer: std::io::Result<String>) -> String {
    answer.unwrap_or_else(|error| format!("error {}", error.raw_os_error().unwrap_or(0)))
}

/// Bytes that a file took until there was no room.
fn fill(path: &str) -> String {
    let mut file = fs::File::create(path).unwrap();
    let mut sum = 0;
    loop {
        match file.write(&[b'x'; 4096]) {
            Ok(count) => sum += count,
            Err(error) => return format!("{sum} error {}", error.raw_os_error().unwrap_or(0)),
        }
    }
}

fn list(path: &str) {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    print!("{}", names.join(" "));
}

/// A node of the memory device `zero`, and what opening it answers.
fn node(path: &str) {
    let made =
        mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 5));
    let opened = tell(fs::File::open(path).map(|_| "open".into()));
    print!("{} {opened}", if made.is_ok() { "made" } else { "refused" });
}

fn wait() {
    println!("ready");
    loop {
        sleep(Duration::from_hours(1));
    }
}

/// What it has, and then its size again for each line.
fn terminal() {
    let size = || {
        let size = rustix::termios::tcgetwinsize(stdin()).unwrap();
        format!("{} {}", size.ws_row, size.ws_col)
    };
    for number in 0..3 {
        println!("{}", fs::read_link(format!("/proc/self/fd/{number}")).unwrap().display());
    }
    let foreground = rustix::termios::tcgetpgrp(stdin()).unwrap();
    let leader = rustix::process::getsid(None).unwrap();
    let own = rustix::process::getpid();
    println!("leads {} size {} ready", (foreground, leader) == (own, own), size());
    for line in stdin().lines() {
        println!("read {:?} size {}", line.unwrap(), size());
    }
}

/// Leaves its namespaces for others, if it has `CAP_SYS_ADMIN`.
fn wander() {
    app_unsafe::leave_namespaces();
    fs::write("/here", "").unwrap();
    rustix::mount::mount("tmpfs", "/bin", "tmpfs", rustix::mount::MountFlags::empty(), None)
        .unwrap();
    wait();
}

/// A file system of its own in place of the terminals.
fn fake_terminals() {
    rustix::mount::mount("tmpfs", "/dev/pts", "tmpfs", rustix::mount::MountFlags::empty(), None)
        .unwrap();
    fs::write("/dev/pts/ptmx", "").unwrap();
    wait();
}

fn close_stdin() {
    app_unsafe::close_stdin();
    wait();
}

fn flood(bytes: usize) {
    let chunk = [b'x'; 4096];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(chunk.len());
        stdout().write_all(&chunk[..now]).unwrap();
        left -= now;
    }
}

/// Takes connections for ever; the first ones get these answers and the last of them is for all that follow.
fn serve(port: u16, answers: &[&str]) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("ready");
    for (number, stream) in listener.incoming().enumerate() {
        let mut stream = stream.unwrap();
        let answer = answers.get(number).or(answers.last()).unwrap();
        if *answer == "silence" {
            std::mem::forget(stream);
            continue;
        }
        let mut request = [0; 512];
        let length = stream.read(&mut request).unwrap();
        println!("{:?}", String::from_utf8_lossy(&request[..length]));
        write!(stream, "{answer}\r\n\r\nbody").unwrap();
    }
}

/// Fails with how often it was called, from the third time on always with 3.
fn count(path: &str) {
    let before = fs::read_to_string(path).map_or(0, |text| text.len());
    fs::write(path, "x".repeat(before + 1)).unwrap();
    println!("call");
    std::process::exit(i32::try_from((before + 1).min(3)).unwrap());
}

/// Ends while a grandchild still holds its output.
fn leave_orphan() {
    let mut child = Command::new("/bin/app").args(["app", "wait"]).spawn().unwrap();
    let mut one = [0];
    // Until the host says that the grandchild has spoken.
    let _ = stdin().read(&mut one).unwrap();
    assert!(child.try_wait().unwrap().is_none());
}
