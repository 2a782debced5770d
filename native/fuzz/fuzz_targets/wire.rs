//! Both ends of the control pipe, the control socket and the pod log, on bytes of a hostile peer.
//!
//! Besides not crashing, each reader must be exact: what it accepts is what its writer makes of the
//! result, and however the bytes are cut, the frames are the same.
#![no_main]

use std::io;

use casemate_wire::control::{FromSpawn, FromVmm};
use casemate_wire::credit::SESSION_WINDOW_MAX;
use casemate_wire::credit::Window;
use casemate_wire::frame::{FrameReader, GuestKind, HostKind, Kind, append_to};
use casemate_wire::health::Health;
use casemate_wire::log_ring::{RecordHeader, Shape, Source, WriteAt, Writer};
use casemate_wire::order::Conversation;
use casemate_wire::payload::{
    Admit, Exit, Hello, InputCredit, OutputCredit, Resize, Resized, Signal, Size, StartError,
    Started, Stop, Unique,
};
use casemate_wire::sessions::{SESSIONS_MAX, Sessions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => {
            let mut conversation = Conversation::restored();
            let _ = conversation.guest(GuestKind::UniqueDone);
            let mut sessions = Sessions::<Window>::default();
            frames::<HostKind>(rest, |session, kind, payload| {
                if session == 0 {
                    let _ = conversation.host(kind);
                } else {
                    host_session(&mut sessions, session, kind, payload);
                }
                host_payload(kind, payload);
            });
        }
        1 => {
            let mut conversation = Conversation::boot();
            // All of the first few numbers are open, as after so many EXEC.
            let mut sessions = Sessions::<()>::default();
            for session in 1..=16 {
                sessions.open(session, ()).unwrap();
            }
            frames::<GuestKind>(rest, |session, kind, payload| {
                if session == 0 {
                    let _ = conversation.guest(kind);
                } else {
                    let before = sessions.iter().count();
                    let closed = matches!(sessions.guest(session, kind), Ok(Some(())));
                    assert_eq!(sessions.iter().count() + usize::from(closed), before);
                    assert!(!closed || sessions.get(session).is_none());
                }
                guest_payload(kind, payload);
            });
        }
        2 => control(rest),
        _ => log(rest),
    }
});

/// The first byte cuts the stream; the frames are those of the uncut one, and together with what
/// is left they are the input.
fn frames<K: Kind>(data: &[u8], mut each: impl FnMut(u16, K, &[u8])) {
    let Some((step, stream)) = data.split_first() else { return };
    let whole = read::<K>(&[stream]);
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(*step).max(1)).collect();
    assert_eq!(read::<K>(&pieces), whole);
    let mut again = Vec::new();
    for (session, kind, payload) in &whole.0 {
        let (min, max) = kind.length();
        assert!((min as usize..=max as usize).contains(&payload.len()));
        append_to(&mut again, *session, *kind, payload).unwrap();
        each(*session, *kind, payload);
    }
    assert!(stream.starts_with(&again));
}

/// The frames, and whether the stream ended in an error.
fn read<K: Kind>(pieces: &[&[u8]]) -> (Vec<(u16, K, Vec<u8>)>, bool) {
    let mut reader = FrameReader::<K>::new();
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match reader.take(&mut input) {
                Ok(Some(frame)) => frames.push((frame.session, frame.kind, frame.payload.to_vec())),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(input.is_empty());
    }
    (frames, false)
}

macro_rules! exact {
    ($payload:expr, $type:ty) => {
        if let Some(value) = <$type>::parse($payload) {
            assert_eq!(value.encode().as_bytes(), $payload);
        }
    };
}

fn host_payload(kind: HostKind, payload: &[u8]) {
    match kind {
        HostKind::Unique => exact!(payload, Unique),
        HostKind::Signal => exact!(payload, Signal),
        HostKind::Credit => exact!(payload, OutputCredit),
        HostKind::Stop => exact!(payload, Stop),
        HostKind::Resize => exact!(payload, Resize),
        HostKind::Window => exact!(payload, Size),
        HostKind::Admit => {
            if let Some(Admit { ticket, record, request }) = Admit::parse(payload) {
                let lengths = [ticket, record].map(|part| (part.len() as u32).to_le_bytes());
                let again = [&lengths.concat()[..], ticket, record, request].concat();
                assert_eq!(again, payload);
            }
        }
        HostKind::Config
        | HostKind::Files
        | HostKind::Stdin
        | HostKind::StdinEof
        | HostKind::Exec
        | HostKind::Close => {}
    }
}

