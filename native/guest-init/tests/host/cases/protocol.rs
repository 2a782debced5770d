//! Streams, credit, signals, and hosts that break the protocol.

use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::payload::{Exit, InputCredit, Resize, Resized, Signal, Stop, Stream};

use crate::config::{Config, app};
use crate::machine::{End, Machine, Place};

fn started(place: &Place, config: &Config) -> Machine {
    let mut machine = Machine::start(&place.0, None);
    machine.configure(config);
    machine.hear_started();
    machine
}

/// Waits until the app has printed `ready`.
fn ready(machine: &mut Machine) {
    while machine.hear().expect("the app speaks").0 != GuestKind::Stdout {}
}

fn granted(frame: &(GuestKind, Vec<u8>)) -> usize {
    match frame {
        (GuestKind::Credit, payload) => InputCredit::parse(payload).unwrap().bytes as usize,
        _ => 0,
    }
}

pub fn carries_input_under_credit() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["copy"]));
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut left, mut got, mut credit) = (sent.as_slice(), Vec::new(), 0);
    while !left.is_empty() {
        let frame = machine.hear().unwrap();
        credit += granted(&frame);
        assert!(credit <= 65_536, "more credit than a window");
        if frame.0 == GuestKind::Stdout {
            machine.credit(Stream::Stdout, u32::try_from(frame.1.len()).unwrap());
            got.extend(frame.1);
        }
        let (now, rest) = left.split_at(left.len().min(credit));
        if !now.is_empty() {
            machine.say(HostKind::Stdin, now);
            credit -= now.len();
            left = rest;
        }
    }
    machine.say(HostKind::StdinEof, &[]);
    let (rest, _, end) = machine.listen();
    got.extend(rest);
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(end, End::Exit(Exit::Code(0)));
}

pub fn takes_input_nobody_reads() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["close-stdin"]));
    ready(&mut machine);
    for _ in 0..4 {
        machine.say(HostKind::Stdin, &[b'x'; 16_384]);
        while granted(&machine.hear().unwrap()) == 0 {}
    }
    machine.say(HostKind::Signal, Signal { number: 9 }.encode().as_bytes());
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

pub fn keeps_output_to_its_credit() {
    let place = Place::new();
    let mut machine = Machine::start(&place.0, None);
    machine.configure_without_credit(&app(&["flood", "1000000"]));
    machine.hear_started();
    let hear_output = |machine: &mut Machine, wanted: usize| {
        let mut got = 0;
        while got < wanted {
            let (kind, payload) = machine.hear().unwrap();
            got += if kind == GuestKind::Stdout { payload.len() } else { 0 };
        }
        assert_eq!(got, wanted, "bytes beyond the credit");
    };
    for step in [10, 1, 5000] {
        machine.credit(Stream::Stdout, u32::try_from(step).unwrap());
        hear_output(&mut machine, step);
    }
    // The flood holds up neither the signal nor the exit; what was not granted is left behind.
    machine.say(HostKind::Signal, Signal { number: 9 }.encode().as_bytes());
    let (kind, payload) = machine.hear().unwrap();
    assert_eq!((kind, Exit::parse(&payload)), (GuestKind::Exit, Some(Exit::Signal(9))));
}

pub fn stops_with_term_and_then_kill() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["wait-for-term"]));
    ready(&mut machine);
    machine.say(HostKind::Stop, Stop { timeout_ms: 3_600_000 }.encode().as_bytes());
    assert_eq!(machine.listen().2, End::Exit(Exit::Code(7)));

    // Process 1 without a handler does not notice TERM.
    let mut machine = started(&place, &app(&["wait"]));
    ready(&mut machine);
    machine.say(HostKind::Stop, Stop { timeout_ms: 3_600_000 }.encode().as_bytes());
    machine.say(HostKind::Stop, Stop { timeout_ms: 10 }.encode().as_bytes());
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

pub fn stops_with_the_signal_of_the_app() {
    let place = Place::new();
    let mut config = app(&["wait-for-term"]);
    config.stop_signal = 9;
    let mut machine = started(&place, &config);
    ready(&mut machine);
    machine.say(HostKind::Stop, Stop { timeout_ms: 3_600_000 }.encode().as_bytes());
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

/// Its scratch is no disk here. That is told, and the app runs on.
pub fn answers_a_resize_that_it_cannot_make() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["wait-for-term"]));
    ready(&mut machine);
    machine.say(HostKind::Resize, Resize { bytes: 1 << 29 }.encode().as_bytes());
    let (kind, payload) = machine.hear().unwrap();
    let told = Resized { errno: 95, bytes: 1 << 29 };
    assert_eq!((kind, Resized::parse(&payload)), (GuestKind::Resized, Some(told)), "EOPNOTSUPP");
    machine.say(HostKind::Signal, Signal { number: 15 }.encode().as_bytes());
    assert_eq!(machine.listen().2, End::Exit(Exit::Code(7)));
}

pub fn signals_the_app() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["wait-for-term"]));
    ready(&mut machine);
    machine.say(HostKind::Signal, Signal { number: 15 }.encode().as_bytes());
    assert_eq!(machine.listen().2, End::Exit(Exit::Code(7)));
}

pub fn ends_with_the_app_though_an_orphan_holds_its_output() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["leave-orphan"]));
    ready(&mut machine);
    machine.say(HostKind::Stdin, b"x");
    assert_eq!(machine.listen().2, End::Exit(Exit::Code(0)));
}

pub fn ends_at_garbage_and_kills_the_app() {
    let place = Place::new();
    let config = app(&["wait"]).bytes();
    let header = [2, 0, 0, 0, config.len() as u8, (config.len() >> 8) as u8, 0, 0];
    let again = [header.as_slice(), &config].concat();
    for (bytes, words) in [
        (vec![0xff; 8], "kind 255 does not exist"),
        (vec![3, 0, 0, 0, 0, 0, 2, 0], "cannot have 131072 bytes"),
        (vec![5, 0, 0, 0, 4, 0, 0, 0, 65, 0, 0, 0], "a Signal frame has wrong values"),
        (vec![6, 0, 0, 0, 5, 0, 0, 0, 3, 1, 0, 0, 0], "a Credit frame has wrong values"),
        (again, "may not come in phase Running"),
    ] {
        let mut machine = started(&place, &app(&["wait"]));
        ready(&mut machine);
        machine.say_raw(&bytes);
        assert_eq!(machine.listen().2, End::Gone);
        let said = machine.last_words();
        assert!(said.contains(words), "{said}");
    }
}

pub fn ends_when_credit_is_exceeded() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["wait"]));
    // One for the app's pipe, one for init's queue, one without leave.
    for _ in 0..3 {
        machine.say(HostKind::Stdin, &vec![0; 65_536]);
    }
    assert_eq!(machine.listen().2, End::Gone);
    let mut machine = started(&place, &app(&["wait"]));
    machine.credit(Stream::Stderr, 1);
    assert_eq!(machine.listen().2, End::Gone);
}

pub fn ends_when_the_host_goes() {
    let place = Place::new();
    let mut machine = started(&place, &app(&["wait"]));
    ready(&mut machine);
    // Dropping the machine closes the pipe and waits for init, which must not wait for the app.
    drop(machine);
}
