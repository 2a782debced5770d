//! The app's health check.

use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::health::{Answer, Health, OUTPUT_MAX, State};
use casemate_wire::payload::{Exit, Stop};

use super::beside::{is_under_the_same, line};
use crate::config::{Config, app};
use crate::machine::{End, Machine, Place};

/// As often as it can be.
fn check(probe: &str, retries: u32) -> String {
    format!(
        r#"{{"interval_ms":1000,"probe":{probe},"retries":{retries},"start_interval_ms":1000,"start_period_ms":0,"timeout_ms":1000}}"#
    )
}

fn exec(what: &[&str]) -> String {
    let args = ["/bin/app", "app"].iter().chain(what).map(|arg| format!("{arg:?}"));
    format!(r#"{{"args":[{}],"kind":"exec"}}"#, args.collect::<Vec<_>>().join(","))
}

fn start(place: &Place, config: &Config) -> Machine {
    let mut machine = Machine::start_with(&place.0, None, Some("ip link set lo up"));
    machine.configure(config);
    machine.hear_started();
    machine
}

/// The next HEALTH: state, answer, streak, output.
fn hear(machine: &mut Machine) -> (State, Answer, u32, String) {
    loop {
        let (kind, payload) = machine.hear().expect("the app runs");
        if kind == GuestKind::Health {
            let health = Health::parse(&payload).unwrap();
            assert_eq!(health.since_ns, 0);
            let output = String::from_utf8_lossy(health.output).into_owned();
            return (health.state, health.answer, health.streak, output);
        }
    }
}

/// The same for an app that waits.
fn answer(probe: &str) -> (State, Answer, u32, String) {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.health = Some(check(probe, 1));
    hear(&mut start(&place, &config))
}

pub fn is_asked_under_all_that_the_app_is_under() {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.user = "web".into();
    config.gids = vec![1234];
    config.cwd = "/etc".into();
    config.capabilities = vec!["CHOWN", "KILL"];
    config.rlimits = vec![("RLIMIT_NOFILE", 100, 200)];
    config.seccomp = Some(vec![[6, 0, 0, 0, 0, 0, 0xff, 0x7f]]);
    config.health = Some(check(&exec(&["print", "/proc/1/status", "/proc/self/status"]), 1));
    let (_, answer, _, output) = hear(&mut start(&place, &config));
    assert_eq!(answer, Answer::Code(0));
    let own_at = output.rfind("Name:").unwrap();
    let (of_app, own) = output.split_at(own_at);
    is_under_the_same(own, of_app);
    assert_eq!(line(own, "Seccomp:"), "Seccomp:\t2");
    config.health = Some(check(&exec(&["list", "/proc/self/fd"]), 1));
    assert_eq!(hear(&mut start(&place, &config)).3, "0 1 2 3");
    config.health = Some(check(&exec(&["links", "self"]), 1));
    let mut machine = start(&place, &config);
    let links = hear(&mut machine).3;
    machine.exec(1, r#"{"app":null,"args":["/bin/app","app","links","self"],"cwd":null,"env":[],"terminal":null,"user":null}"#);
    assert_eq!(machine.listen_to(1).0, links, "those of any process beside the app");
}

pub fn asks_a_port() {
    let place = Place::new();
    let mut config = app(&["serve", "8080", "silence"]);
    config.health = Some(check(r#"{"kind":"tcp","port":8080}"#, 1));
    let told = hear(&mut start(&place, &config));
    assert_eq!(told, (State::Healthy, Answer::Code(0), 0, "port 8080 takes connections\n".into()));
    let (state, code, streak, output) = answer(r#"{"kind":"tcp","port":8080}"#);
    assert_eq!((state, code, streak), (State::Unhealthy, Answer::Code(1), 1));
    assert!(output.contains("refused"), "{output}");
}

pub fn asks_a_server() {
    let place = Place::new();
    let mut config = app(&[
        "serve",
        "8080",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 503 No",
        "HTTP/1.1 399 Well",
        "silence",
    ]);
    config.user = "web".into();
    config.health = Some(check(r#"{"kind":"http","path":"/live?a","port":8080}"#, 2));
    let mut machine = start(&place, &config);
    assert_eq!(hear(&mut machine), (State::Healthy, Answer::Code(0), 0, "status 200\n".into()));
    assert_eq!(hear(&mut machine), (State::Healthy, Answer::Code(1), 1, "status 503\n".into()));
    assert_eq!(hear(&mut machine), (State::Healthy, Answer::Code(0), 0, "status 399\n".into()));
    assert_eq!(hear(&mut machine), (State::Healthy, Answer::TimedOut, 1, String::new()));
    assert_eq!(hear(&mut machine), (State::Unhealthy, Answer::TimedOut, 2, String::new()));
    config.args[3] = "8081".into();
    config.args.splice(4.., ["SSH-2.0-OpenSSH".into()]);
    config.health = Some(check(r#"{"kind":"http","path":"/","port":8081}"#, 2));
    let (state, code, streak, output) = hear(&mut start(&place, &config));
    assert_eq!((state, code, streak), (State::Starting, Answer::Code(1), 1));
    assert_eq!(output, "port 8081 does not speak HTTP\n");
}

pub fn tells_why_a_program_could_not_be_asked() {
    let (state, code, _, output) = answer(r#"{"args":["/bin/none"],"kind":"exec"}"#);
    assert_eq!((state, code), (State::Unhealthy, Answer::NotAsked));
    assert!(output.contains("/bin/none"), "{output}");
}

pub fn kills_what_takes_too_long_and_what_it_left() {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.health = Some(check(&exec(&["leave", "wait"]), 1));
    let mut machine = start(&place, &config);
    let (_, code, _, _) = hear(&mut machine);
    assert_eq!(code, Answer::Code(0), "it ended although its child holds its output");
    // Dead, and the app's to reap.
    let look = r#"{"app":null,"args":["/bin/app","app","until-dead","/proc/3/stat"],"cwd":null,"env":[],"terminal":null,"user":null}"#;
    machine.exec(1, look);
    assert_eq!(machine.listen_to(1).2, End::Exit(Exit::Code(0)));
    config.health = Some(check(&exec(&["wait"]), 3));
    let mut machine = start(&place, &config);
    assert_eq!(hear(&mut machine), (State::Starting, Answer::TimedOut, 1, "ready\n".into()));
    assert_eq!(hear(&mut machine), (State::Starting, Answer::TimedOut, 2, "ready\n".into()));
    assert_eq!(hear(&mut machine), (State::Unhealthy, Answer::TimedOut, 3, "ready\n".into()));
}

pub fn keeps_the_end_of_what_a_flood_wrote() {
    let (state, code, _, output) = answer(&exec(&["flood", "5000000"]));
    assert_eq!((state, code), (State::Healthy, Answer::Code(0)));
    assert_eq!(output, "x".repeat(OUTPUT_MAX));
}

pub fn says_nothing_twice_and_everything_new() {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.health = Some(check(&exec(&["count", "/calls"]), 4));
    let mut machine = start(&place, &config);
    let told: Vec<_> =
        (0..4).map(|_| hear(&mut machine)).map(|told| (told.0, told.1, told.2)).collect();
    let state = State::Starting;
    let expected = [
        (state, Answer::Code(1), 1),
        (state, Answer::Code(2), 2),
        (state, Answer::Code(3), 3),
        (State::Unhealthy, Answer::Code(3), 4),
    ];
    assert_eq!(told, expected);
    config.health = Some(check(&exec(&["both"]), 1));
    let mut machine = start(&place, &config);
    assert_eq!(
        hear(&mut machine),
        (State::Healthy, Answer::Code(0), 0, "to stdout\nto stderr\n".into())
    );
    machine.say(HostKind::Stop, Stop { timeout_ms: 3_500 }.encode().as_bytes());
    // Three more answers, of which there is nothing to say.
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

pub fn does_not_take_the_end_of_the_app_for_an_answer() {
    let place = Place::new();
    let mut config = app(&["wait-for-term"]);
    // A check that is under way when the app ends.
    config.health = Some(check(r#"{"args":["/bin/app","app","mark","/asked"],"kind":"exec"}"#, 1));
    let mut machine = start(&place, &config);
    machine.exec(1, r#"{"app":null,"args":["/bin/app","app","until","/asked"],"cwd":null,"env":[],"terminal":null,"user":null}"#);
    machine.listen_to(1);
    machine.say(HostKind::Stop, Stop { timeout_ms: 60_000 }.encode().as_bytes());
    loop {
        match machine.hear().unwrap().0 {
            GuestKind::Health => panic!("an answer that nobody gave"),
            GuestKind::Exit => break,
            _ => {}
        }
    }
}
