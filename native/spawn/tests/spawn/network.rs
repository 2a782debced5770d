//! Networks of pods: who is reached from a pod, by frames that a VMM which was taken over could send, and what is left
//! when a pod is gone. The probe hands frames through, from the test to its tap and back.

use std::fs;
use std::process::Command;

use casemate_ticket::json::{self, Value};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::documents::{connect, connect_as, set};
use crate::host::{Host, ended, host, kept_host, wait_for};
use crate::wire::{
    ARP, BROADCAST, GATEWAY, IPV4, IPV6, Wire, echo, icmpv6, is_refusal, udp, word_of,
};

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
    two.send(one.mac, IPV4, &udp(two.ip(true), one.ip(true), 7, b"to one alone"));
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

/// Bridges know no addresses, and hand each frame to every port.
#[test]
fn what_is_for_one_pod_comes_to_no_other() {
    let Some(host) = host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let mut two = Wire::start(&host, "acme", 3);
    let mut other = Wire::start(&host, "acme", 4);
    one.send(two.mac, IPV4, &udp(one.ip(true), two.ip(true), 7, b"to two alone"));
    one.call("to all");
    two.hears_next("to two alone");
    two.hears_next("to all");
    let words = std::iter::repeat_with(|| word_of(&other.hears_anything()));
    assert_eq!(words.flatten().next().as_deref(), Some("to all"));
    // And what the host's kernel remembers of closed connections is bounded by their time.
    let name = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait";
    assert_eq!(inside(&host, &["cat", name]).trim(), "10");
}

