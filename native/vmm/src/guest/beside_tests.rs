#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may panic")]

use casemate_ticket::bytes::{Digest, encode_base64, encode_hex};
use casemate_ticket::document::Context;
use casemate_ticket::exec::Pod;
use casemate_ticket::note::LogKey;
use casemate_ticket::proof::leaf_hash;
use casemate_wire::frame::{FrameReader, Kind as _, append_to};
use casemate_wire::sessions::SESSIONS_MAX;
use ed25519_dalek::{Signer as _, SigningKey};

use super::super::{Guest, Told};
use super::*;

const ORIGIN: &str = "casemate.example/log";
const BOOT: &str = "11111111-2222-3333-4444-555555555555";
const REQUEST: &[u8] = b"{}";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn blob() -> Vec<u8> {
    [&[1_u8][..], key().verifying_key().as_bytes()].concat()
}

fn id() -> [u8; 4] {
    *Digest::of(&[ORIGIN.as_bytes(), b"\n", &blob()].concat()).0.first_chunk().unwrap()
}

fn context() -> Context {
    let vkey = format!("{ORIGIN}+{}+{}", encode_hex(&id()), encode_base64(&blob()));
    Context {
        node: "host-1".into(),
        boot_id: BOOT.into(),
        kvm: None,
        allow_software_kvm: false,
        levels: vec![],
        log_keys: vec![LogKey::parse(&vkey).unwrap()],
    }
}

/// ADMIT of the `number`th record of `pod`, with a deadline `ahead_ns` from now.
fn admission(pod: &str, number: u32, ahead_ns: u64) -> Vec<u8> {
    let deadline = boottime_ns().saturating_add(ahead_ns);
    let record = format!(
        r#"{{"clock":{{"boot_id":"{BOOT}"}},"deadline":{{"boottime_ns":"{deadline}"}},"id":"{number}","launch_id":"{pod}","node":{{"id":"host-1"}},"request":"{}","tenant":"acme","type":"exec.intent","v":"casemate.audit/1"}}"#,
        Digest::of(REQUEST)
    );
    let leaf = leaf_hash(record.as_bytes());
    let text = format!("{ORIGIN}\n1\n{}\n", encode_base64(&leaf));
    let line = encode_base64(&[&id()[..], &key().sign(text.as_bytes()).to_bytes()].concat());
    let ticket = format!("c2sp.org/tlog-proof@v1\nindex 0\n\n{text}\n\u{2014} {ORIGIN} {line}\n");
    let length = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    [&length(&ticket)[..], &length(&record), ticket.as_bytes(), record.as_bytes(), REQUEST].concat()
}

const SOON: u64 = 20_000_000_000;

fn good(number: u32) -> Vec<u8> {
    admission("pod-1", number, SOON)
}

