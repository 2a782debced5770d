//! Connections: who may ask, and from request to answer.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use casemate_ticket::json::{self, Value};
use rustix::net::SocketFlags;

use crate::answers;
use crate::connection::{Incoming, Outgoing, Read, client_deadline, send};
use crate::daemon::{Daemon, Source, log};
use crate::poller::{Interest, Watched};
use crate::refusal::{Refusal, Result};
use crate::request::Request;
use crate::store::{LISTENER, Store};

/// Most connections at a time: workers and launches under way included.
const CLIENTS_MAX: usize = 128;
/// Connections accepted before others get their turn.
const ACCEPTS_AT_ONCE: usize = 16;

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: Watched<Source>,
    incoming: Option<Incoming>,
    out: Outgoing,
    /// By when the client must have sent its request, or taken the answer.
    pub deadline: Option<Instant>,
    closing: bool,
    /// The worker that lives as long as this connection.
    pub worker: Option<u64>,
}

/// An answer and the descriptors that ride on it.
#[derive(Debug)]
pub struct Answer {
    members: Vec<(String, Value)>,
    descriptors: Vec<OwnedFd>,
}

impl Answer {
    /// `{"ok":true,...}`.
    pub fn new(members: Vec<(&str, Value)>) -> Self {
        let members = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { members, descriptors: Vec::new() }
    }

    /// With a descriptor.
    pub fn with(mut self, descriptor: OwnedFd) -> Self {
        self.descriptors.push(descriptor);
        self
    }
}

/// The listening socket: root and the agent's group may connect. `kept` is that of the spawn before, on which clients may
/// wait; a fresh one is given to the store, so that who asks while there is no spawn is answered by the next.
///
/// # Errors
/// When the path cannot be taken.
pub fn listen(
    run_dir: &Path,
    agent_gid: u32,
    kept: Option<OwnedFd>,
    store: Option<&Store>,
) -> io::Result<OwnedFd> {
    let path = run_dir.join("spawn.sock");
    let is_kept = kept.is_some();
    let listener = match kept {
        Some(kept) => UnixListener::from(kept),
        None => bind(&path)?,
    };
    listener.set_nonblocking(true)?;
    chown(&path, Some(0), Some(agent_gid))?;
    fs::set_permissions(&path, Permissions::from_mode(0o660))?;
    if let (Some(store), false) = (store, is_kept) {
        store.replace(LISTENER, listener.as_fd())?;
    }
    Ok(listener.into())
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The umask of spawn keeps everybody else out until owner and mode are set.
    UnixListener::bind(path)
}

impl Daemon {
    /// Takes new connections.
    pub(crate) fn accept(&mut self) {
        for _ in 0..ACCEPTS_AT_ONCE {
            let Some(listener) = &self.listener else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(listener, flags) {
                Ok(socket) => self.admit(socket),
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let refusal = match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.as_raw() == 0 || peer.uid.as_raw() == self.config.agent.0 => None,
            Ok(peer) => {
                let message = format!("user {} is not the agent", peer.uid.as_raw());
                Some(Refusal::new("PEER_NOT_ALLOWED", message))
            }
            Err(_) => Some(Refusal::new("PEER_NOT_ALLOWED", "the peer has no credentials")),
        };
        let busy = || Refusal::new("SPAWN_BUSY", "too many connections; close some and ask again");
        let refusal = refusal.or_else(|| (self.clients.len() >= CLIENTS_MAX).then(busy));
        if let Some(refusal) = refusal {
            let mut out = Outgoing::default();
            out.push(&json::write(&refused(&refusal)), vec![]);
            let _ = out.send(socket.as_fd());
            return;
        }
        let id = self.fresh_id();
        match self.poller.watch(socket, Interest::IN, Source::Client(id)) {
            Ok(socket) => {
                let client = Client {
                    socket,
                    incoming: Some(Incoming::default()),
                    out: Outgoing::default(),
                    deadline: client_deadline(),
                    closing: false,
                    worker: None,
                };
                self.clients.insert(id, client);
            }
            Err(error) => log(&format!("a connection could not be watched: {error}")),
        }
    }

    /// Something happened on a connection.
    pub(crate) fn client_event(&mut self, id: u64, flags: Interest) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Some(incoming) = &mut client.incoming {
            match incoming.read(client.socket.as_fd()) {
                Read::More => {}
                Read::Gone => self.drop_client(id),
                Read::Refused(refusal) => self.answer(id, Err(refusal)),
                Read::Request(bytes, descriptors) => self.take_request(id, &bytes, descriptors),
            }
        } else if flags.intersects(Interest::HUP | Interest::ERR) {
            self.drop_client(id);
        } else {
            self.flush(id);
        }
    }

