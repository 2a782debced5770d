//! One VMM for one attack: a launch with a ticket, on the real `/dev/kvm`, with all filters; only the jail is missing,
//! which spawn makes.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate_wire::control::{FromSpawn, FromVmm, Reason, VMM_MESSAGE_MAX};
use casemate_wire::log_ring::{RECORD_HEADER_LEN, RecordHeader, Shape, Source};
use casemate_wire::metrics::Metrics;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::IoSliceMut;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, socketpair,
};

use crate::attack::{Attack, of_device};
use crate::child_unsafe;
use crate::files::{self, Files, read_only};

/// Longest wait for an end; reached only when something is wrong.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two questions for the counters.
const PACE_NS: i64 = 4_000_000;
/// The guest's memory and what the VMM may have beside it: an allocation that a guest brings about beyond that fails,
/// and ends the VMM with a signal.
const DATA_BYTES_MAX: u64 = (128 + 8) << 20;
/// What a VMM has in memory at most whose guest uses a few MiB of its own, whatever it asks devices for. Half of it is
/// the test itself, of which the VMM is a copy until it begins.
const PEAK_BYTES_MAX: u64 = 64 << 20;

/// What came of an attack.
#[derive(Debug)]
pub struct Outcome {
    pub reason: Reason,
    pub text: String,
    /// The attack came to its end and the VMM answered after it.
    pub survived: bool,
    /// What the guest wrote to its serial port.
    pub console: String,
    /// What the VMM noted in the pod's log.
    pub notes: String,
    /// The counters that were answered last.
    pub metrics: Metrics,
    /// Scratch, afterwards.
    pub scratch: Vec<u8>,
}

/// The builds of the VMM: with debug assertions, and as it is shipped.
pub fn builds() -> Vec<PathBuf> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        eprintln!("skipped: /dev/kvm cannot be used: {error}");
        return vec![];
    }
    let debug = PathBuf::from(env!("CARGO_BIN_EXE_casemate-vmm"));
    let folder = debug.parent().unwrap().parent().unwrap();
    let release = folder.join("release").join(debug.file_name().unwrap());
    if !release.exists() {
        eprintln!("skipped: {} is missing: run npm run setup", release.display());
        return vec![debug];
    }
    let same = release == debug;
    [debug, release].into_iter().skip(usize::from(same)).collect()
}

/// Starts a VMM; its end of the control socket comes with it.
fn start(build: &Path, document: &File, more: Vec<(RawFd, OwnedFd)>) -> (Child, OwnedFd) {
    let (control, its_control) = pair(SocketType::SEQPACKET);
    let kvm = File::options().read(true).write(true).open("/dev/kvm").unwrap();
    let mut descriptors = vec![(3, read_only(document)), (4, its_control), (6, kvm.into())];
    descriptors.extend(more);
    let mut command = Command::new(build);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (child_unsafe::start(&mut command, descriptors, DATA_BYTES_MAX), control)
}

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Boots the guest of `attack` until it says HELLO, and takes the template: state and memory.
pub fn template(build: &Path, attack: &Attack) -> (File, File) {
    let files = Files::new();
    let more = vec![(7, read_only(&files.kernel)), (8, read_only(&files.init))];
    let (mut child, control) = start(build, &files::template(build, attack), more);
    let talk = talk(&control);
    child.wait().unwrap();
    let Talk { template, failure, .. } = talk.unwrap();
    let memfds: [OwnedFd; 2] = template.try_into().unwrap_or_else(|_| panic!("{failure:?}"));
    let [state, memory] = memfds.map(File::from);
    (state, memory)
}

/// Those of a launch that boots cold, by their numbers.
fn descriptors(files: &Files, stream: OwnedFd) -> Vec<(i32, OwnedFd)> {
    vec![
        (5, stream),
        (7, read_only(&files.kernel)),
        (8, read_only(&files.init)),
        (11, read_only(&files.image)),
        (12, files.scratch.try_clone().unwrap().into()),
        (13, files.log.try_clone().unwrap().into()),
    ]
}

/// Runs one attack on one build, checks what must be so whatever was tried, and tells what came of it.
pub fn run(build: &Path, attack: &Attack, template: Option<&(File, File)>) -> Outcome {
    let files = Files::new();
    let (_stream, its_stream) = pair(SocketType::STREAM);
    let mut more = descriptors(&files, its_stream);
    if let Some((state, memory)) = template {
        more.extend([(9, read_only(state)), (10, read_only(memory))]);
    }
    let (mut child, control) = start(build, &files::launch(build, attack, template), more);
    let talk = talk(&control);
    if talk.is_err() {
        child.kill().unwrap();
    }
    let (status, peak) = child_unsafe::wait(&child);
    let words = attack.words;
    let (console, notes) = read_log(&files.log);
    let Talk { started, metrics, survived, failure, .. } =
        talk.unwrap_or_else(|why| panic!("{words}: {why}; its guest said {console:?}"));
    assert!(started, "{words}: no guest ran: {failure:?}");
    let (reason, text) = failure
        .unwrap_or_else(|| panic!("{words}: ended with {status} and said nothing; {console:?}"));
    assert_eq!(status.code(), Some(1), "{words}: {status}: {text}");
    let name = words.split(' ').next().unwrap();
    assert!(console.starts_with(&format!("begin {name}\n")), "{words}: {console:?}");
    let peak_max = if attack.touches { DATA_BYTES_MAX } else { PEAK_BYTES_MAX };
    assert!(peak <= peak_max, "{words}: {peak} bytes in memory");
    let scratch = files.check(attack);
    Outcome { reason, text, survived, console, notes, metrics, scratch }
}

