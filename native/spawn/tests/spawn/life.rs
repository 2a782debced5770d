//! Lives and ends of pods: every way a VMM can go, and what is told of it.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::client::{read_exactly, read_to_end};
use crate::documents::{set, text};
use crate::host::{Host, host, wait_for};

use casemate_ticket::json::Value;

#[test]
fn tells_what_the_guest_reported() {
    let Some(host) = host() else { return };
    let (pod, _, stream) = host.start(&["exit", "3"]);
    assert_eq!(host.exit_of(&pod, stream).0, "code 3 APP_EXIT");
    let exit = host.pod(&pod).unwrap().get("exit").unwrap().clone();
    assert_eq!(exit.get("guest_reported"), Some(&Value::Bool(true)));
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    assert_eq!(host.ask_pod("forget", &pod).code(), "POD_UNKNOWN");
    assert!(host.pod(&pod).is_none());
}

#[test]
fn tells_how_a_vmm_failed() {
    let Some(host) = host() else { return };
    for (word, exit, sentence) in [
        ("failure", "failure 9 VERITY", "block 7 differs"),
        ("silent", "vmm 7 VMM_EXIT", "code 7"),
        ("segv", "vmm 11 VMM_SIGNAL", "SIGSEGV"),
        ("other-filters", "vmm 9 VMM_FILTERS", "other seccomp filters"),
        ("garbage", "vmm 9 VMM_PROTOCOL", "may not send"),
        ("twice", "vmm 9 VMM_PROTOCOL", "may not send"),
        ("counts", "vmm 9 VMM_PROTOCOL", "may not send"),
        ("resizes", "vmm 9 VMM_PROTOCOL", "may not send"),
        ("early", "vmm 9 VMM_PROTOCOL", "may not send"),
        ("unannounced", "vmm 9 VMM_PROTOCOL", "may not send"),
        ("oom", "vmm 9 VMM_OOM", "out of memory"),
        ("lingers", "signal 15 APP_SIGNAL", ""),
    ] {
        let (told, why) = host.end_of(&[word]);
        assert_eq!(told, exit, "{word}: {why}");
        assert!(why.contains(sentence), "{word}: {why}");
    }
}