/// A card's rates, in JSON: one bucket of `capacity` that gets one token back in a second.
fn rates(way: &str, unit: &str, capacity: u32) -> Value {
    let bucket = format!(r#"{{"burst":0,"capacity":{capacity},"refill":1}}"#);
    let none = if way == "receive" { "transmit" } else { "receive" };
    let other = if unit == "bytes" { "operations" } else { "bytes" };
    let mut members =
        [format!(r#""{unit}":{bucket}"#), format!(r#""{other}":null"#)].map(String::from);
    members.sort();
    let rate = format!(r#""{way}":{{{}}}"#, members.join(","));
    let mut ways = [rate, format!(r#""{none}":null"#)];
    ways.sort();
    json::parse(format!("{{{}}}", ways.join(",")).as_bytes(), 4096).unwrap()
}

/// As a VMM is kept to that was taken over, and a container.
#[test]
fn a_card_has_no_more_of_the_network_than_its_rates_say() {
    let Some(host) = host() else { return };
    let limited = |number, rates| {
        let (pod, mut spec) = host.spec(&["wire"]);
        connect_as(&mut spec, number, &[&format!("10.88.0.{number}/24")], "null", 1400);
        set(&mut spec, "network.rates", rates);
        let mut answer = host.launch(&spec);
        assert_eq!(answer.code(), "ok", "{}", answer.text());
        Wire::of(pod, &mut answer, number)
    };
    // A packet of a word is of 46 bytes.
    let mut sender = limited(2, rates("transmit", "bytes", 300));
    let mut receiver = limited(3, rates("receive", "operations", 3));
    let mut witness = Wire::start(&host, "acme", 4);
    let mut other = Wire::start(&host, "acme", 5);
    let said_before = |wire: &mut Wire, last: &str| {
        let words = std::iter::from_fn(|| word_of(&wire.hears()).filter(|word| word != last));
        words.filter(|word| word == "often").count()
    };
    (0..20).for_each(|_| sender.call("often"));
    wait_for("all that was sent", || {
        let stats = inside(&host, &["ip", "-s", "-o", "link", "show"]);
        let taps = stats.lines().filter(|line| line.contains(": cmt"));
        let packets = taps.filter_map(|line| {
            let mut words = line.split(r"RX:").nth(1)?.split('\\').nth(1)?.split_whitespace();
            words.nth(1)?.parse::<u32>().ok()
        });
        (packets.sum::<u32>() >= 20).then_some(())
    });
    other.call("last");
    let heard = said_before(&mut witness, "last");
    assert!((1..=6).contains(&heard), "{heard} of 6");
    (0..20).for_each(|_| other.call("often"));
    for _ in 0..10 {
        // A token comes back in a second.
        std::thread::sleep(std::time::Duration::from_millis(300));
        other.call("late");
    }
    let heard = said_before(&mut receiver, "late");
    assert!((1..=10).contains(&heard), "{heard} of 3, and one for each second since");
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
    }
    one.mac = [2, 0, 0, 0, 0, 2];
    one.call("it was me");
    two.hears_next("it was me");
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
    // Which serves when it has taken everything over.
    wait_for("the next spawn", || (host.pods().len() == 3).then_some(()));
    assert_eq!(bridges(), 2, "that of the tenant without pods is gone");
    assert_eq!(host.ask_pod("kill", &other.pod).code(), "ok");
    wait_for("its end", || {
        host.pod(&other.pod)?.get("exit").filter(|exit| **exit != Value::Null).cloned()
    });
    host.end_spawn(Signal::TERM);
    wait_for("the next spawn", || (host.pods().len() == 3).then_some(()));
    assert_eq!(bridges(), 1);
}

/// What a pod without a way out is answered, beside its tenant's pods, is that there is none.
#[test]
fn nothing_answers_a_pod_but_another_pod_and_a_gateway_that_refuses() {
    let Some(host) = host() else { return };
    let mut one = Wire::start(&host, "acme", 2);
    let mut two = Wire::start(&host, "acme", 3);
    let own = address_of_the_host();
    let other_gateway = [10, 88, 1, 1];
    let targets = [[127, 0, 0, 1], [169, 254, 169, 254], own, [8, 8, 8, 8], other_gateway];
    for target in targets {
        // Who has it?
        let ask =
            [&[0, 1, 8, 0, 6, 4, 0, 1], one.mac.as_slice(), &[10, 88, 0, 2], &[0; 6], &target]
                .concat();
        one.send(BROADCAST, ARP, &ask);
        assert_eq!(two.hears()[12..14], [8, 6]);
        one.send(GATEWAY, IPV4, &echo(one.ip(true), target));
    }
    for port in [22, 53, 80] {
        one.send(GATEWAY, IPV4, &udp(one.ip(true), [10, 88, 0, 1].into(), port, b"who are you"));
    }
    let asks = solicitation(one.mac);
    one.send([0x33, 0x33, 0, 0, 0, 1], IPV6, &asks);
    assert_eq!(two.hears()[12..14], [0x86, 0xdd]);
    two.call("the end");
    let heard = std::iter::repeat_with(|| one.hears())
        .take_while(|frame| word_of(frame).as_deref() != Some("the end"));
    // How many refusals there are is the kernel's to limit.
    let others: Vec<Vec<u8>> = heard.filter(|frame| !is_refusal(frame)).collect();
    assert!(matches!(&others[..], [advertisement] if advertisement[54] == 136), "{others:02x?}");
}

/// An address of the machine that this test runs on, if it has one.
fn address_of_the_host() -> [u8; 4] {
    let output = Command::new("ip").args(["-o", "-4", "addr", "show", "scope", "global"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let word = text.split_whitespace().find(|word| word.contains('/')).unwrap_or("10.0.0.1/8");
    let ip: std::net::Ipv4Addr = word.split('/').next().unwrap().parse().unwrap();
    ip.octets()
}

/// IPv6 to all nodes: who has `fd58::1`? From `fd58::2`.
fn solicitation(mac: [u8; 6]) -> Vec<u8> {
    let address = |last: u8| {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1], bytes[15]) = (0xfd, 0x58, last);
        bytes
    };
    let all = [&[0xff, 2], [0; 13].as_slice(), &[1]].concat();
    let message = [[135, 0, 0, 0, 0, 0, 0, 0].as_slice(), &address(1), &[1, 1], &mac].concat();
    icmpv6(&address(2), &all, message)
}

#[test]
fn the_namespace_of_the_pods_holds_nothing_of_the_host() {
    let Some(host) = host() else { return };
    let _one = Wire::start(&host, "acme", 2);
    assert_ne!(namespace(&host.pid().to_string()), namespace("self"));
    let addresses = inside(&host, &["ip", "-o", "addr", "show", "scope", "global"]);
    let is_gateway = |line: &str| line.contains(" 10.88.0.1/24 ") || line.contains(" fd58::1/64 ");
    assert!(addresses.lines().all(is_gateway), "{addresses}");
    assert_eq!(addresses.lines().count(), 2);
    for version in ["-4", "-6"] {
        let routes = inside(&host, &["ip", version, "route", "show"]);
        assert!(!routes.is_empty() && !routes.contains("default") && !routes.contains("via"));
    }
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
    let mut one = Wire::start(&host, "acme", 2);
    one.call("fine");
    let (_, mut spec) = host.spec(&["wire"]);
    connect(&mut spec, "10.88.0.2/24", 1500);
    let twice = host.launch(&spec);
    assert!(twice.text().contains("another pod's of the tenant"), "{}", twice.text());
    let (_, mut spec) = host.spec(&["wire"]);
    connect(&mut spec, "10.88.0.3/24", 1500);
    let answered = host.launch(&spec);
    assert_eq!(answered.code(), "ok", "{}", answered.text());
    assert!(matches!(answered.value.get("pid"), Some(Value::Integer(_))));
}
