//! Published TCP ports: what a client and its pod say to each other is passed on, and so are their ends.
//!
//! One thread for each port, edge-triggered: what may be read or written is remembered, and every connection has its turn
//! for a few pieces. Of a connection that waits nothing is held but what one end has said and the other has not taken.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, connect, recv, send,
    shutdown, socket_with, sockopt,
};

use super::doors::bound_buffers;
use super::served::{OF_A_PORT_MAX, Place, Places, Served};
use crate::poller::{Interest, Poller, Watched};

/// How long a pod may take to accept a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long nobody is accepted where there are no descriptors left.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(100);
/// Accepted, and passed on in one direction, before others have their turn.
const BATCH: usize = 16;
const PIECE_BYTES: usize = 16 << 10;
/// Connections that have their turn before it is looked at who else wants something.
const TURNS_MAX: usize = 64;

const CLIENT: usize = 0;
const POD: usize = 1;

/// Serves connections to `listener` with the pod at `pod`.
///
/// # Errors
/// As of [`Served::start`].
pub fn open(listener: OwnedFd, pod: SocketAddr, places: Places) -> io::Result<Served> {
    Served::start(move |ended| Relay::new(listener, pod, places, ended), Relay::serve)
}

#[derive(Clone, Copy, Debug)]
enum Source {
    End,
    Listener,
    /// A connection, and which end of it.
    Side(u64, usize),
}

/// One end.
struct Side {
    socket: Watched<Source>,
    readable: bool,
    writable: bool,
    said: Said,
    /// What the other has said and it has not taken.
    pending: Vec<u8>,
}

/// What an end has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    More,
    All,
    /// And the other end knows.
    PassedOn,
}

struct Connection {
    sides: [Side; 2],
    is_connected: bool,
    /// It is in the queue of those that can go on.
    is_queued: bool,
    /// When something was last passed on.
    moved: Instant,
    _place: Place,
}

/// What became of a turn.
enum Turn {
    Waits,
    CanGoOn,
    Ended,
}

struct Relay {
    listener: TcpListener,
    pod: SocketAddr,
    places: Places,
    poller: Poller<Source>,
    /// Of the listener, and of the end.
    watched: [Watched<Source>; 2],
    connections: BTreeMap<u64, Connection>,
    next: u64,
    ready: VecDeque<u64>,
    /// Those whose pod was called, by when it has to have answered.
    called: VecDeque<(Instant, u64)>,
    /// There were no descriptors left; the listener is not watched until then.
    exhausted: Option<Instant>,
    piece: Vec<u8>,
}

impl Relay {
    fn new(listener: OwnedFd, pod: SocketAddr, places: Places, ended: OwnedFd) -> io::Result<Self> {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        let heard = poller.watch(listener.try_clone()?.into(), Interest::IN, Source::Listener)?;
        let ended = poller.watch(ended, Interest::IN, Source::End)?;
        Ok(Self {
            listener,
            pod,
            places,
            poller,
            watched: [heard, ended],
            connections: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            called: VecDeque::new(),
            exhausted: None,
            piece: vec![0; PIECE_BYTES],
        })
    }

