//! Processes beside the app.

use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::payload::{ErrorCode, Exit, Signal, Size, Stream};

use crate::config::{Config, app};
use crate::machine::{End, Machine, Place};

const ENDED: End = End::Exit(Exit::Code(0));
const RUN: u16 = 7;

/// A request for the program of the image.
fn request(what: &[&str]) -> String {
    with(what, "null", "[]", "null", "null")
}

fn with(what: &[&str], cwd: &str, env: &str, terminal: &str, user: &str) -> String {
    let args = ["/bin/app", "app"].iter().chain(what).map(|arg| format!("{arg:?}"));
    let args = args.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"app":null,"args":[{args}],"cwd":{cwd},"env":{env},"terminal":{terminal},"user":{user}}}"#
    )
}

/// An app that has said that it is ready.
fn ready(place: &Place, config: &Config) -> Machine {
    let mut machine = Machine::start(&place.0, None);
    machine.configure(config);
    machine.hear_started();
    while machine.hear().expect("the app speaks").0 != GuestKind::Stdout {}
    machine
}

fn waiting(place: &Place) -> Machine {
    ready(place, &app(&["wait"]))
}

fn kill_app(machine: &mut Machine) {
    machine.say(HostKind::Signal, Signal { number: 9 }.encode().as_bytes());
}

/// Runs one and answers what it printed.
fn output(machine: &mut Machine, request: &str) -> String {
    machine.exec(RUN, request);
    machine.say_to(RUN, HostKind::StdinEof, &[]);
    let (out, err, end) = machine.listen_to(RUN);
    assert_eq!((err.as_str(), end), ("", ENDED), "{out}");
    out
}

/// A line of a `/proc/*/status`.
pub fn line<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find(|line| line.starts_with(name)).unwrap_or_default()
}

/// By what their `/proc/*/status` say of ids, capabilities, filters and signals.
pub fn is_under_the_same(own: &str, of_app: &str) {
    for name in [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
        "Seccomp_filters:",
        "SigBlk:",
        "SigIgn:",
        "Umask:",
    ] {
        assert_eq!(line(own, name), line(of_app, name), "{name}");
    }
}

/// An `enter` without these was rkt's CVE-2019-10144, 10145 and 10147.
pub fn is_under_all_that_the_app_is_under() {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.user = "web".into();
    config.gids = vec![1234];
    config.capabilities = vec!["CHOWN", "KILL"];
    config.rlimits = vec![("RLIMIT_NOFILE", 100, 200), ("RLIMIT_CORE", 0, 0)];
    // Allows everything: that it is there is what counts.
    config.seccomp = Some(vec![[6, 0, 0, 0, 0, 0, 0xff, 0x7f]]);
    let mut machine = ready(&place, &config);
    let both = |machine: &mut Machine, file: &str| {
        [format!("/proc/1/{file}"), format!("/proc/self/{file}")]
            .map(|path| output(machine, &request(&["print", &path])))
    };
    let [of_app, own] = both(&mut machine, "status");
    is_under_the_same(&own, &of_app);
    assert_eq!(line(&own, "Seccomp:"), "Seccomp:\t2");
    assert_eq!(line(&own, "CapBnd:"), "CapBnd:\t0000000000000021");
    assert_eq!(line(&own, "CapEff:"), "CapEff:\t0000000000000000");
    for file in ["limits", "cgroup", "mountinfo", "uid_map"] {
        let [of_app, own] = both(&mut machine, file);
        assert_eq!(own, of_app, "{file}");
    }
    let links = |machine: &mut Machine, of: &str| output(machine, &request(&["links", of]));
    assert_eq!(links(&mut machine, "1"), links(&mut machine, "self"));
    // 3 is the directory being listed.
    assert_eq!(output(&mut machine, &request(&["list", "/proc/self/fd"])), "0 1 2 3");
    // Root by number has no more than the app's own sets.
    let root = with(&["print", "/proc/self/status"], "null", "[]", "null", "\"0\"");
    let own = output(&mut machine, &root);
    assert_eq!(line(&own, "Uid:"), "Uid:\t0\t0\t0\t0");
    assert_eq!(line(&own, "CapBnd:"), "CapBnd:\t0000000000000021");
    let held = u64::from_str_radix(line(&own, "CapPrm:").trim_start_matches("CapPrm:\t"), 16);
    assert_eq!(held.unwrap() & !0x21, 0);
}

