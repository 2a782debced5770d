//! What the keeper holds for spawn, and the socket by which it gets it.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::say;
use crate::ending;

/// Descriptors that are kept, at most: of 1000 pods and more.
pub const ENTRIES_MAX: usize = 4096;
/// Bytes of a message, and of a name.
const MESSAGE_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 255;

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Spawn serves.
    Ready,
    /// Something else.
    Other,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    Ready,
    Store(&'a str),
    Remove(&'a str),
}

/// Names and descriptors, and where more come from.
#[derive(Debug)]
pub struct Shelf {
    socket: OwnedFd,
    entries: Vec<(String, OwnedFd)>,
}

impl Shelf {
    /// An empty one.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, entries: Vec::new() }
    }

    /// Readable when there is a message.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// All that is kept, in the order in which it came.
    pub fn entries(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }

    /// Takes one message in, if there is one. Only those of root's process `sender` are obeyed.
    pub fn read(&mut self, sender: i32) -> Option<Heard> {
        let mut buffer = [0_u8; MESSAGE_BYTES_MAX];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = recvmsg(&self.socket, &mut into, &mut control, flags).ok()?;
        let mut descriptors = Vec::new();
        let mut is_known = false;
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(received) => descriptors.extend(received),
                RecvAncillaryMessage::ScmCredentials(peer) => {
                    is_known = peer.uid.is_root() && peer.pid.as_raw_nonzero().get() == sender;
                }
                _ => {}
            }
        }
        let is_cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        let text = buffer.get(..message.bytes).unwrap_or_default();
        match std::str::from_utf8(text).ok().and_then(parse).filter(|_| is_known && !is_cut) {
            Some(Message::Ready) => return Some(Heard::Ready),
            Some(Message::Store(name)) => self.put(name, descriptors),
            Some(Message::Remove(name)) => self.remove(name),
            None => say("a message that is none, or of somebody else, was passed over"),
        }
        Some(Heard::Other)
    }

    fn put(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        for fd in descriptors {
            if self.entries.len() >= ENTRIES_MAX {
                say(&format!("{ENTRIES_MAX} descriptors are kept already; one of {name} is not"));
                return;
            }
            match super::raise(fd) {
                Ok(fd) => self.entries.push((name.to_owned(), fd)),
                Err(error) => say(&format!("a descriptor of {name} is not kept: {error}")),
            }
        }
    }

    /// Spawn has written down how a VM ended whose pidfd this was: now it may be reaped, if that falls to the keeper.
    fn remove(&mut self, name: &str) {
        for (_, fd) in self.entries.extract_if(.., |(kept, _)| kept == name) {
            ending::reap(fd.as_fd());
        }
    }

    /// Reaps what fell to the keeper and is nobody's: workers of a spawn that died, children that never got to their jail.
    pub fn reap_strays(&self, spawn: i32) {
        let path = "/proc/thread-self/children";
        let children = fs::read_to_string(path).unwrap_or_default();
        let pids: Vec<i32> =
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.iter().all(|pid| *pid == spawn) {
            return;
        }
        let kept: Vec<i32> = self.entries().filter_map(|(_, fd)| ending::pid(fd)).collect();
        for pid in pids.into_iter().filter(|pid| *pid != spawn && !kept.contains(pid)) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
    }
}

/// Lines of `NAME=VALUE`; one that is not known here is for other service managers.
fn parse(text: &str) -> Option<Message<'_>> {
    let lines: Vec<(&str, &str)> =
        text.lines().map(|line| line.split_once('=')).collect::<Option<_>>()?;
    let of = |name: &str| lines.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let is_name = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
    };
    let name = of("FDNAME").filter(is_name);
    match (of("READY"), of("FDSTORE"), of("FDSTOREREMOVE")) {
        (Some("1"), None, None) => Some(Message::Ready),
        (None, Some("1"), None) => name.map(Message::Store),
        (None, None, Some("1")) => name.map(Message::Remove),
        _ => None,
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::connection::send;

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn null() -> OwnedFd {
        fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn reads_messages_and_nothing_else() {
        assert_eq!(parse("READY=1"), Some(Message::Ready));
        assert_eq!(parse("FDSTORE=1\nFDPOLL=0\nFDNAME=pod.x"), Some(Message::Store("pod.x")));
        assert_eq!(parse("FDSTOREREMOVE=1\nFDNAME=pod.x"), Some(Message::Remove("pod.x")));
        for bad in [
            "",
            "READY",
            "READY=2",
            "FDSTORE=1",
            "FDSTORE=1\nFDNAME=",
            "FDSTORE=1\nFDNAME=a:b",
            "FDSTORE=1\nFDNAME=a b",
            "FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=x",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&format!("FDSTORE=1\nFDNAME={}", "x".repeat(256))), None);
    }

    #[test]
    fn obeys_its_spawn_alone() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&ours, true).unwrap();
        let theirs = OwnedFd::from(theirs);
        let mut shelf = Shelf::new(ours.into());
        let mut say = |text: &str, count: usize, sender: i32| {
            let descriptors: Vec<OwnedFd> = (0..count).map(|_| null()).collect();
            send(theirs.as_fd(), text.as_bytes(), &descriptors).unwrap();
            let heard = shelf.read(sender).unwrap();
            (heard, shelf.entries().map(|(name, _)| name.to_owned()).collect::<Vec<_>>())
        };
        let own = own_pid();
        assert_eq!(say("READY=1", 0, own), (Heard::Ready, vec![]));
        assert_eq!(say("FDSTORE=1\nFDNAME=a", 2, own).1, ["a", "a"]);
        assert_eq!(say("FDSTORE=1\nFDNAME=b", 1, own).1, ["a", "a", "b"]);
        assert_eq!(say("FDSTORE=1\nFDNAME=c", 1, own + 1).1, ["a", "a", "b"], "of another");
        assert_eq!(say("READY=1", 0, own + 1).0, Heard::Other);
        assert_eq!(say("FDSTOREREMOVE=1\nFDNAME=a", 0, own + 1).1, ["a", "a", "b"]);
        assert_eq!(say("FDSTOREREMOVE=1\nFDNAME=a", 0, own).1, ["b"]);
        assert!(shelf.read(own).is_none());
    }
}
