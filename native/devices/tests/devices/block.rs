//! Disks: what a driver asks for, and what it must not get.

use std::fs::File;

use casemate_devices::{
    AttachError, Backend, Block, BlockKind, Console, Device, Fault, REQUEST_BYTES_MAX, Scratch,
    ScratchError,
};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::guest::{BUFFERS, Guest, WRITE, file_of};
use crate::verity::verified;

pub const READ: u32 = 0;
pub const WRITE_OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

pub const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
pub const DATA: u64 = BUFFERS + 0x1000;

const SIZE: u64 = 0x10_0000;

/// Sends one request with these data segments and gives its status; 0xaa when none was written.
pub fn request(guest: &mut Guest, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> u8 {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    guest.write(HEADER, &header);
    guest.write(STATUS, &[0xaa]);
    let mut segments = vec![(HEADER, 16, 0)];
    segments.extend(data);
    segments.push((STATUS, 1, WRITE));
    guest.send(0, &segments);
    guest.bytes(STATUS, 1)[0]
}

fn scratch_file() -> File {
    file_of(&vec![0; SIZE as usize])
}

fn scratch_on(file: &File) -> Guest {
    let backend = Backend::Scratch(Scratch::new(file.try_clone().unwrap(), SIZE).unwrap());
    Guest::running(Device::Block(Block::new(BlockKind::Scratch, backend, "scratch").unwrap()))
}

fn image_of(blocks: u64) -> Guest {
    let backend = Backend::Verified(verified(blocks, b"salt"));
    Guest::running(Device::Block(Block::new(BlockKind::Image, backend, "image").unwrap()))
}

#[test]
fn says_its_size_its_limits_and_whether_it_can_be_written() {
    let mut image = image_of(3);
    assert_eq!(image.config(0), (3_u64 * 8).to_le_bytes());
    assert_eq!(image.config(0), (3_u32 * 8).to_le_bytes());
    assert_eq!(image.config(20), 4096_u32.to_le_bytes());
    assert_eq!(image.features() & (1 << 5 | 1 << 9 | 1 << 13 | 1 << 14), 1 << 5);
    let mut scratch = scratch_on(&scratch_file());
    assert_eq!(scratch.config(0), (SIZE / 512).to_le_bytes());
    assert_eq!(scratch.features() & (1 << 5), 0);
    assert_eq!(scratch.features() & (1 << 9), 1 << 9);
    let (bytes_max, count_max): ([u8; 4], [u8; 4]) = (scratch.config(8), scratch.config(12));
    let request_max = u32::from_le_bytes(bytes_max) * u32::from_le_bytes(count_max);
    assert_eq!(request_max, REQUEST_BYTES_MAX);
    // Neither indirect descriptors nor event indices, SCSI or a write cache that can be changed.
    assert_eq!(scratch.features() & (1 << 28 | 1 << 29 | 1 << 7 | 1 << 11), 0);
}

#[test]
fn configuration_is_read_aligned_and_never_written() {
    let mut guest = image_of(3);
    assert_eq!(guest.config(1), [0_u8]);
    assert_eq!(guest.config(60), [0_u8; 4]);
    assert_eq!(guest.config(0xefc), [0_u8; 4]);
    assert_eq!(guest.transport.counters().bad_access, 0);
    assert_eq!(guest.config(2), [0_u8; 4]);
    assert_eq!(guest.config(4), [0_u8; 8]);
    assert_eq!(guest.config(0), [0_u8; 3]);
    assert_eq!(guest.transport.counters().bad_access, 3);
    guest.set(0x100, 0xffff_ffff);
    assert_eq!(guest.transport.counters().bad_access, 4);
    assert_eq!(guest.config(0), 24_u32.to_le_bytes());
}

#[test]
fn what_was_written_is_read_back_through_any_segments() {
    let file = scratch_file();
    let mut guest = scratch_on(&file);
    let bytes: Vec<u8> = (0..0x2_1000_u32).map(|index| (index % 251) as u8).collect();
    guest.write(DATA, &bytes);
    let out = [(DATA, 0x1_0001, 0), (DATA + 0x1_0001, 0x1_0fff, 0)];
    assert_eq!(request(&mut guest, WRITE_OUT, 8, &out), OK);
    assert_eq!(guest.last_used(0), 1);
    let back = DATA + 0x10_0000;
    let into = [(back, 3, WRITE), (back + 3, 0x1_0000, WRITE), (back + 0x1_0003, 0x1_0ffd, WRITE)];
    assert_eq!(request(&mut guest, READ, 8, &into), OK);
    assert_eq!(guest.last_used(0), 0x2_1001);
    assert!(guest.bytes(back, bytes.len()) == bytes);
    assert_eq!(request(&mut guest, FLUSH, 0, &[]), OK);
    // What is before and after the range is as it was.
    assert_eq!(request(&mut guest, READ, 0, &[(back, 4096, WRITE)]), OK);
    assert_eq!(guest.bytes(back, 4096), vec![0; 4096]);
    assert_eq!(guest.transport.counters().bytes_out, 0x2_1000);
    assert_eq!(guest.transport.counters().bytes_in, 0x2_2000);
}

/// The driver may lay a request out as it likes (virtio 1.2, section 2.7.4).
#[test]
fn header_data_and_status_may_share_segments() {
    let mut guest = scratch_on(&scratch_file());
    let mut all = WRITE_OUT.to_le_bytes().to_vec();
    all.extend([0; 12]);
    all.extend([7; 512]);
    guest.write(DATA, &all);
    guest.send(0, &[(DATA, 5, 0), (DATA + 5, 523, 0), (DATA + 0x1000, 1, WRITE)]);
    assert_eq!(guest.bytes(DATA + 0x1000, 1), [OK]);
    guest.write(DATA, &READ.to_le_bytes());
    guest.write(DATA + 0x1000, &[0xaa; 513]);
    guest.send(0, &[(DATA, 16, 0), (DATA + 0x1000, 513, WRITE)]);
    let back = guest.bytes(DATA + 0x1000, 513);
    assert_eq!((back[0], back[511], back[512]), (7, 7, OK));
}

#[test]
fn nothing_beyond_the_capacity_is_reached() {
    let file = scratch_file();
    let mut guest = scratch_on(&file);
    let last = SIZE / 512 - 1;
    assert_eq!(request(&mut guest, READ, last, &[(DATA, 512, WRITE)]), OK);
    guest.write(DATA, &[9; 1024]);
    for sector in [last + 1, last + 2, 1 << 55, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX] {
        assert_eq!(request(&mut guest, READ, sector, &[(DATA, 512, WRITE)]), IO_ERROR, "{sector}");
        assert_eq!(request(&mut guest, WRITE_OUT, sector, &[(DATA, 512, 0)]), IO_ERROR);
    }
    assert_eq!(request(&mut guest, READ, last, &[(DATA, 1024, WRITE)]), IO_ERROR);
    assert_eq!(request(&mut guest, WRITE_OUT, last, &[(DATA, 1024, 0)]), IO_ERROR);
    assert_eq!(guest.bytes(DATA, 1024), vec![9; 1024], "a refused read writes nothing");
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    assert_eq!(guest.transport.counters().io_errors, 14);
    assert!(!guest.failed());
}

#[test]
fn data_is_whole_sectors_and_bounded() {
    let mut guest = scratch_on(&scratch_file());
    for len in [1, 511, 513] {
        assert_eq!(request(&mut guest, READ, 0, &[(DATA, len, WRITE)]), IO_ERROR);
        assert_eq!(request(&mut guest, WRITE_OUT, 0, &[(DATA, len, 0)]), IO_ERROR);
    }
    let too_much = vec![(DATA, REQUEST_BYTES_MAX / 8 + 512, WRITE); 8];
    assert_eq!(request(&mut guest, READ, 0, &too_much), IO_ERROR);
    // Data in the wrong direction.
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, 0)]), IO_ERROR);
    assert_eq!(request(&mut guest, WRITE_OUT, 0, &[(DATA, 512, WRITE)]), IO_ERROR);
    assert_eq!(guest.transport.counters().bytes_in, 0);
    assert_eq!(guest.transport.counters().bytes_out, 0);
}

