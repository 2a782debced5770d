//! What the tests start in place of the VMM. It does what the first argument of the spec's app says:
//! tell what the jail lets it do, or misbehave in one particular way.
//!
//! An example, so that `cargo test` builds it and no installation does.

#[expect(
    unsafe_code,
    reason = "descriptors at fixed numbers, and calls that must fail in the jail"
)]
mod probe_unsafe;
mod report;

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use casemate_ticket::bytes::Digest;
use casemate_ticket::document::{LaunchDocument, Mode};
use casemate_ticket::spec::{Means, Spec, TemplateSpec, Vmm};
use casemate_wire::control::{FromSpawn, FromVmm, Reason};
use casemate_wire::metrics::Metrics;
use casemate_wire::payload::{Exit, Resized};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use probe_unsafe::take;

const CONTROL: i32 = 4;
const STREAM: i32 = 5;
const TAP: i32 = 14;
/// `struct virtio_net_hdr_mrg_rxbuf`, before each frame of a tap.
const HEADER_BYTES: usize = 12;
const SCRATCH: i32 = 12;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--digests") {
        let digest = |word: &str| Digest::of(word.as_bytes());
        println!(
            "{{\"control\":\"{}\",\"io\":\"{}\",\"vcpu\":\"{}\"}}",
            digest("control"),
            digest("io"),
            digest("vcpu")
        );
        return ExitCode::SUCCESS;
    }
    run().unwrap_or(ExitCode::from(99))
}

/// `None` is an end with code 99: something the probe needs is missing.
fn run() -> Option<ExitCode> {
    let open: Vec<i32> = probe_unsafe::open_descriptors().collect();
    let control = take(CONTROL)?;
    let document = report::read_whole(&take(3)?)?;
    let document = LaunchDocument::parse(&document).ok()?;
    if document.mode == Mode::Template {
        let spec = TemplateSpec::parse(document.spec.as_bytes()).ok()?;
        return build_template(&control, &spec);
    }
    let spec = Spec::parse(document.spec.as_bytes()).ok()?;
    let Means::Vm(vm) = &spec.means else { return None };
    let words: Vec<&str> =
        spec.apps.iter().flat_map(|app| &app.process.args).map(String::as_str).collect();
    let (word, argument) = (*words.first()?, words.get(1).copied());
    misbehave_before_start(word, &control);
    start(&control, &vm.vmm);
    match word {
        "exit" => return Some(ready_and_exit(&control, Exit::Code(argument?.parse().ok()?))),
        "report" => report::write(&take(13)?, &open)?,
        "seccomp" => probe_unsafe::die_by_seccomp(),
        "oom" => probe_unsafe::use_memory(),
        "segv" => probe_unsafe::die_by_signal(libc::SIGSEGV),
        "garbage" => say_bytes(&control, &[250, 1, 2, 3]),
        "twice" => start(&control, &vm.vmm),
        "counts" => say(&control, &FromVmm::Metrics(Metrics::NONE)),
        "resizes" => say(&control, &FromVmm::Resized(Resized { errno: 0, bytes: 4096 })),
        "early" => say(&control, &FromVmm::Template { state_size: 1, memory_size: 1 }),
        "failure" => {
            say(&control, &FromVmm::Failure { reason: Reason::Verity, text: "block 7 differs" });
            return Some(ExitCode::FAILURE);
        }
        "silent" => return Some(ExitCode::from(7)),
        "slow" => sleep_for_ever(),
        "lingers" => {
            ready_and_exit(&control, Exit::Signal(15));
            sleep_for_ever()
        }
        "deaf" => {
            say(&control, &FromVmm::Ready { restored: false });
            sleep_for_ever()
        }
        "serve" => return serve(&control, argument == Some("full")),
        "wire" => {
            say(&control, &FromVmm::Ready { restored: false });
            return wire(&take(STREAM)?, &take(TAP)?);
        }
        "listens" => return listen(&control),
        _ => return None,
    }
    Some(ready_and_exit(&control, Exit::Code(0)))
}

fn misbehave_before_start(word: &str, control: &OwnedFd) {
    match word {
        "unannounced" => {
            ready_and_exit(control, Exit::Code(0));
        }
        "other-filters" => {
            let other = Digest::of(b"other").0;
            say(control, &FromVmm::Started { control: other, io: other, vcpu: other });
            sleep_for_ever()
        }
        _ => {}
    }
}

fn start(control: &OwnedFd, vmm: &Vmm) {
    let (c, i, v) = (vmm.filter_control.0, vmm.filter_io.0, vmm.filter_vcpu.0);
    say(control, &FromVmm::Started { control: c, io: i, vcpu: v });
}

fn ready_and_exit(control: &OwnedFd, exit: Exit) -> ExitCode {
    say(control, &FromVmm::Ready { restored: false });
    say(control, &FromVmm::Exit(exit));
    ExitCode::SUCCESS
}

fn say(control: &OwnedFd, message: &FromVmm<'_>) {
    say_bytes(control, message.encode().as_bytes());
}

