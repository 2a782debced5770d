//! More disk for a pod that runs: what spawn grants, what it refuses, and what it makes of answers.

use casemate_ticket::json::Value;
use rustix::process::Signal;

use crate::client::{Client, framed};
use crate::documents::{SCRATCH_SIZE, SCRATCH_SIZE_MAX};
use crate::host::{Host, host, kept_host};

const MORE: i64 = 12 << 20;

fn request(pod: &str, bytes: i64) -> String {
    format!(r#"{{"op":"resize","pod":"{pod}","scratch_bytes":{bytes}}}"#)
}

fn resize(host: &Host, pod: &str, bytes: i64) -> (String, String) {
    let answer = host.ask(&request(pod, bytes));
    (answer.code().to_owned(), answer.text())
}

/// The size that spawn lists and that of the kernel's numbers, which are the same.
fn size(host: &Host, pod: &str) -> Value {
    let listed = host.pod(pod).unwrap().get("scratch_bytes").unwrap().clone();
    let usage = host.ask_pod("usage", pod).value.get("usage").unwrap().clone();
    assert_eq!(usage.get("scratch_bytes"), Some(&listed));
    listed
}

#[test]
fn a_disk_grows_up_to_its_most_and_never_shrinks() {
    let Some(host) = host() else { return };
    let (pod, _, _stream) = host.start_app(&["serve"]);
    assert_eq!(size(&host, &pod), Value::Integer(SCRATCH_SIZE));
    // The program behind it writes the last byte, which the limit of its files must allow.
    for bytes in [MORE, MORE, SCRATCH_SIZE_MAX] {
        let (code, text) = resize(&host, &pod, bytes);
        assert_eq!(text, format!(r#"{{"ok":true,"scratch_bytes":{bytes}}}"#), "{code}");
        assert_eq!(size(&host, &pod), Value::Integer(bytes));
    }
    for (bytes, code) in [
        (SCRATCH_SIZE_MAX + 4096, "SCRATCH_TOO_LARGE"),
        (1 << 40, "SCRATCH_TOO_LARGE"),
        (SCRATCH_SIZE_MAX - 4096, "SCRATCH_SHRINK"),
        (4096, "SCRATCH_SHRINK"),
        (SCRATCH_SIZE_MAX + 1, "REQUEST"),
    ] {
        assert_eq!(resize(&host, &pod, bytes).0, code, "{bytes}");
        assert_eq!(size(&host, &pod), Value::Integer(SCRATCH_SIZE_MAX));
    }
    assert_eq!(host.ask_pod("pause", &pod).code(), "ok");
    assert_eq!(resize(&host, &pod, SCRATCH_SIZE_MAX).0, "POD_PAUSED");
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    let unknown = "01936f5e-0000-7000-8000-ffffffffffff";
    assert_eq!(resize(&host, unknown, MORE).0, "POD_NOT_RUNNING");
}

/// The file, how large it is and how large it may become are the next spawn's.
#[test]
fn a_disk_grows_on_under_the_next_spawn() {
    let Some(host) = kept_host() else { return };
    let (pod, _, _stream) = host.start_app(&["serve"]);
    for (bytes, signal) in [(MORE, Signal::KILL), (SCRATCH_SIZE_MAX, Signal::TERM)] {
        assert_eq!(resize(&host, &pod, bytes).0, "ok");
        host.end_spawn(signal);
        assert_eq!(size(&host, &pod), Value::Integer(bytes));
        assert_eq!(resize(&host, &pod, bytes - 4096).0, "SCRATCH_SHRINK");
        assert_eq!(resize(&host, &pod, SCRATCH_SIZE_MAX + 4096).0, "SCRATCH_TOO_LARGE");
    }
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
}

#[test]
fn what_the_guest_could_not_do_is_told() {
    let Some(host) = host() else { return };
    let (pod, _, _stream) = host.start_app(&["serve", "full"]);
    let (code, text) = resize(&host, &pod, MORE);
    assert_eq!(code, "RESIZE_FAILED");
    assert!(text.contains("errno 28"), "{text}");
    assert_eq!(size(&host, &pod), Value::Integer(MORE), "the disk is larger all the same");
}

#[test]
fn one_resize_waits_for_its_guest_and_no_longer_than_for_its_pod() {
    let Some(host) = host() else { return };
    let (pod, _, stream) = host.start_app(&["deaf"]);
    let mut waiting: Client = host.client();
    waiting.send(&framed(&request(&pod, MORE)), &[]).unwrap();
    // Requests of two connections come in any order; the second one is busy, and the first waits.
    crate::host::wait_for("the first", || {
        (size(&host, &pod) == Value::Integer(MORE)).then_some(())
    });
    assert_eq!(resize(&host, &pod, MORE).0, "POD_BUSY");
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    assert_eq!(waiting.receive().unwrap().code(), "POD_NOT_RUNNING");
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED");
    assert_eq!(host.pod(&pod).unwrap().get("scratch_bytes"), Some(&Value::Null));
}
