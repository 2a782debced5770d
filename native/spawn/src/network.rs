//! The pods' networks: one bridge for each tenant that has pods, and one tap for each pod, in a network namespace in
//! which nothing else is.
//!
//! The namespace is spawn's own, entered before anything else is done. Spawn makes bridges and taps in it; what passes
//! between them and anything else is the router's (router/mod.rs), which is told of each pod before that runs, and of its
//! end. Nothing passes that no rule permits, and the rules are in here: emptying the host's opens nothing.
//!
//! What a frame may say is the VMM's to judge (`casemate_devices::Network`), and the rules' at the port of the bridge.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::bytes::Digest;
use casemate_ticket::network::Network;
use casemate_ticket::spec::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::daemon::{Daemon, log};
use crate::network_unsafe::{Argument, Request, forget_addresses, leave_network, request};
use crate::pod::Identity;
use crate::refusal::{Refusal, Result};
use crate::router::Router;
use crate::router::doors::TAKEN;
use crate::router::state::{State, Uplink, Way};

const TUN: &str = "/dev/net/tun";
/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`; not `IFF_PERSIST`: a tap is gone with its last descriptor, the VMM's.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// `struct virtio_net_hdr_mrg_rxbuf`, as the VMM's card has it.
const TAP_HEADER_BYTES: i32 = 12;
/// Frames that wait for a guest that does not take them, each up to 64 KiB: memory of the kernel that no cgroup counts.
const QUEUE_FRAMES: u32 = 256;
const IFF_UP: u16 = 0x0001;
const IFF_MULTICAST: u16 = 0x1000;
/// The kernel puts the first free number in.
const TAP_NAME: &str = "cmt%d";
/// How names of bridges begin.
const BRIDGE: &str = "cmb";
/// Published ports of all pods, and of one tenant's.
const PORTS_MAX: usize = 1024;
const PORTS_OF_TENANT_MAX: usize = 256;
/// Digits of a name of 15 bytes, the most that an interface has, behind that.
const NAME_DIGITS: usize = 12;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// Settings of a new namespace: nothing is passed on until there are rules, no interface gives itself an address unless
/// the router wants it to, and no bridge says by itself which groups it listens to.
const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/ip_forward", "0"),
    ("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", "0"),
    ("/proc/sys/net/ipv6/conf/all/forwarding", "0"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// What spawn holds of the networks.
#[derive(Debug)]
pub struct Networks {
    /// Any socket of the namespace: interfaces are changed through one.
    socket: OwnedFd,
    /// The namespace, which is gone with the last who holds it, and all taps with it.
    namespace: OwnedFd,
    /// Whether it is that of the spawn before.
    is_kept: bool,
    /// Names of bridges, by tenant.
    bridges: BTreeMap<String, String>,
    /// What there is to be.
    state: State,
    /// Whose the ways of the state are, in its order.
    pods: Vec<String>,
    router: Router,
}

/// The step that failed, and how.
type Step<T> = std::result::Result<T, (&'static str, io::Error)>;

impl Networks {
    /// Leaves the host's network for one of this process's own, or for that of the spawn before, if `kept` is one. Called
    /// before the filter of system calls, which permits that no more.
    ///
    /// # Errors
    /// A sentence; pods without a network can be launched all the same.
    pub fn enter(
        kept: Option<Vec<OwnedFd>>,
        router: io::Result<Router>,
    ) -> std::result::Result<Self, String> {
        let kept = kept.and_then(|kept| <[OwnedFd; 1]>::try_from(kept).ok());
        let is_kept = kept.is_some_and(|[namespace]| match join(&namespace) {
            Ok(()) => true,
            Err(error) => {
                log(&format!("the network of the spawn before cannot be entered: {error}"));
                false
            }
        });
        let entered = || -> Step<(OwnedFd, OwnedFd)> {
            if !is_kept {
                leave_network().map_err(|error| ("namespace", error))?;
            }
            for (path, value) in SETTINGS.iter().filter(|_| !is_kept) {
                match fs::write(path, value) {
                    // A kernel without IPv6.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    written => written.map_err(|error| ("settings", error))?,
                }
            }
            let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
            let socket = socket_with(kind.0, kind.1, kind.2, None);
            Ok((
                socket.map_err(|error| ("socket", error.into()))?,
                own_namespace().map_err(|error| ("namespace", error))?,
            ))
        };
        let (socket, namespace) = entered().map_err(|failed| sentence(&failed))?;
        let mut router = router.map_err(|error| sentence(&("router", error)))?;
        let copy = namespace.try_clone().map_err(|error| sentence(&("namespace", error)))?;
        router.enter(copy).map_err(|error| sentence(&("router", io::Error::other(error))))?;
        let state = State { uplink: None, ways: Vec::new() };
        Ok(Self {
            socket,
            namespace,
            is_kept,
            bridges: BTreeMap::new(),
            state,
            pods: Vec::new(),
            router,
        })
    }

    /// Whether it is that of the spawn before, with what was in it.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// What the next spawn enters.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Knows the ways of these pods (launch id, tenant, way), which are taken over, and removes bridges of others that a
    /// spawn before left.
    pub fn take_over(&mut self, ways: Vec<(String, String, Way)>, uplink: Option<Uplink>) {
        self.state.uplink = uplink;
        for (pod, tenant, way) in ways {
            self.bridges.insert(tenant, way.bridge.clone());
            self.pods.push(pod);
            self.state.ways.push(way);
        }
        if let Err(complaint) = self.router.apply(&self.state, None) {
            log(&format!("pods that were taken over reach nothing: {complaint}"));
        }
        let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        let names =
            text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
        for name in names.filter(|name| name.starts_with(BRIDGE)) {
            if !self.bridges.values().any(|known| known == name) {
                let removed = self.remove(name);
                if let Err(error) = removed {
                    log(&format!("the bridge {name} of an earlier spawn stays: {error}"));
                }
            }
        }
    }

    /// A tap on the bridge of `tenant`, which is made if it is not there, for packets of `network.mtu` bytes, and every
    /// way from it made as `network` says.
    ///
    /// # Errors
    /// `NETWORK_FAILED` with the step's name. The tap is gone then, and the bridge goes when it has no pod.
    pub fn connect(
        &mut self,
        pod: &str,
        tenant: &str,
        network: &Network,
    ) -> Result<(OwnedFd, Way)> {
        let (tap, port, bridge) =
            self.make(tenant, network.mtu).map_err(|failed| refuse(&sentence(&failed)))?;
        let way = self.open(pod, Way { bridge, port, network: network.clone() }, None)?;
        Ok((tap, way))
    }

    /// A card for the pod in the network namespace `namespace`, on the bridge of `tenant`, and every way from it. Spawn
    /// can neither make nor move one under its filter: the router does, `port` being its end's name.
    ///
    /// # Errors
    /// As of [`Self::connect`].
    pub fn connect_namespace(
        &mut self,
        (pod, tenant): (&str, &str),
        network: &Network,
        port: String,
        namespace: BorrowedFd<'_>,
    ) -> Result<Way> {
        let bridge = self.bridge_of(tenant).map_err(|failed| refuse(&sentence(&failed)))?;
        self.open(pod, Way { bridge, port, network: network.clone() }, Some(namespace))
    }

    /// Has the router make everything for one pod more.
    fn open(&mut self, pod: &str, way: Way, namespace: Option<BorrowedFd<'_>>) -> Result<Way> {
        // Whose port had this name is gone, or nobody had given it again.
        if let Some(at) = self.state.ways.iter().position(|known| known.port == way.port) {
            self.state.ways.remove(at);
            self.pods.remove(at);
        }
        self.find_room(&way)?;
        self.pods.push(pod.to_owned());
        self.state.ways.push(way.clone());
        match self.router.apply(&self.state, namespace) {
            Ok(()) => Ok(way),
            Err(complaint) => {
                self.disconnect(pod);
                Err(match complaint.strip_prefix(TAKEN) {
                    Some(sentence) => Refusal::new("PORT_TAKEN", sentence),
                    None => refuse(&sentence(&("ways", io::Error::other(complaint)))),
                })
            }
        }
    }

    /// Each published port is a thread of the router's.
    fn find_room(&self, way: &Way) -> Result<()> {
        let ports = |ways: &mut dyn Iterator<Item = &Way>| -> usize {
            ways.map(|way| way.network.ports.len()).sum()
        };
        let more = way.network.ports.len();
        let all = ports(&mut self.state.ways.iter()).saturating_add(more);
        let of_tenant =
            ports(&mut self.state.ways.iter().filter(|known| known.bridge == way.bridge));
        if more > 0 && (all > PORTS_MAX || of_tenant.saturating_add(more) > PORTS_OF_TENANT_MAX) {
            return Err(refuse(&format!(
                "the host publishes {PORTS_MAX} ports at most, and {PORTS_OF_TENANT_MAX} of a tenant's: publish fewer, or end other pods"
            )));
        }
        Ok(())
    }

    /// Closes every way of a pod that is gone, if it had any.
    pub fn disconnect(&mut self, pod: &str) {
        let Some(at) = self.pods.iter().position(|known| known == pod) else { return };
        self.pods.remove(at);
        self.state.ways.remove(at);
        self.router.update(&self.state);
    }

    /// Something to wait on for [`Self::hear`].
    ///
    /// # Errors
    /// No descriptors left.
    pub fn watched(&self) -> io::Result<OwnedFd> {
        self.router.watched()
    }

    /// The router says something. False when it has ended.
    pub fn hear(&mut self) -> bool {
        self.router.hear(&self.state)
    }

    /// A tap, its name, and the bridge that it is a port of.
    fn make(&mut self, tenant: &str, mtu: u16) -> Step<(OwnedFd, String, String)> {
        let bridge = self.bridge_of(tenant)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tap = rustix::fs::open(TUN, flags, Mode::empty())
            .map_err(|error| ("open /dev/net/tun", error.into()))?;
        let mut wanted = Argument::named(TAP_NAME).with(&TAP_FLAGS.to_ne_bytes());
        request(tap.as_fd(), Request::MakeTap, &mut wanted).map_err(|error| ("tap", error))?;
        let name = wanted.name();
        let mut header = Argument::bytes(&TAP_HEADER_BYTES.to_ne_bytes());
        request(tap.as_fd(), Request::SetHeader, &mut header)
            .map_err(|error| ("frame header", error))?;
        let mut size = Argument::named(&name).with(&u32::from(mtu).to_ne_bytes());
        self.ask(Request::SetMtu, &mut size).map_err(|error| ("packet size", error))?;
        let mut queue = Argument::named(&name).with(&QUEUE_FRAMES.to_ne_bytes());
        self.ask(Request::SetQueue, &mut queue).map_err(|error| ("queue", error))?;
        let mut index = Argument::named(&name);
        self.ask(Request::Index, &mut index).map_err(|error| ("find the tap", error))?;
        let mut port = Argument::named(&bridge).with(&index.value());
        self.ask(Request::AddPort, &mut port).map_err(|error| ("join the bridge", error))?;
        self.set_up(&name, true).map_err(|error| ("tap up", error))?;
        Ok((tap, name, bridge))
    }

    fn bridge_of(&mut self, tenant: &str) -> Step<String> {
        if let Some(name) = self.bridges.get(tenant) {
            return Ok(name.clone());
        }
        let name = bridge_name(tenant);
        // It is there already only if two tenants' names have one digest: they must not meet.
        self.ask(Request::MakeBridge, &mut Argument::named(&name))
            .map_err(|error| ("bridge", error))?;
        self.bridges.insert(tenant.to_owned(), name.clone());
        forget_addresses(self.socket.as_fd(), &name).map_err(|error| ("bridge ageing", error))?;
        self.set_up(&name, true).map_err(|error| ("bridge up", error))?;
        Ok(name)
    }

    /// Removes the bridges of tenants without a pod on a network.
    pub fn sweep(&mut self) {
        let mut bridges = std::mem::take(&mut self.bridges);
        bridges.retain(|tenant, name| {
            if self.state.ways.iter().any(|way| way.bridge == *name) {
                return true;
            }
            let removed = self.remove(name);
            if let Err(error) = &removed {
                log(&format!("the bridge {name} of tenant {tenant} stays: {error}"));
            }
            removed.is_err()
        });
        self.bridges = bridges;
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.set_up(name, false)?;
        self.ask(Request::RemoveBridge, &mut Argument::named(name))
    }

    fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let flags = if up { IFF_UP | IFF_MULTICAST } else { IFF_MULTICAST };
        let mut wanted = Argument::named(name).with(&flags.to_ne_bytes());
        self.ask(Request::SetFlags, &mut wanted)
    }

    fn ask(&self, what: Request, argument: &mut Argument) -> io::Result<()> {
        let socket: BorrowedFd<'_> = self.socket.as_fd();
        request(socket, what, argument)
    }
}

impl Daemon {
    /// A tap and its way for a spec with a network.
    pub(crate) fn connect(&mut self, spec: &Spec) -> Result<Option<(OwnedFd, Way)>> {
        let Some(network) = &spec.network else { return Ok(None) };
        let networks = self.networks.as_mut().map_err(|sentence| refuse(sentence))?;
        networks.connect(&spec.launch_id, &spec.tenant, network).map(Some)
    }

    /// A pod is gone.
    pub(crate) fn disconnect(&mut self, identity: Option<&Identity>) {
        if let Some(identity) = identity {
            self.leave_network(&identity.pod);
        }
    }

    /// The same, by its launch id.
    pub(crate) fn leave_network(&mut self, pod: &str) {
        if let Ok(networks) = &mut self.networks {
            networks.disconnect(pod);
        }
    }

    /// The router said something, or has ended. Spawn cannot start another one under its filter: it leaves its pods to a
    /// spawn that can, where somebody keeps them. Without it rules stay as they are, and no pod gets a network.
    pub(crate) fn router_event(&mut self) {
        let Ok(networks) = &mut self.networks else { return };
        if networks.hear() {
            return;
        }
        self.router = None;
        log("the router ended");
        if self.store.is_some() && self.stopping.is_none() {
            self.hand_over();
        }
    }
}

/// The network that this process is in.
///
/// # Errors
/// No /proc.
pub fn own_namespace() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())?)
}

/// Enters a network namespace: another one than this, which is the host's.
fn join(namespace: &OwnedFd) -> io::Result<()> {
    let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|facts| (facts.st_dev, facts.st_ino));
    if number(namespace)? == number(&own_namespace()?)? {
        return Err(io::Error::other("it is the host's"));
    }
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Refuses what needs a network on a host without.
pub fn refuse(sentence: &str) -> Refusal {
    Refusal::new("NETWORK_FAILED", sentence)
}

fn sentence((step, error): &(&'static str, io::Error)) -> String {
    format!("the pod's network could not be made, step \"{step}\": {error}")
}

/// `cmb` and 60 bits of the name's digest: the same for every spawn, and of 15 bytes whatever the tenant is called.
fn bridge_name(tenant: &str) -> String {
    let digest = Digest::of(tenant.as_bytes()).0;
    let mut bits = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut name = String::from(BRIDGE);
    for _ in 0..NAME_DIGITS {
        let digit = usize::try_from(bits & 31).ok().and_then(|at| DIGITS.get(at));
        name.push(digit.copied().map_or('0', char::from));
        bits >>= 5;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::bridge_name;

    #[test]
    fn names_of_bridges_fit_and_differ() {
        let longest = "a".repeat(63);
        for tenant in ["a", "acme", "acme-2", &longest] {
            let name = bridge_name(tenant);
            assert_eq!(name.len(), 15);
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        }
        // From `printf acme | sha256sum`: a later spawn has to find the same.
        assert_eq!(bridge_name("acme"), "cmb05i2s3mljpa4");
        assert_ne!(bridge_name("acme"), bridge_name("acme-2"));
    }
}
