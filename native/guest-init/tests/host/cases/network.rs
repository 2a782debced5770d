//! What the app sees of the network. A pair of virtual interfaces is card and wire.

use std::fs;
use std::os::unix::fs::symlink;

use casemate_wire::payload::{ErrorCode, Exit};

use crate::config::{Config, app};
use crate::machine::{End, Machine, Place};

const NETWORK: &str = r#"{"addresses":["10.88.0.2/24","fd58:1:2:3::2/64"],"egress":null,"gateways":["10.88.0.1","fd58:1:2:3::1"],"mac":"02:0a:58:00:00:02","mtu":1400,"names":{"hosts":[],"nameservers":[],"options":[],"search":[]},"ports":[],"rates":{"receive":null,"transmit":null}}"#;
/// The same, with names.
const NAMED: &str = r#"{"addresses":["10.88.0.2/24"],"egress":null,"gateways":[],"mac":"02:0a:58:00:00:02","mtu":1400,"names":{"hosts":[{"address":"10.0.0.5","name":"db.internal"}],"nameservers":["10.0.0.2","fd00::53"],"options":["ndots:2"],"search":["a.example","b.example"]},"ports":[],"rates":{"receive":null,"transmit":null}}"#;
const CARD: &str = "ip link add eth0 type veth peer name wire";
const CARD_AND_WIRE: &str = "ip link add eth0 type veth peer name wire && ip link set wire up";

/// Prints these files of the app's kernel.
fn print(network: Option<&'static str>, card: &str, paths: &[&str]) -> (String, End) {
    let mut config: Config = app(&[&["print"], paths].concat());
    config.network = network;
    let place = Place::new();
    let mut machine = Machine::start_with(&place.0, None, Some(card));
    machine.configure(&config);
    let (out, _, end) = machine.listen();
    (String::from_utf8(out).unwrap(), end)
}

pub fn makes_the_card_what_it_is_told() {
    let card = "/sys/class/net/eth0";
    let paths = ["address", "mtu", "operstate"].map(|name| format!("{card}/{name}"));
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.extend(["/proc/net/fib_trie", "/proc/net/if_inet6", "/proc/net/route"]);
    paths.push("/proc/net/ipv6_route");
    let (out, end) = print(Some(NETWORK), CARD_AND_WIRE, &paths);
    assert_eq!(end, End::Exit(Exit::Code(0)), "{out}");
    assert!(out.starts_with("02:0a:58:00:00:02\n1400\nup\n"), "{out}");
    let mut trie = out.lines().skip_while(|line| line.trim() != "|-- 10.88.0.2");
    assert_eq!(trie.nth(1).map(str::trim), Some("/32 host LOCAL"), "{out}");
    // Prefix 0x40, global scope, no duplicate address detection and never tentative (0x82).
    let found = out.lines().find(|line| line.starts_with("fd580001000200030000000000000002 "));
    assert!(found.is_some_and(|line| line.ends_with(" 40 00 82     eth0")), "{out}");
    let routes: Vec<&str> = out.lines().filter(|line| line.starts_with("eth0\t")).collect();
    let [way_out, own] = routes[..] else { panic!("{out}") };
    assert!(way_out.starts_with("eth0\t00000000\t0100580A"), "{out}");
    assert!(own.starts_with("eth0\t0000580A\t00000000"), "{out}");
    let way_out =
        format!("{} 00 {} 00 fd580001000200030000000000000001", "0".repeat(32), "0".repeat(32));
    assert!(out.lines().any(|line| line.starts_with(&way_out)), "{out}");
}

/// What the app reads in /etc, over an image that may have these files itself.
fn etc(network: &'static str, image: &[(&str, &str)], read_only: bool) -> (String, End) {
    let mut config = app(&["print", "/etc/hosts", "/etc/resolv.conf"]);
    (config.network, config.read_only_root) = (Some(network), read_only);
    let place = Place::new();
    for (path, text) in image {
        match text.strip_prefix("->") {
            Some(target) => symlink(target, place.image(path)).unwrap(),
            None => fs::write(place.image(path), text).unwrap(),
        }
    }
    let mut machine = Machine::start_with(&place.0, None, Some(CARD_AND_WIRE));
    machine.configure(&config);
    let (out, _, end) = machine.listen();
    (String::from_utf8(out).unwrap(), end)
}

const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
const RESOLV: &str =
    "nameserver 10.0.0.2\nnameserver fd00::53\nsearch a.example b.example\noptions ndots:2\n";

pub fn writes_names_where_the_image_has_none() {
    for read_only in [false, true] {
        let (out, end) = etc(NAMED, &[], read_only);
        assert_eq!(end, End::Exit(Exit::Code(0)), "{out}");
        let own = "10.88.0.2\tweb-1\n10.0.0.5\tdb.internal\n";
        assert_eq!(out, format!("{LOCAL}{own}{RESOLV}"));
    }
}

pub fn leaves_the_images_names_unless_asked() {
    let image = [("etc/hosts", "192.0.2.1 theirs"), ("etc/resolv.conf", "nameserver 192.0.2.2\n")];
    let (out, _) = etc(NETWORK, &image, false);
    assert_eq!(out, "192.0.2.1 theirsnameserver 192.0.2.2\n");
    let (out, _) = etc(NAMED, &image, false);
    let lines = "192.0.2.1 theirs\n10.88.0.2\tweb-1\n10.0.0.5\tdb.internal\n";
    assert_eq!(out, format!("{lines}{RESOLV}"));
}

pub fn follows_no_link_of_the_image_to_its_names() {
    let image = [("etc/hosts", "->/bin/app"), ("etc/resolv.conf", "->../run/resolv.conf")];
    let (out, end) = etc(NAMED, &image, false);
    assert_eq!(end, End::Exit(Exit::Code(0)), "{out}");
    assert_eq!(out, format!("{LOCAL}10.88.0.2\tweb-1\n10.0.0.5\tdb.internal\n{RESOLV}"));
}

pub fn touches_no_card_without_a_network() {
    let (out, end) =
        print(None, CARD_AND_WIRE, &["/sys/class/net/eth0/operstate", "/proc/net/route"]);
    assert_eq!(end, End::Exit(Exit::Code(0)), "{out}");
    assert!(out.starts_with("down\n") && !out.contains("eth0"), "{out}");
}

pub fn reports_a_card_that_is_not_there() {
    let (_, end) = print(Some(NETWORK), "true", &["/proc/self/comm"]);
    let End::Error(code, text) = end else { panic!("{end:?}") };
    assert_eq!(code, ErrorCode::Network);
    assert_eq!(text, "cannot find the network card: No such device (os error 19)");
}

pub fn reports_a_link_that_stays_down() {
    let (_, end) = print(Some(NETWORK), CARD, &["/proc/self/comm"]);
    let End::Error(code, text) = end else { panic!("{end:?}") };
    assert_eq!(
        (code, text.as_str()),
        (ErrorCode::Network, "the network card's link did not come up")
    );
}