    /// Until the other end of the pipe is closed.
    fn serve(mut self) {
        loop {
            let Ok(events) = self.poller.wait(self.deadline()) else { return };
            for (source, flags) in events {
                match source {
                    Source::End => return,
                    Source::Listener => self.accept(),
                    Source::Side(id, side) => self.note(id, side, flags),
                }
            }
            self.look(Instant::now());
            for _ in 0..self.ready.len().min(TURNS_MAX) {
                if let Some(id) = self.ready.pop_front() {
                    self.turn(id);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(Instant::now());
        }
        let called = self.called.front().map(|(at, _)| *at);
        [called, self.exhausted].into_iter().flatten().min()
    }

    /// What is due: pods that did not answer, and another try to accept.
    fn look(&mut self, now: Instant) {
        while let Some((_, id)) = self.called.pop_front_if(|(at, _)| *at <= now) {
            if self.connections.get(&id).is_some_and(|connection| !connection.is_connected) {
                self.connections.remove(&id);
            }
        }
        if self.exhausted.is_some_and(|at| at <= now) {
            self.exhausted = None;
            let [listener, _] = &self.watched;
            let _ = listener.change(Interest::IN);
        }
    }

    fn accept(&mut self) {
        for _ in 0..BATCH {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        let [listener, _] = &self.watched;
                        let _ = listener.change(Interest::empty());
                        self.exhausted = Instant::now().checked_add(EXHAUSTED_WAIT);
                        return;
                    }
                    Some(Errno::AGAIN) => return,
                    _ => continue,
                },
            };
            // Closed where there is no place for it: whoever comes beyond the limit is told so by that.
            if let Some(place) = self.place() {
                let _ = self.begin(client.into(), place);
            }
        }
    }

    /// For one more. Where there is none, the connection of this port that has passed nothing on for longest gives way, as
    /// those of the API's listener do: who opens connections and says nothing keeps nobody out.
    fn place(&mut self) -> Option<Place> {
        let free = |connections: &BTreeMap<u64, Connection>, places: &Places| {
            (connections.len() < OF_A_PORT_MAX).then(|| places.take()).flatten()
        };
        free(&self.connections, &self.places).or_else(|| {
            let (id, _) = self.connections.iter().min_by_key(|(_, connection)| connection.moved)?;
            let id = *id;
            self.connections.remove(&id);
            free(&self.connections, &self.places)
        })
    }

    fn begin(&mut self, client: OwnedFd, place: Place) -> io::Result<()> {
        let family = if self.pod.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pod = socket_with(family, SocketType::STREAM, flags, None)?;
        rustix::io::ioctl_fionbio(&client, true)?;
        for socket in [&client, &pod] {
            sockopt::set_tcp_nodelay(socket, true)?;
            // An end that is gone without a word is noticed some time.
            sockopt::set_socket_keepalive(socket, true)?;
        }
        bound_buffers(&pod)?;
        match connect(&pod, &self.pod) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        let sides = [self.side(client, id, CLIENT)?, self.side(pod, id, POD)?];
        let (is_connected, is_queued, moved) = (false, false, Instant::now());
        let connection = Connection { sides, is_connected, is_queued, moved, _place: place };
        self.connections.insert(id, connection);
        if let Some(at) = Instant::now().checked_add(CONNECT_WAIT) {
            self.called.push_back((at, id));
        }
        Ok(())
    }

    fn side(&self, socket: OwnedFd, id: u64, which: usize) -> io::Result<Side> {
        let interest = Interest::IN | Interest::OUT | Interest::RDHUP | Interest::ET;
        let socket = self.poller.watch(socket, interest, Source::Side(id, which))?;
        let (said, pending) = (Said::More, Vec::new());
        Ok(Side { socket, readable: false, writable: false, said, pending })
    }

    fn note(&mut self, id: u64, which: usize, flags: Interest) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(side) = connection.sides.get_mut(which) else { return };
        // After a hang-up both say at once what there is to say.
        let gone = flags.intersects(Interest::HUP | Interest::ERR);
        side.readable |= gone || flags.intersects(Interest::IN | Interest::RDHUP);
        side.writable |= gone || flags.contains(Interest::OUT);
        if which == POD && side.writable && !connection.is_connected {
            if sockopt::socket_error(&side.socket) != Ok(Ok(())) {
                self.connections.remove(&id);
                return;
            }
            connection.is_connected = true;
        }
        if connection.is_connected && !connection.is_queued {
            connection.is_queued = true;
            self.ready.push_back(id);
        }
    }

    fn turn(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_queued = false;
        match connection.turn(&mut self.piece) {
            Turn::Waits => {}
            Turn::CanGoOn => {
                connection.is_queued = true;
                self.ready.push_back(id);
            }
            Turn::Ended => drop(self.connections.remove(&id)),
        }
    }
}

impl Connection {
    /// Both directions, as far as they go.
    fn turn(&mut self, piece: &mut [u8]) -> Turn {
        self.moved = Instant::now();
        let [client, pod] = &mut self.sides;
        let turns = [pass(client, pod, piece), pass(pod, client, piece)];
        let mut can_go_on = false;
        for turn in turns {
            match turn {
                Ok(more) => can_go_on |= more,
                Err(_) => return Turn::Ended,
            }
        }
        match &self.sides {
            sides if sides.iter().all(|side| side.said == Said::PassedOn) => Turn::Ended,
            _ if can_go_on => Turn::CanGoOn,
            _ => Turn::Waits,
        }
    }
}

/// One direction. Whether there is more to do at once; an error ends both.
fn pass(from: &mut Side, to: &mut Side, piece: &mut [u8]) -> rustix::io::Result<bool> {
    for _ in 0..BATCH {
        if !to.pending.is_empty() {
            if !to.writable {
                return Ok(false);
            }
            let pending = std::mem::take(&mut to.pending);
            to.write(&pending)?;
        } else if from.said == Said::All {
            from.said = Said::PassedOn;
            shutdown(&to.socket, Shutdown::Write)?;
            return Ok(false);
        } else if from.said == Said::More && from.readable {
            match recv(from.socket.as_fd(), &mut *piece, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => from.said = Said::All,
                Ok((_, count)) => to.write(piece.get(..count).unwrap_or_default())?,
                Err(Errno::AGAIN) => from.readable = false,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        } else {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Side {
    /// Writes what it takes at once and keeps the rest.
    fn write(&mut self, bytes: &[u8]) -> rustix::io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let count = match send(self.socket.as_fd(), bytes, flags) {
            Ok(count) => count,
            Err(Errno::AGAIN) => {
                self.writable = false;
                0
            }
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno),
        };
        self.pending = bytes.get(count..).unwrap_or_default().to_vec();
        Ok(())
    }
}
