//! Published ports: a socket of the host's network for each, and a relay whose other ends are made in the pods' network. No
//! packet is passed on and no address translated: what the host's own firewall says of its ports holds, loopback is
//! loopback, a port that somebody has is refused by the kernel, and a pod needs no way out for it.
//!
//! A relay is a thread that lives in the pods' network, without capabilities (served.rs); it looks at no byte of what it
//! passes. Its pod sees the gateway as the client.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use casemate_ticket::published::Published;
use casemate_ticket::ways::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::served::{Served, Tenants};
use super::state::State;
use super::{datagrams, streams};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 512;
/// Of each direction of a socket; the kernel doubles it for its own needs.
const BUFFER_BYTES: usize = 128 << 10;

/// How answers begin that name a port that somebody has.
pub const TAKEN: &str = "PORT_TAKEN ";

/// A port, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    pub port: Published,
    /// The pod is reached by its first address, whatever the client's version is.
    pub pod: IpAddr,
    /// Of the pod's tenant.
    pub bridge: String,
}

/// All that are served.
#[derive(Debug, Default)]
pub struct Doors {
    served: BTreeMap<Door, Served>,
    tenants: Tenants,
}

impl Doors {
    /// Doors that are wanted and not there; a port whose pod has changed is not wanted as it was.
    pub fn missing(&self, state: &State) -> Vec<Door> {
        wanted(state).into_iter().filter(|door| !self.served.contains_key(door)).collect()
    }

    /// Closes what is not wanted any more, with every connection through it.
    pub fn close_others(&mut self, state: &State) {
        let wanted = wanted(state);
        // All hear of it before the first is waited for.
        for (door, served) in &mut self.served {
            if !wanted.contains(door) {
                served.end();
            }
        }
        self.served.retain(|door, _| wanted.contains(door));
    }

    /// Serves these, whose sockets are open.
    ///
    /// # Errors
    /// No thread; then none of them is.
    pub fn open(&mut self, doors: Vec<(Door, OwnedFd)>) -> io::Result<()> {
        let mut opened = Vec::new();
        for (door, socket) in doors {
            let place = SocketAddr::new(door.pod, door.port.pod);
            let places = self.tenants.places(&door.bridge);
            let served = match door.port.protocol {
                Protocol::Tcp => streams::open(socket, place, places)?,
                Protocol::Udp => datagrams::open(socket, place, places)?,
            };
            opened.push((door, served));
        }
        self.served.extend(opened);
        Ok(())
    }
}

/// Every door of a state.
pub fn wanted(state: &State) -> Vec<Door> {
    let of_way = |way: &super::state::Way| {
        let pod = way.network.addresses.first().map(|address| address.ip);
        let (ports, bridge) = (way.network.ports.clone(), way.bridge.clone());
        let door = move |pod| {
            let bridge = bridge.clone();
            ports.clone().into_iter().map(move |port| Door { port, pod, bridge: bridge.clone() })
        };
        pod.into_iter().flat_map(door)
    };
    state.ways.iter().flat_map(of_way).collect()
}

/// What the kernel holds for a connection is the host's memory; what is accepted has the listener's.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn bound_buffers(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_recv_buffer_size(socket, BUFFER_BYTES)?;
    sockopt::set_socket_send_buffer_size(socket, BUFFER_BYTES)
}

/// A socket that hears, of the calling thread's network.
///
/// # Errors
/// [`TAKEN`] and a sentence, or another sentence.
pub fn listening(port: &Published) -> Result<OwnedFd, String> {
    let place = SocketAddr::new(port.address, port.host);
    let open = || -> rustix::io::Result<OwnedFd> {
        let family = if place.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = match port.protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if place.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        // Two sockets with it may share a UDP port, and nobody would hear of it.
        sockopt::set_socket_reuseaddr(&socket, port.protocol == Protocol::Tcp)?;
        bind(&socket, &place)?;
        if port.protocol == Protocol::Tcp {
            bound_buffers(&socket)?;
            listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    };
    open().map_err(|errno| match errno {
        Errno::ADDRINUSE => {
            format!(
                "{TAKEN}{} port {} of {} is in use on this host: take another one",
                port.protocol.as_str(),
                port.host,
                port.address
            )
        }
        errno => format!("the host cannot listen at {place}: {errno}"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "doors_tests.rs"]
mod tests;
