//! Tests of the pod log, with a reader that knows nothing but the documented layout.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a test that fails may panic"
)]

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

#[derive(Clone)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl WriteAt for Memory {
    fn write_at(&mut self, offset: u64, parts: [&[u8]; 2]) -> io::Result<()> {
        let mut file = self.0.borrow_mut();
        let mut at = offset as usize;
        for part in parts {
            let end = at + part.len();
            if end > file.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file[at..end].copy_from_slice(part);
            at = end;
        }
        Ok(())
    }
}

const SIZE: usize = 4096 + 3 * 65_536;

fn log() -> (Memory, Writer<Memory>) {
    let memory = Memory(Rc::new(RefCell::new(vec![0; SIZE])));
    let shape = Shape::of_file(SIZE as u64).unwrap();
    let writer = Writer::format(memory.clone(), shape).unwrap();
    (memory, writer)
}

/// Everything a reader finds that begins now, as (source, payload).
fn read(memory: &Memory) -> Vec<(Source, Vec<u8>)> {
    let file = memory.0.borrow();
    let (shape, written) = Shape::parse_file_header(&file[..32].try_into().unwrap()).unwrap();
    let mut at = shape.oldest(written);
    let mut out = Vec::new();
    while at < written {
        assert!(shape.intact(at, written));
        let room = Shape::room(at);
        if room < RECORD_HEADER_LEN {
            at += u64::from(room);
            continue;
        }
        let place = shape.position(at) as usize;
        let header = RecordHeader::parse(file[place..place + 16].try_into().unwrap(), at).unwrap();
        let payload = &file[place + 16..place + 16 + header.length as usize];
        if header.source != Source::Padding {
            out.push((header.source, payload.to_vec()));
        }
        at += 16 + u64::from(header.length);
    }
    assert_eq!(at, written);
    out
}

fn bytes_of(records: &[(Source, Vec<u8>)], source: Source) -> Vec<u8> {
    records.iter().filter(|(s, _)| *s == source).flat_map(|(_, payload)| payload.clone()).collect()
}

#[test]
fn formats_the_header_as_documented() {
    let (memory, writer) = log();
    assert_eq!(writer.written(), 0);
    let file = memory.0.borrow();
    assert_eq!(file[..8], *b"casemlog");
    assert_eq!(file[8..16], [1, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(file[16..24], (3 * 65_536_u64).to_le_bytes());
    assert_eq!(file[24..4096], [0; 4072]);
}

#[test]
fn lays_a_record_out_as_documented() {
    let (memory, mut writer) = log();
    writer.append(Source::Stderr, 0x0807_0605_0403_0201, b"hey").unwrap();
    let file = memory.0.borrow();
    let expected = [3, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, b'h', b'e', b'y'];
    assert_eq!(file[4096..4096 + 19], expected);
    assert_eq!(file[24..32], 19_u64.to_le_bytes());
}

#[test]
fn keeps_streams_apart_and_in_order() {
    let (memory, mut writer) = log();
    writer.append(Source::Stdout, 1, b"one ").unwrap();
    writer.append(Source::Stderr, 2, b"error").unwrap();
    writer.append(Source::Stdout, 3, b"two").unwrap();
    writer.append(Source::Stdout, 3, b"").unwrap();
    let records = read(&memory);
    assert_eq!(records.len(), 3);
    assert_eq!(bytes_of(&records, Source::Stdout), b"one two");
}

#[test]
fn crosses_segments_for_every_room_that_can_be_left() {
    for room in 1..=40_u32 {
        let (memory, mut writer) = log();
        let first = vec![b'a'; (SEGMENT_SIZE - room - RECORD_HEADER_LEN) as usize];
        writer.append(Source::Stdout, 1, &first).unwrap();
        writer.append(Source::Stdout, 1, &[b'b'; 100]).unwrap();
        let expected = [first, vec![b'b'; 100]].concat();
        assert_eq!(bytes_of(&read(&memory), Source::Stdout), expected, "room {room}");
    }
}

#[test]
fn splits_a_payload_longer_than_a_segment() {
    let (memory, mut writer) = log();
    let long: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    writer.append(Source::Stdout, 1, &long).unwrap();
    let records = read(&memory);
    assert_eq!(bytes_of(&records, Source::Stdout), long);
    assert_eq!(records[0].1.len(), RECORD_PAYLOAD_MAX as usize);
}

#[test]
fn keeps_the_newest_output_when_it_wraps() {
    let (memory, mut writer) = log();
    let mut all = Vec::new();
    for round in 0..5000_u32 {
        let line = format!("line {round} {}\n", "x".repeat((round % 211) as usize));
        writer.append(Source::Stdout, u64::from(round), line.as_bytes()).unwrap();
        all.extend_from_slice(line.as_bytes());
        if round % 97 == 0 {
            let kept = bytes_of(&read(&memory), Source::Stdout);
            assert!(all.ends_with(&kept), "round {round}");
            assert!(kept.len() >= all.len().min(50_000), "round {round} kept {}", kept.len());
        }
    }
    assert!(writer.written() > 2 * SIZE as u64);
}

#[test]
fn tells_a_reader_that_it_was_overtaken() {
    let shape = Shape::of_file(SIZE as u64).unwrap();
    let written = 10 * 65_536 + 5;
    let oldest = shape.oldest(written);
    assert_eq!(oldest % 65_536, 0);
    assert!(shape.intact(oldest, written));
    assert!(!shape.intact(oldest, written + 2 * 65_536));
    assert_eq!(shape.oldest(0), 0);
    assert_eq!(shape.oldest(65_536), 0);
}

#[test]
fn refuses_sizes_that_hold_no_ring() {
    for size in [0, 4096, 4096 + 2 * 65_536 - 1] {
        assert_eq!(Shape::of_file(size), Err(BadSize(size)));
    }
}

#[test]
fn takes_as_many_whole_segments_as_fit() {
    for (size, segments) in [(4096 + 2 * 65_536, 2), (4_194_304, 63), (4096 + 64 * 65_536, 64)] {
        assert_eq!(Shape::of_file(size).unwrap().capacity(), segments * 65_536);
    }
}

#[test]
fn refuses_a_header_whose_capacity_is_no_ring() {
    for capacity in [0, 65_536, 3 * 65_536 - 1, u64::MAX] {
        let mut header = Shape::of_file(SIZE as u64).unwrap().file_header(9);
        assert_eq!(Shape::parse_file_header(&header).unwrap().1, 9);
        header[16..24].copy_from_slice(&u64::to_le_bytes(capacity));
        assert_eq!(Shape::parse_file_header(&header), None, "{capacity}");
    }
}

#[test]
fn does_not_cover_a_record_that_failed() {
    let memory = Memory(Rc::new(RefCell::new(vec![0; 4096 + 10])));
    let shape = Shape::of_file(SIZE as u64).unwrap();
    let mut writer = Writer::format(memory.clone(), shape).unwrap();
    assert!(writer.append(Source::Stdout, 1, b"too much for this file").is_err());
    assert_eq!(writer.written(), 0);
    assert_eq!(memory.0.borrow()[24..32], [0; 8]);
}
