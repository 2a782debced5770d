//! Workers: their jail, their answers, their ends.

use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::json::Value;
use rustix::process::{Pid, test_kill_process};

use crate::client::Client;
use crate::host::{Host, WORKER, host, wait_for};

/// The largest file of each worker.
const FILE_BYTES: u64 = 1 << 20;

/// Starts a worker; the connection, its first answer and what it can be read by.
pub fn start(host: &Host, kind: &str) -> (Client, crate::client::Answer, OwnedFd) {
    let request: OwnedFd =
        rustix::fs::memfd_create("request", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&request, b"{}", 0).unwrap();
    let (answer, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut client = host.client();
    let text = format!(r#"{{"file_bytes":{FILE_BYTES},"kind":"{kind}","op":"worker"}}"#);
    client.send(&crate::client::framed(&text), &[request.as_fd(), write.as_fd()]).unwrap();
    let first = client.receive().unwrap();
    (client, first, answer)
}

fn read_pipe(pipe: OwnedFd) -> String {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::from(pipe).read_to_string(&mut text).unwrap();
    text
}

/// What the `report` worker tells.
pub fn report_of(host: &Host) -> String {
    let (_client, first, answer) = start(host, "report");
    assert_eq!(first.code(), "ok", "{}", first.text());
    read_pipe(answer)
}

#[test]
fn a_worker_runs_in_a_jail_of_its_own() {
    let Some(host) = host() else { return };
    let (mut client, first, answer) = start(&host, "report");
    assert_eq!(first.code(), "ok", "{}", first.text());
    let report = read_pipe(answer);
    for line in [
        &format!("Uid {WORKER} {WORKER} {WORKER} {WORKER}"),
        &format!("Gid {WORKER} {WORKER} {WORKER} {WORKER}"),
        "Groups ",
        "pid 1",
        "CapEff 0000000000000000",
        "CapPrm 0000000000000000",
        "CapBnd 0000000000000000",
        "NoNewPrivs 1",
        "interfaces lo",
        &format!("files {FILE_BYTES} open 1024"),
        "cannot write",
        "processes 1",
        "Seccomp 2",
        "environment LANG PATH",
        "request {}",
    ] {
        assert!(report.lines().any(|found| found == line), "{line} in:\n{report}");
    }
    let last = client.receive().unwrap();
    assert_eq!(last.text(), r#"{"exit":{"code":0,"signal":null},"ok":true}"#);
    assert!(client.receive().is_none());
}

/// From outside, because a worker's filter would stop its tries before its mounts do.
#[test]
fn a_worker_sees_the_hosts_files_read_only_and_spawns_not_at_all() {
    let Some(host) = host() else { return };
    let (_client, first, answer) = start(&host, "sleeps");
    let pid = first.value.get("pid").and_then(Value::as_u64).unwrap();
    let mut line = [0; 8];
    rustix::io::read(&answer, &mut line).unwrap();
    std::fs::write(host.directory.join("state/secret"), "x").unwrap();
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for mount in mounts.lines() {
        let options: Vec<&str> = mount.split(' ').nth(5).unwrap().split(',').collect();
        assert!(options.contains(&"ro") && options.contains(&"nosuid"), "{mount}");
    }
    for hidden in ["run", "state"] {
        let place = host.directory.join(hidden);
        let mut entries =
            std::fs::read_dir(format!("/proc/{pid}/root{}", place.display())).unwrap();
        assert!(entries.next().is_none(), "{hidden} is empty for it");
        assert!(std::fs::read_dir(place).unwrap().next().is_some(), "and is not for us");
    }
}

#[test]
fn a_worker_that_makes_a_process_a_socket_or_a_namespace_is_killed() {
    let Some(host) = host() else { return };
    for kind in ["fork", "socket", "unshare", "ptrace"] {
        let (mut client, first, _answer) = start(&host, kind);
        assert_eq!(first.code(), "ok", "{kind}");
        let last = client.receive().unwrap();
        assert_eq!(last.text(), r#"{"exit":{"code":null,"signal":31},"ok":true}"#, "{kind}");
    }
}

#[test]
fn a_worker_ends_with_the_connection() {
    let Some(host) = host() else { return };
    let (client, first, answer) = start(&host, "sleeps");
    let pid = first.value.get("pid").and_then(Value::as_u64).unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let mut line = [0; 8];
    let count = rustix::io::read(&answer, &mut line).unwrap();
    assert_eq!(line[..count], *b"working\n");
    drop(client);
    assert_eq!(read_pipe(answer), "", "its end of the pipe is closed");
    wait_for("the worker to be reaped", || test_kill_process(pid).is_err().then_some(()));
}

#[test]
fn tells_how_a_worker_ended_and_keeps_what_it_complained_about() {
    let Some(host) = host() else { return };
    let (mut client, first, _answer) = start(&host, "fails");
    assert_eq!(first.code(), "ok");
    let last = client.receive().unwrap();
    assert_eq!(last.text(), r#"{"exit":{"code":3,"signal":null},"ok":true}"#);
    let log = std::fs::read_to_string(host.directory.join("state/worker.log")).unwrap();
    assert!(log.starts_with("[fails ") && log.ends_with("what went wrong\n"), "{log}");
}

#[test]
fn refuses_workers_it_does_not_know_or_cannot_start() {
    let Some(host) = host() else { return };
    assert_eq!(start(&host, "unknown").1.code(), "WORKER_UNKNOWN");
    let (_, answer, _) = start(&host, "missing");
    assert_eq!(answer.code(), "JAIL_FAILED");
    assert!(answer.text().contains("step \\\"exec\\\": No such file"), "{}", answer.text());
    let mut client = host.client();
    let none = client.ask(r#"{"file_bytes":0,"kind":"report","op":"worker"}"#, &[]);
    assert_eq!(none.code(), "DESCRIPTORS");
}