pub fn has_its_own_streams_code_and_input() {
    let place = Place::new();
    let mut machine = waiting(&place);
    machine.exec(1, &request(&["both"]));
    let (out, err, end) = machine.listen_to(1);
    assert_eq!((out.as_str(), err.as_str(), end), ("to stdout\n", "to stderr\n", ENDED));
    machine.exec(65_527, &request(&["exit", "42"]));
    assert_eq!(machine.listen_to(65_527).2, End::Exit(Exit::Code(42)));
    // The number is free again.
    machine.exec(1, &request(&["copy"]));
    while machine.hear_any().unwrap().1 != GuestKind::Credit {}
    machine.say_to(1, HostKind::Stdin, b"once and ");
    machine.say_to(1, HostKind::Stdin, b"again");
    machine.say_to(1, HostKind::StdinEof, &[]);
    assert_eq!(machine.listen_to(1), ("once and again".into(), String::new(), ENDED));
    machine.exec(2, &request(&["wait"]));
    machine.hears(2, "ready");
    machine.say_to(2, HostKind::Signal, Signal { number: 15 }.encode().as_bytes());
    assert_eq!(machine.listen_to(2).2, End::Exit(Exit::Signal(15)));
    // The app heard none of it.
    kill_app(&mut machine);
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

pub fn takes_environment_user_and_directory_of_the_request() {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.env = vec!["PATH=/bin".into(), "A=1".into()];
    config.cwd = "/etc".into();
    let mut machine = ready(&place, &config);
    assert_eq!(output(&mut machine, &request(&["cwd"])), "/etc");
    assert_eq!(output(&mut machine, &request(&["env"])), "PATH=/bin\nA=1\nHOME=/root\n");
    let changed = with(&["env"], "\"/bin\"", r#"["A=2","B=3"]"#, "null", "\"web\"");
    assert_eq!(output(&mut machine, &changed), "PATH=/bin\nA=2\nB=3\nHOME=/var/www\n");
    assert_eq!(output(&mut machine, &with(&["cwd"], "\"/bin\"", "[]", "null", "null")), "/bin");
}

/// The kernel ends a namespace only when all of its processes were waited for, those that failed included.
pub fn tells_why_it_could_not_run_and_the_app_can_still_end() {
    let place = Place::new();
    let mut machine = waiting(&place);
    for (request, code) in [
        (with(&[], "null", "[]", "null", "\"nobody\""), ErrorCode::User),
        (with(&[], "\"/none\"", "[]", "null", "null"), ErrorCode::Cwd),
        (with(&[], "\"/proc/self/fd/9\"", "[]", "null", "null"), ErrorCode::Cwd),
        (request(&[]).replace("/bin/app", "/bin/none"), ErrorCode::NotFound),
        (request(&[]).replace("/bin/app", "/etc/passwd"), ErrorCode::NotExecutable),
        (request(&[]).replace("args", "arms"), ErrorCode::Config),
        ("{}".into(), ErrorCode::Config),
    ] {
        machine.exec(RUN, &request);
        let (_, _, end) = machine.listen_to(RUN);
        assert!(matches!(&end, End::Error(found, _) if *found == code), "{request}: {end:?}");
    }
    kill_app(&mut machine);
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

pub fn enters_what_init_made_and_not_what_the_app_went_to() {
    let place = Place::new();
    let mut config = app(&["wander"]);
    config.capabilities = vec!["SYS_ADMIN"];
    let mut machine = ready(&place, &config);
    // The app has nothing in its /bin any more. It wrote into the one root there is.
    assert_eq!(output(&mut machine, &request(&["list", "/bin"])), "app");
    assert!(output(&mut machine, &request(&["list", "/"])).contains("here"));
}

pub fn has_a_terminal_of_the_app_s_that_does_what_terminals_do() {
    let place = Place::new();
    let mut machine = waiting(&place);
    let shown = with(&["terminal"], "null", "[]", r#"{"columns":80,"rows":24}"#, "\"web\"");
    machine.exec(RUN, &shown);
    let said = machine.hears(RUN, "ready");
    assert_eq!(said, "/dev/pts/0\r\n/dev/pts/0\r\n/dev/pts/0\r\nleads true size 24 80 ready\r\n");
    machine.say_to(RUN, HostKind::Window, Size { rows: 50, columns: 132 }.encode().as_bytes());
    machine.say_to(RUN, HostKind::Stdin, b"one\r");
    assert!(machine.hears(RUN, "132").starts_with("one\r\nread \"one\" size 50 132"));
    // The end of the input comes as ^D.
    machine.say_to(RUN, HostKind::Stdin, b"two\r");
    machine.say_to(RUN, HostKind::StdinEof, &[]);
    let (said, _, end) = machine.listen_to(RUN);
    assert!(said.contains("read \"two\" size 50 132"), "{said}");
    assert_eq!(end, ENDED);
    // ^C is a signal.
    machine.exec(RUN, &shown);
    machine.hears(RUN, "ready");
    machine.say_to(RUN, HostKind::Stdin, b"\x03");
    assert_eq!(machine.listen_to(RUN).2, End::Exit(Exit::Signal(2)));
}

pub fn makes_no_terminal_of_what_the_app_put_there() {
    let place = Place::new();
    let mut config = app(&["fake-terminals"]);
    config.capabilities = vec!["SYS_ADMIN"];
    let mut machine = ready(&place, &config);
    let shown = with(&["terminal"], "null", "[]", r#"{"columns":80,"rows":24}"#, "null");
    machine.exec(RUN, &shown);
    let told = "/dev/pts is not what it was".into();
    assert_eq!(machine.listen_to(RUN).2, End::Error(ErrorCode::Other, told));
}

pub fn is_hung_up_on_and_killed_when_nobody_listens() {
    let place = Place::new();
    let mut machine = waiting(&place);
    let terminal = r#"{"columns":80,"rows":24}"#;
    for (what, terminal, signal) in
        [("wait", "null", 1), ("deaf", "null", 9), ("wait", terminal, 1), ("deaf", terminal, 9)]
    {
        machine.exec(RUN, &with(&[what], "null", "[]", terminal, "null"));
        machine.hears(RUN, "ready");
        machine.say_to(RUN, HostKind::Close, &[]);
        assert_eq!(machine.listen_to(RUN).2, End::Exit(Exit::Signal(signal)), "{what} {terminal}");
    }
    kill_app(&mut machine);
    assert_eq!(machine.listen().2, End::Exit(Exit::Signal(9)));
}

pub fn ends_with_the_app() {
    let place = Place::new();
    let mut machine = waiting(&place);
    for session in 1..=16 {
        machine.exec(session, &request(&["deaf"]));
        machine.hears(session, "ready");
    }
    kill_app(&mut machine);
    let mut ended = Vec::new();
    let end = loop {
        let (session, kind, payload) = machine.hear_any().expect("the app ends first");
        match (session, kind) {
            (0, GuestKind::Exit) => break Exit::parse(&payload),
            (session, GuestKind::Exit) => ended.push((session, Exit::parse(&payload).unwrap())),
            _ => {}
        }
    };
    assert_eq!(end, Some(Exit::Signal(9)));
    ended.sort_unstable_by_key(|(session, _)| *session);
    assert_eq!(ended, (1..=16).map(|number| (number, Exit::Signal(9))).collect::<Vec<_>>());
}

/// The app is given more than that time to end after its last words; nobody has to wait for it here.
pub fn waits_for_credit_alone_and_keeps_what_it_wrote() {
    let place = Place::new();
    let mut machine = waiting(&place);
    machine.exec_without_credit(1, &request(&["flood", "30000"]));
    machine.credit_of(1, Stream::Stdout, 10);
    // One that is held up holds up neither another nor the app.
    machine.exec(2, &request(&["flood", "300000"]));
    let (out, _, end) = machine.listen_to(2);
    assert_eq!((out.len(), end), (300_000, ENDED));
    let mut left = 30_000 - 10;
    while left > 0 {
        let some = left.min(8000);
        machine.credit_of(1, Stream::Stdout, some);
        left -= some;
        let mut came = 0;
        while came < some {
            let (from, kind, payload) = machine.hear_any().unwrap();
            assert!(from != 1 || kind != GuestKind::Exit);
            came +=
                if kind == GuestKind::Stdout { u32::try_from(payload.len()).unwrap() } else { 0 };
        }
    }
    assert_eq!(machine.listen_to(1).2, ENDED);
}

pub fn is_not_ended_by_what_comes_after_its_end() {
    let place = Place::new();
    let mut machine = waiting(&place);
    for session in [1, RUN] {
        machine.say_to(session, HostKind::Stdin, b"late");
        machine.say_to(session, HostKind::StdinEof, &[]);
        machine.say_to(session, HostKind::Close, &[]);
        machine.credit_of(session, Stream::Stdout, 65_536);
    }
    assert_eq!(output(&mut machine, &request(&["cwd"])), "/");
}

pub fn ends_the_guest_for_a_host_out_of_turn() {
    let place = Place::new();
    let request = request(&["wait"]);
    for (kind, payload, words) in [
        (HostKind::Exec, request.as_bytes(), "the session is open"),
        (HostKind::Admit, &[0; 10][..], "a Admit frame has wrong values"),
        (HostKind::Signal, &[65, 0, 0, 0][..], "a Signal frame has wrong values"),
        (HostKind::Stdin, &vec![0; 65_536], "credit was exceeded"),
    ] {
        let mut machine = waiting(&place);
        machine.exec(RUN, &request);
        machine.hears(RUN, "ready");
        for _ in 0..3 {
            machine.say_to(RUN, kind, payload);
        }
        assert_eq!(machine.listen_to(RUN).2, End::Gone);
        let said = machine.last_words();
        assert!(said.contains(words), "{said}");
    }
    // Before the app runs there is nothing to be beside of.
    let mut machine = Machine::start(&place.0, None);
    machine.say_to(RUN, HostKind::Exec, request.as_bytes());
    assert_eq!(machine.hear(), None);
    assert!(machine.last_words().contains("may not come in phase Reseeded"));
}
