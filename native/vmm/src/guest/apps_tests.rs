#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may panic")]

use casemate_wire::frame::{FrameReader, append_to};

use super::super::{Guest, LogFile, Told};
use super::*;
use casemate_wire::log_ring::{RecordHeader, Shape, Writer};

type Said<'a> = (u16, GuestKind, &'a [u8]);

const FIRST: u16 = 65_528;
const SECOND: u16 = 65_529;
const STARTED: &[u8] = &[2, 0, 0, 0];
const EXIT: &[u8] = &[0, 7, 0, 0, 0];

fn said(frames: &[Said<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (session, kind, payload) in frames {
        append_to(&mut bytes, *session, *kind, payload).unwrap();
    }
    bytes
}

/// A guest with two apps, the second of which is checked, that has its configuration.
fn guest_with(log: Option<Writer<LogFile>>) -> Guest {
    let told = Told { config: "{}".into(), files: Vec::new() };
    let mut guest = Guest::new(true, told, log, None).with_apps(&[false, true]);
    guest.send_unique().unwrap();
    guest.receive(&said(&[(0, GuestKind::UniqueDone, &[])])).unwrap();
    guest
}

/// The same, with both apps running.
fn running() -> Guest {
    let mut guest = guest_with(None);
    let started = |number| (number, GuestKind::Started, STARTED);
    guest.receive(&said(&[started(0), started(FIRST), started(SECOND)])).unwrap();
    guest
}

fn to_agent(guest: &mut Guest) -> Vec<(u16, GuestKind)> {
    let bytes = std::mem::take(guest.agent_backlog());
    let mut reader = FrameReader::<GuestKind>::new();
    let (mut rest, mut frames) = (bytes.as_slice(), Vec::new());
    while let Some(frame) = reader.take(&mut rest).unwrap() {
        frames.push((frame.session, frame.kind));
    }
    frames
}

#[test]
fn takes_each_app_in_its_turn() {
    let output = |number| (number, GuestKind::Stdout, &b"x"[..]);
    let mut guest = running();
    assert!(guest.receive(&said(&[output(FIRST), output(SECOND)])).is_ok());
    assert!(guest.receive(&said(&[(FIRST, GuestKind::Exit, EXIT), output(SECOND)])).is_ok());
    let bad: [&[Said<'_>]; 6] = [
        &[output(0)],
        &[output(65_530)],
        &[(FIRST, GuestKind::Exit, EXIT), output(FIRST)],
        &[(FIRST, GuestKind::Started, STARTED)],
        &[(FIRST, GuestKind::Health, &[0; 16])],
        &[(0, GuestKind::Exit, EXIT), output(FIRST)],
    ];
    for frames in bad {
        assert!(running().receive(&said(frames)).is_err(), "{frames:?}");
    }
    // Before the pod runs no app of it does.
    assert!(guest_with(None).receive(&said(&[(FIRST, GuestKind::Started, STARTED)])).is_err());
    // An only app has no number of its own.
    let told = Told { config: "{}".into(), files: Vec::new() };
    let mut only = Guest::new(true, told, None, None);
    only.send_unique().unwrap();
    only.receive(&said(&[(0, GuestKind::UniqueDone, &[]), (0, GuestKind::Started, STARTED)]))
        .unwrap();
    assert!(only.receive(&said(&[output(FIRST)])).is_err());
}

#[test]
fn has_windows_for_each() {
    let whole = vec![b'x'; 65_536];
    let mut guest = running();
    let of = |number| said(&[(number, GuestKind::Stdout, &whole)]);
    guest.receive(&of(FIRST)).unwrap();
    guest.receive(&of(SECOND)).unwrap();
    let credit = |number| said(&[(number, GuestKind::Credit, &[4, 0, 0, 0])]);
    guest.receive(&credit(SECOND)).unwrap();
    assert!(guest.accept(SECOND, HostKind::Stdin, b"abcd").is_ok());
    assert!(guest.accept(SECOND, HostKind::Stdin, b"e").is_err());
    assert!(guest.accept(FIRST, HostKind::Stdin, b"a").is_err());
    assert!(guest.accept(0, HostKind::Stdin, b"a").is_err());
    assert!(guest.accept(0, HostKind::Signal, &[15, 0, 0, 0]).is_err());
    assert!(guest.accept(FIRST, HostKind::Signal, &[15, 0, 0, 0]).is_ok());
    assert!(guest.accept(FIRST, HostKind::Signal, &[0, 0, 0, 0]).is_err());
    assert!(guest.accept(65_530, HostKind::StdinEof, &[]).is_err());
    assert!(guest.accept(FIRST, HostKind::Exec, b"{}").is_err());
    assert!(guest.accept(0, HostKind::Stop, &[1, 0, 0, 0]).is_ok());
}

#[test]
fn tells_a_fresh_agent_how_each_is() {
    let mut guest = running();
    let error = [&[3_u8, 0][..], b"none"].concat();
    let credit = (SECOND, GuestKind::Credit, &[4, 0, 0, 0][..]);
    guest.receive(&said(&[(FIRST, GuestKind::Exit, EXIT), credit])).unwrap();
    guest.agent_changed().unwrap();
    assert_eq!(
        to_agent(&mut guest),
        [(FIRST, GuestKind::Exit), (SECOND, GuestKind::Started), (SECOND, GuestKind::Credit)]
    );
    let mut guest = guest_with(None);
    let started = |number| (number, GuestKind::Started, STARTED);
    guest.receive(&said(&[started(0), (SECOND, GuestKind::Error, &error)])).unwrap();
    guest.agent_changed().unwrap();
    assert_eq!(to_agent(&mut guest), [(SECOND, GuestKind::Error)]);
}

#[test]
fn says_in_the_log_whose_output_it_is() {
    use std::os::unix::fs::FileExt;

    let (size, offset) = (4096 + 2 * 65_536, 4096);
    let memory = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = std::fs::File::from(memory);
    file.set_len(size).unwrap();
    let log = LogFile(file.try_clone().unwrap());
    let mut guest = guest_with(Some(Writer::format(log, Shape::of_file(size).unwrap()).unwrap()));
    let started = |number| (number, GuestKind::Started, STARTED);
    guest
        .receive(&said(&[started(0), started(SECOND), (SECOND, GuestKind::Stdout, b"x")]))
        .unwrap();
    let mut header = [0; 16];
    file.read_exact_at(&mut header, offset).unwrap();
    let header = RecordHeader::parse(header, 0).unwrap();
    assert_eq!((header.app, header.source, header.length), (1, Source::Stdout, 1));
}
