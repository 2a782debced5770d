//! Rings, chains and doorbells.

use casemate_wire::control::Reason;

use crate::attack::{attack, of_device};

#[test]
fn ring_sizes_are_small_powers_of_two() {
    for (words, size) in [
        ("ring 0", "0"),
        ("ring 3", "3"),
        ("ring 10", "16"), // a power of two, and more than the queue takes
        ("ring 200", "512"),
        ("ring 10008", "65544"), // 8 in its low half
        ("ring ffffffff", "4294967295"),
    ] {
        attack(words).breaks_device(&format!("device 4: queue size {size} is not allowed"));
    }
}

/// Descriptors, available ring, used ring: at the end of memory, beyond it, over a device, and where sums wrap.
#[test]
fn rings_lie_in_memory() {
    for words in [
        "ring 8 8000000",
        "ring 8 7ffffc0",
        "ring 8 fffffffffffffff0",
        "ring 8 ffffffffffffff80",
        "ring 8 0 7fffff0",
        "ring 8 0 d0004000",
        "ring 8 0 fffffffffffffffe",
        "ring 8 0 0 7ffffc0",
        "ring 8 0 0 fee00000",
        "ring 8 0 0 fffffffffffffffc",
        "ring 8 0 0 100000000",
    ] {
        attack(words).breaks_device("is not inside one region of guest memory");
    }
}

#[test]
fn rings_are_aligned() {
    for words in ["ring 8 280008", "ring 8 0 281001", "ring 8 0 0 282002"] {
        attack(words).breaks_device("is not aligned");
    }
}

/// Legal but for the guest's own sake; what the device then meets are its own indices.
#[test]
fn rings_over_each_other_hurt_the_guest_alone() {
    attack("overlap").survives_or_ends(&[Reason::DeviceQueue], &["status f"]);
    for words in ["own-rings 0", "own-rings 1000", "own-rings 2000"] {
        attack(words).survives_or_ends(&[Reason::DeviceQueue], &["rang"]);
    }
}

/// CVE-2019-18960: a buffer that begins in guest memory and ends beyond it, or nowhere.
#[test]
fn buffers_lie_in_memory() {
    for words in [
        "buffer 7ffffff 2",
        "buffer 8000000 1",
        "buffer d0004000 8",
        "buffer 0 ffffffff",
        "buffer ffffffffffffffff 1",
        "buffer fffffffffffffff8 10",
        "buffer ffffffff00000001 ffffffff",
        "buffer 100000000 8",
    ] {
        attack(words).breaks_device("is not inside one region of guest memory");
    }
}

#[test]
fn descriptors_are_whole_direct_and_in_the_table() {
    attack("buffer 400000 10 4").breaks_device("descriptor 0 is indirect, which was not offered");
    attack("buffer 400000 0").breaks_device("descriptor 0 has no bytes");
    attack("buffer 400000 8 3 8").breaks_device("descriptor 8 is outside the table");
    attack("buffer 400000 8 3 ffff").breaks_device("descriptor 65535 is outside the table");
    attack("buffer 400000 8 10").breaks_device("lacks the readable or writable part");
    attack("head 8").breaks_device("descriptor 8 is outside the table");
    attack("head ffff").breaks_device("descriptor 65535 is outside the table");
}

#[test]
fn chains_neither_loop_nor_meet() {
    for words in ["loop 1", "loop 2", "loop 8"] {
        attack(words).breaks_device("descriptor 0 is used twice");
    }
    attack("twice 0").breaks_device("descriptor 0 is used twice");
    attack("twice 1").breaks_device("descriptor 2 is used twice");
}

#[test]
fn the_available_index_goes_no_further_than_the_ring_is_long() {
    for words in ["jump 9", "jump 7fff", "jump ffff"] {
        attack(words).breaks_device("is further ahead than the ring is long");
    }
}

/// 16 GiB of descriptors over 128 MiB of memory.
#[test]
fn a_chain_is_less_than_4_gib() {
    attack("endless").breaks_device("device 2: a chain has more bytes than the queue takes");
}

/// 1 GiB asked for: one page is given, and nothing is written behind it.
#[test]
fn a_request_for_entropy_costs_one_page() {
    for outcome in attack("greedy").survives(&["given 1000", "beyond 0"]) {
        assert_eq!(of_device(&outcome.metrics, "rng", "bytes_to_guest"), 4096);
    }
}

#[test]
fn a_storm_of_doorbells_leaves_devices_and_vmm_in_order() {
    for outcome in attack("storm 4000").survives(&["status f"]) {
        assert!(of_device(&outcome.metrics, "rng", "ignored_notifications") > 0);
        assert_eq!(of_device(&outcome.metrics, "rng", "invalid_queues"), 0);
    }
}

#[test]
fn what_a_device_was_asked_before_its_reset_is_not_answered_after_it() {
    for outcome in attack("resets 400").survives(&["late 0", "answer 40"]) {
        for device in ["rng", "scratch"] {
            assert_eq!(of_device(&outcome.metrics, device, "invalid_queues"), 0);
        }
    }
}

/// The doorbells must not keep the I/O thread from seeing that the guest's time is up.
#[test]
fn a_storm_that_never_ends_is_ended() {
    attack("ring-on").on(2).endless().ends(Reason::BootTimeout, "did not say HELLO", &["now"]);
}