#[test]
fn hands_on_what_a_vmm_counts() {
    let Some(host) = host() else { return };
    let (pod, _, _stream) = host.start(&["serve"]);
    let answer = host.ask_pod("metrics", &pod);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let machine = answer.value.get("machine").unwrap();
    let device = |name: &str| answer.value.get("devices").unwrap().get(name).unwrap();
    assert_eq!(machine.get("exits_mmio"), Some(&Value::Integer(1)));
    assert_eq!(machine.get("stray_accesses"), Some(&Value::Integer(5)));
    assert_eq!(device("init").get("requests"), Some(&Value::Integer(6)));
    assert_eq!(device("net").get("dropped_receive"), Some(&Value::Integer(119)));
    assert_eq!(device("balloon").get("requests"), Some(&Value::Integer(120)));
    assert_eq!(host.ask_pod("metrics", &pod).text(), answer.text(), "as often as it is asked");
    let (deaf, _, _stream) = host.start(&["deaf"]);
    let mut waiting = host.client();
    let request = format!(r#"{{"op":"metrics","pod":"{deaf}"}}"#);
    waiting.send(&crate::client::framed(&request), &[]).unwrap();
    assert_eq!(host.ask_pod("kill", &deaf).code(), "ok");
    assert_eq!(waiting.receive().unwrap().code(), "POD_NOT_RUNNING", "it never answered");
    assert_eq!(host.ask_pod("metrics", &deaf).code(), "POD_NOT_RUNNING");
}

/// A VMM that was taken over, or is busy with its guest's disk, holds nobody's connection for long.
#[test]
fn whoever_waits_for_counters_is_answered_and_is_not_many() {
    let Some(host) = host() else { return };
    let (pod, _, _stream) = host.start(&["deaf"]);
    let ask = || {
        let mut client = host.client();
        let request = format!(r#"{{"op":"metrics","pod":"{pod}"}}"#);
        client.send(&crate::client::framed(&request), &[]).unwrap();
        client
    };
    // Running, so that it can be paused.
    pause(&host, &pod);
    assert_eq!(host.ask_pod("resume", &pod).code(), "ok");
    let mut waiting: Vec<_> = (0..4).map(|_| ask()).collect();
    assert_eq!(ask().receive().unwrap().code(), "POD_BUSY", "a fifth");
    pause(&host, &pod);
    for client in &mut waiting {
        assert_eq!(client.receive().unwrap().code(), "POD_PAUSED", "they waited all the time");
    }
    assert_eq!(ask().receive().unwrap().code(), "POD_PAUSED");
    assert_eq!(host.ask_pod("resume", &pod).code(), "ok");
    assert_eq!(ask().receive().unwrap().code(), "POD_BUSY", "the VMM never answers");
}

#[test]
fn tells_what_a_vm_takes_of_the_host_whether_or_not_it_runs() {
    let Some(host) = host() else { return };
    let (pod, _, _stream) = host.start_app(&["deaf"]);
    let of = |name: &str| {
        let answer = host.ask_pod("usage", &pod);
        let usage = answer.value.get("usage").unwrap_or_else(|| panic!("{}", answer.text()));
        usage.get(name).unwrap().clone()
    };
    for is_paused in [false, true] {
        if is_paused {
            pause(&host, &pod);
        }
        assert_eq!(of("tasks"), Value::Integer(1), "{is_paused}");
        let Value::Integer(bytes) = of("memory_bytes") else { panic!("no memory") };
        let Value::Integer(peak) = of("memory_peak_bytes") else { panic!("no peak") };
        assert!(bytes > 0 && peak >= bytes && peak < 64 << 20, "{bytes} {peak}");
        let Value::Integer(cpu) = of("cpu_us") else { panic!("no processor time") };
        assert!(cpu % 10_000 == 0 && cpu < 60_000_000, "{cpu}");
    }
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    wait_for("its end", || (host.ask_pod("usage", &pod).code() == "POD_NOT_RUNNING").then_some(()));
}

#[test]
fn names_the_system_call_that_a_filter_stopped() {
    let Some(host) = host() else { return };
    // The tests of filters kill thousands of children, and the kernel writes ten lines about such in five seconds.
    let _quiet = crate::filter::KERNEL_LOG.lock();
    let mut trials = (0..30).map(|_| {
        let (told, why) = host.end_of(&["seccomp"]);
        assert_eq!(told, "vmm 31 VMM_SECCOMP");
        why
    });
    assert!(trials.any(|why| why.contains("connect (42)")), "never named");
}

#[test]
fn kills_a_guest_that_never_gets_ready() {
    let Some(host) = host() else { return };
    let (pod, mut spec) = host.spec(&["slow"]);
    set(&mut spec, "limits.boot_ms", Value::Integer(1));
    let mut answer = host.launch(&spec);
    let stream = answer.descriptors.pop().unwrap();
    // Its own VMM watches the time too; spawn waits ten seconds longer.
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 BOOT_TIMEOUT");
}

#[test]
fn kills_on_request() {
    let Some(host) = host() else { return };
    let (pod, pid, stream) = host.start(&["deaf"]);
    assert_eq!(host.ask_pod("forget", &pod).code(), "POD_RUNNING");
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED");
    assert_eq!(host.ask_pod("kill", &pod).code(), "POD_NOT_RUNNING");
    assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err(), "it is reaped");
}

pub fn stop(host: &Host, pod: &str, timeout_ms: u32) -> String {
    let request = format!(r#"{{"op":"stop","pod":"{pod}","timeout_ms":{timeout_ms}}}"#);
    host.ask(&request).code().to_owned()
}

#[test]
fn stops_by_asking_and_then_by_killing() {
    let Some(host) = host() else { return };
    let (pod, _, stream) = host.start(&["serve"]);
    assert_eq!(stop(&host, &pod, 60_000), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "signal 15 APP_SIGNAL");
    let (pod, _, stream) = host.start(&["deaf"]);
    assert_eq!(stop(&host, &pod, 600_000), "ok");
    let start = Instant::now();
    assert_eq!(stop(&host, &pod, 50), "ok", "the shorter time holds");
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 STOP_TIMEOUT");
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn gives_a_restarted_agent_a_fresh_stream() {
    let Some(host) = host() else { return };
    let (pod, pid, first) = host.start(&["serve"]);
    assert_eq!(read_exactly(&first, 5), b"hello");
    let mut answer = host.ask_pod("adopt", &pod);
    assert_eq!(answer.value.get("pid"), Some(&Value::Integer(pid.into())));
    let second = answer.descriptors.pop().unwrap();
    assert_eq!(read_exactly(&second, 5), b"hello");
    assert_eq!(read_to_end(first), b"", "the old stream is closed");
    let unknown = "01936f5e-0000-7000-8000-ffffffffffff";
    assert_eq!(host.ask_pod("adopt", unknown).code(), "POD_NOT_RUNNING");
}

#[test]
fn a_vmm_killed_from_outside_is_told_as_such() {
    let Some(host) = host() else { return };
    let (pod, pid, stream) = host.start(&["deaf"]);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 VMM_SIGNAL");
}

#[test]
fn a_pod_does_not_need_the_connection_that_launched_it() {
    let Some(host) = host() else { return };
    let (pod, spec) = host.spec(&["deaf"]);
    let mut client = host.client();
    let files = host.files();
    let files: Vec<_> = files.iter().map(std::os::fd::AsFd::as_fd).collect();
    let request = crate::documents::admitted(&spec);
    client.send(&crate::client::framed(&request), &files).unwrap();
    drop(client);
    let entry = wait_for("the pod", || host.pod(&pod));
    assert_eq!(entry.get("state"), Some(&text("running")));
    assert_eq!(entry.get("tenant"), Some(&text("acme")));
}

#[test]
fn a_stopped_spawn_takes_its_vms_along() {
    let Some(host) = host() else { return };
    let (pod, pid, _stream) = host.start(&["deaf"]);
    let group = host.cgroup("memory", &pod);
    assert!(group.exists());
    host.signal(Signal::TERM);
    let (code, _) = host.finish();
    assert_eq!(code, Some(0));
    assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err());
    assert!(!group.exists());
}

#[test]
fn what_nobody_kept_of_a_killed_spawn_is_ended_by_the_next_on_record() {
    let Some(host) = host() else { return };
    let (pod, pid, _stream) = host.start(&["deaf"]);
    host.signal(Signal::KILL);
    let host = host.restart();
    // Nobody's child any more: it may stay a zombie until the host's init looks.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "its VMs are ended: {state}");
    assert!(!host.cgroup("memory", &pod).exists());
    let exit = host.pod(&pod).unwrap().get("exit").unwrap().clone();
    assert_eq!(exit.get("cause"), Some(&text("NOT_TAKEN_OVER")));
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    assert_eq!(host.restart().pods(), []);
}

#[test]
fn two_spawns_do_not_share_a_run_directory() {
    let Some(host) = host() else { return };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_casemate-spawn"))
        .arg("--config")
        .arg(host.directory.join("spawn.json"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("another casemate-spawn"), "{message}");
    assert_eq!(host.ask(r#"{"op":"list"}"#).code(), "ok");
}

/// What the kernel says of the pod's processes. Stopping them takes it a moment.
pub fn stands_still(host: &Host, pod: &str) {
    let group = host.cgroup("freezer", pod);
    let (file, wanted) = if group.exists() {
        (group.join("freezer.state"), "FROZEN\n")
    } else {
        (host.cgroup("memory", pod).join("cgroup.events"), "frozen 1\n")
    };
    wait_for("the kernel to have stopped the pod", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains(wanted))
    });
}

pub fn pause(host: &Host, pod: &str) {
    // Busy as long as its guest starts.
    wait_for("the pod to run", || (host.ask_pod("pause", pod).code() == "ok").then_some(()));
    assert_eq!(host.pod(pod).unwrap().get("paused"), Some(&Value::Bool(true)));
    stands_still(host, pod);
}

#[test]
fn a_paused_pod_stands_still_and_can_be_resumed_stopped_and_killed() {
    let Some(host) = host() else { return };
    let (pod, _, stream) = host.start(&["serve"]);
    assert_eq!(read_exactly(&stream, 5), b"hello");
    pause(&host, &pod);
    pause(&host, &pod);
    assert_eq!(host.ask_pod("metrics", &pod).code(), "POD_PAUSED");
    // Its VMM takes the new stream when it goes on.
    let second = host.ask_pod("adopt", &pod).descriptors.pop().unwrap();
    assert_eq!(host.ask_pod("resume", &pod).code(), "ok");
    assert_eq!(host.ask_pod("resume", &pod).code(), "ok");
    assert_eq!(host.pod(&pod).unwrap().get("paused"), Some(&Value::Bool(false)));
    assert_eq!(read_exactly(&second, 5), b"hello");
    pause(&host, &pod);
    assert_eq!(stop(&host, &pod, 60_000), "ok");
    assert_eq!(host.exit_of(&pod, second).0, "signal 15 APP_SIGNAL");
    assert_eq!(host.ask_pod("pause", &pod).code(), "POD_NOT_RUNNING");
    let (pod, _, stream) = host.start(&["deaf"]);
    pause(&host, &pod);
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED");
}

#[test]
fn a_pod_that_is_being_started_or_stopped_is_not_paused() {
    let Some(host) = host() else { return };
    let (slow, spec) = host.spec(&["slow"]);
    host.launch(&spec);
    assert_eq!(host.ask_pod("pause", &slow).code(), "POD_BUSY");
    let (deaf, _, _stream) = host.start(&["deaf"]);
    assert_eq!(stop(&host, &deaf, 600_000), "ok");
    assert_eq!(host.ask_pod("pause", &deaf).code(), "POD_BUSY");
}

#[test]
fn a_paused_pod_is_left_behind_by_no_spawn() {
    let Some(host) = host() else { return };
    let (pod, pid, _stream) = host.start(&["deaf"]);
    pause(&host, &pod);
    host.signal(Signal::KILL);
    let host = host.restart();
    assert!(!host.cgroup("memory", &pod).exists());
    assert!(!host.cgroup("freezer", &pod).exists());
    let (pod, pid_of_second, _stream) = host.start(&["deaf"]);
    pause(&host, &pod);
    host.signal(Signal::TERM);
    assert_eq!(host.finish().0, Some(0));
    for pid in [pid, pid_of_second] {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}