#[test]
fn a_short_header_is_an_error_and_a_missing_status_a_fault() {
    let mut guest = scratch_on(&scratch_file());
    guest.send(0, &[(HEADER, 15, 0), (STATUS, 1, WRITE)]);
    assert_eq!(guest.bytes(STATUS, 1), [IO_ERROR]);
    guest.write(STATUS, &[0xaa]);
    guest.send(0, &[(STATUS, 1, WRITE)]);
    assert_eq!(guest.bytes(STATUS, 1), [IO_ERROR]);
    guest.send(0, &[(HEADER, 16, 0), (DATA, 512, 0)]);
    assert_eq!(guest.transport.fault(), Some(Fault::WrongDirection));
}

#[test]
fn the_id_is_twenty_bytes_at_most() {
    let mut guest = image_of(1);
    guest.write(DATA, &[0xaa; 64]);
    assert_eq!(request(&mut guest, GET_ID, 0, &[(DATA, 20, WRITE)]), OK);
    assert_eq!(guest.bytes(DATA, 20), *b"image\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    guest.write(DATA, &[0xaa; 64]);
    assert_eq!(request(&mut guest, GET_ID, 0, &[(DATA, 3, WRITE)]), OK);
    assert_eq!(guest.bytes(DATA, 4), *b"ima\xaa");
    assert_eq!(request(&mut guest, GET_ID, 0, &[(DATA, 0x10_0000, WRITE)]), OK);
    assert_eq!(guest.last_used(0), 21);
    assert_eq!(guest.bytes(DATA + 20, 8), [0xaa; 8]);
}

#[test]
fn what_is_not_offered_is_unsupported() {
    for mut guest in [image_of(1), scratch_on(&scratch_file())] {
        for kind in [2, 3, 5, 7, 9, 10, 12, 14, 15, 0x8000_0000, u32::MAX] {
            assert_eq!(request(&mut guest, kind, 0, &[(DATA, 512, WRITE)]), UNSUPPORTED, "{kind}");
        }
        assert_eq!(guest.transport.counters().unsupported, 11);
        assert_eq!(guest.bytes(DATA, 512), vec![0; 512]);
    }
    let mut guest = image_of(1);
    guest.write(DATA, &[0; 16]);
    assert_eq!(request(&mut guest, DISCARD, 0, &[(DATA, 16, 0)]), UNSUPPORTED);
    assert_eq!(request(&mut guest, WRITE_ZEROES, 0, &[(DATA, 16, 0)]), UNSUPPORTED);
}

/// Kata CVE-2026-24834 class: read-only is enforced here, whatever the driver negotiated.
#[test]
fn an_image_cannot_be_written() {
    let mut guest = image_of(2);
    guest.write(DATA, &[9; 4096]);
    assert_eq!(request(&mut guest, WRITE_OUT, 0, &[(DATA, 4096, 0)]), IO_ERROR);
    assert_eq!(request(&mut guest, FLUSH, 0, &[]), OK);
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), OK);
    assert_ne!(guest.bytes(DATA, 4096), vec![9; 4096]);
    // A driver that does not know the feature gets no further.
    let backend = Backend::Verified(verified(2, b"salt"));
    let mut naive =
        Guest::new(Device::Block(Block::new(BlockKind::Image, backend, "image").unwrap()));
    naive.set(0x70, 1);
    naive.set(0x70, 3);
    naive.take_features(1 << 32);
    naive.set(0x70, 11);
    naive.configure(0, crate::guest::Rings::of(0, 8));
    naive.set(0x70, 15);
    naive.write(DATA, &[9; 4096]);
    assert_eq!(request(&mut naive, WRITE_OUT, 0, &[(DATA, 4096, 0)]), IO_ERROR);
}

