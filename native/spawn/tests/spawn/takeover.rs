//! Restarts of spawn with pods running: the next one goes on where the one before was, and ends what does not fit.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use casemate_ticket::json::{self, Value};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::client::{read_exactly, read_to_end};
use crate::documents::{set, text};
use crate::host::{Host, ended, host, kept_host, wait_for};
use crate::life::{pause, stop};

const RUNNING: Option<&str> = Some("running");

fn member(host: &Host, pod: &str, name: &str) -> Value {
    host.pod(pod).and_then(|entry| entry.get(name).cloned()).unwrap_or(Value::Null)
}

pub fn state(host: &Host, pod: &str) -> Option<String> {
    member(host, pod, "state").as_str().map(str::to_owned)
}

/// Starts a pod that ends as the byte says that is sent to it.
fn listening(host: &Host) -> (String, i32, OwnedFd) {
    let (pod, pid, stream) = host.start(&["listens"]);
    assert_eq!(read_exactly(&stream, 5), b"hello");
    (pod, pid, stream)
}

fn tell(stream: &OwnedFd, byte: u8) {
    assert_eq!(rustix::io::write(stream, &[byte]), Ok(1));
}

/// How it ends, and what is told of it.
const ENDS: [(u8, &str, &str); 4] = [
    (b'e', "code 5 APP_EXIT", ""),
    (b'q', "vmm 7 VMM_EXIT", "code 7"),
    // Which call it was the kernel does not always say: it bounds how many such lines it writes.
    (b's', "vmm 31 VMM_SECCOMP", "its own seccomp filter"),
    (b'm', "vmm 9 VMM_OOM", "out of memory"),
];

#[test]
fn a_pod_does_not_notice_that_spawn_is_killed_or_restarted() {
    let Some(host) = kept_host() else { return };
    let (pod, pid, first) = host.start(&["serve"]);
    assert_eq!(read_exactly(&first, 5), b"hello");
    let before = host.pod(&pod);
    for signal in [Signal::KILL, Signal::KILL, Signal::TERM, Signal::HUP] {
        host.end_spawn(signal);
        assert_eq!(host.pod(&pod), before, "{signal:?}");
    }
    assert_eq!(host.ask_pod("metrics", &pod).code(), "ok");
    let mut answer = host.ask_pod("adopt", &pod);
    assert_eq!(answer.value.get("pid"), Some(&Value::Integer(pid.into())));
    let second = answer.descriptors.pop().unwrap();
    assert_eq!(read_exactly(&second, 5), b"hello");
    // One more for each message: counters.
    assert_eq!(read_to_end(first), b"hello", "it was open until it was replaced");
    assert_eq!(stop(&host, &pod, 60_000), "ok");
    assert_eq!(host.exit_of(&pod, second).0, "signal 15 APP_SIGNAL");
    let told = host.pod(&pod);
    host.end_spawn(Signal::KILL);
    assert_eq!(host.pod(&pod), told, "and its end is kept");
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    host.end_spawn(Signal::KILL);
    assert_eq!(host.pods(), []);
    assert_eq!(fs::read_dir(host.run_dir().join("pods")).unwrap().count(), 0);
}

#[test]
fn the_end_of_a_pod_that_was_taken_over_is_told_as_any_other() {
    let Some(host) = kept_host() else { return };
    for (byte, exit, sentence) in ENDS {
        let (pod, _, stream) = listening(&host);
        host.end_spawn(Signal::TERM);
        assert_eq!(state(&host, &pod).as_deref(), RUNNING);
        tell(&stream, byte);
        let (told, why) = host.exit_of(&pod, stream);
        assert_eq!(told, exit, "{why}");
        assert!(why.contains(sentence), "{exit}: {why}");
        assert!(!host.cgroup("memory", &pod).exists(), "{exit}: its cgroup is removed");
    }
    let (pod, pid, stream) = listening(&host);
    host.end_spawn(Signal::TERM);
    assert_eq!(state(&host, &pod).as_deref(), RUNNING);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 VMM_SIGNAL");
    let (pod, _, stream) = listening(&host);
    host.end_spawn(Signal::TERM);
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED");
}

