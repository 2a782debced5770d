//! Tests of the control messages.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that fails may panic"
)]

use super::*;

/// Every number another one.
fn metrics() -> Metrics {
    let mut next = 0;
    let mut number = || {
        next += 1;
        next
    };
    Metrics {
        machine: std::array::from_fn(|_| number()),
        devices: std::array::from_fn(|_| std::array::from_fn(|_| number())),
    }
}

fn every_message() -> Vec<FromVmm<'static>> {
    let mut all = vec![
        FromVmm::Started { control: [1; 32], io: [2; 32], vcpu: [3; 32] },
        FromVmm::Ready { restored: false },
        FromVmm::Ready { restored: true },
        FromVmm::Exit(Exit::Code(3)),
        FromVmm::Exit(Exit::Oom(9)),
        FromVmm::Failure { reason: Reason::Io, text: "" },
        FromVmm::Template { state_size: 16_384, memory_size: 134_217_728 },
        FromVmm::Metrics(metrics()),
        FromVmm::Resized(Resized { errno: 28, bytes: 1 << 33 }),
    ];
    all.extend(Reason::ALL.iter().map(|reason| FromVmm::Failure { reason: *reason, text: "why" }));
    all
}

fn from_spawn() -> [FromSpawn; 4] {
    let resize = FromSpawn::Resize { bytes: 1 << 33 };
    [FromSpawn::Stop { timeout_ms: 70_000 }, FromSpawn::Stream, FromSpawn::Metrics, resize]
}

#[test]
fn reads_back_every_message() {
    for message in every_message() {
        let packet = message.encode();
        assert_eq!(FromVmm::parse(packet.as_bytes()), Ok(message));
    }
    for message in from_spawn() {
        assert_eq!(FromSpawn::parse(message.encode().as_bytes()), Ok(message));
    }
}

#[test]
fn refuses_every_message_that_is_shorter_or_longer() {
    for message in every_message() {
        let packet = message.encode();
        let bytes = packet.as_bytes();
        for length in 0..bytes.len() {
            assert_eq!(FromVmm::parse(&bytes[..length]), Err(NotAMessage), "{message:?} {length}");
        }
        assert_eq!(FromVmm::parse(&[bytes, b"x"].concat()), Err(NotAMessage), "{message:?}");
    }
    for message in from_spawn() {
        let packet = message.encode();
        let bytes = packet.as_bytes();
        assert_eq!(FromSpawn::parse(&bytes[..bytes.len() - 1]), Err(NotAMessage));
        assert_eq!(FromSpawn::parse(&[bytes, &[0]].concat()), Err(NotAMessage));
    }
}

#[test]
fn lays_messages_out_as_documented() {
    let packet = FromVmm::Metrics(metrics()).encode();
    assert_eq!(packet.as_bytes().len(), 1713);
    assert_eq!(packet.as_bytes()[..17], [6, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let packet = FromVmm::Failure { reason: Reason::Verity, text: "no" }.encode();
    assert_eq!(packet.as_bytes(), [4, 9, 0, 2, 0, b'n', b'o']);
    let packet = FromVmm::Template { state_size: 1, memory_size: 256 }.encode();
    assert_eq!(packet.as_bytes(), [5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(FromVmm::Exit(Exit::Signal(15)).encode().as_bytes(), [3, 1, 15, 0, 0, 0]);
    let packet = FromVmm::Started { control: [1; 32], io: [2; 32], vcpu: [3; 32] }.encode();
    assert_eq!(packet.as_bytes(), [[1].as_slice(), &[1; 32], &[2; 32], &[3; 32]].concat());
    assert_eq!(FromSpawn::Stop { timeout_ms: 258 }.encode().as_bytes(), [16, 2, 1, 0, 0]);
    let resize = FromSpawn::Resize { bytes: 0x0102 };
    assert_eq!(resize.encode().as_bytes(), [19, 2, 1, 0, 0, 0, 0, 0, 0]);
    let resized = FromVmm::Resized(Resized { errno: 5, bytes: 3 });
    assert_eq!(resized.encode().as_bytes(), [7, 5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn sends_and_takes_printable_ascii_only() {
    let packet = FromVmm::Failure { reason: Reason::Kvm, text: "a\n\u{1b}ü" }.encode();
    let read = FromVmm::parse(packet.as_bytes()).unwrap();
    assert_eq!(read, FromVmm::Failure { reason: Reason::Kvm, text: "a????" });
    assert_eq!(FromVmm::parse(&[4, 3, 0, 1, 0, b'\n']), Err(NotAMessage));
    assert_eq!(FromVmm::parse(&[4, 0, 0, 1, 0, b'x']), Err(NotAMessage));
}

#[test]
fn cuts_a_failure_text_and_refuses_a_longer_one() {
    let long = "x".repeat(1000);
    let packet = FromVmm::Failure { reason: Reason::Io, text: &long }.encode();
    assert_eq!(packet.as_bytes().len(), 5 + FAILURE_TEXT_MAX);
    let read = FromVmm::parse(packet.as_bytes()).unwrap();
    assert_eq!(read, FromVmm::Failure { reason: Reason::Io, text: &long[..256] });
    let forged = [[4, 13, 0, 1, 1].as_slice(), &[b'x'; 257]].concat();
    assert_eq!(FromVmm::parse(&forged), Err(NotAMessage));
}

#[test]
fn gives_every_reason_its_own_number_and_name() {
    let numbers: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.number()).collect();
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
    assert_eq!((numbers.len(), names.len()), (Reason::ALL.len(), Reason::ALL.len()));
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason.number()), Some(*reason));
    }
    assert_eq!(Reason::from_number(0), None);
}
