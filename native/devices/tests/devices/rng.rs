//! Entropy: bounded, fresh, and only into what is writable.

use casemate_devices::{Device, Fault, RNG_REQUEST_BYTES_MAX, Rng};

use crate::guest::{BUFFERS, Guest, WRITE};

fn running() -> Guest {
    Guest::running(Device::Rng(Rng::new()))
}

#[test]
fn fills_all_segments_and_no_two_requests_alike() {
    let mut guest = running();
    guest.send(0, &[(BUFFERS, 7, WRITE), (BUFFERS + 0x1000, 25, WRITE)]);
    assert_eq!(guest.used(0), [(0, 32)]);
    let first = guest.bytes(BUFFERS + 0x1000, 25);
    assert_ne!(first, vec![0; 25]);
    assert_eq!(guest.bytes(BUFFERS + 7, 1), [0]);
    guest.send(0, &[(BUFFERS, 7, WRITE), (BUFFERS + 0x1000, 25, WRITE)]);
    assert_ne!(guest.bytes(BUFFERS + 0x1000, 25), first);
}

/// Firecracker 1.16: a request allocated what the guest said.
#[test]
fn a_huge_request_gets_a_bounded_answer() {
    let mut guest = running();
    guest.send(0, &[(BUFFERS, 0x40_0000, WRITE)]);
    assert_eq!(guest.last_used(0) as usize, RNG_REQUEST_BYTES_MAX);
    assert_eq!(guest.bytes(BUFFERS + RNG_REQUEST_BYTES_MAX as u64, 64), vec![0; 64]);
    guest.send(0, &[(BUFFERS, u32::MAX, WRITE)]);
    assert_eq!(guest.transport.fault(), Some(Fault::BufferOutsideMemory(BUFFERS)));
}

#[test]
fn a_readable_buffer_is_refused_and_untouched() {
    for segments in [vec![(BUFFERS, 16, 0)], vec![(BUFFERS, 16, 0), (BUFFERS + 16, 16, WRITE)]] {
        let mut guest = running();
        guest.send(0, &segments);
        assert_eq!(guest.transport.fault(), Some(Fault::WrongDirection));
        assert_eq!(guest.bytes(BUFFERS, 32), vec![0; 32]);
        assert!(guest.failed());
    }
}
