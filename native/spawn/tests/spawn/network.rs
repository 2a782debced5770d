//! Networks of pods: who is reached from a pod, by frames that a VMM which was taken over could send, and what is left
//! when a pod is gone. The probe hands frames through, from the test to its tap and back.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use casemate_ticket::json::Value;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::client::PATIENCE;
use crate::documents::{connect, set, text};
use crate::host::{Host, ended, host, kept_host, wait_for};

const BROADCAST: [u8; 6] = [0xff; 6];
/// For experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;

/// A pod on its tenant's network.
struct Wire {
    pod: String,
    stream: UnixStream,
    mac: [u8; 6],
}

impl Wire {
    fn start(host: &Host, tenant: &str, number: u8) -> Self {
        let (pod, mut spec) = host.spec(&["wire"]);
        set(&mut spec, "tenant", text(tenant));
        connect(&mut spec, &format!("10.88.0.{number}/24"), 1400);
        let mut answer = host.launch(&spec);
        assert_eq!(answer.code(), "ok", "{}", answer.text());
        let stream: OwnedFd = answer.descriptors.pop().unwrap();
        let stream = UnixStream::from(stream);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { pod, stream, mac: [2, 0, 0, 0, 0, number] }
    }

    fn send(&mut self, to: [u8; 6], kind: u16, payload: &[u8]) {
        let mut frame = [to.as_slice(), &self.mac, &kind.to_be_bytes(), payload].concat();
        frame.resize(frame.len().max(60), 0);
        let length = u16::try_from(frame.len()).unwrap().to_le_bytes();
        self.stream.write_all(&[length.as_slice(), &frame].concat()).unwrap();
    }

    /// Sends everybody a word.
    fn call(&mut self, word: &str) {
        self.send(BROADCAST, EXPERIMENT, word.as_bytes());
    }

    /// The next frame.
    fn hears(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u16::from_le_bytes(length).into()];
        self.stream.read_exact(&mut frame).unwrap();
        frame
    }

    /// The next frame must be this word from somebody: a tap keeps its frames in their order, so none came before it.
    fn hears_next(&mut self, word: &str) {
        let frame = self.hears();
        let payload = String::from_utf8_lossy(&frame[14..]);
        assert_eq!(payload.trim_end_matches('\0'), word, "{frame:02x?}");
    }
}

/// What a program says in spawn's network namespace.
fn inside(host: &Host, words: &[&str]) -> String {
    let net = format!("--net=/proc/{}/ns/net", host.pid());
    let output = Command::new("nsenter").arg(net).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Interfaces whose names begin so.
fn interfaces(host: &Host, beginning: &str) -> usize {
    let all = inside(host, &["ip", "-o", "link", "show"]);
    all.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with(beginning)).count()
}

fn namespace(process: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{process}/ns/net")).unwrap()
}

#[test]
fn pods_of_one_tenant_reach_each_other_and_nobody_else() {
    let Some(host) = host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let mut two = Wire::start(&host, "acme", 3);
    let mut other = Wire::start(&host, "other", 2);
    let mut another = Wire::start(&host, "other", 3);
    one.call("from one");
    two.hears_next("from one");
    two.send(one.mac, EXPERIMENT, b"to one alone");
    one.hears_next("to one alone");
    // Had any of it come to the other tenant, it would be there before this.
    another.call("from another");
    other.hears_next("from another");
    other.call("from other");
    another.hears_next("from other");
    // Nor does what the other tenant says come here.
    two.call("from two");
    one.hears_next("from two");
}

/// Each address that a bridge remembers is memory of the kernel, and a VMM that was taken over can have as many as it likes.
#[test]
fn a_bridge_remembers_no_address_that_a_pod_says_it_has() {
    let Some(host) = host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let mut two = Wire::start(&host, "acme", 3);
    for number in 0..200 {
        one.mac = [2, 0x66, 0x66, 0, 0, number];
        one.call("who else");
        two.hears_next("who else");
    }
    let known = inside(&host, &["bridge", "fdb", "show"]);
    assert!(known.contains("cmt"), "it has ports: {known}");
    assert!(!known.contains("02:66:66"), "{known}");
}

