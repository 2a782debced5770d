//! The balloon takes what is reported to it in whole pages of guest memory, a bounded amount at a
//! time, and nothing else.

use casemate_devices::{BALLOON_PASS_BYTES_MAX, Balloon, Device, Fault, Reclaim};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::guest::{
    BUFFERS, DRIVER_OK, Given, Guest, HIGH, HIGH_END, LOW_END, NEEDS_RESET, Rings, WRITE,
};

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const REPORTS: u16 = 2;
const PAGE: u64 = 4096;

fn running() -> (Guest, Given) {
    let given = Given::default();
    (Guest::running(Device::Balloon(Balloon::new(Box::new(given.clone())))), given)
}

#[test]
fn offers_reports_and_wants_no_pages() {
    let given = Given::default();
    let mut guest = Guest::new(Device::Balloon(Balloon::new(Box::new(given))));
    assert_eq!(guest.get(8), 5);
    assert_eq!(guest.features(), 1 << 32 | 1 << 5);
    assert_eq!([0, 1, 2, 3].map(|queue| guest.size_max(queue)), [8, 8, 32, 0]);
    guest.start();
    assert_eq!(guest.config(0), [0; 8]);
    for offset in [0x100, 0x104] {
        guest.set(offset, 5);
    }
    assert_eq!(guest.config(0), [0; 8], "the driver's number is not kept");
}

#[test]
fn gives_back_each_piece_of_a_report() {
    let (mut guest, given) = running();
    let high = HIGH_END - 4 * PAGE;
    guest.send(
        REPORTS,
        &[
            (BUFFERS, 0x40_0000, WRITE),
            (LOW_END - PAGE, 4096, WRITE),
            (high, 4 * PAGE as u32, WRITE),
        ],
    );
    assert_eq!(given.pieces_bytes_last(), (3, 0x40_0000 + 5 * PAGE, (high, 4 * PAGE)));
    assert_eq!(guest.used(REPORTS), [(0, 0)]);
    let counters = guest.transport.counters();
    assert_eq!((counters.chains, counters.bytes_out), (1, 0x40_0000 + 5 * PAGE));
    assert_eq!(guest.interrupts(), 1);
}

/// Gives what was taken before the device stopped believing the driver.
fn attack(queue: u16, segments: &[(u64, u32, u16)]) -> (Option<Fault>, u64) {
    let (mut guest, given) = running();
    guest.send(queue, segments);
    let fault = guest.transport.fault();
    if fault.is_some() {
        assert_eq!(guest.get(0x70), DRIVER_OK | NEEDS_RESET);
        assert_eq!(guest.used(queue), []);
        guest.send(REPORTS, &[(BUFFERS, 4096, WRITE)]);
    }
    (fault, given.pieces_bytes_last().0)
}

#[test]
fn nothing_goes_when_one_piece_of_a_report_is_no_memory_or_no_page() {
    let good = (BUFFERS, 4096, WRITE);
    for (address, len) in [
        (LOW_END, 4096),
        (LOW_END - PAGE, 8192),
        (LOW_END - PAGE, (HIGH - LOW_END) as u32 + 8192),
        (HIGH - PAGE, 8192),
        (HIGH_END, 4096),
        (0xd000_0000, 4096),
        (!0xfff, 4096),
        (0, 0xffff_f000),
    ] {
        let expected = (Some(Fault::BufferOutsideMemory(address)), 0);
        assert_eq!(attack(REPORTS, &[good, (address, len, WRITE)]), expected, "{address:#x}");
    }
    for (address, len) in [
        (BUFFERS + 1, 4096),
        (BUFFERS + 2048, 4096),
        (BUFFERS, 4095),
        (BUFFERS, 4097),
        (BUFFERS, 1),
        (LOW_END - 8, 8),
    ] {
        let expected = (Some(Fault::NotWholePages(address)), 0);
        assert_eq!(attack(REPORTS, &[good, (address, len, WRITE)]), expected, "{address:#x}");
    }
    let readable = attack(REPORTS, &[(BUFFERS, 4096, 0), good]);
    assert_eq!(readable, (Some(Fault::WrongDirection), 0));
}

#[test]
fn pages_put_into_a_balloon_that_nobody_inflates_stay_where_they_are() {
    for queue in [INFLATE, DEFLATE] {
        assert_eq!(attack(queue, &[(BUFFERS, 1024, 0)]), (None, 0));
        let expected = (Some(Fault::WrongDirection), 0);
        assert_eq!(attack(queue, &[(BUFFERS, 4096, WRITE)]), expected);
    }
}

/// The whole of a large guest in each of 32 reports: answered, and a bounded part of it done.
#[test]
fn one_notification_gives_back_so_much_and_no_more() {
    let given = Given::default();
    let device = Device::Balloon(Balloon::new(Box::new(given.clone())));
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 3 << 30)]).unwrap();
    let mut guest = Guest::with_memory(device, memory);
    guest.negotiate();
    for (queue, size) in [(INFLATE, 8), (DEFLATE, 8), (REPORTS, 32)] {
        guest.configure(queue, Rings::of(queue, size));
    }
    guest.set(0x70, DRIVER_OK);
    for head in 0..32 {
        guest.chain(REPORTS, head, &[(1 << 30, 0x3000_0000, WRITE)]);
        guest.publish(REPORTS, head);
    }
    guest.transport.notify(REPORTS);
    assert_eq!(guest.used(REPORTS).len(), 32);
    let (pieces, bytes, _) = given.pieces_bytes_last();
    assert_eq!((pieces, bytes), (1, 0x3000_0000));
    assert!(bytes <= BALLOON_PASS_BYTES_MAX);
    guest.chain(REPORTS, 0, &[(BUFFERS, 4096, WRITE)]);
    guest.publish(REPORTS, 0);
    guest.transport.notify(REPORTS);
    assert_eq!(given.pieces_bytes_last().0, 2, "the next pass begins anew");
}

#[derive(Debug)]
struct Deaf;

impl Reclaim for Deaf {
    fn give_back(&self, _: u64, _: u64) -> bool {
        false
    }
}

#[test]
fn what_the_host_does_not_take_is_counted_and_the_guest_goes_on() {
    let mut guest = Guest::running(Device::Balloon(Balloon::new(Box::new(Deaf))));
    guest.send(REPORTS, &[(BUFFERS, 4096, WRITE), (BUFFERS + PAGE, 4096, WRITE)]);
    assert_eq!(guest.used(REPORTS), [(0, 0)]);
    let counters = guest.transport.counters();
    assert_eq!((counters.io_errors, counters.bytes_out, counters.faults), (2, 0, 0));
}
