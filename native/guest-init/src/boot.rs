//! From the kernel to the first frame of a session, in two lives of process 1.
//!
//! The first mounts what every app needs, says HELLO and waits; a template is a copy of the machine
//! in that state. The UNIQUE of each restored machine ends the first life: the kernel's generator
//! is reseeded, the clock is set, and process 1 executes itself, so that nothing random that the
//! template's process had is left in it: not the stack protector's value, not the addresses, not a
//! key of a hash table. Nothing here reads a random number or the boot id before that: the kernel
//! makes the boot id up when it is first read.

use std::convert::Infallible;
use std::ffi::CString;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_wire::frame::{GuestKind, HostKind, PROTOCOL_VERSION};
use casemate_wire::order::Conversation;
use casemate_wire::payload::{Hello, Unique};
use rustix::event::PollFlags;
use rustix::fs::{CWD, Mode, OFlags, openat, sync};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::link::{Inbox, Outbox, wait};
use crate::places::{Places, Source};
use crate::{cgroup, entropy_unsafe, network, process_unsafe, session};

/// Port 1 of the first virtio console: the VMM has no other.
const PORT: &str = "/dev/vport0p1";
const PORT_TIMEOUT: Duration = Duration::from_mins(1);
const PORT_INTERVAL: Duration = Duration::from_millis(10);
const PROGRAM: &str = "/init";
/// First argument of the second life; the descriptor of the port follows.
const SECOND_LIFE: &str = "--unique";
const CGROUPS: &str = "/sys/fs/cgroup";
/// In which pieces the kernel reports free memory to the host: 2^7 pages, 512 KiB. It reports nothing while less than 32
/// pieces are free, and 32 of its own choice, 4 MiB, are all of the smallest guest (Linux 6.1, `mm/page_reporting.c`; a
/// word on the command line is overwritten by the balloon's driver).
const REPORTING_ORDER: (&str, &str) =
    ("/sys/module/page_reporting/parameters/page_reporting_order", "7");

/// What process 1 does, by its arguments. Ends the machine in every case.
pub fn main(args: &[String]) -> ! {
    let answer = match args {
        [_, flag, descriptor] if flag == SECOND_LIFE => second_life(descriptor),
        _ => first_life().map(|never| match never {}),
    };
    if let Err(text) = answer {
        say_last_words(&text);
    }
    power_off()
}

fn first_life() -> Result<Infallible, String> {
    mount_kernel_file_systems()?;
    // All depend on how the kernel was built, and an app may run without any.
    let _ = std::fs::write(REPORTING_ORDER.0, REPORTING_ORDER.1);
    let _ = cgroup::create(Path::new(CGROUPS));
    let _ = network::bring_loopback_up();
    let port = open_port()?;
    let mut outbox = Outbox::default();
    let mut conversation = Conversation::boot();
    conversation.guest(GuestKind::Hello).map_err(text)?;
    let hello = Hello { version: PROTOCOL_VERSION };
    outbox.push(GuestKind::Hello, hello.encode().as_bytes()).map_err(text)?;
    outbox.flush_all(&port).map_err(text)?;
    let unique = wait_for_unique(&port, &mut conversation)?;
    entropy_unsafe::reseed(&unique.entropy, &unique.nonce)
        .map_err(|error| format!("cannot reseed the kernel's generator: {error}"))?;
    set_clock(unique.wall_clock_ns)?;
    Err(execute_anew(&port))
}

fn second_life(descriptor: &str) -> Result<(), String> {
    let port = adopt(descriptor).ok_or("the control port was not handed on")?;
    fcntl_setfd(&port, FdFlags::CLOEXEC).map_err(text)?;
    let group = Path::new(CGROUPS).join("app");
    let places = Places {
        image: Source::Disk("vdb"),
        scratch: Source::Disk("vdc"),
        volumes: &["vdd", "vde", "vdf", "vdg"],
        staging: PathBuf::from("/mnt"),
        cgroup: group.is_dir().then_some(group),
        glibc_tunables: std::env::var("GLIBC_TUNABLES").ok(),
    };
    session::run(&port, &places).map_err(text)
}