#[test]
fn pods_reach_each_other_when_spawn_was_restarted() {
    let Some(host) = kept_host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let mut other = Wire::start(&host, "other", 2);
    // Whose pod is gone when the next spawn comes.
    let left = Wire::start(&host, "left", 2);
    let spawn = || host.spawn().as_raw_nonzero().to_string();
    let before = namespace(&spawn());
    let entry = host.pod(&left.pod).unwrap();
    let pid = entry.get("pid").and_then(Value::as_u64).unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let end = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    host.without_spawn(Signal::KILL, || {
        kill_process(pid, Signal::KILL).unwrap();
        ended(&end);
    });
    assert_eq!(host.ask_pod("forget", &left.pod).code(), "ok");
    assert_eq!(namespace(&spawn()), before);
    assert_ne!(namespace("self"), before);
    let mut two = Wire::start(&host, "acme", 3);
    one.call("from one");
    two.hears_next("from one");
    two.call("from two");
    one.hears_next("from two");
    other.call("from other");
    host.end_spawn(Signal::TERM);
    two.call("from two again");
    one.hears_next("from two again");
    let bridges = || {
        let net = format!("--net=/proc/{}/ns/net", spawn());
        let words = [&net, "ip", "-o", "link", "show", "type", "bridge"];
        let output = Command::new("nsenter").args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    assert_eq!(bridges(), 2, "that of the tenant without pods is gone");
    assert_eq!(host.ask_pod("kill", &other.pod).code(), "ok");
    wait_for("its end", || {
        host.pod(&other.pod)?.get("exit").filter(|exit| **exit != Value::Null).cloned()
    });
    host.end_spawn(Signal::TERM);
    wait_for("the next spawn", || (host.pods().len() == 3).then_some(()));
    assert_eq!(bridges(), 1);
}

#[test]
fn nothing_answers_a_pod_but_another_pod() {
    let Some(host) = host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let mut two = Wire::start(&host, "acme", 3);
    let links = inside(&host, &["ip", "-o", "link", "show", "type", "bridge"]);
    let words: Vec<&str> = links.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "link/ether").unwrap() + 1;
    let mut bridge = [0; 6];
    for (to, digits) in bridge.iter_mut().zip(words[place].split(':')) {
        *to = u8::from_str_radix(digits, 16).unwrap();
    }
    let own = address_of_the_host();
    let targets = [[127, 0, 0, 1], [169, 254, 169, 254], [10, 88, 0, 1], own, [8, 8, 8, 8]];
    for target in targets {
        // Who has it?
        let ask =
            [&[0, 1, 8, 0, 6, 4, 0, 1], one.mac.as_slice(), &[10, 88, 0, 2], &[0; 6], &target]
                .concat();
        one.send(BROADCAST, 0x0806, &ask);
        assert_eq!(two.hears()[12..14], [8, 6]);
        // An echo request, to the only hardware address there is beside the pods'.
        one.send(bridge, 0x0800, &echo(target));
    }
    let solicitation = solicitation(one.mac);
    one.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &solicitation);
    assert_eq!(two.hears()[12..14], [0x86, 0xdd]);
    two.call("the end");
    one.hears_next("the end");
}

/// An address of the machine that this test runs on, if it has one.
fn address_of_the_host() -> [u8; 4] {
    let output = Command::new("ip").args(["-o", "-4", "addr", "show", "scope", "global"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let word = text.split_whitespace().find(|word| word.contains('/')).unwrap_or("10.0.0.1/8");
    let ip: std::net::Ipv4Addr = word.split('/').next().unwrap().parse().unwrap();
    ip.octets()
}

/// The internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pairs = bytes.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let sum: u32 = pairs.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

/// IPv4 with an ICMP echo request.
fn echo(to: [u8; 4]) -> Vec<u8> {
    let mut header =
        [&[0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 88, 0, 2], to.as_slice()].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, vec![8, 0, 0xf7, 0xfd, 0, 1, 0, 1]].concat()
}

/// IPv6 to all nodes: who has `fd58::1`? From `fd58::2`.
fn solicitation(mac: [u8; 6]) -> Vec<u8> {
    let address = |last: u8| {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1], bytes[15]) = (0xfd, 0x58, last);
        bytes
    };
    let all = [&[0xff, 2], [0; 13].as_slice(), &[1]].concat();
    let mut message = [[135, 0, 0, 0, 0, 0, 0, 0].as_slice(), &address(1), &[1, 1], &mac].concat();
    let pseudo = [&address(2), all.as_slice(), &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat();
    let sum = checksum(&pseudo);
    message[2..4].copy_from_slice(&sum);
    [[0x60, 0, 0, 0, 0, 32, 58, 255].as_slice(), &address(2), &all, &message].concat()
}

