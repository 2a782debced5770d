//! Descriptors that outlive spawn, kept by whoever started it: systemd's file-descriptor store
//! (`sd_pid_notify_with_fds(3)`, `sd_listen_fds(3)`), or `casemate-spawn --keep`, which speaks the same.
//!
//! As long as a copy of a pod's control socket is kept, its VMM does not notice that spawn ends. These four variables
//! are the only ones that spawn reads of its environment; who sets them is root and starts it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

use crate::daemon::log;
use crate::sys_unsafe::inherited_descriptor;

/// First descriptor that is handed over.
const FIRST: i32 = 3;
/// Most of them.
const INHERITED_MAX: i32 = 65_536;
/// How often, and how many times, a message is tried that the keeper has no room for.
const RETRY_EVERY: Duration = Duration::from_millis(5);
const RETRIES: u32 = 400;

/// The listening socket's name in the store.
pub const LISTENER: &str = "listener";
/// The network namespace's.
pub const NETWORK: &str = "network";
/// Before a launch id: the name of a pod's control socket and pidfd.
const POD: &str = "pod.";

/// The name of a pod's descriptors.
pub fn pod_name(pod: &str) -> String {
    format!("{POD}{pod}")
}

/// The launch id in the name of a pod's descriptors.
pub fn pod_of(name: &str) -> Option<&str> {
    name.strip_prefix(POD)
}

/// The way to the keeper.
#[derive(Debug)]
pub struct Store {
    socket: OwnedFd,
    keeper: SocketAddrUnix,
}

impl Store {
    /// `None` when nobody keeps descriptors.
    ///
    /// # Errors
    /// An address that is none, no descriptors left.
    pub fn open() -> io::Result<Option<Self>> {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let keeper = match address.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name)?,
            _ => SocketAddrUnix::new(address.as_bytes())?,
        };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Some(Self { socket, keeper }))
    }

    /// Gives copies of at most three descriptors to the keeper. They are kept whatever happens on them: of an end of
    /// theirs the last word must still be read.
    ///
    /// # Errors
    /// The keeper takes nothing.
    pub fn put(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), descriptors)
    }

    /// As [`Self::put`], in place of what is kept under this name.
    ///
    /// # Errors
    /// The keeper takes nothing.
    pub fn replace(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.remove(name);
        self.put(name, &[descriptor])
    }

    /// Has the keeper close everything of this name.
    pub fn remove(&self, name: &str) {
        if let Err(error) = self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]) {
            log(&format!("the keeper of descriptors was not told to close {name}: {error}"));
        }
    }

    /// Says that spawn serves.
    ///
    /// # Errors
    /// The keeper takes nothing.
    pub fn ready(&self) -> io::Result<()> {
        self.send("READY=1", &[])
    }

    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        for _ in 0..RETRIES {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(Errno::TOOBIG.into());
            }
            let part = [IoSlice::new(text.as_bytes())];
            match sendmsg_addr(&self.socket, &self.keeper, &part, &mut control, flags) {
                Err(Errno::AGAIN | Errno::INTR) => sleep(RETRY_EVERY),
                sent => return Ok(sent.map(|_| ())?),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Takes the descriptors that an earlier spawn had kept, by their names. To be called once, before anything else is
/// opened.
///
/// # Errors
/// Numbers and names that do not fit each other.
pub fn inherited() -> io::Result<BTreeMap<String, Vec<OwnedFd>>> {
    let mut found: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    let own_pid = rustix::process::getpid().as_raw_nonzero().get();
    if number_of("LISTEN_PID") != Some(own_pid) {
        return Ok(found);
    }
    let count = number_of("LISTEN_FDS").filter(|count| (0..=INHERITED_MAX).contains(count));
    let names = env::var_os("LISTEN_FDNAMES").and_then(|names| names.into_string().ok());
    let (Some(count), Some(names)) = (count, names) else { return Err(unfit()) };
    let names: Vec<&str> = names.split(':').collect();
    if i32::try_from(names.len()) != Ok(count) {
        return Err(unfit());
    }
    for (number, name) in (FIRST..).zip(names) {
        found.entry(name.to_owned()).or_default().push(inherited_descriptor(number)?);
    }
    Ok(found)
}

fn unfit() -> io::Error {
    let problem = "LISTEN_FDS and LISTEN_FDNAMES do not fit each other";
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

fn number_of(name: &str) -> Option<i32> {
    env::var_os(name).map(OsString::into_string)?.ok()?.parse().ok()
}

/// Whether it is one end of a pair as control sockets are.
pub fn is_control(fd: BorrowedFd<'_>) -> bool {
    use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
    socket_type(fd) == Ok(SocketType::SEQPACKET)
        && socket_domain(fd) == Ok(AddressFamily::UNIX)
        && socket_acceptconn(fd) == Ok(false)
}

/// Whether it listens at `path`, where clients find it.
pub fn listens_at(fd: BorrowedFd<'_>, path: &std::path::Path) -> bool {
    use rustix::net::sockopt::{socket_acceptconn, socket_type};
    let Ok(name) = rustix::net::getsockname(fd).and_then(SocketAddrUnix::try_from) else {
        return false;
    };
    socket_type(fd) == Ok(SocketType::STREAM)
        && socket_acceptconn(fd) == Ok(true)
        && name.path_bytes() == Some(path.as_os_str().as_bytes())
        && std::fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::jail::pair;

    #[test]
    fn knows_control_sockets_and_listeners_from_everything_else() {
        let (control, _other) = pair(SocketType::SEQPACKET).unwrap();
        let (stream, _other) = pair(SocketType::STREAM).unwrap();
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let place = std::env::temp_dir().join(format!("casemate-store-{}", std::process::id()));
        let listener: OwnedFd = UnixListener::bind(&place).unwrap().into();
        for (fd, is_one) in [(&control, true), (&stream, false), (&file, false), (&listener, false)]
        {
            assert_eq!(is_control(fd.as_fd()), is_one);
        }
        for (fd, is_one) in [(&control, false), (&stream, false), (&file, false), (&listener, true)]
        {
            assert_eq!(listens_at(fd.as_fd(), &place), is_one);
        }
        assert!(!listens_at(listener.as_fd(), std::path::Path::new("/elsewhere")));
        std::fs::remove_file(&place).unwrap();
        assert!(!listens_at(listener.as_fd(), &place), "nobody finds it there any more");
    }
}
