//! Requests to spawn, as a stolen agent could send them: packets of any bytes, cut anywhere, with any number of
//! descriptors on any of them, through a real socket to the code that reads spawn.sock.
//!
//! Besides not crashing and not waiting: however the bytes are cut, the outcome is the same; descriptors count on the first
//! byte and nowhere else; none is left open by a request that was refused or dropped; and what is read as a request is the
//! canonical form of itself.
#![no_main]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_spawn::connection::{Incoming, REQUEST_BYTES_MAX, Read};
use casemate_spawn::request::Request;
use casemate_ticket::json;
use libfuzzer_sys::fuzz_target;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// As many as the kernel passes with one message.
const DESCRIPTORS_MAX: usize = 253;
const PACKETS_MAX: usize = 8;

/// One packet: bytes, and how many descriptors ride on it.
struct Packet<'a>(&'a [u8], usize);

/// What a client got to.
#[derive(Debug, PartialEq)]
enum Outcome {
    More,
    Refused(&'static str),
    Request(Vec<u8>, usize),
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => parse(rest),
        // A body, whole or shorter than its length says.
        1 => {
            let missing = u32::from(choice / 3 % 2);
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX).saturating_add(missing);
            stream(&cut(&[&length.to_le_bytes(), rest].concat(), *choice));
        }
        _ => stream(&packets(rest)),
    }
});

/// Packets as the input has them: count of descriptors, count of bytes, the bytes.
fn packets(mut data: &[u8]) -> Vec<Packet<'_>> {
    let mut found = Vec::new();
    while let ([descriptors, length, rest @ ..], true) = (data, found.len() < PACKETS_MAX) {
        let (bytes, others) = rest.split_at(usize::from(*length).min(rest.len()));
        found.push(Packet(bytes, usize::from(*descriptors).min(DESCRIPTORS_MAX)));
        data = others;
    }
    found
}

/// The same bytes in two packets, with a descriptor or two on the first.
fn cut(data: &[u8], choice: u8) -> Vec<Packet<'_>> {
    let (first, second) = data.split_at(data.len().min(usize::from(choice / 6)).max(1));
    vec![Packet(first, usize::from(choice % 2) + 1), Packet(second, 0)]
}

fn stream(packets: &[Packet<'_>]) {
    let packets: Vec<&Packet<'_>> = packets.iter().filter(|packet| !packet.0.is_empty()).collect();
    let (watched, descriptor) = rustix::pipe::pipe().expect("a pipe");
    let outcome = run(&packets, descriptor.as_fd());
    drop(descriptor);
    let mut byte = [0; 1];
    assert_eq!(rustix::io::read(&watched, &mut byte), Ok(0), "a descriptor was left open");
    let on_first = packets.first().map_or(0, |packet| packet.1);
    let whole: Vec<u8> = packets.iter().flat_map(|packet| packet.0).copied().collect();
    if let Outcome::Request(body, descriptors) = &outcome {
        assert_eq!(*descriptors, on_first, "descriptors ride on the first byte");
        assert_eq!(body.as_slice(), &whole[4..4 + body.len()]);
        parse(body);
    }
    // In one packet, with what rode on the first: the same, unless descriptors were where none may be.
    if packets.iter().skip(1).all(|packet| packet.1 == 0) && packets.len() > 1 {
        let (_, descriptor) = rustix::pipe::pipe().expect("a pipe");
        assert_eq!(run(&[&Packet(&whole, on_first)], descriptor.as_fd()), outcome);
    }
}

/// Sends the packets one by one and reads after each what there is.
fn run(packets: &[&Packet<'_>], descriptor: BorrowedFd<'_>) -> Outcome {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .expect("sockets");
    let mut incoming = Incoming::default();
    for Packet(bytes, descriptors) in packets {
        send(&theirs, bytes, &vec![descriptor; *descriptors]);
        // At most: the length, and the body in chunks; then nothing is left that could be read.
        for _ in 0..=bytes.len() + 1 {
            match incoming.read(ours.as_fd()) {
                Read::More if unread(&ours) => {}
                Read::More => break,
                Read::Request(body, descriptors) => {
                    assert!(!body.is_empty() && body.len() <= REQUEST_BYTES_MAX);
                    return Outcome::Request(body, descriptors.len());
                }
                Read::Refused(refusal) => return Outcome::Refused(refusal.code),
                Read::Gone => panic!("the client is there"),
            }
        }
    }
    Outcome::More
}

fn unread(socket: &OwnedFd) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|count| count > 0)
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space =
        vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let parts = [std::io::IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL);
    assert_eq!(sent, Ok(bytes.len()), "the fuzzer's inputs fit a socket's buffer");
}

fn parse(bytes: &[u8]) {
    let Ok(request) = Request::parse(bytes) else { return };
    let value = json::parse(bytes, REQUEST_BYTES_MAX).expect("it was read");
    assert_eq!(json::write(&value).as_bytes(), bytes, "what is read is canonical");
    if let Request::Launch(launch) = request {
        assert!(launch.ticket.len() + launch.record.len() + launch.spec.len() < bytes.len());
    }
}
