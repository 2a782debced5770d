//! Published UDP ports: a socket of the host's network that hears clients, and one of the pods' network for each client,
//! which hears what the pod answers to it. UDP has no connections: a client is forgotten after a while without a word, as
//! the kernel's own tracking of connections does it.
//!
//! What a socket does not take at once is lost, as datagrams are. Nobody's sending can hold up another port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::served::{OF_A_PORT_MAX, Place, Places, Served};
use crate::poller::{Interest, Poller, Watched};

/// How long a client is remembered without a word; longer once the pod has answered (`nf_conntrack_udp_timeout` and
/// `nf_conntrack_udp_timeout_stream` of the kernel).
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_secs(5);
/// Taken from one socket before others have their turn.
const BATCH: usize = 32;
/// More than a datagram can be.
const DATAGRAM_BYTES: usize = 1 << 16;

/// Serves what `socket` hears with the pod at `pod`.
///
/// # Errors
/// As of [`Served::start`].
pub fn open(socket: OwnedFd, pod: SocketAddr, places: Places) -> io::Result<Served> {
    let front = UdpSocket::from(socket);
    front.set_nonblocking(true)?;
    Served::start(move |ended| Relay::new(front, pod, places, ended), Relay::serve)
}

#[derive(Clone, Copy, Debug)]
enum Source {
    End,
    Front,
    Session(u64),
}

/// A client, and the socket that speaks for it.
struct Session {
    client: SocketAddr,
    socket: Watched<Source>,
    last: Instant,
    is_answered: bool,
    /// It has heard an answer: it spoke again after one.
    is_known: bool,
    _place: Place,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        let patience = if self.is_answered { ANSWERED } else { UNANSWERED };
        now.saturating_duration_since(self.last) >= patience
    }
}

struct Relay {
    front: UdpSocket,
    pod: SocketAddr,
    places: Places,
    poller: Poller<Source>,
    sessions: BTreeMap<u64, Session>,
    by_client: BTreeMap<SocketAddr, u64>,
    next: u64,
    swept: Instant,
    buffer: Vec<u8>,
    _watched: [Watched<Source>; 2],
}

impl Relay {
    fn new(front: UdpSocket, pod: SocketAddr, places: Places, ended: OwnedFd) -> io::Result<Self> {
        let poller = Poller::new()?;
        let heard = poller.watch(front.try_clone()?.into(), Interest::IN, Source::Front)?;
        let ended = poller.watch(ended, Interest::IN, Source::End)?;
        Ok(Self {
            front,
            pod,
            places,
            poller,
            sessions: BTreeMap::new(),
            by_client: BTreeMap::new(),
            next: 0,
            swept: Instant::now(),
            buffer: vec![0; DATAGRAM_BYTES],
            _watched: [heard, ended],
        })
    }

    /// Until the other end of the pipe is closed.
    fn serve(mut self) {
        loop {
            let look = self.swept.checked_add(LOOK).filter(|_| !self.sessions.is_empty());
            let Ok(events) = self.poller.wait(look) else { return };
            for (source, _) in events {
                match source {
                    Source::End => return,
                    Source::Front => self.hear_clients(),
                    Source::Session(id) => self.hear_pod(id),
                }
            }
            let now = Instant::now();
            if now.saturating_duration_since(self.swept) >= LOOK {
                self.sweep(now);
            }
        }
    }

    fn hear_clients(&mut self) {
        for _ in 0..BATCH {
            let (count, client) = match self.front.recv_from(&mut self.buffer) {
                Ok(heard) => heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let Some(id) = self.session_of(client) else { continue };
            let (Some(session), Some(bytes)) =
                (self.sessions.get_mut(&id), self.buffer.get(..count))
            else {
                continue;
            };
            session.last = Instant::now();
            session.is_known |= session.is_answered;
            // A first error may be what became of the datagram before.
            if send(&session.socket, bytes, SendFlags::DONTWAIT).is_err() {
                let _ = send(&session.socket, bytes, SendFlags::DONTWAIT);
            }
        }
    }

    fn hear_pod(&mut self, id: u64) {
        for _ in 0..BATCH {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            // An error is that there is nothing, or that nobody serves the pod's port.
            let Ok((_, count)) = recv(&session.socket, &mut self.buffer[..], RecvFlags::DONTWAIT)
            else {
                return;
            };
            session.is_answered = true;
            session.last = Instant::now();
            if let Some(bytes) = self.buffer.get(..count) {
                let _ = self.front.send_to(bytes, session.client);
            }
        }
    }

    /// The one of this client, or a new one; none where there is no room.
    fn session_of(&mut self, client: SocketAddr) -> Option<u64> {
        if let Some(id) = self.by_client.get(&client) {
            return Some(*id);
        }
        if self.sessions.len() >= OF_A_PORT_MAX {
            self.make_room()?;
        }
        let place = self.places.take().or_else(|| {
            self.make_room()?;
            self.places.take()
        })?;
        self.begin(client, place).ok()
    }

    fn begin(&mut self, client: SocketAddr, place: Place) -> io::Result<u64> {
        let any = if self.pod.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(self.pod)?;
        let id = self.next;
        self.next = id.wrapping_add(1);
        let socket = self.poller.watch(socket.into(), Interest::IN, Source::Session(id))?;
        let last = Instant::now();
        self.sessions.insert(
            id,
            Session { client, socket, last, is_answered: false, is_known: false, _place: place },
        );
        self.by_client.insert(client, id);
        Ok(id)
    }

    /// Who has never spoken after an answer gives way to who comes, and then who was silent longest: addresses that somebody
    /// made up keep nobody out, and clients that go on for long lose their place last.
    fn make_room(&mut self) -> Option<()> {
        let rank = |session: &Session| (session.is_known, session.last);
        let (id, _) = self.sessions.iter().min_by_key(|(_, session)| rank(session))?;
        let id = *id;
        self.forget(id);
        Some(())
    }

    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        let over = self.sessions.iter().filter(|(_, session)| session.is_over(now));
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_client.remove(&session.client);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "datagrams_tests.rs"]
mod tests;
