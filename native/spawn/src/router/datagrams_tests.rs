use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::*;
use crate::router::served::Tenants;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Long enough for a loaded machine; nothing waits so long that is there.
const PATIENCE: Duration = Duration::from_mins(1);

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn places() -> Places {
    Tenants::default().places("cmb0")
}

/// A pod's server, and a port that leads to it.
fn world() -> (UdpSocket, SocketAddr, Served) {
    let (pod, front) = (bound(), bound());
    let place = front.local_addr().unwrap();
    let served = open(front.into(), pod.local_addr().unwrap(), places()).unwrap();
    (pod, place, served)
}

fn client_of(place: SocketAddr) -> UdpSocket {
    let client = bound();
    client.connect(place).unwrap();
    client
}

fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let count = socket.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn answers_go_to_who_asked_whatever_their_size() {
    let (pod, place, _served) = world();
    let clients: Vec<UdpSocket> = (0..9).map(|_| client_of(place)).collect();
    let words =
        |number: usize| vec![u8::try_from(number).unwrap(); number.pow(4).saturating_mul(15)];
    for (number, client) in clients.iter().enumerate() {
        client.send(&words(number)).unwrap();
    }
    let mut buffer = vec![0; DATAGRAM_BYTES];
    for _ in &clients {
        let (count, from) = pod.recv_from(&mut buffer).unwrap();
        pod.send_to(buffer.get(..count).unwrap(), from).unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        assert!(heard(client) == words(number), "client {number}");
    }
}

#[test]
fn who_goes_on_stays_when_a_crowd_comes_whether_that_is_answered_or_not() {
    let (pod, place, _served) = world();
    let friend = client_of(place);
    let mut buffer = [0; 16];
    let mut back = None;
    for _ in 0..2 {
        friend.send(b"ask").unwrap();
        let (_, from) = pod.recv_from(&mut buffer).unwrap();
        pod.send_to(b"hello", from).unwrap();
        assert_eq!(heard(&friend), b"hello");
        back = Some(from);
    }
    let back = back.unwrap();
    for number in 0..OF_A_PORT_MAX.saturating_add(20) {
        let stranger = client_of(place);
        stranger.send(b"strange").unwrap();
        // Each is heard: one that was silent longer gave way.
        let (_, from) = pod.recv_from(&mut buffer).unwrap();
        if number & 1 == 0 {
            pod.send_to(b"answer", from).unwrap();
            assert_eq!(heard(&stranger), b"answer");
        }
    }
    pod.send_to(b"again", back).unwrap();
    assert_eq!(heard(&friend), b"again");
    friend.send(b"second").unwrap();
    assert_eq!(pod.recv_from(&mut buffer).unwrap().1, back, "the same socket speaks for it");
}

#[test]
fn a_stranger_s_words_do_not_reach_a_client() {
    let (pod, place, _served) = world();
    let client = client_of(place);
    client.send(b"ask").unwrap();
    let mut buffer = [0; 16];
    let (_, session) = pod.recv_from(&mut buffer).unwrap();
    // Not the pod: the kernel drops it, since the socket is connected.
    bound().send_to(b"lie", session).unwrap();
    pod.send_to(b"truth", session).unwrap();
    assert_eq!(heard(&client), b"truth");
}

#[test]
fn a_port_that_nobody_serves_and_comes_back_is_served_again() {
    let (pod, place, _served) = world();
    let at = pod.local_addr().unwrap();
    drop(pod);
    let client = client_of(place);
    client.send(b"nobody").unwrap();
    let pod = loop {
        // The relay's socket has the port for its own if chance will have it.
        if let Ok(pod) = UdpSocket::bind(at) {
            break pod;
        }
    };
    pod.set_read_timeout(Some(PATIENCE)).unwrap();
    // The first was answered by an error of the kernel's, which the next word meets, or is heard late.
    let mut heard = Vec::new();
    while !heard.ends_with(b"here") {
        client.send(b"here").unwrap();
        let mut buffer = [0; 16];
        let (count, _) = pod.recv_from(&mut buffer).unwrap();
        heard = buffer.get(..count).unwrap().to_vec();
    }
}

#[test]
fn a_closed_port_is_free_at_once_and_its_places_are_others() {
    let (pod, place, served) = world();
    client_of(place).send(b"one").unwrap();
    assert_eq!(heard(&pod), b"one");
    drop(served);
    // Without SO_REUSEADDR, as the next pod's is.
    let socket =
        socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &place).unwrap();
}

#[test]
fn forgets_who_was_silent_and_who_was_answered_later() {
    let now = Instant::now();
    let poller = Poller::new().unwrap();
    let mut session = Session {
        client: SocketAddr::new(LOOPBACK, 1),
        socket: poller.watch(bound().into(), Interest::IN, Source::Front).unwrap(),
        last: now,
        is_answered: false,
        is_known: false,
        _place: places().take().unwrap(),
    };
    let later = |wait: Duration| now.checked_add(wait).unwrap();
    assert!(!session.is_over(now) && session.is_over(later(UNANSWERED)));
    session.is_answered = true;
    assert!(!session.is_over(later(UNANSWERED)) && session.is_over(later(ANSWERED)));
}