/// What a VMM says of this descriptor in the place of its tap.
pub fn judge_tap(build: &Path, tap: OwnedFd) -> (Reason, String) {
    let files = Files::new();
    let (_stream, its_stream) = pair(SocketType::STREAM);
    let mut more = descriptors(&files, its_stream);
    more.push((14, tap));
    let (mut child, control) = start(build, &files::networked(build), more);
    let talk = talk(&control).unwrap();
    child.wait().unwrap();
    talk.failure.unwrap()
}

/// Sends `packet` to the VMM of a guest that runs and says nothing, then asks for its counters. `None`: it answers;
/// otherwise it ended with this code and without a word.
pub fn after(build: &Path, attack: &Attack, packet: &[u8]) -> Option<i32> {
    let files = Files::new();
    let (_stream, its_stream) = pair(SocketType::STREAM);
    let more = descriptors(&files, its_stream);
    let (mut child, control) = start(build, &files::launch(build, attack, None), more);
    let mut bytes = [0; VMM_MESSAGE_MAX];
    let count = receive(&control, &mut bytes, &mut vec![]);
    assert!(matches!(FromVmm::parse(&bytes[..count]), Ok(FromVmm::Started { .. })), "{count}");
    rustix::net::send(&control, packet, SendFlags::NOSIGNAL).unwrap();
    // The first answer may have been on its way before the packet was looked at.
    for _ in 0..2 {
        send(&control, FromSpawn::Metrics);
        let count = receive(&control, &mut bytes, &mut vec![]);
        if count == 0 {
            return child.wait().unwrap().code();
        }
        let answer = FromVmm::parse(&bytes[..count]).unwrap();
        assert!(matches!(answer, FromVmm::Metrics(_)), "{packet:?}: {answer:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// What the VMM said on its control socket.
#[derive(Debug)]
struct Talk {
    started: bool,
    metrics: Metrics,
    survived: bool,
    failure: Option<(Reason, String)>,
    template: Vec<OwnedFd>,
}

/// Asks for the counters again and again, and for the end when they say that the attack is over.
fn talk(control: &OwnedFd) -> Result<Talk, String> {
    let mut talk = Talk {
        started: false,
        metrics: Metrics::NONE,
        survived: false,
        failure: None,
        template: vec![],
    };
    let end = Instant::now() + PATIENCE;
    let mut asked = false;
    loop {
        let pace = Timespec { tv_sec: 0, tv_nsec: PACE_NS };
        if poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&pace)).unwrap() == 0 {
            if Instant::now() > end {
                return Err(format!("did not end: {talk:?}"));
            }
            if talk.started && !asked {
                asked = send(control, FromSpawn::Metrics);
            }
            continue;
        }
        let mut bytes = [0; VMM_MESSAGE_MAX];
        let count = receive(control, &mut bytes, &mut talk.template);
        if count == 0 {
            return Ok(talk);
        }
        match FromVmm::parse(&bytes[..count]).unwrap() {
            FromVmm::Started { .. } => talk.started = true,
            FromVmm::Failure { reason, text } => talk.failure = Some((reason, text.into())),
            FromVmm::Metrics(metrics) => {
                (asked, talk.metrics) = (false, metrics);
                // The bell of a queue that no device has (guest/machine.c, finish).
                if of_device(&metrics, "init", "ignored_notifications") > 0 && !talk.survived {
                    talk.survived = send(control, FromSpawn::Stop { timeout_ms: 0 });
                }
            }
            FromVmm::Ready { .. } | FromVmm::Template { .. } | FromVmm::Resized(_) => {}
            FromVmm::Exit(exit) => return Err(format!("said {exit:?}")),
        }
    }
}

/// One packet; what rides along goes to `descriptors`. 0 when the VMM has gone.
fn receive(control: &OwnedFd, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> usize {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let Ok(received) = recvmsg(control, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) else {
        return 0;
    };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(found) = message {
            descriptors.extend(found);
        }
    }
    received.bytes
}

fn send(control: &OwnedFd, message: FromSpawn) -> bool {
    rustix::net::send(control, message.encode().as_bytes(), SendFlags::NOSIGNAL).is_ok()
}

/// What the guest's serial port and the VMM itself have in the pod's log.
fn read_log(log: &File) -> (String, String) {
    let bytes = files::read(log);
    let (mut console, mut notes) = (vec![], vec![]);
    let Some((shape, written)) = Shape::parse_file_header(bytes.first_chunk().unwrap()) else {
        return (String::new(), String::new());
    };
    assert_eq!(shape.oldest(written), 0, "no attack writes so much that the ring wraps");
    let mut at = 0;
    while at < written {
        let room = Shape::room(at);
        if room < RECORD_HEADER_LEN {
            at += u64::from(room);
            continue;
        }
        let place = usize::try_from(shape.position(at)).unwrap();
        let header = RecordHeader::parse(*bytes[place..].first_chunk().unwrap(), at).unwrap();
        let (start, length) = (place + 16, usize::try_from(header.length).unwrap());
        match header.source {
            Source::GuestConsole => console.extend(&bytes[start..start + length]),
            Source::VmmNote => notes.extend([&bytes[start..start + length], b"\n"].concat()),
            _ => {}
        }
        at += u64::from(header.length + RECORD_HEADER_LEN);
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(console), text(notes))
}