fn clear_segment(guest: &Guest, sector: u64, count: u32, flags: u32) {
    let mut raw = sector.to_le_bytes().to_vec();
    raw.extend(count.to_le_bytes());
    raw.extend(flags.to_le_bytes());
    guest.write(DATA, &raw);
}

#[test]
fn discarded_sectors_read_zero_and_their_neighbours_do_not() {
    let file = file_of(&vec![7; SIZE as usize]);
    let mut guest = scratch_on(&file);
    for (kind, sector) in [(DISCARD, 8), (WRITE_ZEROES, 32)] {
        clear_segment(&guest, sector, 8, 0);
        assert_eq!(request(&mut guest, kind, 0, &[(DATA, 16, 0)]), OK);
        let around = [(DATA, 3 * 4096, WRITE)];
        assert_eq!(request(&mut guest, READ, sector - 8, &around), OK);
        let mut expected = vec![7; 4096];
        expected.extend([0; 4096]);
        expected.extend([7; 4096]);
        assert!(guest.bytes(DATA, 3 * 4096) == expected);
    }
    assert_eq!(file.metadata().unwrap().len(), SIZE);
}

#[test]
fn discard_is_bounded_and_exact() {
    let file = file_of(&vec![7; SIZE as usize]);
    let mut guest = scratch_on(&file);
    let end = SIZE / 512;
    for (sector, count, flags, status) in [
        (end, 1, 0, IO_ERROR),
        (end - 1, 2, 0, IO_ERROR),
        (u64::MAX, 1, 0, IO_ERROR),
        (u64::MAX / 512, u32::MAX, 0, IO_ERROR),
        (0, u32::MAX, 0, IO_ERROR),
        (0, 1, 2, UNSUPPORTED),
        (0, 1, 1, UNSUPPORTED),
        (0, 0, 0, OK),
    ] {
        clear_segment(&guest, sector, count, flags);
        let got = request(&mut guest, DISCARD, 0, &[(DATA, 16, 0)]);
        assert_eq!(got, status, "{count} at {sector}, flags {flags}");
    }
    clear_segment(&guest, 0, 8, 0);
    for len in [1, 15, 17, 32] {
        assert_eq!(request(&mut guest, DISCARD, 0, &[(DATA, len, 0)]), IO_ERROR);
    }
    assert_eq!(request(&mut guest, DISCARD, 0, &[]), IO_ERROR);
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), OK);
    assert_eq!(guest.bytes(DATA, 512), vec![7; 512], "nothing was cleared");
}

