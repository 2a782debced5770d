//! Ports, addresses, model-specific registers and CPUID.

use casemate_wire::control::Reason;

use crate::attack::{attack, of_machine};

#[test]
fn a_flood_of_boot_log_is_kept_in_part() {
    for outcome in attack("flood 18000").survives(&["end"]) {
        // 64 KiB are kept (limits.boot_log_bytes) and a line about the rest.
        assert!(outcome.console.len() < 65_536 + 64, "{} bytes", outcome.console.len());
        assert!(outcome.console.contains("bytes not kept]"));
        assert!(of_machine(&outcome.metrics, "exits_port") > 0x18000);
    }
}

#[test]
fn the_serial_port_only_talks() {
    attack("serial").survives(&["wrong 0"]);
    for words in ["strings 3f8", "strings 60", "strings fffe"] {
        attack(words).survives(&["strings"]);
    }
}

#[test]
fn ports_of_nobody_read_as_ones_in_every_width() {
    for (words, least) in [("ports 1", 20_000), ("ports 2", 40_000), ("ports 4", 60_000)] {
        for outcome in attack(words).survives(&["wrong 0"]) {
            assert!(of_machine(&outcome.metrics, "stray_accesses") > least);
            assert!(outcome.notes.contains("accesses to addresses or ports of no device"));
        }
    }
}

#[test]
fn only_the_reset_line_resets() {
    attack("keyboard").survives(&["status 0"]);
    attack("reset d1").survives(&["not reset"]);
    attack("reset fe").ends(Reason::GuestGone, "reset or powered off", &[]);
}

#[test]
fn addresses_of_nobody_read_as_ones_in_every_width() {
    for outcome in attack("addresses").survives(&["tried 10f", "wrong 0"]) {
        assert!(of_machine(&outcome.metrics, "stray_accesses") > 1_500);
    }
    attack("wide").survives(&["wrong 0", "status f"]);
}

#[test]
fn registers_beyond_the_list_are_refused_and_counted() {
    for (words, least) in [
        ("msr 0 2000", 23_000),
        ("msr 40000000 200", 1_500),
        ("msr 4b564d00 10", 40),
        ("msr c0000000 400", 3_000),
        ("msr c0010000 400", 3_000),
        ("msr fffff000 400", 3_000),
    ] {
        for outcome in attack(words).survives(&["end"]) {
            let refused = of_machine(&outcome.metrics, "refused_msrs");
            assert!(refused >= least, "{words}: {refused}");
            assert!(outcome.notes.contains("model-specific registers that it may not have"));
        }
    }
    // The clock's two registers, and nothing else of KVM's.
    attack("msr 4b564d00 10").survives(&["readable 2", "writable 2", "faults 2a"]);
}

/// The one range that KVM cannot filter: a local APIC, whatever is written there.
#[test]
fn an_x2apic_is_the_guests_own_trouble() {
    let reasons = [Reason::GuestCrash, Reason::GuestGone, Reason::BootTimeout];
    attack("x2apic").within(30_000).survives_or_ends(&reasons, &["now"]);
}

#[test]
fn cpuid_shows_neither_nesting_nor_counters_nor_the_host() {
    let hidden = ["leaves 540", "vmx 0", "svm 0", "counters 0", "beyond the clock 0"];
    let shown = ["hypervisor 1", "processors 2", "deadline 1", "always 4", "cores 2"];
    attack("cpuid").on(2).survives(&[hidden, shown].concat());
}
