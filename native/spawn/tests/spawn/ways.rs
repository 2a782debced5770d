//! The way out of pods, over a host and an internet that are network namespaces of the test's own: nothing of this
//! machine's network is touched. The pods' frames are the test's (wire.rs).

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::client::PATIENCE;
use crate::documents::publish;
use crate::host::{Host, host_by_with, kept_host_by_with, wait_for};
use crate::wire::{ARP, BROADCAST, GATEWAY, IPV4, IPV6, Wire, icmpv6, launch, udp, word_of};

const UPLINK: &str =
    r#"{"ipv4":"169.254.88.0/30","ipv6":"fdca:5e3a:7e00:fff0::/64","name":"way0"}"#;
/// Servers in the internet: two that everybody may reach who may reach the internet, and what is private or a
/// documentation's there.
const SERVERS: [&str; 7] = [
    "8.8.4.2/24",
    "9.9.9.2/24",
    "2a00:1450::2/64",
    "192.168.5.2/24",
    "100.64.0.2/24",
    "169.254.169.254/32",
    "fd00:ec2::254/128",
];
const PORT: u16 = 4001;
const ALL: &str = r#"{"internet":true,"rules":[]}"#;

/// A network namespace, as long as a process sleeps in it.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let namespace = Self(child);
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("a namespace", || {
            let its = std::fs::read_link(namespace.path()).ok()?;
            let name = std::fs::read_to_string(format!("/proc/{}/comm", namespace.0.id())).ok()?;
            (its != ours && name.trim() == "sleep").then_some(())
        });
        namespace.run("ip", "link set dev lo up");
        namespace
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn starter(&self) -> [String; 2] {
        ["nsenter".into(), format!("--net={}", self.path().display())]
    }

    fn run(&self, program: &str, words: &str) -> String {
        let [enter, net] = self.starter();
        let words = words.split(' ');
        let output = Command::new(enter).arg(net).arg(program).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Does something in it.
    fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(self.path()).unwrap();
        thread::scope(|scope| {
            let within = || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                what()
            };
            scope.spawn(within).join().unwrap()
        })
    }

    /// Whether it passes packets on.
    fn forwards(&self, value: &str) {
        self.within(|| {
            for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
            }
        });
    }

    /// A server there on every address of a version.
    fn listens(&self, on: &str) -> UdpSocket {
        let socket = self.within(|| UdpSocket::bind((on, PORT)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A host with a spawn, and the internet behind it.
struct World {
    spawn: Host,
    host: Namespace,
    internet: Namespace,
}

impl World {
    fn new() -> Option<Self> {
        Self::with(host_by_with)
    }

    fn with(start: fn(&[&str], &str) -> Option<Host>) -> Option<Self> {
        let (host, internet) = (Namespace::new(), Namespace::new());
        let peer = internet.0.id();
        host.run("ip", &format!("link add out type veth peer name in netns {peer}"));
        for address in ["8.8.4.1/24", "9.9.9.1/24", "192.168.5.1/24", "100.64.0.1/24"] {
            host.run("ip", &format!("addr add {address} dev out"));
        }
        host.run("ip", "addr add 2a00:1450::1/64 dev out nodad");
        for address in SERVERS {
            let six = if address.contains(':') { " nodad" } else { "" };
            internet.run("ip", &format!("addr add {address} dev in{six}"));
        }
        host.run("ip", "link set dev out up");
        internet.run("ip", "link set dev in up");
        host.run("ip", "route add 169.254.169.254/32 dev out");
        host.forwards("1");
        let starter = host.starter();
        let spawn = start(&starter.each_ref().map(String::as_str), UPLINK)?;
        Some(Self { spawn, host, internet })
    }

    fn pod(&self, number: u8, egress: &str) -> Wire {
        Wire::start_with(&self.spawn, "acme", number, egress)
    }
}

/// The next datagram, and who sent it.
fn heard(server: &UdpSocket) -> (String, SocketAddr) {
    let mut word = [0; 100];
    let (count, from) = server.recv_from(&mut word).unwrap();
    (String::from_utf8_lossy(&word[..count]).into_owned(), from)
}

fn rule(cidr: &str, ports: &str, protocol: &str) -> String {
    let rule = format!(r#"{{"cidr":"{cidr}","ports":{ports},"protocol":{protocol}}}"#);
    format!(r#"{{"internet":false,"rules":[{rule}]}}"#)
}

#[test]
fn a_pod_with_the_internet_reaches_it_and_nothing_private_or_of_the_host() {
    let Some(world) = World::new() else { return };
    let (server, server_6) =
        (world.internet.listens("0.0.0.0"), world.internet.listens("2a00:1450::2"));
    let of_the_host = world.host.listens("0.0.0.0");
    let mut pod = world.pod(2, ALL);
    for to in ["192.168.5.2", "100.64.0.2", "169.254.169.254", "fd00:ec2::254"] {
        pod.tell(to, PORT, "private");
        pod.hears_refusal();
    }
    for own in ["8.8.4.1", "9.9.9.1", "169.254.88.1", "2a00:1450::1"] {
        pod.tell(own, PORT, "of the host");
        pod.hears_refusal();
    }
    // The other end of the way out is the gateway itself, where nothing listens.
    pod.tell("169.254.88.2", PORT, "of the host");
    pod.tell("8.8.4.2", PORT, "hello");
    let (said, from) = heard(&server);
    assert_eq!((said.as_str(), from.ip()), ("hello", IpAddr::from([8, 8, 4, 1])));
    server.send_to(b"hello yourself", from).unwrap();
    pod.hears_next("hello yourself");
    pod.tell("2a00:1450::2", PORT, "hello 6");
    let (said, from) = heard(&server_6);
    assert_eq!((said.as_str(), from.ip().to_string().as_str()), ("hello 6", "2a00:1450::1"));
    server_6.send_to(b"hello 6 yourself", from).unwrap();
    pod.hears_next("hello 6 yourself");
    of_the_host.set_nonblocking(true).unwrap();
    assert!(of_the_host.recv_from(&mut [0; 9]).is_err(), "the host heard a pod");
}

#[test]
fn a_list_permits_what_is_on_it_and_by_what_it_says() {
    let Some(world) = World::new() else { return };
    let server = world.internet.listens("0.0.0.0");
    let ports = format!(r#"{{"from":{},"to":{PORT}}}"#, PORT - 1);
    let mut pods = [
        world.pod(2, &rule("192.168.5.0/24", &ports, r#""udp""#)),
        world.pod(3, "null"),
        world.pod(4, &rule("192.168.5.0/24", &ports, r#""tcp""#)),
        world.pod(5, &rule("0.0.0.0/0", "null", "null")),
    ];
    for (who, to, port) in [
        (0, "8.8.4.2", PORT),
        (0, "192.168.5.2", PORT + 1),
        (1, "192.168.5.2", PORT),
        (2, "192.168.5.2", PORT),
        (3, "169.254.169.254", PORT),
        (3, "192.168.5.1", PORT),
        (3, "2a00:1450::2", PORT),
    ] {
        pods[who].tell(to, port, "not permitted");
        pods[who].hears_refusal();
    }
    let [pod, _, _, any] = &mut pods;
    // An answer comes to who asked and to nobody else, and what nobody asked for to no one.
    pod.tell("192.168.5.2", PORT, "permitted");
    let (said, from) = heard(&server);
    assert_eq!(said, "permitted");
    any.tell("192.168.5.2", PORT, "all of it");
    assert_eq!(heard(&server).0, "all of it");
    let unasked = world.internet.within(|| UdpSocket::bind(("0.0.0.0", PORT + 2)).unwrap());
    unasked.send_to(b"unasked", from).unwrap();
    server.send_to(b"answer", from).unwrap();
    pod.hears_next("answer");
}

/// A gateway is no way round the bridge: each address that a pod makes up would be an entry of the kernel's.
#[test]
fn a_gateway_passes_nothing_back_to_the_network_it_came_from() {
    let Some(world) = World::new() else { return };
    let mut pod = world.pod(2, "null");
    let mut other = world.pod(3, "null");
    // The gateway knows where the other is, by both versions: it would not have to ask first.
    for (to, is_4) in [("8.8.4.2", true), ("2a00:1450::2", false)] {
        other.tell(to, PORT, "not permitted");
        other.hears_refusal();
        let through = other.ip(is_4).to_string();
        pod.tell(&through, PORT, "through the gateway");
    }
    pod.call("it is me");
    other.hears_next("it is me");
}

/// Whoever empties the host's rules closes the way rather than opening one.
#[test]
fn emptying_the_hosts_rules_opens_nothing() {
    let Some(world) = World::new() else { return };
    let server = world.internet.listens("0.0.0.0");
    let mut pod = world.pod(2, &rule("9.9.9.0/24", "null", "null"));
    pod.tell("9.9.9.2", PORT, "before");
    assert_eq!(heard(&server).1.ip(), IpAddr::from([9, 9, 9, 1]));
    world.host.run("nft", "flush ruleset");
    for to in ["8.8.4.2", "9.9.9.1", "169.254.88.1", "192.168.5.2"] {
        pod.tell(to, PORT, "after");
        pod.hears_refusal();
    }
    // Our own table is made again with the next pod, and nobody else's.
    world.host.run("nft", "add table inet theirs");
    let mut next = world.pod(3, ALL);
    assert!(world.host.run("nft", "list tables").contains("table inet theirs"));
    next.tell("8.8.4.2", PORT, "again");
    assert_eq!(heard(&server), ("again".into(), SocketAddr::from(([8, 8, 4, 1], 4000))));
}

#[test]
fn frames_of_somebody_else_end_at_the_port_they_come_from() {
    let Some(world) = World::new() else { return };
    let server = world.internet.listens("0.0.0.0");
    let mut pod = world.pod(2, "null");
    let mut other = world.pod(3, ALL);
    let (own, victim) = (pod.ip(true), other.ip(true));
    let (own_6, victim_6) = (pod.ip(false), other.ip(false));
    let to: IpAddr = "8.8.4.2".parse().unwrap();
    // By another's address, hardware address, or both; of a router or a DHCP server.
    pod.send(GATEWAY, IPV4, &udp(victim, to, PORT, b"spoofed"));
    pod.mac = other.mac;
    pod.send(GATEWAY, IPV4, &udp(victim, to, PORT, b"spoofed"));
    pod.send(BROADCAST, IPV4, &udp(own, [10, 88, 0, 255].into(), PORT, b"spoofed"));
    pod.mac = [2, 0, 0, 0, 0, 2];
    for (sender, ip) in
        [(pod.mac, [10, 88, 0, 1]), (pod.mac, [10, 88, 0, 3]), (other.mac, [10, 88, 0, 2])]
    {
        let says = [&[0, 1, 8, 0, 6, 4, 0, 2], sender.as_slice(), &ip, &other.mac, &[10, 88, 0, 3]];
        pod.send(BROADCAST, ARP, &says.concat());
    }
    let [from_6, to_6, all] = [own_6, victim_6, "ff02::1".parse().unwrap()].map(crate::wire::bytes);
    let gateway_6 = crate::wire::bytes("fd58::1".parse().unwrap());
    let advert = |from: &[u8], target: &[u8]| {
        let message = [[136, 0, 0, 0, 0x60, 0, 0, 0].as_slice(), target, &[2, 1, 2, 0, 0, 0, 0, 2]];
        icmpv6(from, &all, message.concat())
    };
    for packet in [
        advert(&from_6, &gateway_6),
        advert(&from_6, &to_6),
        advert(&gateway_6, &gateway_6),
        icmpv6(&from_6, &all, [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0].into()),
        icmpv6(&from_6, &all, [[137, 0, 0, 0, 0, 0, 0, 0].as_slice(), &to_6, &to_6].concat()),
    ] {
        pod.send([0x33, 0x33, 0, 0, 0, 1], IPV6, &packet);
    }
    let mut dhcp = udp(own, [255, 255, 255, 255].into(), 68, b"an offer");
    dhcp[20..22].copy_from_slice(&67_u16.to_be_bytes());
    pod.send(BROADCAST, IPV4, &dhcp);
    // A VLAN's, a bridge's and a made-up kind of frame.
    for kind in [0x8100, 0x88a8, 0x0026, 0x88b5] {
        pod.send(BROADCAST, kind, &[0; 46]);
    }
    pod.call("it is me");
    other.hears_next("it is me");
    other.tell("8.8.4.2", PORT, "the victim itself");
    assert_eq!(heard(&server).0, "the victim itself");
}

#[test]
fn a_host_that_passes_nothing_on_refuses_a_way_out_and_says_what_to_do() {
    let Some(world) = World::new() else { return };
    world.host.forwards("0");
    let refused = launch(&world.spawn, "acme", 2, ALL).1;
    assert_eq!(refused.code(), "NETWORK_FAILED");
    assert!(refused.text().contains("net.ipv4.ip_forward=1"), "{}", refused.text());
    Wire::start(&world.spawn, "acme", 2).call("without a way out");
}

#[test]
fn without_an_uplink_there_is_no_way_out() {
    let Some(spawn) = crate::host::host() else { return };
    let refused = launch(&spawn, "acme", 2, ALL).1;
    assert_eq!(refused.code(), "NETWORK_FAILED");
    assert!(refused.text().contains("uplink"), "{}", refused.text());
}

/// The ways of the pods that run on are there again, and no others.
#[test]
fn rules_are_made_again_when_spawn_or_its_router_ends() {
    let Some(world) = World::with(kept_host_by_with) else { return };
    let server = world.internet.listens("0.0.0.0");
    let mut pod = world.pod(2, &rule("9.9.9.0/24", "null", "null"));
    let children = |pid: Pid| {
        let pid = pid.as_raw_nonzero();
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
    };
    let router = || {
        let spawn = world.spawn.spawn();
        let is_router = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .unwrap_or_default()
                .contains("--router")
        };
        let pid = children(spawn).split_whitespace().find(is_router)?.parse().ok()?;
        Some((spawn, Pid::from_raw(pid)?))
    };
    for round in 0..3 {
        let (spawn, pid) = wait_for("a router", router);
        match round {
            0 => kill_process(spawn, Signal::KILL).unwrap(),
            1 => kill_process(spawn, Signal::TERM).unwrap(),
            _ => kill_process(pid, Signal::KILL).unwrap(),
        }
        wait_for("another spawn", || router().filter(|(other, _)| *other != spawn));
        assert_eq!(world.spawn.pods().len(), 1);
        pod.tell("8.8.4.2", PORT, "not permitted");
        pod.hears_refusal();
        pod.tell("9.9.9.2", PORT, "permitted");
        assert_eq!(heard(&server).0, "permitted");
    }
    assert_eq!(world.spawn.ask_pod("kill", &pod.pod).code(), "ok");
    let rules = || {
        let net = format!("--net=/proc/{}/ns/net", world.spawn.spawn().as_raw_nonzero());
        let words = [&net, "nft", "list", "table", "inet", "casemate"];
        String::from_utf8(Command::new("nsenter").args(words).output().unwrap().stdout).unwrap()
    };
    wait_for("the end of its rules", || (!rules().contains("10.88.0.2")).then_some(()));
}

/// A pod with ports of the host.
fn published(
    host: &Host,
    number: u8,
    ports: &[(&str, u16, u16)],
) -> (String, crate::client::Answer) {
    let (pod, mut spec) = host.spec(&["wire"]);
    let address = format!("10.88.0.{number}/24");
    publish(&mut spec, number, &[&address], "null", ports, 1400);
    (pod, host.launch(&spec))
}

/// What is reached at an address of the host: nothing listens, or the pod hears of it.
fn is_open(world: &World, place: &str) -> bool {
    let place: SocketAddr = place.parse().unwrap();
    world.host.within(|| TcpStream::connect_timeout(&place, PATIENCE).is_ok())
}

#[test]
fn a_published_port_is_open_where_it_was_asked_for_and_leads_to_the_pod() {
    let Some(world) = World::new() else { return };
    let ports = [("127.0.0.1", 8080, 80), ("::1", 8080, 80), ("8.8.4.1", 443, 8443)];
    let (pod, mut answer) = published(&world.spawn, 2, &ports);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let mut wire = Wire::of(pod, &mut answer, 2);
    for (place, port) in [("127.0.0.1:8080", 80), ("[::1]:8080", 80), ("8.8.4.1:443", 8443)] {
        assert!(is_open(&world, place), "{place}");
        // The pod hears the gateway ask for a connection (RFC 9293: SYN).
        let frame = wire.hears();
        assert_eq!(
            (&frame[26..30], frame[23], frame[47] & 2),
            (&[10, 88, 0, 1][..], 6, 2),
            "{frame:02x?}"
        );
        assert_eq!(u16::from_be_bytes([frame[36], frame[37]]), port);
        wire.resets(&frame);
    }
    for place in ["127.0.0.2:8080", "8.8.4.1:8080", "192.168.5.1:443", "127.0.0.1:443"] {
        assert!(!is_open(&world, place), "{place}");
    }
    // Nothing else of it is reached from outside, and the port does not outlive the pod.
    assert_eq!(world.spawn.ask_pod("kill", &wire.pod).code(), "ok");
    for place in ["127.0.0.1:8080", "[::1]:8080", "8.8.4.1:443"] {
        wait_for("the end of the port", || (!is_open(&world, place)).then_some(()));
    }
}

#[test]
fn a_published_udp_port_leads_to_the_pod_and_its_answers_to_who_asked() {
    let Some(world) = World::new() else { return };
    // One number, of both protocols. The pod's port is the one that its words come from.
    let ports = [("127.0.0.1/udp", 5353, 4000), ("127.0.0.1", 5353, 80)];
    let (pod, mut answer) = published(&world.spawn, 2, &ports);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let mut wire = Wire::of(pod, &mut answer, 2);
    let bound = |place: &str| world.host.within(|| UdpSocket::bind(place));
    let clients = [bound("127.0.0.1:0").unwrap(), bound("127.0.0.1:0").unwrap()];
    let mut sessions = Vec::new();
    for (client, word) in clients.iter().zip(["one", "two"]) {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect("127.0.0.1:5353").unwrap();
        client.send(word.as_bytes()).unwrap();
        let frame = wire.hears();
        assert_eq!(word_of(&frame).as_deref(), Some(word), "{frame:02x?}");
        assert_eq!((&frame[26..30], &frame[36..38]), (&[10, 88, 0, 1][..], &[0x0f, 0xa0][..]));
        sessions.push(u16::from_be_bytes([frame[34], frame[35]]));
    }
    let gateway = IpAddr::from([10, 88, 0, 1]);
    for (session, word) in sessions.iter().zip(["to one", "to two"]).rev() {
        let packet = udp(wire.ip(true), gateway, *session, word.as_bytes());
        wire.send(GATEWAY, IPV4, &packet);
    }
    for (client, word) in clients.iter().zip(["to one", "to two"]) {
        let mut buffer = [0; 64];
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..count]), Ok(word));
    }
    assert!(bound("127.0.0.1:5353").is_err());
    assert_eq!(world.spawn.ask_pod("kill", &wire.pod).code(), "ok");
    wait_for("the end of the port", || bound("127.0.0.1:5353").ok());
}

/// A port that another process took while there was no router keeps nobody else's closed, and fails no launch.
#[test]
fn a_port_that_is_lost_while_spawn_restarts_is_the_only_one_that_stays_closed() {
    let Some(world) = World::with(kept_host_by_with) else { return };
    let ports = [("127.0.0.1", 8080, 80), ("127.0.0.1", 8081, 80)];
    let (pod, mut answer) = published(&world.spawn, 2, &ports);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let wire = Wire::of(pod, &mut answer, 2);
    let mut held = None;
    world.spawn.without_spawn(Signal::KILL, || {
        held = Some(wait_for("the end of the router", || {
            world.host.within(|| TcpListener::bind("127.0.0.1:8080").ok())
        }));
    });
    assert_eq!(world.spawn.pods().len(), 1);
    wait_for("the other port", || is_open(&world, "127.0.0.1:8081").then_some(()));
    let ports = [("127.0.0.1", 8082, 80)];
    let (_, mut answer) = published(&world.spawn, 3, &ports);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let _wires = (wire, Wire::of(String::new(), &mut answer, 3));
    assert!(is_open(&world, "127.0.0.1:8082"));
    let taken = || world.host.within(|| TcpListener::bind("127.0.0.1:8080").is_err());
    drop(held);
    wait_for("the port that was lost", || taken().then_some(()));
}

#[test]
fn a_port_that_somebody_has_is_refused_and_is_free_after_that() {
    let Some(world) = World::new() else { return };
    let held = world.host.within(|| TcpListener::bind("127.0.0.1:8080").unwrap());
    let ports = [("127.0.0.1", 8081, 80), ("127.0.0.1", 8080, 80)];
    let (pod, refused) = published(&world.spawn, 2, &ports);
    assert_eq!(refused.code(), "PORT_TAKEN", "{}", refused.text());
    assert!(refused.text().contains("port 8080 of 127.0.0.1"), "{}", refused.text());
    assert_eq!(world.spawn.pod(&pod), None);
    wait_for("no half of it", || (!is_open(&world, "127.0.0.1:8081")).then_some(()));
    drop(held);
    let (first, mut answer) = published(&world.spawn, 2, &ports);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let _wire = Wire::of(first.clone(), &mut answer, 2);
    assert_eq!(published(&world.spawn, 3, &ports).1.code(), "PORT_TAKEN");
    assert_eq!(world.spawn.ask_pod("kill", &first).code(), "ok");
    let again = wait_for("the port", || {
        let (_, answer) = published(&world.spawn, 3, &ports);
        (answer.code() == "ok").then_some(answer)
    });
    assert_eq!(again.code(), "ok");
}