/// On a disk that is larger than one request may clear.
#[test]
fn one_discard_is_two_gib_at_most() {
    let file = file_of(&[]);
    file.set_len(3 << 30).unwrap();
    let backend = Backend::Scratch(Scratch::new(file, 3 << 30).unwrap());
    let block = Block::new(BlockKind::Scratch, backend, "large").unwrap();
    let mut guest = Guest::running(Device::Block(block));
    let most = u32::from_le_bytes(guest.config(36));
    assert_eq!(most, 1 << 22);
    for (count, status) in [(most, OK), (most + 1, IO_ERROR)] {
        clear_segment(&guest, 0, count, 0);
        assert_eq!(request(&mut guest, DISCARD, 0, &[(DATA, 16, 0)]), status);
    }
}

#[test]
fn a_host_error_is_an_io_error() {
    // Truncated behind the device's back: the host has no bytes to give.
    let file = scratch_file();
    let mut guest = scratch_on(&file);
    file.set_len(4096).unwrap();
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), OK);
    assert_eq!(request(&mut guest, READ, 8, &[(DATA, 4096, WRITE)]), IO_ERROR);
    assert!(!guest.failed());
}

#[test]
fn a_disk_without_a_backend_has_no_sectors_until_one_is_attached() {
    let block = Block::new(BlockKind::Scratch, Backend::Absent, "scratch").unwrap();
    let mut guest = Guest::running(Device::Block(block));
    assert_eq!(guest.config(0), 0_u64.to_le_bytes());
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), IO_ERROR);
    guest.set(0x64, 3);
    let (generation, raised) = (guest.get(0xfc), guest.interrupts());
    let file = scratch_file();
    let backend = || Backend::Scratch(Scratch::new(file.try_clone().unwrap(), SIZE).unwrap());
    guest.transport.attach(backend()).unwrap();
    assert_eq!(guest.config(0), (SIZE / 512).to_le_bytes());
    assert_eq!((guest.get(0xfc), guest.get(0x60)), (generation + 1, 2));
    assert_eq!(guest.interrupts(), raised + 1);
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 512, WRITE)]), OK);
    assert_eq!(guest.transport.attach(backend()), Err(AttachError::Attached));
}

