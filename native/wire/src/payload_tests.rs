//! Tests of the payloads: layouts as documented, and every other length refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that fails may panic"
)]

use super::*;

/// Refused: one byte less, one byte more, nothing.
fn refuses_other_lengths<T>(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<T>) {
    assert!(parse(bytes).is_some());
    assert!(parse(&bytes[..bytes.len() - 1]).is_none());
    assert!(parse(&[bytes, &[0]].concat()).is_none());
    assert!(parse(&[]).is_none());
}

#[test]
fn lays_unique_out_as_documented() {
    let unique = Unique { entropy: [9; 64], wall_clock_ns: 0x0102_0304_0506_0708, nonce: [7; 16] };
    let packet = unique.encode();
    let bytes = packet.as_bytes();
    assert_eq!(bytes[..64], [9; 64]);
    assert_eq!(bytes[64..72], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes[72..], [7; 16]);
    assert_eq!(Unique::parse(bytes), Some(unique));
    refuses_other_lengths(bytes, Unique::parse);
}

#[test]
fn keeps_entropy_out_of_debug_output() {
    let unique = Unique { entropy: [201; 64], wall_clock_ns: 1, nonce: [202; 16] };
    let shown = format!("{unique:?}");
    assert!(!shown.contains("201") && !shown.contains("202"), "{shown}");
}

#[test]
fn lays_small_payloads_out_as_documented() {
    let credit = OutputCredit { stream: Stream::Stderr, bytes: 258 };
    assert_eq!(credit.encode().as_bytes(), [2, 2, 1, 0, 0]);
    refuses_other_lengths(credit.encode().as_bytes(), OutputCredit::parse);
    assert_eq!(OutputCredit::parse(&[3, 0, 0, 0, 0]), None);

    let hello = Hello { version: 1 };
    assert_eq!(hello.encode().as_bytes(), [1, 0, 0, 0, 0, 0, 0, 0]);
    refuses_other_lengths(hello.encode().as_bytes(), Hello::parse);
    assert_eq!(Hello::parse(&[1, 0, 0, 0, 1, 0, 0, 0]), None);

    let resize = Resize { bytes: 1 << 40 };
    assert_eq!(Resize::parse(resize.encode().as_bytes()), Some(resize));
    refuses_other_lengths(resize.encode().as_bytes(), Resize::parse);
    let resized = Resized { errno: 4095, bytes: 1 << 40 };
    assert_eq!(Resized::parse(resized.encode().as_bytes()), Some(resized));
    refuses_other_lengths(resized.encode().as_bytes(), Resized::parse);
    let beyond = Resized { errno: 4096, bytes: 1 << 40 };
    assert_eq!(Resized::parse(beyond.encode().as_bytes()), None, "Linux has no such error");
    let stop = Stop { timeout_ms: 10_000 };
    assert_eq!(Stop::parse(stop.encode().as_bytes()), Some(stop));
    refuses_other_lengths(stop.encode().as_bytes(), Stop::parse);
}

#[test]
fn reports_only_exits_that_exist() {
    for (exit, bytes) in [
        (Exit::Code(255), [0, 255, 0, 0, 0]),
        (Exit::Signal(9), [1, 9, 0, 0, 0]),
        (Exit::Oom(9), [2, 9, 0, 0, 0]),
    ] {
        assert_eq!(exit.encode().as_bytes(), bytes);
        assert_eq!(Exit::parse(&bytes), Some(exit));
        refuses_other_lengths(&bytes, Exit::parse);
    }
    for bytes in [
        [0, 0, 1, 0, 0],
        [0, 255, 255, 255, 255],
        [1, 0, 0, 0, 0],
        [1, 65, 0, 0, 0],
        [3, 0, 0, 0, 0],
    ] {
        assert_eq!(Exit::parse(&bytes), None, "{bytes:?}");
    }
}

#[test]
fn carries_a_start_error_without_control_characters() {
    let error = StartError { code: ErrorCode::User, text: "no user \u{1b}[2J\n in /etc/passwd" };
    let bytes = error.encode();
    let read = StartError::parse(&bytes).unwrap();
    assert_eq!((read.code, read.text), (ErrorCode::User, "no user ?[2J? in /etc/passwd"));
    assert_eq!(StartError::parse(b"\x03\x00a\x1bb"), None);
    assert_eq!(StartError::parse(b"\x63\x00a"), None);
    assert_eq!(StartError::parse(b"\x03\x00\xff"), None);
}

#[test]
fn cuts_a_long_text_at_a_character() {
    let text = "ü".repeat(1000);
    let bytes = StartError { code: ErrorCode::Other, text: &text }.encode();
    assert_eq!(bytes.len(), 2 + ERROR_TEXT_MAX);
    assert_eq!(StartError::parse(&bytes).unwrap().text, "ü".repeat(512));
    let odd = format!("a{text}");
    let bytes = StartError { code: ErrorCode::Other, text: &odd }.encode();
    assert_eq!(bytes.len(), 2 + ERROR_TEXT_MAX - 1);
}

#[test]
fn takes_an_admission_apart_only_where_its_lengths_fit() {
    let parts = Admit { ticket: b"ticket", record: b"rec", request: b"{}" };
    let bytes = [&6_u32.to_le_bytes()[..], &3_u32.to_le_bytes()[..], b"ticketrec{}"].concat();
    assert_eq!(Admit::parse(&bytes), Some(parts));
    for (ticket, record) in [(12, 0), (6, 6), (u32::MAX, 1), (1, u32::MAX)] {
        let bytes = [&ticket.to_le_bytes()[..], &record.to_le_bytes()[..], b"ticketrec{}"].concat();
        assert_eq!(Admit::parse(&bytes), None, "{ticket} {record}");
    }
    assert_eq!(Admit::parse(&[0; 7]), None);
    let size = Size { rows: 24, columns: 80 };
    assert_eq!(size.encode().as_bytes(), [24, 0, 80, 0]);
    assert_eq!(Size::parse(&[24, 0, 80, 0]), Some(size));
    assert_eq!(Size::parse(&[24, 0, 80]), None);
}