fn said(frames: &[(u16, GuestKind, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (session, kind, payload) in frames {
        append_to(&mut bytes, *session, *kind, payload).unwrap();
    }
    bytes
}

fn guest() -> Guest {
    let pod = Pod { launch_id: "pod-1".into(), tenant: "acme".into() };
    let mut guest = Guest::new(
        true,
        Told { config: "{}".into(), files: Vec::new() },
        None,
        Some(Gate::new(context(), pod)),
    );
    guest.send_unique().unwrap();
    guest.receive(&said(&[(0, GuestKind::UniqueDone, &[])])).unwrap();
    guest
}

/// A guest whose app runs.
fn running() -> Guest {
    let mut guest = guest();
    guest.receive(&said(&[(0, GuestKind::Started, &[2, 0, 0, 0])])).unwrap();
    guest.guest_backlog().clear();
    guest.agent_backlog().clear();
    guest
}

/// The same, with session 5 started.
fn with_session() -> Guest {
    let mut guest = running();
    guest.accept(5, HostKind::Admit, &good(1)).unwrap();
    guest.receive(&said(&[(5, GuestKind::Started, &[9, 0, 0, 0])])).unwrap();
    guest.guest_backlog().clear();
    guest.agent_backlog().clear();
    guest
}

fn to_guest(guest: &mut Guest) -> Vec<(u16, HostKind, Vec<u8>)> {
    let bytes = std::mem::take(guest.guest_backlog());
    let mut reader = FrameReader::<HostKind>::new();
    let (mut rest, mut frames) = (bytes.as_slice(), Vec::new());
    while let Some(frame) = reader.take(&mut rest).unwrap() {
        frames.push((frame.session, frame.kind, frame.payload.to_vec()));
    }
    frames
}

fn to_agent(guest: &mut Guest) -> Vec<(u16, GuestKind, Vec<u8>)> {
    let bytes = std::mem::take(guest.agent_backlog());
    let mut reader = FrameReader::<GuestKind>::new();
    let (mut rest, mut frames) = (bytes.as_slice(), Vec::new());
    while let Some(frame) = reader.take(&mut rest).unwrap() {
        frames.push((frame.session, frame.kind, frame.payload.to_vec()));
    }
    frames
}

fn refusal(guest: &mut Guest) -> (u16, ErrorCode, String) {
    match to_agent(guest).as_slice() {
        [(session, GuestKind::Error, payload)] => {
            let error = StartError::parse(payload).unwrap();
            (*session, error.code, error.text.to_owned())
        }
        other => panic!("{other:?}"),
    }
}

fn credit(stream: Stream, bytes: u32) -> Vec<u8> {
    OutputCredit { stream, bytes }.encode().as_bytes().to_vec()
}

#[test]
fn nothing_reaches_the_guest_without_a_ticket_of_its_own() {
    let mut guest = running();
    for (payload, code) in [
        (admission("pod-2", 1, SOON), "TICKET_POD"),
        (admission("pod-1", 1, 40_000_000_000), "TICKET_TOO_FAR"),
        ([good(1), b" ".to_vec()].concat(), "TICKET_REQUEST_DIGEST"),
        (vec![0; 10], "TICKET_MISSING"),
    ] {
        guest.accept(5, HostKind::Admit, &payload).unwrap();
        assert!(to_guest(&mut guest).is_empty());
        let (session, kind, text) = refusal(&mut guest);
        assert_eq!((session, kind), (5, ErrorCode::Refused));
        assert!(text.starts_with(code), "{text}");
    }
    let papers = good(1);
    guest.accept(5, HostKind::Admit, &papers).unwrap();
    assert_eq!(to_guest(&mut guest), [(5, HostKind::Exec, REQUEST.to_vec())]);
    guest.accept(6, HostKind::Admit, &papers).unwrap();
    assert!(to_guest(&mut guest).is_empty());
    assert!(refusal(&mut guest).2.starts_with("TICKET_SPENT"));
    // No way round the gate.
    assert!(guest.accept(7, HostKind::Exec, REQUEST).is_ok());
    assert!(guest.accept(5, HostKind::Exec, REQUEST).is_err());
    assert!(guest.accept(5, HostKind::Admit, &[0; 7]).is_err());
    assert!(to_guest(&mut guest).is_empty());
}

#[test]
fn nothing_runs_beside_an_app_that_does_not() {
    let mut guest = guest();
    guest.guest_backlog().clear();
    guest.accept(5, HostKind::Admit, &good(1)).unwrap();
    assert_eq!(refusal(&mut guest).1, ErrorCode::Refused);
    let mut guest = with_session();
    guest.receive(&said(&[(0, GuestKind::Exit, &[0, 0, 0, 0, 0])])).unwrap();
    assert!(guest.receive(&said(&[(5, GuestKind::Exit, &[0, 0, 0, 0, 0])])).is_err());
    to_agent(&mut guest);
    guest.accept(5, HostKind::Admit, &good(2)).unwrap();
    assert_eq!(refusal(&mut guest).1, ErrorCode::Refused);
    assert!(to_guest(&mut guest).is_empty());
}

#[test]
fn a_pod_has_so_many_sessions_and_no_more() {
    let mut guest = running();
    let last = u16::try_from(SESSIONS_MAX).unwrap();
    for session in 1..=last {
        guest.accept(session, HostKind::Admit, &good(session.into())).unwrap();
    }
    assert_eq!(to_guest(&mut guest).len(), SESSIONS_MAX);
    guest.accept(99, HostKind::Admit, &good(99)).unwrap();
    assert_eq!(refusal(&mut guest).1, ErrorCode::Busy);
    // The ticket was not spent for that.
    guest.receive(&said(&[(3, GuestKind::Error, &[1, 0])])).unwrap();
    to_agent(&mut guest);
    guest.accept(99, HostKind::Admit, &good(99)).unwrap();
    assert_eq!(to_guest(&mut guest).len(), 1);
}

#[test]
fn output_needs_the_agent_s_credit_and_goes_to_it() {
    let mut guest = with_session();
    guest.accept(5, HostKind::Credit, &credit(Stream::Stdout, 3)).unwrap();
    assert_eq!(to_guest(&mut guest), [(5, HostKind::Credit, credit(Stream::Stdout, 3))]);
    guest.receive(&said(&[(5, GuestKind::Stdout, b"abc")])).unwrap();
    assert_eq!(to_agent(&mut guest), [(5, GuestKind::Stdout, b"abc".to_vec())]);
    for (session, kind) in [(5, GuestKind::Stdout), (5, GuestKind::Stderr), (6, GuestKind::Stdout)]
    {
        let mut guest = with_session();
        guest.accept(5, HostKind::Credit, &credit(Stream::Stdout, 3)).unwrap();
        let failure = guest.receive(&said(&[(session, kind, b"abcd")])).unwrap_err();
        assert_eq!(failure.reason, Reason::GuestProtocol);
    }
    // More than has room here is the agent's mistake.
    assert!(guest.accept(5, HostKind::Credit, &credit(Stream::Stdout, SESSION_WINDOW_MAX)).is_ok());
    assert!(guest.accept(5, HostKind::Credit, &credit(Stream::Stdout, 1)).is_err());
    assert!(guest.accept(5, HostKind::Credit, &credit(Stream::Stderr, u32::MAX)).is_err());
}

#[test]
fn input_needs_the_guest_s_credit() {
    let mut guest = with_session();
    assert!(guest.accept(5, HostKind::Stdin, b"a").is_err());
    guest.receive(&said(&[(5, GuestKind::Credit, &[3, 0, 0, 0])])).unwrap();
    guest.accept(5, HostKind::Stdin, b"abc").unwrap();
    assert!(guest.accept(5, HostKind::Stdin, b"a").is_err());
    assert!(guest.accept(5, HostKind::Signal, &[65, 0, 0, 0]).is_err());
    assert!(guest.accept(5, HostKind::Signal, &[15, 0, 0, 0]).is_ok());
    let whole = (65_536_u32).to_le_bytes();
    guest.receive(&said(&[(5, GuestKind::Credit, &whole)])).unwrap();
    assert!(guest.receive(&said(&[(5, GuestKind::Credit, &[1, 0, 0, 0])])).is_err());
}

#[test]
fn an_agent_that_goes_takes_its_sessions_with_it() {
    let mut guest = with_session();
    guest.accept(5, HostKind::Credit, &credit(Stream::Stdout, 10)).unwrap();
    to_guest(&mut guest);
    guest.agent_gone().unwrap();
    guest.agent_gone().unwrap();
    guest.agent_changed().unwrap();
    assert_eq!(to_guest(&mut guest), [(5, HostKind::Close, vec![])]);
    // Nobody hears what it still says, and its number is taken until it has ended.
    guest.receive(&said(&[(5, GuestKind::Stdout, b"abc")])).unwrap();
    assert!(to_agent(&mut guest).is_empty());
    guest.accept(5, HostKind::Stdin, b"for the one before").unwrap();
    guest.accept(5, HostKind::Admit, &good(2)).unwrap();
    assert_eq!(refusal(&mut guest).1, ErrorCode::Busy);
    guest.receive(&said(&[(5, GuestKind::Exit, &[1, 1, 0, 0, 0])])).unwrap();
    assert!(to_agent(&mut guest).is_empty() && to_guest(&mut guest).is_empty());
    guest.accept(5, HostKind::Admit, &good(3)).unwrap();
    assert_eq!(to_guest(&mut guest).len(), 1);
}

#[test]
fn after_close_the_end_is_heard_and_nothing_else() {
    let mut guest = with_session();
    guest.accept(5, HostKind::Credit, &credit(Stream::Stdout, 10)).unwrap();
    guest.accept(5, HostKind::Close, &[]).unwrap();
    guest.receive(&said(&[(5, GuestKind::Stdout, b"abc")])).unwrap();
    assert!(to_agent(&mut guest).is_empty());
    guest.receive(&said(&[(5, GuestKind::Exit, &[1, 1, 0, 0, 0])])).unwrap();
    assert_eq!(to_agent(&mut guest), [(5, GuestKind::Exit, vec![1, 1, 0, 0, 0])]);
}

#[test]
fn payloads_that_are_none_end_the_guest() {
    for (kind, payload) in [
        (GuestKind::Exit, &[3, 0, 0, 0, 0][..]),
        (GuestKind::Hello, &[1, 0, 0, 0, 0, 0, 0, 0][..]),
        (GuestKind::Started, &[1, 0, 0, 0][..]),
        (GuestKind::Error, &[1, 0][..]),
    ] {
        let mut bytes = vec![kind.byte(), 0, 5, 0, u8::try_from(payload.len()).unwrap(), 0, 0, 0];
        bytes.extend(payload);
        assert!(with_session().receive(&bytes).is_err(), "{kind:?}");
    }
}

#[test]
fn spends_only_so_many_in_a_while() {
    let pod = Pod { launch_id: "pod-1".into(), tenant: "acme".into() };
    let mut gate = Gate::new(context(), pod);
    let now = boottime_ns();
    let papers: Vec<_> = (0..300).map(good).collect();
    let admitted = papers
        .iter()
        .filter(|bytes| gate.admit(&Admit::parse(bytes).unwrap(), now).is_ok())
        .count();
    assert_eq!(admitted, 256);
    let again = Admit::parse(papers.first().unwrap()).unwrap();
    assert_eq!(gate.admit(&again, now), Err(crate::gate::Closed::Spent));
    // Deadlines that have passed make room, and their tickets are worth nothing by themselves.
    let later = admission("pod-1", 999, 45_000_000_000);
    let then = now.saturating_add(25_000_000_000);
    assert_eq!(gate.admit(&Admit::parse(&later).unwrap(), then), Ok(()));
    assert!(matches!(gate.admit(&again, then), Err(crate::gate::Closed::Ticket(_))));
}
