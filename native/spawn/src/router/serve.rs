//! The router's own process: `casemate-spawn --router`, started by spawn with a socket as standard input.
//!
//! Its first thread lives in the pods' network, a second one in the host's, so that neither has to enter the other's and
//! both can give up what that takes. What is left is `CAP_NET_ADMIN`, and for the second the
//! right to the first 1024 ports; threads that relay connections have none. It ends when nobody holds the other end of its
//! socket; what it made stays until the pods' namespace is gone.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use casemate_ticket::published::Published;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, clear_ambient_capability_set,
    move_into_link_name_space, remove_capability_from_bounding_set, set_capabilities,
};

use super::doors::{Door, Doors, listening, wanted};
use super::programs::{ip, nft};
use super::rules::{HostFacts, OUT, gateway_mac, inside};
use super::state::{STATE_BYTES_MAX, State, Uplink, Way};
use super::{NUMBER_BYTES_MAX, outside, pairs};
use crate::connection;
use crate::daemon::log;
use crate::daemon::prepare_process;
use crate::packets;
use crate::refusal::{Refusal, Result};
use crate::sys_unsafe::{close_from, inherited_descriptor};

/// How often the host is asked for its addresses, which pods must not reach.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Settings of the pods' network: packets are passed on, where rules permit it; who asks for an address that another
/// bridge has gets no answer; how often a pod is told that it may not is the rules' to limit.
const SETTINGS: [(&str, &str); 7] = [
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
];

type Step<T> = std::result::Result<T, String>;
type Work = Box<dyn FnOnce() + Send>;

/// The second thread.
struct Outside {
    work: Sender<Work>,
    /// Whether our end is as it is to be.
    is_open: Cell<bool>,
}

struct Serving {
    socket: OwnedFd,
    outside: Outside,
    /// What is in force.
    state: State,
    host: HostFacts,
    /// Bridges that have their gateways.
    bridges: BTreeSet<String>,
    doors: Doors,
    /// Whether that is what the kernel has, and not what a router before made.
    is_known: bool,
}

/// Serves spawn until nobody holds the other end.
///
/// # Errors
/// `ROUTER` with what cannot be had.
pub fn serve() -> Result<()> {
    let failed = |error: String| Refusal::new("ROUTER", error);
    serve_spawn().map_err(failed)
}

fn serve_spawn() -> Step<()> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    close_from(3);
    // Room for connections, and no core dumps with what they say.
    prepare_process().map_err(text("preparing the process"))?;
    let socket = inherited_descriptor(0).map_err(text("standard input"))?;
    // The pods' namespace comes first, by itself.
    wait(socket.as_fd(), None);
    let hello = packets::receive(socket.as_fd(), NUMBER_BYTES_MAX).ok().flatten();
    let Some(namespace) = hello.and_then(|mut hello| hello.descriptors.pop()) else {
        return Ok(());
    };
    let outside = Outside::start()?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| format!("the pods' network: {errno}"))?;
    confine(CapabilitySet::NET_ADMIN).map_err(text("giving privileges up"))?;
    for (name, value) in SETTINGS {
        setting(name, value).map_err(text(name))?;
    }
    let state = State { uplink: None, ways: Vec::new() };
    let (host, bridges, doors) = (HostFacts::default(), BTreeSet::new(), Doors::default());
    // From here on nothing passes that no line permits. What the router before made holds until spawn has said what there
    // is to be: pods that run on must not lose a packet.
    // One at a time: nft 1.0.6 looks into one family for all that it reads at once.
    let has = |family: &str| nft(&format!("list table {family} casemate\n")).is_ok();
    let is_new = !(has("bridge") && has("inet"));
    if is_new {
        nft(&inside(&state, &host))?;
    }
    let is_known = is_new;
    let mut serving = Serving { socket, outside, state, host, bridges, doors, is_known };
    serving.answer(0, &Ok(()))?;
    while serving.turn()? {}
    Ok(())
}

fn wait(socket: BorrowedFd<'_>, timeout: Option<Duration>) {
    let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
    // Whatever it says: the socket is read without waiting.
    let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], timeout.as_ref());
}

