//! Requests of disks. The files are compared after each attack.

use crate::attack::{attack, of_device};
use crate::files;

#[test]
fn a_request_in_odd_pieces_is_the_same_request() {
    attack("split").survives(&["whole 0", "parts 0", "same 1"]);
}

#[test]
fn no_sector_beyond_the_end_is_served() {
    for (words, sectors) in [("beyond 0", "8"), ("beyond 1", "40"), ("beyond 2", "4000")] {
        let size = format!("sectors {sectors}");
        attack(words).survives(&[&size, "served 0", "refused 14", "last 0"]);
    }
}

#[test]
fn an_image_cannot_be_written() {
    for (words, device) in [("read-only 0", "init"), ("read-only 1", "image")] {
        for outcome in attack(words).survives(&["served 0", "flush 0", "read 0"]) {
            assert_eq!(of_device(&outcome.metrics, device, "io_errors"), 8);
            assert_eq!(of_device(&outcome.metrics, device, "unsupported_requests"), 3);
            assert_eq!(of_device(&outcome.metrics, device, "verity_failures"), 0);
        }
    }
}

#[test]
fn requests_that_are_none_are_answered_so() {
    let lines = ["served 0", "short 1", "none 0", "both 1", "large 1", "id 0"];
    for outcome in attack("nonsense").survives(&lines) {
        assert_eq!(of_device(&outcome.metrics, "scratch", "invalid_queues"), 0);
    }
}

#[test]
fn nothing_outside_a_disk_is_cleared() {
    attack("clear").survives(&["served 0"]);
}

#[test]
fn the_last_sector_is_the_last_that_is_written() {
    for outcome in
        attack("edge").writing().survives(&["inside 0", "across 1", "after 1", "flush 0"])
    {
        let mut expected = files::scratch_bytes();
        let last = expected.len() - 512;
        expected[last..].fill(0xa5);
        assert!(outcome.scratch == expected, "another sector was written");
    }
}

/// GHSA-jmr4-g2hv-mjj6: what looks like the header of another format is data like any other.
#[test]
fn a_disk_is_its_bytes_whatever_they_look_like() {
    for outcome in attack("dress").writing().survives(&["written 0", "read 0", "same 1"]) {
        assert!(outcome.scratch.starts_with(b"QFI\xfb"));
        assert!(outcome.scratch[512..] == files::scratch_bytes()[512..]);
    }
}

#[test]
fn a_request_without_a_place_for_its_outcome_breaks_the_device() {
    attack("mute").breaks_device("device 2: a chain lacks the readable or writable part");
}

/// A block of the image, all of one byte, over the ring that asked for it: what follows is a ring of those bytes.
#[test]
fn data_over_the_ring_hurts_the_guest_alone() {
    attack("over-rings").breaks_device("device 1: ");
}
