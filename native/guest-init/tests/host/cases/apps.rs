//! Pods of several apps.

use std::collections::BTreeMap;

use casemate_wire::apps::number_of;
use casemate_wire::frame::{GuestKind, HostKind, OUTPUT_WINDOW};
use casemate_wire::payload::{Exit, Signal, StartError, Stream};

use crate::config::{Config, app};
use crate::machine::{Machine, Place};

/// What was said of apps and pod, in order, and what each app wrote.
struct Told {
    frames: Vec<String>,
    output: BTreeMap<u16, String>,
}

fn number(place: usize) -> u16 {
    number_of(place, 2)
}

fn named(name: &'static str, what: &[&str], after: &str) -> Config {
    Config { name, after: after.to_owned(), ..app(what) }
}

/// One that goes on until it is told to stop, at once and whatever it has set up by then.
fn lasting(name: &'static str) -> Config {
    Config { stop_signal: 9, ..named(name, &["wait"], "null") }
}

fn begin(place: &Place, apps: &[Config]) -> Machine {
    let mut machine = Machine::start(&place.0, None);
    machine.expect_config_answer();
    machine.say(HostKind::Config, &Config::of_all(apps));
    machine
}

/// Listens to the end of the pod; `react` is told of each frame that is no output.
fn listen(machine: &mut Machine, mut react: impl FnMut(&mut Machine, &str)) -> Told {
    let mut told = Told { frames: vec![], output: BTreeMap::new() };
    while let Some((from, kind, payload)) = machine.hear_any() {
        let who = casemate_wire::apps::place_of(from).map_or("pod".into(), |at| at.to_string());
        match kind {
            GuestKind::Stdout => {
                told.output.entry(from).or_default().push_str(&String::from_utf8_lossy(&payload));
                continue;
            }
            GuestKind::Credit | GuestKind::Stderr => continue,
            GuestKind::Started if from != 0 => {
                machine.credit_of(from, Stream::Stdout, OUTPUT_WINDOW);
                machine.credit_of(from, Stream::Stderr, OUTPUT_WINDOW);
            }
            _ => {}
        }
        let frame = match kind {
            GuestKind::Exit => format!("{who} {:?}", Exit::parse(&payload).unwrap()),
            GuestKind::Error => format!("{who} {:?}", StartError::parse(&payload).unwrap().code),
            kind => format!("{who} {kind:?}"),
        };
        react(machine, &frame);
        told.frames.push(frame);
    }
    told
}

pub fn run_in_their_order_and_end_with_the_last() {
    let place = Place::new();
    let apps = [named("one", &["exit", "0"], "null"), named("two", &["args", "x"], "null")];
    let mut machine = begin(&place, &apps);
    let told = listen(&mut machine, |_, _| ());
    let at = |text: &str| told.frames.iter().position(|frame| frame == text).unwrap();
    assert_eq!(told.frames.first().unwrap(), "pod Started", "{:?}", told.frames);
    assert!(at("0 Started") < at("1 Started"), "{:?}", told.frames);
    assert_eq!(told.frames.last().unwrap(), "pod Code(0)", "{:?}", told.frames);
    assert!(told.frames.contains(&"0 Code(0)".into()) && told.frames.contains(&"1 Code(0)".into()));
    assert_eq!(told.output.get(&number(1)).unwrap(), "[\"x\"]\n");
}