/// Writes below /proc/sys/net of the network that the calling thread is in. What a kernel without IPv6 does not have is
/// no failure.
fn setting(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new("/proc/sys/net").join(name), value) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// Keeps these capabilities and no others, for this thread and what it starts, under a filter of what is never done.
fn confine(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1_u64.checked_shl(number).unwrap_or(0));
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel has none of that number, nor above it.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
    crate::filter::enter_router()
}

impl Outside {
    fn start() -> Step<Self> {
        let (work, todo) = channel::<Work>();
        let serve = move || {
            while let Ok(work) = todo.recv() {
                work();
            }
        };
        let started = thread::Builder::new().name("outside".into()).spawn(serve);
        started.map_err(|error| format!("a thread: {error}"))?;
        let outside = Self { work, is_open: Cell::new(false) };
        // The first 1024 ports are the host's to give.
        let kept = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
        outside.within(move || {
            confine(kept).map_err(|error| format!("giving privileges up: {error}"))
        })?;
        Ok(outside)
    }

    /// Does something in the host's network and waits for it.
    fn within<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> Step<T> + Send + 'static,
    ) -> Step<T> {
        let (done, answer) = channel();
        let work: Work = Box::new(move || {
            // Who asked waits.
            let _ = done.send(what());
        });
        let _ = self.work.send(work);
        answer.recv().unwrap_or_else(|_| Err("the thread in the host's network ended".into()))
    }

    /// Opens the way out, or looks that it is open, and asks the host for its addresses.
    fn open(&self, uplink: &Uplink) -> Step<HostFacts> {
        let is_made = fs::read_to_string("/proc/thread-self/net/dev")
            .is_ok_and(|text| text.lines().any(|line| line.trim().starts_with(&format!("{OUT}:"))));
        let wanted = uplink.clone();
        let host = self.within(move || outside::open(&wanted, is_made))?;
        if !(is_made && self.is_open.get()) {
            let (four, six) = uplink.ends(2);
            let (to_four, to_six) = uplink.ends(1);
            for (name, value) in [("accept_dad", "0"), ("disable_ipv6", "0")] {
                setting(&format!("ipv6/conf/{OUT}/{name}"), value).map_err(|e| e.to_string())?;
            }
            ip(&format!(
                "link set dev {OUT} up\naddr replace {four}/30 dev {OUT}\n\
                 addr replace {six}/64 dev {OUT} nodad\n\
                 route replace 0.0.0.0/0 via {to_four} dev {OUT}\nroute replace ::/0 via {to_six} dev {OUT}\n"
            ))?;
            self.is_open.set(true);
        }
        Ok(host)
    }
}

impl Serving {
    /// Waits for one thing and does it. False when nobody asks any more.
    fn turn(&mut self) -> Step<bool> {
        let is_short = !self.doors.missing(&self.state).is_empty();
        let look = (self.state.has_egress() || is_short).then_some(LOOK_EVERY);
        wait(self.socket.as_fd(), look);
        let mut last = None;
        // Each packet is everything there is to be: only the last counts.
        loop {
            match packets::receive(self.socket.as_fd(), NUMBER_BYTES_MAX) {
                Ok(Some(packet)) => last = Some(packet),
                Ok(None) => break,
                Err(_) => return Ok(false),
            }
        }
        let Some(packet) = last else {
            self.look();
            return Ok(true);
        };
        let number = std::str::from_utf8(&packet.bytes).ok().and_then(|text| text.parse().ok());
        let number = number.ok_or("spawn sent no number")?;
        let mut descriptors = packet.descriptors.into_iter();
        let (state, namespace) = (descriptors.next(), descriptors.next());
        let state = state.ok_or("spawn sent no state".into()).and_then(read_state);
        let done = state.and_then(|state| self.apply(state, namespace));
        self.answer(number, &done)?;
        Ok(true)
    }

    fn answer(&self, number: u64, done: &Step<()>) -> Step<()> {
        let complaint = done.as_ref().err().map_or("", String::as_str);
        let text: String = format!("{number} {complaint}").chars().take(1000).collect();
        match connection::send(self.socket.as_fd(), text.as_bytes(), &[]) {
            // Nobody reads: the next turn ends this.
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(format!("spawn takes no answer: {errno}")),
        }
    }