/// What a VMM makes of an agent's frames: never more sessions, never more credit.
fn host_session(sessions: &mut Sessions<Window>, session: u16, kind: HostKind, payload: &[u8]) {
    if kind == HostKind::Exec {
        let may = sessions.may_open(session);
        assert_eq!(sessions.open(session, Window::default()).is_ok(), may);
    }
    if let (HostKind::Credit, Some(credit)) = (kind, OutputCredit::parse(payload)) {
        if let Some(window) = sessions.get_mut(session) {
            let _ = window.grant_within(credit.bytes, SESSION_WINDOW_MAX);
            assert!(window.left() <= SESSION_WINDOW_MAX as usize);
        }
    }
    assert!(sessions.iter().count() <= SESSIONS_MAX);
}

fn guest_payload(kind: GuestKind, payload: &[u8]) {
    match kind {
        GuestKind::Hello => exact!(payload, Hello),
        GuestKind::Started => exact!(payload, Started),
        GuestKind::Exit => exact!(payload, Exit),
        GuestKind::Credit => exact!(payload, InputCredit),
        GuestKind::Resized => exact!(payload, Resized),
        GuestKind::Health => {
            if let Some(health) = Health::parse(payload) {
                assert_eq!(health.encode(), payload);
            }
        }
        GuestKind::Error => {
            if let Some(error) = StartError::parse(payload) {
                assert_eq!(error.encode(), payload);
            }
        }
        GuestKind::UniqueDone | GuestKind::Stdout | GuestKind::Stderr => {}
    }
}

fn control(packet: &[u8]) {
    if let Ok(message) = FromVmm::parse(packet) {
        assert_eq!(message.encode().as_bytes(), packet);
    }
    if let Ok(message) = FromSpawn::parse(packet) {
        assert_eq!(message.encode().as_bytes(), packet);
    }
}

/// A file in memory.
struct File<'a>(&'a mut Vec<u8>);

impl WriteAt for File<'_> {
    fn write_at(&mut self, offset: u64, parts: [&[u8]; 2]) -> io::Result<()> {
        let mut at = offset as usize;
        for part in parts {
            self.0[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }
}

/// Two bytes of input are one append; a reader finds the end of what was appended. And the input
/// taken as the header of a file or record is refused or within bounds.
fn log(data: &[u8]) {
    if let Some(header) = data.first_chunk::<32>() {
        if let Some((shape, written)) = Shape::parse_file_header(header) {
            assert_eq!(shape.file_header(written), *header);
            assert!(shape.oldest(written) <= written);
        }
    }
    let size = 4096 + 2 * 65_536;
    let shape = Shape::of_file(size).unwrap();
    let mut bytes = vec![0; size as usize];
    let mut writer = Writer::format(File(&mut bytes), shape).unwrap();
    let mut all = Vec::new();
    for (number, pair) in data.chunks_exact(2).take(64).enumerate() {
        let length = usize::from(u16::from_le_bytes([pair[0], pair[1]]));
        let payload = vec![number as u8; length];
        writer.append(Source::Stdout, 7, &payload).unwrap();
        all.extend(payload);
    }
    let written = writer.written();
    let mut at = shape.oldest(written);
    let mut found = Vec::new();
    while at < written {
        let room = Shape::room(at);
        if room < 16 {
            at += u64::from(room);
            continue;
        }
        let place = shape.position(at) as usize;
        let header = RecordHeader::parse(*bytes[place..].first_chunk().unwrap(), at).unwrap();
        let payload = &bytes[place + 16..place + 16 + header.length as usize];
        if header.source == Source::Stdout {
            found.extend_from_slice(payload);
        }
        at += 16 + u64::from(header.length);
    }
    assert_eq!(at, written);
    assert!(all.ends_with(&found));
}
