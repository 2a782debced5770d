//! The control pipe, by a guest that is no guest-init.

use casemate_wire::control::Reason;

use crate::attack::{attack, of_device};

#[test]
fn what_is_no_frame_ends_the_guest() {
    for (words, text) in [
        ("frame ff 0", "kind 255 does not exist"),
        ("frame 100 0", "kind 0 does not exist"),
        ("frame 800000140 8", "a reserved byte of the header is not zero"),
        ("frame ffffffff00000043 8", "a frame of kind 67 cannot have 4294967295 bytes"),
        ("frame 100000040 1", "a frame of kind 64 cannot have 1 bytes"),
        ("frame 800000040 8", "a Hello frame has a payload that is none"),
        ("frame 500000045 5", "a frame of kind 69 may not come in phase Boot"),
        ("frame 500050043 5", "a frame of kind 67 is of session 5, which is not open"),
        ("frame 5ffff0045 5", "a Exit frame of an app that is not there"),
        ("frame 800050040 8", "a frame of kind 64 cannot be of stream 5"),
        ("hasty", "a frame of kind 65 may not come in phase Hello"),
        ("unread", "Stdout without credit"),
        ("overdraw 2", "more credit than a window holds"),
        ("overdraw 10000", "more credit than a window holds"),
    ] {
        attack(words).ends(Reason::GuestProtocol, text, &[]);
    }
}

/// Found by this test: a chain of the output queue broke the device, and nobody looked.
#[test]
fn chains_that_the_pipe_does_not_take_break_the_device() {
    attack("large").breaks_device("device 3: a chain has more bytes than the queue takes");
    attack("small").breaks_device("device 3: a chain lacks the readable or writable part");
    for words in ["direction 3", "direction 5"] {
        attack(words).breaks_device("device 3: a chain lacks the readable or writable part");
    }
}

#[test]
fn control_messages_of_random_bytes_are_counted() {
    for outcome in attack("control").survives(&["sent 190", "status f"]) {
        assert!(of_device(&outcome.metrics, "console", "bad_control_messages") > 390);
    }
}