    fn take_request(&mut self, id: u64, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.incoming = None;
            client.deadline = None;
            // Hang-ups are reported without being asked for.
            let _ = client.socket.change(Interest::empty());
        }
        match Request::parse(bytes).and_then(|request| self.serve(id, request, descriptors)) {
            Ok(Some(answer)) => self.answer(id, Ok(answer)),
            // Answered when it is done.
            Ok(None) => {}
            Err(refusal) => self.answer(id, Err(refusal)),
        }
    }

    fn serve(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) -> Result<Option<Answer>> {
        let takes_descriptors = matches!(request, Request::Launch(_) | Request::Worker { .. });
        if !fds.is_empty() && !takes_descriptors {
            let message = format!("{} descriptors came with a request that takes none", fds.len());
            return Err(Refusal::new("REQUEST_DESCRIPTORS", message));
        }
        match request {
            Request::Describe => Ok(Some(answers::describe(self))),
            Request::List => Ok(Some(answers::list(self))),
            Request::Launch(launch) => self.launch(id, &launch, fds).map(|()| None),
            Request::Template { vcpus, memory_mib } => self.template(id, (vcpus, memory_mib)),
            Request::Kill(pod) => self.kill_pod(&pod).map(Some),
            Request::Stop { pod, timeout_ms } => self.stop_pod(&pod, timeout_ms).map(Some),
            Request::Adopt(pod) => self.adopt_pod(&pod).map(Some),
            Request::Pause(pod) => self.pause_pod(&pod).map(Some),
            Request::Resume(pod) => self.resume_pod(&pod).map(Some),
            Request::Metrics(pod) => self.ask_metrics(id, &pod).map(|()| None),
            Request::Usage(pod) => self.usage_of_pod(&pod).map(Some),
            Request::Resize { pod, scratch_bytes } => {
                self.ask_resize(id, &pod, scratch_bytes).map(|()| None)
            }
            Request::Forget(pod) => self.forget_pod(&pod).map(Some),
            Request::Volume { ticket, record } => self.order_volume(id, &ticket, &record),
            Request::Volumes(tenant) => self.list_volumes(&tenant).map(Some),
            Request::Worker { kind, file_bytes } => {
                self.worker(id, &kind, file_bytes, &fds).map(|()| None)
            }
        }
    }

    /// Answers a connection for the last time.
    pub(crate) fn answer(&mut self, id: u64, answer: Result<Answer>) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.closing = true;
        }
        self.say(id, answer);
    }

    /// Answers a connection that stays open.
    pub(crate) fn say(&mut self, id: u64, answer: Result<Answer>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.incoming = None;
        client.deadline = client_deadline();
        match answer {
            Ok(Answer { mut members, descriptors }) => {
                members.push(("ok".into(), Value::Bool(true)));
                client.out.push(&json::write(&Value::object(members)), descriptors);
            }
            Err(refusal) => client.out.push(&json::write(&refused(&refusal)), vec![]),
        }
        self.flush(id);
    }

    fn flush(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match client.out.send(client.socket.as_fd()) {
            Ok(true) if client.closing => self.drop_client(id),
            Ok(true) => {
                client.deadline = None;
                let _ = client.socket.change(Interest::empty());
            }
            Ok(false) => {
                let _ = client.socket.change(Interest::OUT);
            }
            Err(_) => self.drop_client(id),
        }
    }

    fn drop_client(&mut self, id: u64) {
        if let Some(worker) = self.clients.remove(&id).and_then(|client| client.worker) {
            self.kill_worker(worker);
        }
    }

    /// Ends these connections without an answer.
    pub(crate) fn drop_clients(&mut self, which: impl Fn(u64, &Client) -> bool) {
        self.clients.retain(|id, client| !which(*id, client));
    }

    /// Ends connections of clients that are too slow.
    pub(crate) fn clients_due(&mut self, now: Instant) {
        let late = |client: &Client| client.deadline.is_some_and(|at| at <= now);
        let late: Vec<u64> =
            self.clients.iter().filter(|(_, client)| late(client)).map(|(id, _)| *id).collect();
        for id in late {
            let reading = self.clients.get(&id).is_some_and(|client| client.incoming.is_some());
            if reading {
                // One try: a client that does not send may well not read either.
                let refusal =
                    Refusal::new("REQUEST_TIMEOUT", "the request did not arrive in 5 seconds");
                let text = json::write(&refused(&refusal));
                if let Some(client) = self.clients.get(&id) {
                    let length = u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
                    let _ = send(
                        client.socket.as_fd(),
                        &[length.as_slice(), text.as_bytes()].concat(),
                        &[],
                    );
                }
            }
            self.drop_client(id);
        }
    }
}

fn refused(refusal: &Refusal) -> Value {
    Value::object(vec![
        ("ok".into(), Value::Bool(false)),
        ("code".into(), Value::String(refusal.code.into())),
        ("message".into(), Value::String(refusal.message.clone())),
    ])
}
