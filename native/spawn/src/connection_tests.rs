use std::os::fd::AsFd;

use rustix::net::SocketType;

use super::*;
use crate::jail::pair;

fn framed(body: &[u8]) -> Vec<u8> {
    [u32::try_from(body.len()).unwrap().to_le_bytes().as_slice(), body].concat()
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn takes_a_request_byte_by_byte_and_the_descriptors_of_the_first() {
    let (ours, theirs) = pair(SocketType::STREAM).unwrap();
    let mut incoming = Incoming::default();
    let bytes = framed(b"{}");
    for (position, byte) in bytes.iter().enumerate() {
        let descriptors = if position == 0 { vec![null(), null()] } else { vec![] };
        send(theirs.as_fd(), &[*byte], &descriptors).unwrap();
        match incoming.read(ours.as_fd()) {
            Read::More => assert!(position < 5),
            Read::Request(body, descriptors) => {
                assert_eq!(
                    (position, body.as_slice(), descriptors.len()),
                    (5, b"{}".as_slice(), 2)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn refuses_lengths_and_late_descriptors_without_reading_on() {
    let refused = |bytes: &[u8], late: Vec<OwnedFd>| {
        let (ours, theirs) = pair(SocketType::STREAM).unwrap();
        let mut incoming = Incoming::default();
        send(theirs.as_fd(), bytes, &[]).unwrap();
        if !late.is_empty() {
            assert!(matches!(incoming.read(ours.as_fd()), Read::More));
            send(theirs.as_fd(), b"x", &late).unwrap();
        }
        match incoming.read(ours.as_fd()) {
            Read::Refused(refusal) => refusal.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&0_u32.to_le_bytes(), vec![]), "REQUEST_SIZE");
    assert_eq!(refused(&u32::MAX.to_le_bytes(), vec![]), "REQUEST_SIZE");
    assert_eq!(refused(&(2_097_153_u32).to_le_bytes(), vec![]), "REQUEST_SIZE");
    assert_eq!(refused(&9_u32.to_le_bytes(), vec![null()]), "REQUEST_DESCRIPTORS");
}

#[test]
fn notices_a_client_that_leaves_in_the_middle() {
    let (ours, theirs) = pair(SocketType::STREAM).unwrap();
    let mut incoming = Incoming::default();
    send(theirs.as_fd(), &[9, 0], &[]).unwrap();
    assert!(matches!(incoming.read(ours.as_fd()), Read::More));
    assert!(matches!(incoming.read(ours.as_fd()), Read::More), "nothing there is no end");
    drop(theirs);
    // Another test's child may hold a copy for the moment until it is another program.
    while matches!(incoming.read(ours.as_fd()), Read::More) {
        std::thread::yield_now();
    }
    assert!(matches!(incoming.read(ours.as_fd()), Read::Gone));
}

#[test]
fn sends_an_answer_in_as_many_parts_as_the_socket_takes() {
    let (ours, theirs) = pair(SocketType::STREAM).unwrap();
    let mut out = Outgoing::default();
    let long = "x".repeat(1 << 20);
    out.push(&long, vec![null()]);
    assert!(!out.send(ours.as_fd()).unwrap(), "a megabyte fills the socket");
    let (mut incoming, mut rounds) = (Incoming::default(), 0);
    loop {
        rounds += 1;
        match incoming.read(theirs.as_fd()) {
            Read::More => {
                out.send(ours.as_fd()).unwrap();
            }
            Read::Request(body, descriptors) => {
                assert_eq!((body.len(), descriptors.len()), (1 << 20, 1));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(rounds > 1 && out.is_empty());
    drop(theirs);
    // As above.
    while out.send(ours.as_fd()).is_ok() {
        out = Outgoing::default();
        out.push("{}", vec![]);
        std::thread::yield_now();
    }
}
