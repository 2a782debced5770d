//! Published TCP ports, and the list of all: a listening socket of the host's network for each, and a relay for each connection, whose other end is
//! made in the pods' network. No packet is passed on and no address translated: what the host's own firewall says of its
//! ports holds, loopback is loopback, a port that somebody has is refused by the kernel, and a pod needs no way out for it.
//!
//! A door belongs to the thread that listens, in the pods' network, without any privilege; it reads no byte of what it
//! passes. Its pod sees the gateway as the client. UDP is in datagrams.rs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use casemate_ticket::published::Published;
use casemate_ticket::ways::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::datagrams::Datagrams;
use super::state::State;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 512;
/// Connections of one port, and of all: two threads each.
const CONNECTIONS_MAX: usize = 256;
const CONNECTIONS_OF_ALL_MAX: usize = 1024;
/// How long a pod may take to accept one.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 128 << 10;
const CHUNK_BYTES: usize = 32 << 10;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How answers begin that name a port that somebody has.
pub const TAKEN: &str = "PORT_TAKEN ";

/// The connections through one door.
#[derive(Debug, Default)]
struct Connections {
    /// The door is closed: none begins any more.
    closed: bool,
    /// Both ends of each, by number, so that they can be ended.
    ends: BTreeMap<usize, (TcpStream, TcpStream)>,
}

type Live = Arc<Mutex<Connections>>;

/// A port that is served until this is dropped.
#[derive(Debug)]
struct Door {
    listener: Arc<TcpListener>,
    live: Live,
}

/// Either kind.
#[derive(Debug)]
enum Served {
    Tcp(#[allow(dead_code, reason = "serves until it is dropped")] Door),
    Udp(#[allow(dead_code, reason = "serves until it is dropped")] Datagrams),
}

/// All of them, by place and where they lead.
#[derive(Debug, Default)]
pub struct Doors(BTreeMap<(Published, IpAddr), Served>);

impl Doors {
    /// Doors that are wanted and not there; a port whose pod has changed is not wanted as it was.
    pub fn missing(&self, state: &State) -> Vec<(Published, IpAddr)> {
        wanted(state).into_iter().filter(|door| !self.0.contains_key(door)).collect()
    }

    /// Closes what is not wanted any more, with every connection through it.
    pub fn close_others(&mut self, state: &State) {
        let wanted = wanted(state);
        self.0.retain(|door, _| wanted.contains(door));
    }

    /// Serves these, whose sockets are open.
    ///
    /// # Errors
    /// No thread; then none of them is.
    pub fn open(&mut self, doors: Vec<((Published, IpAddr), OwnedFd)>) -> io::Result<()> {
        let mut opened = Vec::new();
        for ((port, pod), socket) in doors {
            let place = SocketAddr::new(pod, port.pod);
            let door = match port.protocol {
                Protocol::Tcp => Served::Tcp(Door::open(socket, place)?),
                Protocol::Udp => Served::Udp(Datagrams::open(socket, place)?),
            };
            opened.push(((port, pod), door));
        }
        self.0.extend(opened);
        Ok(())
    }
}

/// Every door of a state.
pub fn wanted(state: &State) -> Vec<(Published, IpAddr)> {
    let of_way = |way: &super::state::Way| {
        let addresses = &way.network.addresses;
        // The pod is reached by its first address, whatever the client's version is.
        let pod = addresses.first().map(|address| address.ip);
        let ports = way.network.ports.clone();
        pod.into_iter().flat_map(move |pod| ports.clone().into_iter().map(move |port| (port, pod)))
    };
    state.ways.iter().flat_map(of_way).collect()
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

impl Door {
    fn open(socket: OwnedFd, pod: SocketAddr) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::from(socket));
        let live = Live::default();
        let (listening, serving) = (Arc::clone(&listener), Arc::clone(&live));
        let serve = move || {
            if drop_capabilities().is_ok() {
                accept_all(&listening, pod, &serving);
            }
        };
        Builder::new().name("door".into()).stack_size(STACK_BYTES).spawn(serve)?;
        Ok(Self { listener, live })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Ends accept(2), which closing does not.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.closed = true;
        for (client, pod) in live.ends.values() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = pod.shutdown(Shutdown::Both);
        }
    }
}

/// Of the calling thread: all. The list of calls that are never done comes with the thread that made this one.
pub fn drop_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn accept_all(listener: &TcpListener, pod: SocketAddr, live: &Live) {
    let mut number: usize = 0;
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            // The door was closed.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(_) => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        number = number.wrapping_add(1);
        let count = live.lock().unwrap_or_else(PoisonError::into_inner).ends.len();
        if count >= CONNECTIONS_MAX || OPEN.load(Ordering::Relaxed) >= CONNECTIONS_OF_ALL_MAX {
            // Closed: whoever comes beyond the limit is told so by that.
            continue;
        }
        let (live, id) = (Arc::clone(live), number);
        OPEN.fetch_add(1, Ordering::Relaxed);
        let relay = move || {
            let _ = relay(client, pod, &live, id);
            live.lock().unwrap_or_else(PoisonError::into_inner).ends.remove(&id);
            OPEN.fetch_sub(1, Ordering::Relaxed);
        };
        let started = Builder::new().name("relay".into()).stack_size(STACK_BYTES).spawn(relay);
        if started.is_err() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Passes bytes on in both directions until both have ended.
fn relay(client: TcpStream, pod: SocketAddr, live: &Live, id: usize) -> io::Result<()> {
    let pod = TcpStream::connect_timeout(&pod, CONNECT_WAIT)?;
    for stream in [&client, &pod] {
        stream.set_nodelay(true)?;
        // An end that is gone without a word is noticed some time.
        sockopt::set_socket_keepalive(stream, true)?;
    }
    let ends = (client.try_clone()?, pod.try_clone()?);
    {
        let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed while the pod was called: its address may be another pod's by now.
        if live.closed {
            return Ok(());
        }
        live.ends.insert(id, ends);
    }
    let (from_pod, to_client) = (pod.try_clone()?, client.try_clone()?);
    let back = move || pass(from_pod, to_client);
    let back = Builder::new().name("relay".into()).stack_size(STACK_BYTES).spawn(back)?;
    pass(client, pod);
    let _ = back.join();
    Ok(())
}

/// One direction. What one end says last, its end of sending included, the other hears.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        if to.write_all(bytes).is_err() {
            let _ = from.shutdown(Shutdown::Read);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "doors_tests.rs"]
mod tests;
