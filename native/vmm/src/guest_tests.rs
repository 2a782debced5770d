#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use casemate_wire::frame::append;

use casemate_wire::credit::WINDOW_MAX;
use casemate_wire::payload::InputCredit;

use super::*;

fn told() -> Told {
    Told { config: "{}".into(), files: Vec::new() }
}

fn said(frames: &[(GuestKind, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, payload) in frames {
        append(&mut bytes, *kind, payload).unwrap();
    }
    bytes
}

/// A guest whose app runs and takes `bytes` of input.
fn running(bytes: u32) -> Guest {
    let mut guest = Guest::new(true, told(), None, None);
    guest.send_unique().unwrap();
    let credit = InputCredit { bytes }.encode();
    let frames: [(GuestKind, &[u8]); 3] = [
        (GuestKind::UniqueDone, &[]),
        (GuestKind::Started, &[2, 0, 0, 0]),
        (GuestKind::Credit, credit.as_bytes()),
    ];
    guest.receive(&said(&frames)).unwrap();
    guest
}

#[test]
fn tells_a_fresh_agent_what_is_left_of_the_input_window() {
    let mut guest = running(10);
    guest.accept(0, HostKind::Stdin, b"abc").unwrap();
    guest.agent_changed().unwrap();
    let left = InputCredit { bytes: 7 }.encode();
    assert_eq!(*guest.agent_backlog(), said(&[(GuestKind::Credit, left.as_bytes())]));
    guest.accept(0, HostKind::Stdin, b"defghij").unwrap();
    guest.agent_changed().unwrap();
    assert!(guest.agent_backlog().is_empty(), "nothing is left to grant");
}

#[test]
fn takes_no_more_input_than_was_granted_and_no_more_credit_than_a_window() {
    let mut guest = running(3);
    assert!(guest.accept(0, HostKind::Stdin, b"abcd").is_err());
    guest.accept(0, HostKind::Stdin, b"abc").unwrap();
    assert!(guest.accept(0, HostKind::Stdin, b"d").is_err());
    let whole = InputCredit { bytes: WINDOW_MAX }.encode();
    guest.receive(&said(&[(GuestKind::Credit, whole.as_bytes())])).unwrap();
    let failure = guest.receive(&said(&[(GuestKind::Credit, &[1, 0, 0, 0])])).unwrap_err();
    assert_eq!(failure.reason, Reason::GuestProtocol);
}

#[test]
fn takes_an_answer_to_a_resize_once_and_for_that_size_alone() {
    let answer = |bytes| Resized { errno: 0, bytes }.encode();
    let say = |guest: &mut Guest, bytes| {
        guest.receive(&said(&[(GuestKind::Resized, answer(bytes).as_bytes())]))
    };
    let mut guest = running(0);
    assert_eq!(say(&mut guest, 8192).unwrap_err().reason, Reason::GuestProtocol);
    for (bytes, fine) in [(8192, true), (4096, false)] {
        let mut guest = running(0);
        guest.events();
        guest.resize(8192).unwrap();
        assert_eq!(say(&mut guest, bytes).is_ok(), fine, "{bytes}");
        let came = Event::Resized(Resized { errno: 0, bytes });
        assert_eq!(guest.events(), if fine { vec![came] } else { vec![] });
        assert!(say(&mut guest, bytes).is_err(), "nothing was asked any more");
    }
    let resize = Resize { bytes: 1 }.encode();
    assert!(running(0).accept(0, HostKind::Resize, resize.as_bytes()).is_err(), "from an agent");
}

#[test]
fn keeps_its_backlogs_in_the_room_made_for_them() {
    let mut guest = running(10);
    let rooms = [guest.guest_backlog().capacity(), guest.agent_backlog().capacity()];
    let failure = std::iter::repeat_with(|| guest.stop(1)).find_map(Result::err).unwrap();
    assert_eq!(failure.reason, Reason::GuestProtocol);
    assert!(guest.guest_backlog().len() <= GUEST_BACKLOG_MAX);
    let credit = InputCredit { bytes: 1 }.encode();
    while !guest.agent_lost() {
        guest.receive(&said(&[(GuestKind::Credit, credit.as_bytes())])).unwrap();
        assert!(guest.agent_backlog().len() <= AGENT_BACKLOG_MAX);
    }
    assert_eq!(rooms, [guest.guest_backlog().capacity(), guest.agent_backlog().capacity()]);
}

#[test]
fn tells_files_in_pieces_before_the_configuration_and_keeps_nothing_of_them() {
    let files: Vec<u8> = (0..=255).cycle().take(65_537).collect();
    let told = Told { config: "{}".into(), files: files.clone() };
    let mut guest = Guest::new(true, told, None, None);
    guest.send_unique().unwrap();
    guest.guest_backlog().clear();
    guest.receive(&said(&[(GuestKind::UniqueDone, &[])])).unwrap();
    let mut expected = Vec::new();
    let (first, second) = files.split_at(65_536);
    for (kind, payload) in
        [(HostKind::Files, first), (HostKind::Files, second), (HostKind::Config, b"{}")]
    {
        append(&mut expected, kind, payload).unwrap();
    }
    assert_eq!(*guest.guest_backlog(), expected);
    assert!(guest.talk.told.files.iter().all(|byte| *byte == 0));
    assert!(guest.accept(0, HostKind::Files, b"x").is_err(), "no agent has any");
}
