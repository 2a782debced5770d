//! Packets on a VMM's control socket (`SOCK_SEQPACKET`).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use casemate_wire::control::FromSpawn;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::connection;

/// One packet of a VMM.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Descriptors that rode along, at most the two of a template.
    pub descriptors: Vec<OwnedFd>,
    /// Whether there were more bytes or descriptors than any message has.
    pub is_cut: bool,
}

/// Takes a packet; `None` when none waits.
///
/// # Errors
/// The other end is closed.
pub fn receive(socket: BorrowedFd<'_>, bytes_max: usize) -> Result<Option<Packet>, Errno> {
    read(socket, bytes_max, RecvFlags::empty())
}

/// Reads a packet and leaves it there: what spawn has read and not yet written down must not be lost with it.
///
/// # Errors
/// The other end is closed.
pub fn peek(socket: BorrowedFd<'_>, bytes_max: usize) -> Result<Option<Packet>, Errno> {
    read(socket, bytes_max, RecvFlags::PEEK)
}

fn read(socket: BorrowedFd<'_>, bytes_max: usize, how: RecvFlags) -> Result<Option<Packet>, Errno> {
    let mut buffer = vec![0; bytes_max];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT | how;
    let message = loop {
        let mut into = [IoSliceMut::new(&mut buffer)];
        match recvmsg(socket, &mut into, &mut control, flags) {
            Ok(message) => break message,
            // Said once, before what is still there: the other end was closed with messages of ours unread.
            Err(Errno::CONNRESET) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    // An empty packet cannot be told from the end; no message is empty either.
    if message.bytes == 0 && descriptors.is_empty() {
        return Err(Errno::PIPE);
    }
    let is_cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    buffer.truncate(message.bytes);
    Ok(Some(Packet { bytes: buffer, descriptors, is_cut }))
}

/// Sends a message, with the descriptor that belongs to it.
///
/// # Errors
/// The socket is full or its other end closed.
pub fn send(
    socket: BorrowedFd<'_>,
    message: FromSpawn,
    descriptor: Option<OwnedFd>,
) -> Result<(), Errno> {
    let descriptors: Vec<OwnedFd> = descriptor.into_iter().collect();
    connection::send(socket, message.encode().as_bytes(), &descriptors).map(|_| ())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::SocketType;

    use super::*;
    use crate::jail::pair;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn notices_too_many_bytes_and_the_end() {
        let (ours, theirs) = pair(SocketType::SEQPACKET).unwrap();
        assert!(receive(ours.as_fd(), 4).unwrap().is_none());
        connection::send(theirs.as_fd(), b"abcd", &[null(), null()]).unwrap();
        connection::send(theirs.as_fd(), b"abcde", &[]).unwrap();
        let packet = receive(ours.as_fd(), 4).unwrap().unwrap();
        assert_eq!(
            (packet.bytes.as_slice(), packet.descriptors.len(), packet.is_cut),
            (b"abcd".as_slice(), 2, false)
        );
        assert!(receive(ours.as_fd(), 4).unwrap().unwrap().is_cut);
        drop(theirs);
        assert_eq!(end_of(&ours), Errno::PIPE);
    }

    /// Another test's child may hold a copy of the other end for the moment until it is another program.
    fn end_of(socket: &OwnedFd) -> Errno {
        loop {
            match receive(socket.as_fd(), 4) {
                Ok(None) => std::thread::yield_now(),
                result => return result.unwrap_err(),
            }
        }
    }

    #[test]
    fn leaves_what_it_peeks_at_and_hears_the_last_word_of_who_did_not_listen() {
        let (ours, theirs) = pair(SocketType::SEQPACKET).unwrap();
        connection::send(theirs.as_fd(), b"word", &[null()]).unwrap();
        for _ in 0..2 {
            let packet = peek(ours.as_fd(), 4).unwrap().unwrap();
            assert_eq!(
                (packet.bytes.as_slice(), packet.descriptors.len()),
                (b"word".as_slice(), 1)
            );
        }
        send(ours.as_fd(), FromSpawn::Metrics, None).unwrap();
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), 4).unwrap().unwrap().bytes, b"word");
        assert_eq!(end_of(&ours), Errno::PIPE);
    }

    #[test]
    fn sends_a_stream_with_its_descriptor() {
        let (ours, theirs) = pair(SocketType::SEQPACKET).unwrap();
        send(ours.as_fd(), FromSpawn::Stream, Some(null())).unwrap();
        let packet = receive(theirs.as_fd(), 8).unwrap().unwrap();
        assert_eq!(FromSpawn::parse(&packet.bytes), Ok(FromSpawn::Stream));
        assert_eq!(packet.descriptors.len(), 1);
    }
}
