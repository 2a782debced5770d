//! kill -9 of spawn at each point where something is half done: no VM runs of which nothing is known, no end is lost, no
//! ticket comes back.

use casemate_ticket::json::Value;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::client::{framed, read_to_end};
use crate::documents::{self, text};
use crate::host::{Host, crashing_host, ended, kept_host, kept_host_with, wait_for};
use crate::life::pause;
use crate::life::stop;
use crate::takeover::state;

/// Asks for a launch during which spawn dies; the request.
fn crash_a_launch(host: &Host, words: &[&str]) -> (String, String) {
    let (pod, spec) = host.spec(words);
    let request = documents::admitted(&spec);
    let files = host.files();
    let files: Vec<_> = files.iter().map(std::os::fd::AsFd::as_fd).collect();
    let mut client = host.client();
    client.send(&framed(&request), &files).unwrap();
    assert!(client.receive().is_none(), "the client is not left waiting");
    (pod, request)
}

#[test]
fn a_launch_that_had_not_begun_has_not_run() {
    let Some(host) = crashing_host() else { return };
    for point in ["cloned", "written", "stored"] {
        host.crash_at(point, 1);
        let (pod, request) = crash_a_launch(&host, &["serve"]);
        wait_for("the child to be gone", || (state(&host, &pod).is_none()).then_some(()));
        assert_eq!(host.pods(), [], "{point}: it never ran");
        assert!(!host.cgroup("memory", &pod).exists(), "{point}");
        assert!(!host.entry(&pod).exists(), "{point}");
        let again = host.client().ask(&request, &host.files());
        assert_eq!(again.code(), "TICKET_SPENT", "{point}: {}", again.text());
    }
    // None of their user ids is lost.
    let pods: Vec<_> = (0..16).map(|_| host.start(&["deaf"])).collect();
    drop(pods);
}

#[test]
fn a_launch_that_nobody_was_told_of_is_taken_over() {
    let Some(host) = crashing_host() else { return };
    host.crash_at("released", 1);
    let (pod, request) = crash_a_launch(&host, &["serve"]);
    assert_eq!(state(&host, &pod).as_deref(), Some("running"));
    assert_eq!(host.client().ask(&request, &host.files()).code(), "POD_EXISTS");
    let stream = host.ask_pod("adopt", &pod).descriptors.pop().unwrap();
    assert_eq!(stop(&host, &pod, 60_000), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "signal 15 APP_SIGNAL");
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    assert_eq!(host.client().ask(&request, &host.files()).code(), "TICKET_SPENT");
}

#[test]
fn no_word_of_a_vmm_is_lost_or_counted_twice() {
    let Some(host) = crashing_host() else { return };
    // STARTED, READY and EXIT: written down, and still in the socket.
    for times in 1..=3 {
        host.crash_at("heard", times);
        let (pod, spec) = host.spec(&["exit", "3"]);
        let files = host.files();
        let files: Vec<_> = files.iter().map(std::os::fd::AsFd::as_fd).collect();
        let mut client = host.client();
        client.send(&framed(&documents::admitted(&spec)), &files).unwrap();
        let exit = wait_for("the pod's exit", || {
            let exit = host.pod(&pod)?.get("exit")?.clone();
            (exit != Value::Null).then_some(exit)
        });
        assert_eq!(exit.get("cause"), Some(&text("APP_EXIT")), "message {times}");
        assert_eq!(exit.get("value"), Some(&Value::Integer(3)));
        assert!(!host.directory.join("crash-at").exists(), "it crashed");
        host.end_spawn(Signal::TERM);
    }
}

#[test]
fn an_end_that_was_written_down_is_told_once() {
    let Some(host) = crashing_host() else { return };
    host.crash_at("concluded", 1);
    let (pod, _, stream) = host.start(&["exit", "3"]);
    assert_eq!(host.exit_of(&pod, stream).0, "code 3 APP_EXIT");
    assert!(!host.directory.join("crash-at").exists(), "it crashed");
    assert_eq!(host.pods().len(), 1);
    assert!(!host.cgroup("memory", &pod).exists());
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    assert_eq!(host.ask_pod("forget", &pod).code(), "POD_UNKNOWN");
}

#[test]
fn a_kill_that_was_answered_or_not_is_done() {
    let Some(host) = crashing_host() else { return };
    let (pod, _, stream) = host.start(&["deaf"]);
    host.crash_at("killing", 1);
    let mut client = host.client();
    client.send(&framed(&format!(r#"{{"op":"kill","pod":"{pod}"}}"#)), &[]).unwrap();
    assert!(client.receive().is_none());
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED", "for the reason that was given");
}

#[test]
fn a_template_that_was_being_built_and_a_worker_are_ended() {
    let Some(host) = kept_host_with("template-hangs", |_| {}) else { return };
    let mut asked = host.client();
    asked.send(&framed(r#"{"memory_mib":128,"op":"template","vcpus":1}"#), &[]).unwrap();
    let (mut worker, started, _answer) = crate::workers::start(&host, "sleeps");
    let first = |name: &str| {
        let group = host.cgroup("memory", name).join("cgroup.procs");
        wait_for("a process", || std::fs::read_to_string(&group).ok()?.lines().next()?.parse().ok())
    };
    let builder = pidfd_open(Pid::from_raw(first("template-1-128")).unwrap(), PidfdFlags::empty());
    let builder = builder.unwrap();
    let pid = started.value.get("pid").and_then(Value::as_u64).unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    host.end_spawn(Signal::KILL);
    assert!(asked.receive().is_none() && worker.receive().is_none());
    ended(&builder);
    ended(&process);
    assert_eq!(host.pods(), []);
    assert!(!host.cgroup("memory", "template-1-128").exists());
}

#[test]
fn a_spawn_that_is_killed_again_and_again_is_given_up_and_its_pods_end() {
    let Some(host) = kept_host() else { return };
    let (_, _, stream) = host.start(&["serve"]);
    let (paused, pid, _paused_stream) = host.start(&["serve"]);
    pause(&host, &paused);
    let still = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    // Whichever it is by then: of one that was killed between fork and exec there is a child that looks like the next.
    // A VMM that stands still does not hear anything: it is killed when spawn is given up.
    wait_for("the end of the one that stands still", || {
        if let Some(spawn) = host.any_spawn() {
            let _ = kill_process(spawn, Signal::KILL);
        }
        let mut watched = [PollFd::new(&still, PollFlags::IN)];
        (poll(&mut watched, Some(&Timespec::default())) == Ok(1)).then_some(())
    });
    // Its VMM hears that nobody holds its control socket any more.
    assert_eq!(read_to_end(stream), b"hello");
    let (code, said) = host.finish();
    assert_eq!(code, Some(1));
    assert_eq!(said.matches("starting it again").count(), 5, "{said}");
    assert!(said.contains("is given up"), "{said}");
}

#[test]
fn pods_wait_for_a_configuration_to_be_mended() {
    let Some(host) = kept_host() else { return };
    let (pod, _, stream) = host.start(&["serve"]);
    let config = host.directory.join("spawn.json");
    let good = std::fs::read(&config).unwrap();
    std::fs::write(&config, "{}").unwrap();
    host.end_spawn(Signal::TERM);
    // It has failed when there is another try after the first.
    let first = host.spawn();
    wait_for("the next try", || host.any_spawn().filter(|spawn| *spawn != first));
    std::fs::write(&config, good).unwrap();
    assert_eq!(state(&host, &pod).as_deref(), Some("running"));
    assert_eq!(stop(&host, &pod, 60_000), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "signal 15 APP_SIGNAL");
}