#[test]
fn a_scratch_disk_grows_while_it_runs_and_never_beyond_its_most() {
    let file = scratch_file();
    let disk = Scratch::new(file.try_clone().unwrap(), SIZE).unwrap().growing_to(SIZE + 8192);
    let block = Block::new(BlockKind::Scratch, Backend::Scratch(disk), "scratch").unwrap();
    let mut guest = Guest::running(Device::Block(block));
    let beyond = SIZE / 512;
    assert_eq!(request(&mut guest, READ, beyond, &[(DATA, 512, WRITE)]), IO_ERROR);
    guest.set(0x64, 3);
    let (generation, raised) = (guest.get(0xfc), guest.interrupts());
    file.set_len(SIZE + 4096).unwrap();
    guest.transport.grow(SIZE + 4096).unwrap();
    assert_eq!(guest.config(0), (beyond + 8).to_le_bytes());
    assert_eq!((guest.get(0xfc), guest.get(0x60)), (generation + 1, 2));
    assert_eq!(guest.interrupts(), raised + 1);
    assert_eq!(request(&mut guest, READ, beyond, &[(DATA, 4096, WRITE)]), OK);
    assert_eq!(guest.bytes(DATA, 512), vec![0; 512]);
    assert_eq!(request(&mut guest, READ, beyond + 8, &[(DATA, 512, WRITE)]), IO_ERROR);
    for bytes in [0, SIZE, SIZE + 512, SIZE + 12_288, u64::MAX] {
        assert!(guest.transport.grow(bytes).is_err(), "{bytes}");
    }
    assert_eq!(guest.config(0), (beyond + 8).to_le_bytes());
    // What has no bytes behind it, whatever spawn said, is an error and no more.
    guest.transport.grow(SIZE + 8192).unwrap();
    assert_eq!(request(&mut guest, READ, beyond + 8, &[(DATA, 512, WRITE)]), IO_ERROR);
    assert!(!guest.failed());
}

#[test]
fn an_image_does_not_grow_nor_a_disk_that_may_not() {
    let file = scratch_file();
    let mut guest = scratch_on(&file);
    assert!(guest.transport.grow(SIZE + 4096).is_err());
    let block = Block::new(BlockKind::Image, Backend::Absent, "image").unwrap();
    let mut guest = Guest::running(Device::Block(block));
    assert!(guest.transport.grow(4096).is_err());
}

#[test]
fn a_backend_fits_its_disk() {
    let file = scratch_file();
    let scratch = || Backend::Scratch(Scratch::new(file.try_clone().unwrap(), SIZE).unwrap());
    assert_eq!(Block::new(BlockKind::Image, scratch(), "x").err(), Some(AttachError::Kind));
    let absent = Block::new(BlockKind::Image, Backend::Absent, "x").unwrap();
    let mut guest = Guest::new(Device::Block(absent));
    assert_eq!(guest.transport.attach(scratch()), Err(AttachError::Kind));
    assert_eq!(guest.interrupts(), 0);
    let mut console = Guest::new(Device::Console(Console::new()));
    assert_eq!(console.transport.attach(scratch()), Err(AttachError::NotBlock));
    let image = Backend::Verified(verified(1, b""));
    assert_eq!(Block::new(BlockKind::Scratch, image, "x").err(), Some(AttachError::Kind));
}

#[test]
fn a_scratch_file_has_its_size() {
    for (len, size) in [(SIZE, SIZE + 4096), (SIZE, SIZE - 4096), (0, 0), (513, 513)] {
        let file = file_of(&vec![0; len as usize]);
        let refused = Scratch::new(file, size).err().unwrap();
        let exact = matches!(refused, ScratchError::Size(_) | ScratchError::Length(_));
        assert!(exact, "{len} as {size}: {refused}");
    }
}

/// The writer has no pages left: the limit of a sealed file.
#[test]
fn a_failed_write_is_an_io_error() {
    let file = File::from(
        memfd_create("sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap(),
    );
    file.set_len(SIZE).unwrap();
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).unwrap();
    let mut guest = scratch_on(&file);
    assert_eq!(request(&mut guest, WRITE_OUT, 0, &[(DATA, 512, 0)]), IO_ERROR);
    clear_segment(&guest, 0, 8, 0);
    assert_eq!(request(&mut guest, DISCARD, 0, &[(DATA, 16, 0)]), IO_ERROR);
}
