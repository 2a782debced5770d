//! What the app is.

use casemate_wire::payload::Exit;

use crate::config::{Config, app};
use crate::machine::{End, Machine, Place, run};

fn output_of(config: &Config) -> String {
    let (out, end) = run(config);
    assert_eq!(end, End::Exit(Exit::Code(0)), "{out}");
    out
}

/// One line of the app's /proc/self/status, as words.
fn status(config: Config, name: &str) -> Vec<String> {
    let mut config = config;
    config.args = app(&["print", "/proc/self/status"]).args;
    let text = output_of(&config);
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split_whitespace().skip(1).map(String::from).collect()
}

pub fn keeps_streams_apart_and_reports_the_code() {
    let place = Place::new();
    let mut machine = Machine::start(&place.0, None);
    machine.configure(&app(&["both"]));
    machine.hear_started();
    let (out, err, end) = machine.listen();
    assert_eq!(out, b"to stdout\n");
    assert_eq!(err, b"to stderr\n");
    assert_eq!(end, End::Exit(Exit::Code(0)));
    assert_eq!(run(&app(&["exit", "42"])).1, End::Exit(Exit::Code(42)));
}

pub fn reports_a_signal() {
    // Process 1 of a namespace ignores its own SIGABRT; abort then traps, which kills it.
    assert_eq!(run(&app(&["abort"])).1, End::Exit(Exit::Signal(11)));
}

pub fn passes_arguments_and_environment() {
    assert_eq!(output_of(&app(&["args", "a b", "", "ü"])), "[\"a b\", \"\", \"ü\"]\n");
    let mut config = app(&["env"]);
    config.env = vec!["A=1".into(), "EMPTY=".into()];
    assert_eq!(output_of(&config), "A=1\nEMPTY=\nHOME=/root\n");
    let hostname = output_of(&app(&["print", "/proc/sys/kernel/hostname"]));
    assert_eq!(hostname, "web-1\n");
}

pub fn passes_tunables_only_under_software_kvm() {
    let place = Place::new();
    let mut machine = Machine::start(&place.0, Some("glibc.cpu.hwcaps=-AVX2"));
    machine.configure(&app(&["env"]));
    let (out, _, _) = machine.listen();
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2\n"), "{out}");
    assert!(!output_of(&app(&["env"])).contains("GLIBC"));
}

pub fn sets_user_groups_and_home() {
    let as_web = || {
        let mut config = app(&[]);
        config.user = "web".into();
        config.gids = vec![1234];
        config
    };
    assert_eq!(status(as_web(), "Uid"), ["33"; 4]);
    assert_eq!(status(as_web(), "Gid"), ["34"; 4]);
    assert_eq!(status(as_web(), "Groups"), ["26", "1234"]);
    let mut config = as_web();
    config.args = app(&["env"]).args;
    assert!(output_of(&config).contains("HOME=/var/www\n"));
    let mut config = as_web();
    config.user = "4711:12".into();
    config.gids = vec![];
    assert_eq!(status(config, "Gid"), ["12"; 4]);
}

pub fn sets_capabilities() {
    for (user, effective) in [("", "0000000000000021"), ("web", "0000000000000000")] {
        let with = || {
            let mut config = app(&[]);
            config.capabilities = vec!["CHOWN", "KILL"];
            config.user = user.into();
            config
        };
        assert_eq!(status(with(), "CapBnd"), ["0000000000000021"]);
        assert_eq!(status(with(), "CapEff"), [effective], "user {user:?}");
        assert_eq!(status(with(), "NoNewPrivs"), ["1"]);
    }
    assert_eq!(status(app(&[]), "CapPrm"), ["0000000000000000"]);
    assert_eq!(status(app(&[]), "CapBnd"), ["0000000000000000"]);
}

pub fn raises_ambient_capabilities() {
    let mut config = app(&[]);
    config.user = "web".into();
    config.capabilities = vec!["NET_BIND_SERVICE"];
    config.ambient = vec!["NET_BIND_SERVICE"];
    assert_eq!(status(config, "CapEff"), ["0000000000000400"]);
}

pub fn sets_limits() {
    let mut config = app(&["print", "/proc/self/limits"]);
    config.rlimits = vec![("RLIMIT_NOFILE", 100, 200), ("RLIMIT_CORE", 0, 0)];
    let limits = output_of(&config);
    let words = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(String::from).collect()
    };
    assert_eq!(words("Max open files"), ["100", "200"]);
    assert_eq!(words("Max core file size"), ["0", "0"]);
}

pub fn is_process_one_and_sees_no_other() {
    assert_eq!(status(app(&[]), "Pid"), ["1"]);
    let names = output_of(&app(&["list", "/proc"]));
    let numbers: Vec<&str> = names.split(' ').filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(numbers, ["1"]);
}

pub fn inherits_no_descriptor() {
    // 3 is the directory being listed.
    assert_eq!(output_of(&app(&["list", "/proc/self/fd"])), "0 1 2 3");
    assert_eq!(status(app(&[]), "SigBlk"), ["0000000000000000"]);
    // 13: the app's own Rust run-time ignores SIGPIPE. 32 and 33 belong to glibc, and come ignored
    // from some of the shells that tests are started from.
    let ignored = u64::from_str_radix(&status(app(&[]), "SigIgn")[0], 16).unwrap();
    assert_eq!(ignored & !(0b11 << 31), 1 << 12);
}

pub fn reopens_its_own_stdout_as_another_user() {
    let mut config = app(&["again"]);
    config.user = "web".into();
    assert_eq!(output_of(&config), "once more\n");
}

pub fn finds_programs_on_the_path() {
    let mut config = app(&["cwd"]);
    config.args[0] = "app".into();
    config.env = vec!["PATH=/none:/bin".into()];
    config.cwd = "/made/for/it".into();
    assert_eq!(output_of(&config), "/made/for/it");
    config.env = vec![];
    assert_eq!(output_of(&config), "/made/for/it");
}