fn say_bytes(control: &OwnedFd, bytes: &[u8]) {
    let _ = rustix::net::send(control, bytes, SendFlags::NOSIGNAL);
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// Counters by which each can be told from the others.
fn counted() -> Metrics {
    let mut metrics = Metrics::NONE;
    let all = metrics.machine.iter_mut().chain(metrics.devices.iter_mut().flatten());
    for (value, counter) in (1..).zip(all) {
        *counter = value;
    }
    metrics
}

/// Says hello on the pod stream and on every fresh one, and stops when it is asked to.
fn serve(control: &OwnedFd, is_full: bool) -> Option<ExitCode> {
    say(control, &FromVmm::Ready { restored: false });
    let mut stream = take(STREAM)?;
    let scratch = take(SCRATCH)?;
    loop {
        // An agent that is gone is no reason to end.
        let _ = rustix::io::write(&stream, b"hello");
        let mut buffer = [0_u8; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = rustix::net::recvmsg(control, &mut into, &mut ancillary, flags).ok()?;
        match FromSpawn::parse(buffer.get(..message.bytes)?).ok()? {
            FromSpawn::Stop { .. } => {
                say(control, &FromVmm::Exit(Exit::Signal(15)));
                return Some(ExitCode::SUCCESS);
            }
            FromSpawn::Resize { bytes } => {
                // What is there to write to, whatever the message says.
                let length = rustix::fs::seek(&scratch, SeekFrom::End(0)).ok()?;
                rustix::io::pwrite(&scratch, b"x", bytes.checked_sub(1)?).ok()?;
                let errno = if is_full { 28 } else { 0 };
                say(control, &FromVmm::Resized(Resized { errno, bytes: length }));
            }
            FromSpawn::Metrics => say(control, &FromVmm::Metrics(counted())),
            FromSpawn::Stream => {
                let fresh = ancillary.drain().find_map(|part| match part {
                    RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                    _ => None,
                });
                stream = fresh?;
            }
        }
    }
}

/// Passes frames on between the pod stream, each behind its length (u16), and the tap, for ever.
fn wire(stream: &OwnedFd, tap: &OwnedFd) -> Option<ExitCode> {
    rustix::fs::fcntl_setfl(stream, rustix::fs::OFlags::empty()).ok()?;
    loop {
        let mut ready = [PollFd::new(stream, PollFlags::IN), PollFd::new(tap, PollFlags::IN)];
        rustix::event::poll(&mut ready, None).ok()?;
        let [from_stream, from_tap] = ready.map(|fd| !fd.revents().is_empty());
        let mut frame = vec![0; 2048];
        if from_stream {
            let mut length = [0; 2];
            read_exactly(stream, &mut length)?;
            let end = HEADER_BYTES.checked_add(u16::from_le_bytes(length).into())?;
            read_exactly(stream, frame.get_mut(HEADER_BYTES..end)?)?;
            rustix::io::write(tap, frame.get(..end)?).ok()?;
        }
        if from_tap {
            let count = rustix::io::read(tap, &mut frame).ok()?;
            let bytes = frame.get(HEADER_BYTES..count)?;
            let length = u16::try_from(bytes.len()).ok()?.to_le_bytes();
            rustix::io::write(stream, &[length.as_slice(), bytes].concat()).ok()?;
        }
    }
}

fn read_exactly(stream: &OwnedFd, mut into: &mut [u8]) -> Option<()> {
    while !into.is_empty() {
        let count = rustix::io::read(stream, &mut *into).ok().filter(|count| *count > 0)?;
        into = into.get_mut(count..)?;
    }
    Some(())
}

/// Ends as the first byte on its pod stream says, whoever is there to hear of it.
fn listen(control: &OwnedFd) -> Option<ExitCode> {
    say(control, &FromVmm::Ready { restored: false });
    let stream = take(STREAM)?;
    rustix::io::write(&stream, b"hello").ok()?;
    let mut byte = [0_u8; 1];
    rustix::io::read(&stream, &mut byte).ok()?;
    match byte {
        [b'e'] => say(control, &FromVmm::Exit(Exit::Code(5))),
        [b's'] => probe_unsafe::die_by_seccomp(),
        [b'm'] => probe_unsafe::use_memory(),
        _ => return Some(ExitCode::from(7)),
    }
    Some(ExitCode::SUCCESS)
}

/// What to do wrong is written in the kernel, the only file of a template that a test can choose.
fn build_template(control: &OwnedFd, spec: &TemplateSpec) -> Option<ExitCode> {
    let kernel = report::read_whole(&take(7)?)?;
    let says = |word: &str| kernel.windows(word.len()).any(|part| part == word.as_bytes());
    if says("template-fails") {
        let text = "the guest did not say HELLO";
        say(control, &FromVmm::Failure { reason: Reason::BootTimeout, text });
        return Some(ExitCode::FAILURE);
    }
    if says("template-hangs") {
        sleep_for_ever();
    }
    let size = u64::from(spec.machine.memory_mib).checked_mul(1 << 20)?;
    let (state, memory) = (memfd(5)?, memfd(size)?);
    rustix::io::pwrite(&state, b"state", 0).ok()?;
    rustix::io::pwrite(&memory, b"memory", 8192).ok()?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&state, seals).ok()?;
    if !says("template-unsealed") {
        rustix::fs::fcntl_add_seals(&memory, seals).ok()?;
    }
    let packet = FromVmm::Template { state_size: 5, memory_size: size }.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [state.as_fd(), memory.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let part = [IoSlice::new(packet.as_bytes())];
    rustix::net::sendmsg(control, &part, &mut ancillary, SendFlags::NOSIGNAL).ok()?;
    Some(ExitCode::SUCCESS)
}

fn memfd(size: u64) -> Option<OwnedFd> {
    let file = rustix::fs::memfd_create("probe", MemfdFlags::ALLOW_SEALING).ok()?;
    rustix::fs::ftruncate(&file, size).ok()?;
    Some(file)
}