    /// The host may have other addresses by now.
    fn look(&mut self) {
        let state = self.state.clone();
        if let Err(complaint) = self.apply(state, None) {
            log(&format!("router: the way out could not be looked after: {complaint}"));
        }
    }

    /// Makes everything as `state` says. When that fails, the rules before hold. In `namespace` the last way of it gets
    /// its card, once it has its rules.
    fn apply(&mut self, state: State, namespace: Option<OwnedFd>) -> Step<()> {
        // First: whatever of the rest fails, what is gone is closed, and a port may be another pod's now.
        self.doors.close_others(&state);
        pairs::remove_others(&state)?;
        let host = match &state.uplink {
            Some(uplink) if state.has_egress() => self.outside.open(uplink)?,
            None if state.has_egress() => {
                return Err("root has given this host no way out: set uplink in spawn.json".into());
            }
            _ => self.host.clone(),
        };
        if state.has_egress() && !host.forwards.0 {
            let advice =
                "switch it on (sysctl net.ipv4.ip_forward=1), after a look at its firewall";
            return Err(format!(
                "this host passes no packets on, and pods have no way out: {advice}"
            ));
        }
        let known = |bridge: &String| state.ways.iter().any(|way| way.bridge == *bridge);
        self.bridges.retain(known);
        for way in &state.ways {
            if !self.bridges.contains(&way.bridge) {
                settle(way)?;
                self.bridges.insert(way.bridge.clone());
            }
        }
        let doors = self.listen(&state)?;
        if !self.is_known || (&state, &host) != (&self.state, &self.host) {
            nft(&inside(&state, &host))?;
            // Closed ones are remembered for as long as a packet can be on its way, not for two minutes: they take others' room.
            let _ = setting("netfilter/nf_conntrack_tcp_timeout_time_wait", "10");
            self.is_known = true;
        }
        // In force from here on, whatever becomes of the rest: spawn takes back a launch that fails.
        (self.state, self.host) = (state, host);
        if let (Some(namespace), Some(way)) = (namespace, self.state.ways.last()) {
            pairs::make(way, namespace)?;
        }
        self.doors.open(doors).map_err(|error| format!("a published port: {error}"))
    }
}

impl Serving {
    /// Sockets for the doors that are not there. Those of pods that run already, of which another process may have taken
    /// the port while there was no router, are tried again later, and fail nobody's launch.
    fn listen(&self, state: &State) -> Step<Vec<(Door, OwnedFd)>> {
        let known = wanted(if self.is_known { &self.state } else { state });
        let missing = self.doors.missing(state);
        let ports: Vec<Published> = missing.iter().map(|door| door.port).collect();
        let sockets =
            self.outside.within(move || Ok(ports.iter().map(listening).collect::<Vec<_>>()))?;
        let mut found = Vec::new();
        for (door, socket) in missing.into_iter().zip(sockets) {
            match socket {
                Ok(socket) => found.push((door, socket)),
                Err(complaint) if known.contains(&door) => {
                    log(&format!("router: a published port stays closed for now: {complaint}"));
                }
                Err(complaint) => return Err(complaint),
            }
        }
        Ok(found)
    }
}

fn read_state(file: OwnedFd) -> Step<State> {
    use std::io::Read;
    let limit = u64::try_from(STATE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    fs::File::from(file).take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    State::parse(&bytes)
}

/// Gives the bridge of a pod its gateways' addresses, and a hardware address that stays when ports come and go.
fn settle(way: &Way) -> Step<()> {
    let bridge = &way.bridge;
    let mut commands = String::new();
    for gateway in &way.network.gateways {
        let prefix = way.network.prefix_of(*gateway).unwrap_or(0);
        let _ = match gateway {
            IpAddr::V4(ip) => {
                let mac = gateway_mac(*ip);
                writeln!(
                    commands,
                    "link set dev {bridge} address {mac}\naddr replace {ip}/{prefix} dev {bridge}"
                )
            }
            IpAddr::V6(ip) => {
                let _ = setting(&format!("ipv6/conf/{bridge}/accept_dad"), "0");
                setting(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")
                    .map_err(|error| format!("IPv6 of a bridge: {error}"))?;
                writeln!(commands, "addr replace {ip}/{prefix} dev {bridge} nodad")
            }
        };
    }
    if commands.is_empty() { Ok(()) } else { ip(&commands) }
}