#[test]
fn the_end_of_a_pod_is_told_that_came_while_there_was_no_spawn() {
    let Some(host) = kept_host() else { return };
    for (byte, exit, sentence) in ENDS {
        let (pod, pid, stream) = listening(&host);
        let end = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        // TERM leaves pods to the next as well, and is not counted against the keeper's patience.
        host.without_spawn(Signal::TERM, || {
            tell(&stream, byte);
            ended(&end);
        });
        let (told, why) = host.exit_of(&pod, stream);
        assert_eq!(told, exit, "{why}");
        assert!(why.contains(sentence), "{exit}: {why}");
    }
}

#[test]
fn a_paused_pod_stays_paused() {
    let Some(host) = kept_host() else { return };
    let (pod, _, stream) = host.start(&["serve"]);
    assert_eq!(read_exactly(&stream, 5), b"hello");
    let (other, _, _other_stream) = host.start(&["serve"]);
    pause(&host, &pod);
    host.end_spawn(Signal::KILL);
    assert_eq!(member(&host, &pod, "paused"), Value::Bool(true));
    assert_eq!(member(&host, &other, "paused"), Value::Bool(false));
    crate::life::stands_still(&host, &pod);
    assert_eq!(host.ask_pod("metrics", &pod).code(), "POD_PAUSED");
    assert_eq!(host.ask_pod("resume", &pod).code(), "ok");
    assert_eq!(host.ask_pod("metrics", &pod).code(), "ok");
    pause(&host, &pod);
    host.end_spawn(Signal::TERM);
    assert_eq!(member(&host, &pod, "paused"), Value::Bool(true));
    assert_eq!(stop(&host, &pod, 60_000), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "signal 15 APP_SIGNAL");
}

#[test]
fn times_that_were_set_hold_for_the_next_spawn() {
    let Some(host) = kept_host() else { return };
    let (deaf, _, deaf_stream) = host.start(&["deaf"]);
    wait_for("the pod to run", || (host.ask_pod("pause", &deaf).code() == "ok").then_some(()));
    let (slow, mut spec) = host.spec(&["slow"]);
    set(&mut spec, "limits.boot_ms", Value::Integer(1));
    let slow_stream = host.launch(&spec).descriptors.pop().unwrap();
    let start = std::time::Instant::now();
    assert_eq!(stop(&host, &deaf, 1500), "ok");
    host.end_spawn(Signal::KILL);
    assert_eq!(host.ask_pod("pause", &slow).code(), "POD_BUSY", "it is still being started");
    assert_eq!(host.ask_pod("pause", &deaf).code(), "POD_BUSY", "it is still being stopped");
    assert_eq!(host.exit_of(&deaf, deaf_stream).0, "vmm 9 STOP_TIMEOUT");
    assert!(start.elapsed() >= std::time::Duration::from_millis(1500));
    assert_eq!(host.exit_of(&slow, slow_stream).0, "vmm 9 BOOT_TIMEOUT");
}

