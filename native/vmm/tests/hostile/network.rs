//! What stands in for a tap: refused before the machine exists, or its guest would be another's.

use std::os::fd::OwnedFd;

use casemate_wire::control::Reason;
use rustix::fs::OFlags;

use crate::child_unsafe::tap;
use crate::host::{builds, judge_tap};

const OPEN: OFlags = OFlags::RDWR.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`
const FLAGS: u16 = 0x5002;

fn made(open: OFlags, flags: u16, header_bytes: i32) -> OwnedFd {
    tap(open, flags, header_bytes).unwrap()
}

#[test]
fn only_a_tap_as_the_card_needs_it_is_connected() {
    for build in builds() {
        let swaps: [(OwnedFd, &str); 6] = [
            (std::fs::File::open("/dev/null").unwrap().into(), "net: is not opened for ReadWrite"),
            (rustix::fs::open("/dev/null", OPEN, 0.into()).unwrap(), "net: is no tap"),
            (rustix::fs::open("/dev/net/tun", OPEN, 0.into()).unwrap(), "net: is no tap"),
            (made(OPEN - OFlags::NONBLOCK, FLAGS, 12), "net: is not opened for ReadWrite"),
            // A tun: packets without addresses of Ethernet.
            (made(OPEN, 0x5001, 12), "net: has flags 0x5001, not 0x5002"),
            (made(OPEN, FLAGS, 10), "net: has headers of 10 bytes"),
        ];
        for (swap, sentence) in swaps {
            let (reason, text) = judge_tap(&build, swap);
            assert_eq!(reason, Reason::Descriptor, "{text}");
            assert!(text.starts_with(sentence), "{text}");
        }
        // The machine with a good one is made and runs out of its millisecond.
        let (reason, text) = judge_tap(&build, made(OPEN, FLAGS, 12));
        assert_eq!(reason, Reason::BootTimeout, "{text}");
    }
}
