#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]

use casemate_wire::frame::{FrameReader, append};
use casemate_wire::health::Answer;

use super::super::{Guest, Told};
use super::*;

fn frames(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        append(&mut bytes, GuestKind::Health, payload).unwrap();
    }
    bytes
}

/// A guest whose app runs.
fn running() -> Guest {
    let mut guest = Guest::new(true, Told { config: "{}".into(), files: vec![] }, None, None)
        .with_apps(&[true]);
    begin(&mut guest);
    guest
}

fn begin(guest: &mut Guest) {
    guest.send_unique().unwrap();
    let mut bytes = Vec::new();
    append(&mut bytes, GuestKind::UniqueDone, &[]).unwrap();
    append(&mut bytes, GuestKind::Started, &[2, 0, 0, 0]).unwrap();
    guest.receive(&bytes).unwrap();
    guest.agent_backlog().clear();
}

fn said(state: State, streak: u32) -> Vec<u8> {
    let answer = Answer::Code(u8::from(state != State::Healthy));
    Health { state, answer, streak, since_ns: 0, output: b"words" }.encode()
}

/// What the agent hears: state, streak, since when.
fn told(guest: &mut Guest) -> Vec<(State, u32, u64)> {
    let bytes = std::mem::take(guest.agent_backlog());
    let (mut rest, mut reader, mut found) = (bytes.as_slice(), FrameReader::new(), Vec::new());
    while let Some(frame) = reader.take(&mut rest).unwrap() {
        let health = Health::parse(frame.payload).unwrap();
        assert_eq!((frame.kind, health.output), (GuestKind::Health, b"words".as_slice()));
        found.push((health.state, health.streak, health.since_ns));
    }
    found
}

#[test]
fn says_since_when_by_its_own_clock_and_again_to_a_fresh_agent() {
    let mut guest = running();
    let before = now_ns();
    let payloads = [said(State::Starting, 1), said(State::Healthy, 0), said(State::Healthy, 0)];
    guest.receive(&frames(&payloads)).unwrap();
    let [starting, healthy, again] = told(&mut guest).try_into().unwrap();
    assert!(starting.2 >= before && healthy.2 >= starting.2 && again.2 <= now_ns());
    assert_eq!(healthy, again, "the same state did not begin anew");
    guest.agent_changed().unwrap();
    assert_eq!(told(&mut guest), [again]);
    guest.receive(&frames(&[said(State::Unhealthy, 3)])).unwrap();
    let [unhealthy] = told(&mut guest).try_into().unwrap();
    assert!(unhealthy.2 >= again.2);
    guest.receive(&frames(&[said(State::Healthy, 0)])).unwrap();
    assert!(told(&mut guest)[0].2 >= unhealthy.2, "a new time of health");
}

#[test]
fn ends_a_guest_that_was_not_asked_that_floods_or_that_makes_up_its_time() {
    let words = frames(&[said(State::Healthy, 0)]);
    let mut unasked = Guest::new(true, Told { config: "{}".into(), files: vec![] }, None, None);
    begin(&mut unasked);
    assert_eq!(unasked.receive(&words).unwrap_err().reason, Reason::GuestProtocol);

    let mut guest = running();
    let room = guest.agent_backlog().capacity();
    let taken = std::iter::repeat_with(|| guest.receive(&words)).take(100_000);
    let taken = taken.take_while(Result::is_ok).count();
    assert!((32..1000).contains(&taken), "{taken}");
    assert_eq!(guest.agent_backlog().capacity(), room);

    let mut forged = said(State::Healthy, 0);
    forged[SINCE.start] = 1;
    assert!(running().receive(&frames(&[forged])).is_err());
    assert!(running().receive(&frames(&[vec![9; 16]])).is_err());
}