#[test]
fn who_waits_is_answered_by_the_next_spawn_or_told_at_once_that_it_will_not_be() {
    let Some(host) = kept_host() else { return };
    let (deaf, _, _stream) = host.start(&["deaf"]);
    let metrics = format!(r#"{{"op":"metrics","pod":"{deaf}"}}"#);
    for signal in [Signal::KILL, Signal::TERM] {
        let mut asked = host.client();
        asked.send(&crate::client::framed(&metrics), &[]).unwrap();
        // Read by then: spawn takes connections in their order.
        assert_eq!(state(&host, &deaf).as_deref(), RUNNING);
        let mut silent = host.client();
        let mut waiting = None;
        host.without_spawn(signal, || {
            assert!(asked.receive().is_none(), "{signal:?}: no answer, and no waiting for one");
            let mut client = host.client();
            client.send(&crate::client::framed(r#"{"op":"list"}"#), &[]).unwrap();
            waiting = Some(client);
        });
        assert_eq!(waiting.unwrap().receive().unwrap().code(), "ok", "{signal:?}");
        let _ = silent.send(&crate::client::framed(r#"{"op":"list"}"#), &[]);
    }
    // Counters that the spawn before had asked for are no fault of the VMM's.
    let (pod, _, stream) = host.start(&["serve"]);
    pause_for_metrics(&host, &pod);
    assert_eq!(read_exactly(&stream, 5), b"hello");
    assert_eq!(host.ask_pod("metrics", &pod).code(), "ok");
    assert_eq!(state(&host, &pod).as_deref(), RUNNING);
}

/// Asks for counters, and ends spawn before the VMM can answer.
fn pause_for_metrics(host: &Host, pod: &str) {
    wait_for("the pod to run", || (host.ask_pod("metrics", pod).code() == "ok").then_some(()));
    let pid = match member(host, pod, "pid") {
        Value::Integer(pid) => Pid::from_raw(pid.try_into().unwrap()).unwrap(),
        _ => panic!("no pid"),
    };
    kill_process(pid, Signal::STOP).unwrap();
    let mut asked = host.client();
    let metrics = format!(r#"{{"op":"metrics","pod":"{pod}"}}"#);
    asked.send(&crate::client::framed(&metrics), &[]).unwrap();
    assert_eq!(state(host, pod).as_deref(), RUNNING);
    host.without_spawn(Signal::KILL, || kill_process(pid, Signal::CONT).unwrap());
}

fn uid_of(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    line.split('\t').next().unwrap().to_owned()
}

#[test]
fn no_user_id_is_given_to_two_pods() {
    let Some(host) = kept_host() else { return };
    let (_, first, stream) = host.start(&["serve"]);
    assert_eq!(read_exactly(&stream, 5), b"hello");
    let mut seen = vec![uid_of(first)];
    let mut streams = vec![stream];
    for _ in 0..2 {
        host.end_spawn(Signal::KILL);
        let (_, pid, stream) = host.start(&["serve"]);
        assert_eq!(read_exactly(&stream, 5), b"hello");
        let uid = uid_of(pid);
        assert!(!seen.contains(&uid), "{uid} of {seen:?}");
        seen.push(uid);
        streams.push(stream);
    }
}

/// What is told of a pod.
#[derive(Debug, PartialEq)]
enum Told {
    /// It is not listed.
    Nothing,
    /// How it ended: cause and sentence.
    Exit(String, String),
}

fn told(host: &Host, pod: &str) -> Told {
    let Some(entry) = host.pod(pod) else { return Told::Nothing };
    let exit = entry.get("exit").unwrap();
    let word = |name: &str| exit.get(name).and_then(Value::as_str).unwrap().to_owned();
    Told::Exit(word("cause"), word("text"))
}

type Alter = fn(&mut Value, &Value);

/// Of two pods, one has its entry altered while there is no spawn. What is told of it; the other lives on.
fn altered(alter: Alter) -> Option<Told> {
    let host = kept_host()?;
    // In this order: of two claims to one user id the earlier launch's holds.
    let (good, _, good_stream) = host.start(&["serve"]);
    let (bad, bad_pid, bad_stream) = host.start(&["serve"]);
    for stream in [&good_stream, &bad_stream] {
        assert_eq!(read_exactly(stream, 5), b"hello");
    }
    wait_for("STARTED and READY to be written down", || {
        let entry = json::parse(&fs::read(host.entry(&bad)).ok()?, 1 << 20).unwrap();
        matches!(entry.get("heard"), Some(Value::Array(heard)) if heard.len() == 2).then_some(())
    });
    let end = pidfd_open(Pid::from_raw(bad_pid).unwrap(), PidfdFlags::empty()).unwrap();
    host.without_spawn(Signal::KILL, || {
        let read = |pod: &str| json::parse(&fs::read(host.entry(pod)).unwrap(), 1 << 20).unwrap();
        let mut entry = read(&bad);
        alter(&mut entry, &read(&good));
        fs::write(host.entry(&bad), json::write(&entry)).unwrap();
    });
    assert_eq!(state(&host, &good).as_deref(), RUNNING);
    ended(&end);
    assert!(!host.cgroup("memory", &bad).exists());
    assert_eq!(host.ask_pod("metrics", &good).code(), "ok");
    let told = told(&host, &bad);
    assert_eq!(stop(&host, &good, 60_000), "ok");
    assert_eq!(host.exit_of(&good, good_stream).0, "signal 15 APP_SIGNAL");
    Some(told)
}

#[test]
fn a_pod_whose_entry_was_altered_is_ended_and_others_live_on() {
    let Some(told) = altered(|entry, _| *entry = text("nothing")) else { return };
    assert_eq!(told, Told::Nothing, "nobody knows whose it was");
    let cases: [(Alter, &str); 4] = [
        (|entry, other| set(entry, "pid", other.get("pid").unwrap().clone()), "another process's"),
        (|entry, other| set(entry, "uid", other.get("uid").unwrap().clone()), "one user id"),
        (|entry, _| set(entry, "heard", Value::Array(vec![text("fa")])), "no VMM says"),
        (
            // Its filters would not be those that it said it had.
            |entry, _| {
                let other = text(&format!("sha256:{}", "0".repeat(64)));
                set(entry, "vmm.filters.io", other);
            },
            "no VMM says",
        ),
    ];
    for (alter, reason) in cases {
        let Some(Told::Exit(cause, sentence)) = altered(alter) else { panic!("{reason}") };
        assert_eq!(cause, "NOT_TAKEN_OVER", "{reason}");
        assert!(sentence.contains(reason), "{sentence}");
    }
}

#[test]
fn a_pod_that_was_taken_out_of_its_cgroup_is_ended() {
    let Some(host) = kept_host() else { return };
    // It would not notice that nobody holds its control socket.
    let (pod, pid, stream) = host.start(&["deaf"]);
    host.without_spawn(Signal::KILL, || {
        for controller in ["memory", "cpu", "pids", "freezer"] {
            let group = host.cgroup(controller, &pod);
            let root = group.ancestors().nth(3).unwrap().join("cgroup.procs");
            fs::write(root, pid.to_string()).unwrap();
        }
    });
    read_to_end(stream);
    let Told::Exit(cause, sentence) = told(&host, &pod) else { panic!("it is not told") };
    assert_eq!((cause.as_str(), sentence.contains("not in its cgroup")), ("NOT_TAKEN_OVER", true));
}

/// A spawn that is started with these descriptors by somebody who means it no good.
fn with_descriptors(redirections: &str, count: &str, names: &str) -> Vec<PathBuf> {
    let variables = format!("LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}");
    let script = format!("exec {redirections}; {variables} exec \"$@\"");
    let spawn = env!("CARGO_BIN_EXE_casemate-spawn");
    ["/bin/sh", "-c", &script, "sh", spawn].map(PathBuf::from).into()
}

#[test]
fn descriptors_of_other_kinds_are_nobody_s() {
    let Some(mut host) = host() else { return };
    for (redirections, count, names) in [
        ("3</dev/null 4</dev/null", "2", "NAME:NAME"),
        ("3</dev/null", "1", "NAME"),
        ("3</dev/null 4</dev/null 5</dev/null", "3", "NAME:NAME:NAME"),
        ("3</dev/null 4</dev/null 5</dev/null", "3", "NAME:listener:NAME"),
        ("3</dev/null 4</dev/null", "2", "listener:listener"),
        ("3</dev/null 4</dev/null", "2", "somebody:"),
        ("3</dev/null 4<&-", "2", "NAME:NAME"),
        ("3</dev/null", "2", "NAME"),
        ("3</dev/null", "-1", "NAME"),
        ("3</dev/null", "99999999999", "NAME"),
    ] {
        let (pod, pid, _stream) = host.start(&["deaf"]);
        let end = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let names = names.replace("NAME", &format!("pod.{pod}"));
        host = host.restart_by(with_descriptors(redirections, count, &names));
        ended(&end);
        let exit = host.pod(&pod).unwrap().get("exit").unwrap().clone();
        assert_eq!(exit.get("cause"), Some(&text("NOT_TAKEN_OVER")), "{redirections} {names}");
    }
    host.start(&["serve"]);
}
