//! The control socket, by somebody who is no spawn.

use casemate_wire::control::FromSpawn;

use crate::attack::attack;
use crate::host;

#[test]
fn what_is_no_message_ends_the_vmm() {
    let resize = FromSpawn::Resize { bytes: 1 << 20 }.encode();
    let stop = FromSpawn::Stop { timeout_ms: 1 }.encode();
    let long = [resize.as_bytes(), &[0]].concat();
    for build in host::builds() {
        for packet in [
            &resize.as_bytes()[..8],
            &long,
            &[19],
            &[20, 0, 0, 0, 0, 0, 0, 0, 0],
            &stop.as_bytes()[..4],
            &[17],
            &[0; 64],
        ] {
            assert_eq!(host::after(&build, &attack("spin"), packet), Some(1), "{packet:?}");
        }
    }
}

/// Whatever its number is: there is no app that could use it, and no file system that could grow.
#[test]
fn a_resize_before_the_app_runs_does_nothing() {
    for build in host::builds() {
        for bytes in [0, 1, 4096, 1 << 20, 1 << 62, u64::MAX] {
            let packet = FromSpawn::Resize { bytes }.encode();
            assert_eq!(host::after(&build, &attack("spin"), packet.as_bytes()), None, "{bytes}");
        }
    }
}