#[test]
fn the_namespace_of_the_pods_holds_nothing_of_the_host() {
    let Some(host) = host() else { return };
    let _one = Wire::start(&host, "acme", 2);
    assert_ne!(namespace(&host.pid().to_string()), namespace("self"));
    assert_eq!(inside(&host, &["ip", "addr", "show"]).matches("inet").count(), 0);
    assert_eq!(inside(&host, &["ip", "route", "show", "table", "all"]), "");
    assert_eq!(inside(&host, &["ip", "-6", "route", "show", "table", "all"]), "");
    assert_eq!(inside(&host, &["cat", "/proc/sys/net/ipv4/ip_forward"]), "0\n");
    // Loopback, a bridge and a tap.
    assert_eq!(interfaces(&host, ""), 3);
    assert_eq!((interfaces(&host, "cmb"), interfaces(&host, "cmt")), (1, 1));
    let tap = inside(&host, &["ip", "-o", "-d", "link", "show", "type", "tun"]);
    assert!(
        tap.contains(" mtu 1400 ") && tap.contains("tun type tap pi off vnet_hdr on persist off"),
        "{tap}"
    );
    assert!(tap.contains(" qlen 256"), "{tap}");
    let here = Command::new("ip").args(["-o", "link", "show"]).output().unwrap().stdout;
    assert!(!String::from_utf8(here).unwrap().contains("cmb"), "the host's own namespace");
}

#[test]
fn a_tap_goes_with_its_vmm_and_a_bridge_with_its_last_pod() {
    let Some(host) = host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let two = Wire::start(&host, "acme", 3);
    let (_, _, _off) = host.start(&["serve"]);
    assert_eq!((interfaces(&host, "cmb"), interfaces(&host, "cmt")), (1, 2));
    assert_eq!(host.ask_pod("kill", &two.pod).code(), "ok");
    wait_for("the tap's end", || (interfaces(&host, "cmt") == 1).then_some(()));
    // The bridge has a pod still, and takes a new one.
    let mut three = Wire::start(&host, "acme", 4);
    three.call("from three");
    one.hears_next("from three");
    for pod in [&one.pod, &three.pod] {
        assert_eq!(host.ask_pod("kill", pod).code(), "ok");
    }
    // A pod of the tenant without a network keeps no bridge.
    wait_for("the bridge's end", || (interfaces(&host, "cm") == 0).then_some(()));
    let mut four = Wire::start(&host, "acme", 2);
    let mut five = Wire::start(&host, "acme", 3);
    four.call("from four");
    five.hears_next("from four");
}

#[test]
fn a_pod_without_a_network_has_no_tap() {
    let Some(host) = host() else { return };
    let (_, _, _stream) = host.start(&["serve"]);
    assert_eq!(interfaces(&host, "cm"), 0);
}

#[test]
fn a_launch_whose_network_cannot_be_made_is_refused_with_the_step() {
    let Some(host) = host() else { return };
    // A bridge of that name that is not the tenant's: what a second tenant with the same digest would meet.
    inside(&host, &["ip", "link", "add", "cmb05i2s3mljpa4", "type", "bridge"]);
    let (pod, mut spec) = host.spec(&["wire"]);
    connect(&mut spec, "10.88.0.2/24", 1500);
    let answer = host.launch(&spec);
    assert_eq!(answer.code(), "NETWORK_FAILED");
    assert!(answer.text().contains("step \\\"bridge\\\": File exists"), "{}", answer.text());
    assert_eq!(host.pod(&pod), None);
    assert_eq!(interfaces(&host, "cmt"), 0);
    // And with the bridge gone, a launch again.
    inside(&host, &["ip", "link", "del", "cmb05i2s3mljpa4"]);
    Wire::start(&host, "acme", 2).call("fine");
    let answered = host.launch(&spec);
    assert_eq!(answered.code(), "ok", "{}", answered.text());
    assert!(matches!(answered.value.get("pid"), Some(Value::Integer(_))));
}