/// The kernel has mounted /dev already where it is built to; that is no error.
fn mount_kernel_file_systems() -> Result<(), String> {
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, target, flags) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("proc", "/proc", inert),
        ("sysfs", "/sys", inert),
        ("cgroup2", CGROUPS, inert),
    ] {
        match mount(kind, target, kind, flags, None) {
            Ok(()) | Err(Errno::BUSY) => {}
            // A kernel without cgroups has no directory for them; the app runs without limits.
            Err(Errno::NOENT | Errno::NODEV) if target == CGROUPS => {}
            Err(errno) => return Err(format!("cannot mount {target}: {errno}")),
        }
    }
    Ok(())
}

/// Waits for the port's node, opens it, and waits until the host has its end open.
fn open_port() -> Result<OwnedFd, String> {
    let begin = Instant::now();
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let port = loop {
        match openat(CWD, PORT, flags, Mode::empty()) {
            Ok(port) => break port,
            Err(_) if begin.elapsed() < PORT_TIMEOUT => sleep(PORT_INTERVAL),
            Err(errno) => return Err(format!("cannot open the control port {PORT}: {errno}")),
        }
    };
    while begin.elapsed() < PORT_TIMEOUT {
        // Until the host opens its end the port is always "hung up", so poll would not wait.
        if wait(port.as_fd(), PollFlags::OUT, Some(PORT_TIMEOUT))
            .map_err(text)?
            .contains(PollFlags::OUT)
        {
            return Ok(port);
        }
        sleep(PORT_INTERVAL);
    }
    Err("the host did not open the control port".into())
}

/// Waits, for as long as the template lies, for the first frame.
///
/// # Errors
/// A host that says anything else.
pub fn wait_for_unique(port: &OwnedFd, conversation: &mut Conversation) -> Result<Unique, String> {
    let mut inbox = Inbox::default();
    loop {
        wait(port.as_fd(), PollFlags::IN, None).map_err(text)?;
        inbox.fill(port.as_fd()).map_err(text)?;
        let Some(frame) = inbox.next_frame().map_err(text)? else { continue };
        conversation.host(frame.kind).map_err(text)?;
        let unique = (frame.kind == HostKind::Unique).then(|| Unique::parse(frame.payload));
        let unique = unique.flatten().ok_or("the host's first frame is not a valid UNIQUE")?;
        if !inbox.is_empty() {
            return Err("the host sent more before it heard UNIQUE_DONE".into());
        }
        return Ok(unique);
    }
}

fn set_clock(wall_clock_ns: u64) -> Result<(), String> {
    let time = Timespec::try_from(Duration::from_nanos(wall_clock_ns))
        .map_err(|_| "the host's clock is out of range")?;
    clock_settime(ClockId::Realtime, time).map_err(|errno| format!("cannot set the clock: {errno}"))
}

/// Process 1 with a fresh address space, the same environment and the port as its descriptor.
fn execute_anew(port: &OwnedFd) -> String {
    if let Err(errno) = fcntl_setfd(port, FdFlags::empty()) {
        return format!("cannot hand the control port on: {errno}");
    }
    let words = [PROGRAM, SECOND_LIFE, &port.as_raw_fd().to_string()].map(CString::new);
    let args: Result<Vec<CString>, _> = words.into_iter().collect();
    let variables = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
    match (args, variables.collect::<Result<Vec<CString>, _>>()) {
        (Ok(args), Ok(env)) => {
            let error = process_unsafe::exec(c"/init", &args, &env);
            format!("cannot execute {PROGRAM} anew: {error}")
        }
        _ => "an argument has a NUL byte".into(),
    }
}

/// The descriptor that the first life left open.
fn adopt(descriptor: &str) -> Option<OwnedFd> {
    let number: RawFd = descriptor.parse().ok().filter(|number| *number > 2)?;
    process_unsafe::adopt_descriptor(number)
}

/// To the kernel's log, which the VMM keeps a bounded part of.
fn say_last_words(text: &str) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // A machine that cannot even log still has to end.
        let _ = writeln!(log, "guest-init: {text}");
    }
}

/// The command line has `reboot=k` or `reboot=t`: the VMM sees a reset and ends the machine.
fn power_off() -> ! {
    sync();
    loop {
        // It does not return when it succeeds, and there is nothing else to do when it fails.
        let _ = reboot(RebootCommand::Restart);
        sleep(PORT_INTERVAL);
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
