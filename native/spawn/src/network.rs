//! The pods' networks: one bridge for each tenant that has pods, and one tap for each pod, in a network namespace in
//! which nothing else is.
//!
//! The namespace is spawn's own, entered before anything else is done. No interface leads out of it, no interface in it
//! has an address, and it forwards nothing: between a bridge and the host, another bridge or the world there is no path
//! that a rule would have to close. The host's interfaces, routes and rules of its firewall are never touched, and
//! emptying the host's rules opens nothing here.
//!
//! What a frame may say is the VMM's to judge (`casemate_devices::Network`). A VMM that was taken over can say what it
//! likes to the other pods of its own tenant, and to nobody else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::bytes::Digest;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::daemon::log;
use crate::network_unsafe::{Argument, Request, leave_network, request};
use crate::refusal::{Refusal, Result};

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
/// Digits of a name of 15 bytes, the most that an interface has, behind `cmb`.
const NAME_DIGITS: usize = 12;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// Settings of the namespace: nothing is passed on, no interface gives itself an address, and no bridge says by itself
/// which groups it listens to.
const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/ip_forward", "0"),
    ("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", "0"),
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// What spawn holds of the networks.
#[derive(Debug)]
pub struct Networks {
    /// Any socket of the namespace: interfaces are changed through one.
    socket: OwnedFd,
    /// Names of bridges, by tenant.
    bridges: BTreeMap<String, String>,
}

/// The step that failed, and how.
type Step<T> = std::result::Result<T, (&'static str, io::Error)>;

impl Networks {
    /// Leaves the host's network for one of this process's own. Called before the filter of system calls, which permits
    /// that no more.
    ///
    /// # Errors
    /// A sentence; pods without a network can be launched all the same.
    pub fn enter() -> std::result::Result<Self, String> {
        let entered = || -> Step<OwnedFd> {
            leave_network().map_err(|error| ("namespace", error))?;
            for (path, value) in SETTINGS {
                match fs::write(path, value) {
                    // A kernel without IPv6.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    written => written.map_err(|error| ("settings", error))?,
                }
            }
            let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
            socket_with(kind.0, kind.1, kind.2, None).map_err(|error| ("socket", error.into()))
        };
        let socket = entered().map_err(|failed| sentence(&failed))?;
        Ok(Self { socket, bridges: BTreeMap::new() })
    }

    /// A tap on the bridge of `tenant`, which is made if it is not there, for packets of `mtu` bytes.
    ///
    /// # Errors
    /// `NETWORK_FAILED` with the step's name. The tap is gone then, and the bridge goes when it has no pod.
    pub fn connect(&mut self, tenant: &str, mtu: u16) -> Result<OwnedFd> {
        self.make(tenant, mtu).map_err(|failed| refuse(&sentence(&failed)))
    }

    fn make(&mut self, tenant: &str, mtu: u16) -> Step<OwnedFd> {
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
        Ok(tap)
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
        self.set_up(&name, true).map_err(|error| ("bridge up", error))?;
        Ok(name)
    }

    /// Removes the bridges of tenants without a pod on a network.
    pub fn sweep(&mut self, has_pod: impl Fn(&str) -> bool) {
        let mut bridges = std::mem::take(&mut self.bridges);
        bridges.retain(|tenant, name| {
            if has_pod(tenant) {
                return true;
            }
            let removed = self
                .set_up(name, false)
                .and_then(|()| self.ask(Request::RemoveBridge, &mut Argument::named(name)));
            if let Err(error) = &removed {
                log(&format!("the bridge {name} of tenant {tenant} stays: {error}"));
            }
            removed.is_err()
        });
        self.bridges = bridges;
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
    let mut name = String::from("cmb");
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
