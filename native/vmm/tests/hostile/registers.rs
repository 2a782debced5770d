//! Registers of the virtio window: the status machine, features, and what is frozen at `DRIVER_OK`.

use crate::attack::{attack, of_device};

#[test]
fn status_goes_one_step_forward_or_nowhere() {
    // 16 of 1275 writes are a next step or FAILED.
    for outcome in attack("status").survives(&["taken 10", "illegal 0"]) {
        assert!(of_device(&outcome.metrics, "rng", "bad_status_writes") > 1_200);
    }
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    attack("features").survives(&["accepted 0", "refused 132"]);
}

#[test]
fn nothing_of_a_running_device_can_be_changed() {
    let lines = ["size 8", "ready 1", "status f", "answer 40"];
    for outcome in attack("frozen").survives(&lines) {
        assert!(of_device(&outcome.metrics, "rng", "frozen_writes") > 800);
    }
}

/// CVE-2026-5747: a ring that was checked is the one that is used.
#[test]
fn a_running_ring_can_be_neither_longer_nor_elsewhere() {
    for words in [
        "resize 10000 200000 201000 202000", // longer, in place
        "resize 8 600000 601000 602000",     // elsewhere
        "resize ffffffff 7fffff0 7fffffe 7fffffc",
    ] {
        for outcome in attack(words).survives(&["used 8"]) {
            assert_eq!(of_device(&outcome.metrics, "rng", "frozen_writes"), 8);
            assert_eq!(of_device(&outcome.metrics, "rng", "requests"), 8);
        }
    }
    attack("resize 8 600000 601000 602000").survives(&["elsewhere 0"]);
}

#[test]
fn accesses_of_other_widths_do_nothing() {
    for outcome in attack("widths").survives(&["read 0", "status f"]) {
        assert!(of_device(&outcome.metrics, "rng", "bad_accesses") > 1_400);
    }
}

#[test]
fn no_configuration_can_be_written() {
    for outcome in attack("config").survives(&["changed 0"]) {
        for device in ["init", "image", "scratch", "console", "rng"] {
            assert_eq!(of_device(&outcome.metrics, device, "bad_accesses"), 384);
        }
    }
}

/// The machine that a tenant gets: its devices were started before the template was taken, and are frozen as they were.
#[test]
fn a_restored_device_is_as_frozen_as_it_was() {
    let lines = ["capacity 4000", "size 8", "ready 1", "status f", "answer 40", "scratch 1"];
    for outcome in attack("restored").restored().survives(&lines) {
        assert!(of_device(&outcome.metrics, "rng", "frozen_writes") > 800);
        assert_eq!(of_device(&outcome.metrics, "scratch", "io_errors"), 1);
    }
}
