//! The processors themselves, and the controllers that interrupt them.

use casemate_wire::control::Reason;

use crate::attack::attack;

/// How a processor that cannot go on shows itself: hardware shuts down, an interpreter gives up.
const DEAD: [Reason; 2] = [Reason::GuestGone, Reason::GuestCrash];
/// The same, or it runs about in what is no code until its time is up.
const LOST: [Reason; 3] = [Reason::GuestGone, Reason::GuestCrash, Reason::BootTimeout];
const LOST_MS: i64 = 15_000;

fn dies(words: &'static str) {
    attack(words).survives_or_ends(&DEAD, &["now"]);
}

#[test]
fn a_processor_that_cannot_go_on_ends_the_guest() {
    dies("triple");
    for words in ["jump-to d0000000", "jump-to c0000000", "jump-to 7ffffff", "jump-to fee00000"] {
        dies(words);
    }
    attack("modify").within(LOST_MS).survives_or_ends(&LOST, &["right c8", "now"]);
}

#[test]
fn a_guest_that_sleeps_or_spins_is_given_up_in_time() {
    for words in ["halt", "spin"] {
        attack(words).endless().ends(Reason::BootTimeout, "did not say HELLO", &["now"]);
    }
}

/// To processors that there are and are not, to itself as well: started at pages of zeros.
#[test]
fn garbage_between_processors_is_the_guests_own_trouble() {
    let run = |words, vcpus, lines: &[&str]| {
        attack(words).on(vcpus).within(LOST_MS).survives_or_ends(&LOST, lines);
    };
    run("messages 1", 2, &["others", "started"]);
    run("messages 0", 2, &["others"]);
    run("messages 0", 1, &["others"]);
}

/// INIT and STARTUP without end, at a processor that is just starting.
#[test]
fn a_processor_may_be_started_as_often_as_its_guest_likes() {
    attack("restarts 800").on(2).survives(&["sent"]);
}

/// CVE-2026-46032 and its like are behind these. Hardware answers with an exception, an interpreter may give up.
#[test]
fn no_guest_has_virtualisation_of_its_own() {
    for words in ["nested 0", "nested 1", "nested 2", "nested 3", "nested 4"] {
        attack(words).endless().survives_or_ends(&DEAD, &["now"]);
    }
}

#[test]
fn random_interrupt_controllers_are_the_guests_own_trouble() {
    for vcpus in [1, 2] {
        attack("controllers").on(vcpus).within(LOST_MS).survives_or_ends(&LOST, &[]);
    }
}

/// What is checked is a copy: a descriptor that changes meanwhile is a good one or refused.
#[test]
fn a_descriptor_that_another_processor_changes_is_good_or_refused() {
    attack("race").on(2).survives_or_ends(&[Reason::DeviceQueue], &["both"]);
}

/// A software KVM repeats the instruction for ever; hardware refuses each call but the clock's.
#[test]
fn hypercalls_do_nothing() {
    attack("hypercalls 0 10").endless().survives_or_ends(&[Reason::BootTimeout], &[]);
}

#[test]
fn a_guest_may_touch_all_its_memory_and_no_more() {
    attack("touch").touching().survives(&["wrong 0"]);
}
