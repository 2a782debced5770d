use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::{self, spawn};

use super::*;
use crate::router::served::OF_A_PORT_MAX;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn tcp(address: IpAddr, host: u16, pod: u16) -> Published {
    Published { address, host, pod, protocol: Protocol::Tcp }
}

/// A pod's server on a port that the system chose, and a door to it.
fn world() -> (TcpListener, SocketAddr, Doors) {
    let pod = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = tcp(LOOPBACK, 0, pod.local_addr().unwrap().port());
    let socket = listening(&port).unwrap();
    let place = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let mut doors = Doors::default();
    let door = Door { port, pod: LOOPBACK, bridge: "cmb0".into() };
    doors.open(vec![(door, socket)]).unwrap();
    (pod, place, doors)
}

fn nothing() -> State {
    State { uplink: None, ways: Vec::new() }
}

#[test]
fn passes_a_thousand_requests_on_and_every_byte_of_them() {
    let (pod, place, _doors) = world();
    let server = spawn(move || {
        for stream in pod.incoming().take(1000) {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            // Until the client has said all: that end is passed on too.
            stream.read_to_end(&mut request).unwrap();
            request.reverse();
            stream.write_all(&request).unwrap();
        }
    });
    for number in 0..1000_u32 {
        let mut client = TcpStream::connect(place).unwrap();
        let request = number.to_be_bytes().repeat(if number == 7 { 100_000 } else { 3 });
        let mut sender = client.try_clone().unwrap();
        let wanted: Vec<u8> = request.iter().rev().copied().collect();
        let sending = spawn(move || {
            sender.write_all(&request).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        sending.join().unwrap();
        assert!(answer == wanted, "request {number}");
    }
    server.join().unwrap();
}

#[test]
fn one_that_takes_nothing_holds_up_nobody_and_loses_nothing() {
    const BYTES: usize = 16 << 20;
    let (pod, place, _doors) = world();
    let slow = TcpStream::connect(place).unwrap();
    let (slow_server, _) = pod.accept().unwrap();
    // Both say more than the kernel and the relay hold before either takes anything.
    let say = |mut stream: TcpStream, byte: u8| {
        spawn(move || {
            stream.write_all(&vec![byte; BYTES]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    let saying = [say(slow.try_clone().unwrap(), 1), say(slow_server.try_clone().unwrap(), 2)];
    for _ in 0..100 {
        let mut client = TcpStream::connect(place).unwrap();
        client.write_all(b"x").unwrap();
        let (mut server, _) = pod.accept().unwrap();
        let mut word = [0; 1];
        server.read_exact(&mut word).unwrap();
        server.write_all(&word).unwrap();
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"x");
    }
    for (mut stream, byte) in [(slow_server, 1), (slow, 2)] {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.len() == BYTES && all.iter().all(|found| *found == byte), "{}", all.len());
    }
    for one in saying {
        one.join().unwrap();
    }
}

#[test]
fn who_comes_beyond_the_limit_has_the_place_of_who_was_silent_longest() {
    let (pod, place, _doors) = world();
    let mut open = Vec::new();
    for _ in 0..OF_A_PORT_MAX {
        let client = TcpStream::connect(place).unwrap();
        open.push((client, pod.accept().unwrap().0));
    }
    let word = |(client, server): &mut (TcpStream, TcpStream)| {
        client.write_all(b"still").unwrap();
        let mut word = [0; 5];
        server.read_exact(&mut word).unwrap();
    };
    // The first says something: the second is the one that was silent longest then.
    word(open.first_mut().unwrap());
    let client = TcpStream::connect(place).unwrap();
    let mut more = (client, pod.accept().unwrap().0);
    word(&mut more);
    let (mut silent, _) = open.remove(1);
    assert_eq!(silent.read(&mut [0; 1]).unwrap_or(0), 0);
    open.iter_mut().for_each(word);
}

#[test]
fn a_closed_door_ends_what_went_through_it_and_frees_the_port() {
    let (pod, place, mut doors) = world();
    let mut client = TcpStream::connect(place).unwrap();
    let (mut server, _) = pod.accept().unwrap();
    server.write_all(b"hello").unwrap();
    let mut word = [0; 5];
    client.read_exact(&mut word).unwrap();
    doors.close_others(&nothing());
    assert_eq!(client.read(&mut word).unwrap_or(0), 0);
    assert_eq!(server.read(&mut word).unwrap_or(0), 0);
    // At once: the next pod's door is opened in the same breath.
    let again = tcp(LOOPBACK, place.port(), 1);
    listening(&again).unwrap();
    while TcpStream::connect(place).is_ok() {
        thread::yield_now();
    }
}

#[test]
fn a_pod_that_does_not_answer_is_a_closed_connection() {
    let (pod, place, _doors) = world();
    drop(pod);
    let mut client = TcpStream::connect(place).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn says_which_port_somebody_has() {
    let (_, place, _doors) = world();
    let port = |address: &str| tcp(address.parse().unwrap(), place.port(), 80);
    for address in ["127.0.0.1", "0.0.0.0"] {
        let problem = listening(&port(address)).unwrap_err();
        assert!(problem.starts_with(TAKEN) && problem.contains(address), "{problem}");
    }
    // Another address, and the other version, are others' ports.
    listening(&port("127.0.0.2")).unwrap();
    listening(&port("::")).unwrap();
    // UDP's ports are others; there one socket alone has each.
    let udp = Published { protocol: Protocol::Udp, ..port("127.0.0.1") };
    let one = listening(&udp).unwrap();
    assert!(listening(&udp).unwrap_err().starts_with(TAKEN));
    drop(one);
    let nobody = listening(&port("192.0.2.77")).unwrap_err();
    assert!(!nobody.starts_with(TAKEN), "{nobody}");
}
