//! Bad clients: what they get, and that nobody else notices.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use casemate_ticket::json::Value;

use crate::client::{Client, framed};
use crate::documents;
use crate::host::{AGENT, host};

const LIST: &str = r#"{"op":"list"}"#;

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn answers_garbage_with_a_refusal_and_serves_others_meanwhile() {
    let Some(host) = host() else { return };
    let mut stuck = host.client();
    stuck.send(&[200, 0], &[]).unwrap();
    for (bytes, code) in [
        (vec![0xff; 64], "REQUEST_SIZE"),
        (vec![0; 4], "REQUEST_SIZE"),
        (framed("{"), "REQUEST"),
        (framed("\u{0}\u{1}"), "REQUEST"),
        (framed(r#"{"op":"list","op":"list"}"#), "REQUEST"),
        (framed(r#"{"op":"reboot"}"#), "REQUEST"),
        (framed(&"[".repeat(100_000)), "REQUEST"),
    ] {
        let mut client = host.client();
        client.send(&bytes, &[]).unwrap();
        assert_eq!(client.receive().unwrap().code(), code);
        assert!(client.receive().is_none(), "one request a connection");
        assert_eq!(host.ask(LIST).code(), "ok");
    }
    drop(stuck);
}

#[test]
fn takes_no_more_than_two_mebibytes() {
    let Some(host) = host() else { return };
    let mut client = host.client();
    client.send(&(2 * 1024 * 1024 + 1_u32).to_le_bytes(), &[]).unwrap();
    assert_eq!(client.receive().unwrap().code(), "REQUEST_SIZE");
    let mut client = host.client();
    let long = format!("\"{}\"", "x".repeat(2 * 1024 * 1024 - 2));
    assert_eq!(client.ask(&long, &[]).code(), "REQUEST", "read whole, and no request");
}

#[test]
fn ends_a_client_that_sends_nothing() {
    let Some(host) = host() else { return };
    let mut idle = host.client();
    let mut slow = host.client();
    slow.send(&framed(LIST)[..6], &[]).unwrap();
    assert_eq!(host.ask(LIST).code(), "ok");
    assert_eq!(idle.receive().unwrap().code(), "REQUEST_TIMEOUT");
    assert_eq!(slow.receive().unwrap().code(), "REQUEST_TIMEOUT");
    assert!(idle.receive().is_none());
}

#[test]
fn refuses_connections_beyond_its_limit_and_recovers() {
    let Some(host) = host() else { return };
    let clients: Vec<Client> = (0..128).map(|_| host.client()).collect();
    assert_eq!(host.client().receive().unwrap().code(), "SPAWN_BUSY");
    drop(clients);
    crate::host::wait_for("room", || {
        let mut client = host.client();
        // Refused before the request was read, or answered: either way an answer comes.
        let _ = client.send(&framed(LIST), &[]);
        (client.receive().unwrap().code() == "ok").then_some(())
    });
}

#[test]
fn takes_only_the_descriptors_that_a_request_has() {
    let Some(host) = host() else { return };
    assert_eq!(host.client().ask(LIST, &[null()]).code(), "REQUEST_DESCRIPTORS");
    let (_, spec) = host.spec(&["serve"]);
    let request = documents::admitted(&spec);
    let file = null();
    for count in [0, 1, 3, 4, 253] {
        let many: Vec<BorrowedFd<'_>> = vec![file.as_fd(); count];
        let mut client = host.client();
        client.send(&framed(&request), &many).unwrap();
        assert_eq!(client.receive().unwrap().code(), "DESCRIPTORS", "{count}");
    }
    let mut client = host.client();
    let bytes = framed(LIST);
    client.send(&bytes[..6], &[]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    client.send(&bytes[6..], &[file.as_fd()]).unwrap();
    assert_eq!(client.receive().unwrap().code(), "REQUEST_DESCRIPTORS", "not on the first byte");
    assert_eq!(host.pods(), []);
}

#[test]
fn refuses_each_descriptor_that_was_swapped_for_another() {
    let Some(host) = host() else { return };
    let (_, spec) = host.spec(&["serve"]);
    let ask = |files: &[OwnedFd]| {
        let answer = host.client().ask(&documents::admitted(&spec), files);
        (answer.code().to_owned(), answer.text())
    };
    let mut files = host.files();
    files.swap(0, 1);
    let (code, text) = ask(&files);
    assert_eq!(code, "DESCRIPTOR", "{text}");
    for (position, role) in ["image", "log"].iter().enumerate() {
        let mut files = host.files();
        files[position] = null();
        let (code, text) = ask(&files);
        assert!(code == "DESCRIPTOR" && text.contains(role), "{text}");
    }
    let mut files = host.files();
    let other: Vec<OwnedFd> = host.files();
    files[0] = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&other[0])))
        .unwrap()
        .into();
    assert!(ask(&files).1.contains("image must be opened for reading only"));
    assert_eq!(host.pods(), []);
}

#[test]
fn serves_the_agent_and_root_and_nobody_else() {
    let Some(host) = host() else { return };
    let run_dir = host.run_dir();
    // Ids are a thread's own: this thread is somebody else from here on.
    let as_user = |uid: u32, gid: u32| {
        let run_dir = run_dir.clone();
        let thread = std::thread::spawn(move || {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            match Client::connect(&run_dir) {
                Ok(mut client) => {
                    let _ = client.send(&framed(LIST), &[]);
                    client.receive().unwrap().code().to_owned()
                }
                Err(error) => error.kind().to_string(),
            }
        });
        thread.join().unwrap()
    };
    assert_eq!(as_user(AGENT, AGENT), "ok");
    assert_eq!(as_user(AGENT + 7, AGENT), "PEER_NOT_ALLOWED");
    assert_eq!(as_user(AGENT + 7, AGENT + 7), "permission denied");
}

#[test]
fn describes_the_host() {
    let Some(host) = host() else { return };
    let described = host.describe();
    let names = |value: &Value| -> Vec<String> {
        match value {
            Value::Object(members) => members.iter().map(|(name, _)| name.clone()).collect(),
            _ => panic!("no object"),
        }
    };
    let safety = described.get("host").unwrap();
    assert_eq!(
        names(safety),
        ["core_scheduling", "kvm_api", "kvm_missing", "landlock", "swap_limit"]
    );
    // These tests run where there is a KVM, and so does the VMM.
    assert_eq!(safety.get("kvm_api"), Some(&Value::Integer(12)));
    assert_eq!(safety.get("kvm_missing"), Some(&Value::Array(vec![])));
    assert_eq!(
        names(&described),
        [
            "allow_software_kvm",
            "boot_id",
            "cmdline",
            "container",
            "container_reason",
            "host",
            "host_paths",
            "init",
            "kernel",
            "kvm",
            "kvm_reason",
            "levels",
            "node",
            "ok",
            "scratch",
            "templates",
            "vmm"
        ]
    );
}
