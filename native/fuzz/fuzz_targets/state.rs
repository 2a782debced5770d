//! A template's state file: parsed as hostile although spawn sealed it and the ticket names its digest.
#![no_main]

use casemate_vmm::state::MachineState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // What is accepted is exactly what would be written: no byte of a state file goes unread.
    if let Ok(state) = MachineState::decode(bytes) {
        assert_eq!(state.encode(), bytes);
    }
});
