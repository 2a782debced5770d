//! What the app sees of the network. A pair of virtual interfaces is card and wire.

use casemate_wire::payload::{ErrorCode, Exit};

use crate::config::{Config, app};
use crate::machine::{End, Machine, Place};

const NETWORK: &str =
    r#"{"addresses":["10.88.0.2/24","fd58:1:2:3::2/64"],"mac":"02:0a:58:00:00:02","mtu":1400}"#;
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
    let (out, end) = print(Some(NETWORK), CARD_AND_WIRE, &paths);
    assert_eq!(end, End::Exit(Exit::Code(0)), "{out}");
    assert!(out.starts_with("02:0a:58:00:00:02\n1400\nup\n"), "{out}");
    assert!(out.contains("|-- 10.88.0.2\n           /32 host LOCAL"), "{out}");
    // Prefix 0x40, global scope, no duplicate address detection and never tentative (0x82).
    let found = out.lines().find(|line| line.starts_with("fd580001000200030000000000000002 "));
    assert!(found.is_some_and(|line| line.ends_with(" 40 00 82     eth0")), "{out}");
    // The one route is to the card's own network.
    let routes: Vec<&str> = out.lines().filter(|line| line.starts_with("eth0\t")).collect();
    assert!(matches!(routes[..], [one] if one.starts_with("eth0\t0000580A\t00000000")), "{out}");
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