pub fn wait_for_what_another_one_is() {
    let place = Place::new();
    let exited = r#"{"app":"one","condition":"exited"}"#;
    let apps = [
        lasting("one"),
        named("zero", &["exit", "0"], "null"),
        named("two", &["both"], r#"{"app":"zero","condition":"exited"}"#),
        named("never", &["both"], exited),
    ];
    let mut machine = begin(&place, &apps);
    let told = listen(&mut machine, |machine, frame| {
        if frame == "2 Code(0)" {
            machine.say(HostKind::Stop, &60_000_u32.to_le_bytes());
        }
    });
    let at = |text: &str| told.frames.iter().position(|frame| frame == text).unwrap();
    assert!(at("1 Code(0)") < at("2 Started"), "{:?}", told.frames);
    // What waited for the good end of the one that was killed never began; and the first failure is the pod's.
    assert!(!told.frames.iter().any(|frame| frame.starts_with("3 ")), "{:?}", told.frames);
    assert_eq!(told.frames.last().unwrap(), "pod Signal(9)");
}

pub fn stop_when_one_of_them_fails() {
    let place = Place::new();
    let apps = [lasting("one"), named("two", &["exit", "9"], "null")];
    let mut machine = begin(&place, &apps);
    let told = listen(&mut machine, |_, _| ());
    assert_eq!(told.frames.last().unwrap(), "pod Code(9)", "{:?}", told.frames);
    assert!(told.frames.contains(&"0 Signal(9)".into()), "{:?}", told.frames);
}

pub fn end_with_the_shell_s_code_when_one_cannot_be_started() {
    let place = Place::new();
    let missing = Config { args: vec!["/bin/none".into()], ..named("two", &[], "null") };
    let apps = [lasting("one"), missing];
    let mut machine = begin(&place, &apps);
    let told = listen(&mut machine, |_, _| ());
    assert!(told.frames.contains(&"1 NotFound".into()), "{:?}", told.frames);
    assert_eq!(told.frames.last().unwrap(), "pod Code(127)");
}

pub fn fail_when_what_they_wait_for_cannot_come() {
    let place = Place::new();
    let health = r#"{"interval_ms":3600000,"probe":{"args":["/bin/none"],"kind":"exec"},"retries":1,"start_interval_ms":3600000,"start_period_ms":0,"timeout_ms":1000}"#;
    let one = Config { health: Some(health.into()), ..named("one", &["exit", "0"], "null") };
    let two = named("two", &["both"], r#"{"app":"one","condition":"healthy"}"#);
    let mut machine = begin(&place, &[one, two]);
    let told = listen(&mut machine, |_, _| ());
    assert!(told.frames.contains(&"1 Other".into()), "{:?}", told.frames);
    assert_eq!(told.frames.last().unwrap(), "pod Code(125)");
}

pub fn share_network_ipc_and_names_and_nothing_else() {
    let place = Place::new();
    let apps = [
        named("one", &["links", "self"], "null"),
        named("two", &["links", "self"], "null"),
        named("three", &["list", "/proc"], r#"{"app":"two","condition":"exited"}"#),
    ];
    let mut machine = begin(&place, &apps);
    let told = listen(&mut machine, |_, _| ());
    let links = |place: usize| -> BTreeMap<String, String> {
        let said = told.output.get(&number_of(place, 3)).unwrap();
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, link)| (name.to_owned(), link.to_owned())).collect()
    };
    let (one, two) = (links(0), links(1));
    for (kind, link) in &one {
        let is_shared = ["ipc", "net", "user", "uts"].contains(&kind.as_str());
        assert_eq!(two.get(kind).unwrap() == link, is_shared, "{kind}");
        // What they share is the pod's, and not what runs outside of it.
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let is_outside = ["net", "user"].contains(&kind.as_str());
        assert_eq!(outside.to_str() == Some(link), is_outside, "{kind}");
    }
    let seen = told.output.get(&number_of(2, 3)).unwrap();
    let processes = seen.split_whitespace().filter(|name| name.parse::<u32>().is_ok());
    assert_eq!(processes.collect::<Vec<_>>(), ["1"]);
}

pub fn have_processes_beside_them_by_name_and_signals_of_their_own() {
    let place = Place::new();
    let apps = [lasting("one"), lasting("two")];
    let mut machine = begin(&place, &apps);
    let request = |app: &str| {
        format!(
            r#"{{"app":{app},"args":["/bin/app","app","links","1"],"cwd":null,"env":[],"terminal":null,"user":null}}"#
        )
    };
    let mut links: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    let mut ended = 0;
    loop {
        let (from, kind, payload) = machine.hear_any().unwrap();
        match kind {
            GuestKind::Started if from == number(1) => {
                for (session, app) in [(1, "\"one\""), (2, "\"two\""), (3, "null"), (4, "\"x\"")] {
                    machine.exec(session, &request(app));
                }
            }
            GuestKind::Stdout => links.entry(from).or_default().extend(payload),
            GuestKind::Exit | GuestKind::Error if (1..=4).contains(&from) => {
                assert_eq!(kind == GuestKind::Error, from == 4);
                ended += 1;
                if ended == 4 {
                    let kill = Signal { number: 9 }.encode();
                    machine.say_to(number(1), HostKind::Signal, kill.as_bytes());
                }
            }
            GuestKind::Exit if from == number(1) => {
                assert_eq!(Exit::parse(&payload), Some(Exit::Signal(9)));
            }
            GuestKind::Exit if from == 0 => break,
            _ => {}
        }
    }
    let of = |session: u16| links.get(&session).unwrap();
    assert!(of(1) == of(3) && of(1) != of(2));
}

pub fn end_the_guest_for_frames_of_an_app_that_is_none() {
    for (session, kind) in
        [(0, HostKind::StdinEof), (number(3), HostKind::StdinEof), (number(0), HostKind::Window)]
    {
        let place = Place::new();
        let apps = [named("one", &["wait"], "null"), named("two", &["wait"], "null")];
        let mut machine = begin(&place, &apps);
        let payload: &[u8] = if kind == HostKind::Window { &[0; 4] } else { &[] };
        machine.say_to(session, kind, payload);
        let told = listen(&mut machine, |_, _| ());
        assert!(!told.frames.iter().any(|frame| frame.starts_with("pod Code")), "{kind:?}");
    }
    // An only app is the pod's, whatever the number.
    let place = Place::new();
    let mut machine = Machine::start(&place.0, None);
    machine.configure(&app(&["wait"]));
    machine.hear_started();
    machine.say_to(number(0), HostKind::StdinEof, &[]);
    assert!(matches!(machine.listen().2, crate::machine::End::Gone));
}
