//! Tests of the frame reader.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test that fails may panic"
)]

use super::*;

fn frame<K: Kind>(kind: K, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, payload).unwrap();
    out
}

/// Feeds `bytes` in pieces of `step` and collects what comes out.
fn read_all<K: Kind>(bytes: &[u8], step: usize) -> Result<Vec<(K, Vec<u8>)>, FrameError> {
    let mut reader = FrameReader::<K>::new();
    let mut out = Vec::new();
    for piece in bytes.chunks(step) {
        let mut input = piece;
        while let Some(frame) = reader.take(&mut input)? {
            out.push((frame.kind, frame.payload.to_vec()));
        }
        assert!(input.is_empty(), "the reader left bytes behind");
    }
    Ok(out)
}

#[test]
fn yields_the_same_frames_however_the_bytes_are_cut() {
    let mut bytes = frame(GuestKind::Hello, &[1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(frame(GuestKind::UniqueDone, &[]));
    bytes.extend(frame(GuestKind::Stdout, &[7; 300]));
    bytes.extend(frame(GuestKind::Stderr, b"x"));
    bytes.extend(frame(GuestKind::UniqueDone, &[]));
    let whole = read_all::<GuestKind>(&bytes, bytes.len()).unwrap();
    assert_eq!(
        whole.iter().map(|(kind, payload)| (*kind, payload.len())).collect::<Vec<_>>(),
        [
            (GuestKind::Hello, 8),
            (GuestKind::UniqueDone, 0),
            (GuestKind::Stdout, 300),
            (GuestKind::Stderr, 1),
            (GuestKind::UniqueDone, 0)
        ]
    );
    for step in 1..bytes.len() {
        assert_eq!(read_all::<GuestKind>(&bytes, step).unwrap(), whole, "pieces of {step}");
    }
}

#[test]
fn admits_exactly_the_documented_kinds_of_each_direction() {
    let host: Vec<u8> = (0..=255).filter(|byte| HostKind::from_byte(*byte).is_some()).collect();
    let guest: Vec<u8> = (0..=255).filter(|byte| GuestKind::from_byte(*byte).is_some()).collect();
    assert_eq!(host, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert_eq!(guest, [64, 65, 66, 67, 68, 69, 70, 71, 72, 73]);
    for kind in GuestKind::ALL {
        assert_eq!(GuestKind::from_byte(kind.byte()), Some(*kind));
    }
}

#[test]
fn refuses_each_length_a_kind_does_not_have() {
    for kind in HostKind::ALL {
        let (min, max) = kind.length();
        for length in [min.checked_sub(1), max.checked_add(1), Some(u32::MAX)] {
            let Some(length) = length else { continue };
            let mut bytes = [kind.byte(), 0, session_of(*kind) as u8, 0, 0, 0, 0, 0];
            bytes[4..].copy_from_slice(&length.to_le_bytes());
            assert_eq!(
                Header::<HostKind>::parse(bytes),
                Err(FrameError::Length { kind: kind.byte(), length })
            );
        }
        assert!(Header::new(*kind, session_of(*kind), max as usize).is_ok());
    }
}

#[test]
fn refuses_a_reserved_byte_that_is_not_zero() {
    let mut bytes = frame(HostKind::Stop, &[0; 4]);
    bytes[1] = 1;
    assert_eq!(read_all::<HostKind>(&bytes, 1), Err(FrameError::ReservedNotZero));
}

/// A session that `kind` may be of.
fn session_of<K: Kind>(kind: K) -> u16 {
    u16::from(kind.whose() == Whose::Session)
}

#[test]
fn keeps_what_is_the_app_s_and_what_is_a_session_s_apart() {
    let sent = |kind: HostKind, session: u16| {
        let mut bytes = [kind.byte(), 0, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&session.to_le_bytes());
        bytes[4..].copy_from_slice(&kind.length().0.to_le_bytes());
        Header::<HostKind>::parse(bytes).map(|header| (header.kind(), header.session()))
    };
    for (kind, app, session) in [
        (HostKind::Unique, true, false),
        (HostKind::Config, true, false),
        (HostKind::Stop, true, false),
        (HostKind::Resize, true, false),
        (HostKind::Stdin, true, true),
        (HostKind::Signal, true, true),
        (HostKind::Exec, false, true),
        (HostKind::Close, false, true),
        (HostKind::Admit, false, true),
    ] {
        for (number, fits) in [(0, app), (1, session), (256, session), (u16::MAX, session)] {
            let wrong = FrameError::Stream { kind: kind.byte(), stream: number };
            assert_eq!(sent(kind, number), if fits { Ok((kind, number)) } else { Err(wrong) });
        }
    }
}

#[test]
fn refuses_the_other_direction_s_kinds() {
    let bytes = frame(GuestKind::Stdout, b"hello");
    assert_eq!(read_all::<HostKind>(&bytes, 3), Err(FrameError::UnknownKind(67)));
}

#[test]
fn never_grows_beyond_what_it_allocated() {
    let mut reader = FrameReader::<HostKind>::new();
    let room = reader.payload.capacity();
    assert!(room >= CONFIG_MAX as usize);
    for length in [2, CONFIG_MAX as usize, 17] {
        let bytes = frame(HostKind::Config, &vec![b'x'; length]);
        let mut input = bytes.as_slice();
        assert_eq!(reader.take(&mut input).unwrap().unwrap().payload.len(), length);
        assert_eq!(reader.payload.capacity(), room);
    }
}

#[test]
fn knows_a_frame_boundary() {
    let bytes = frame(HostKind::Stop, &[0; 4]);
    let mut reader = FrameReader::<HostKind>::new();
    assert!(reader.at_boundary());
    for byte in &bytes[..bytes.len() - 1] {
        assert_eq!(reader.take(&mut [*byte].as_slice()).unwrap(), None);
        assert!(!reader.at_boundary());
    }
    assert!(reader.take(&mut [0].as_slice()).unwrap().is_some());
    assert!(reader.at_boundary());
}

#[test]
fn stays_broken_after_an_error() {
    let mut reader = FrameReader::<HostKind>::new();
    let bytes = [0_u8; 32];
    let mut input = bytes.as_slice();
    assert_eq!(reader.take(&mut input), Err(FrameError::UnknownKind(0)));
    assert_eq!(reader.take(&mut input), Err(FrameError::UnknownKind(0)));
}

#[test]
fn appends_nothing_when_the_payload_is_refused() {
    let mut out = vec![1];
    assert!(append(&mut out, GuestKind::Stdout, &vec![0; PAYLOAD_MAX as usize + 1]).is_err());
    assert_eq!(out, [1]);
}

#[test]
fn begins_anew_for_another_peer_after_half_a_frame_and_after_an_error() {
    let good = frame(HostKind::Signal, &[9, 0, 0, 0]);
    let mut reader = FrameReader::<HostKind>::new();
    let room = reader.payload.capacity();
    for broken in [&good[..10], &good[..3], &[255; 8]] {
        let _ = reader.take(&mut &*broken);
        reader.reset();
        assert!(reader.at_boundary());
        let mut input = good.as_slice();
        let read = reader.take(&mut input).unwrap().unwrap();
        assert_eq!((read.kind, read.payload), (HostKind::Signal, &[9, 0, 0, 0][..]));
    }
    assert_eq!(reader.payload.capacity(), room);
}
