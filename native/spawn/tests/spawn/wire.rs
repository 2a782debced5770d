//! A pod whose frames the test writes and reads itself: what a VMM that was taken over can send. And packets for it.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::client::{Answer, PATIENCE};
use crate::documents::{connect_as, set, text};
use crate::host::Host;

pub const BROADCAST: [u8; 6] = [0xff; 6];
/// Of the bridge of a network whose gateway is 10.88.0.1.
pub const GATEWAY: [u8; 6] = [2, 0, 10, 88, 0, 1];
pub const ARP: u16 = 0x0806;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ETHERNET_BYTES: usize = 14;

/// A pod on its tenant's network.
pub struct Wire {
    pub pod: String,
    pub mac: [u8; 6],
    /// Its last octet, of both versions.
    pub number: u8,
    stream: UnixStream,
}

/// Launches a pod of `tenant` with this number and this egress, in JSON.
pub fn launch(host: &Host, tenant: &str, number: u8, egress: &str) -> (String, Answer) {
    let (pod, mut spec) = host.spec(&["wire"]);
    set(&mut spec, "tenant", text(tenant));
    let addresses = [format!("10.88.0.{number}/24"), format!("fd58::{number:x}/64")];
    connect_as(&mut spec, number, &addresses.each_ref().map(String::as_str), egress, 1400);
    (pod, host.launch(&spec))
}

impl Wire {
    pub fn start(host: &Host, tenant: &str, number: u8) -> Self {
        Self::start_with(host, tenant, number, "null")
    }

    pub fn start_with(host: &Host, tenant: &str, number: u8, egress: &str) -> Self {
        let (pod, mut answer) = launch(host, tenant, number, egress);
        assert_eq!(answer.code(), "ok", "{}", answer.text());
        Self::of(pod, &mut answer, number)
    }

    /// Of a pod that was launched.
    pub fn of(pod: String, answer: &mut Answer, number: u8) -> Self {
        let stream: OwnedFd = answer.descriptors.pop().unwrap();
        let stream = UnixStream::from(stream);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { pod, stream, mac: [2, 0, 0, 0, 0, number], number }
    }

    pub fn send(&mut self, to: [u8; 6], kind: u16, payload: &[u8]) {
        let mut frame = [to.as_slice(), &self.mac, &kind.to_be_bytes(), payload].concat();
        frame.resize(frame.len().max(60), 0);
        let length = u16::try_from(frame.len()).unwrap().to_le_bytes();
        self.stream.write_all(&[length.as_slice(), &frame].concat()).unwrap();
    }

    /// Its address of a version.
    pub fn ip(&self, is_4: bool) -> IpAddr {
        if is_4 {
            [10, 88, 0, self.number].into()
        } else {
            [0xfd58, 0, 0, 0, 0, 0, 0, self.number.into()].into()
        }
    }

    /// Sends everybody on its network a word.
    pub fn call(&mut self, word: &str) {
        let packet = udp(self.ip(true), [10, 88, 0, 255].into(), 7, word.as_bytes());
        self.send(BROADCAST, IPV4, &packet);
    }

    /// Sends a word to an address that is not on its network.
    pub fn tell(&mut self, to: &str, port: u16, word: &str) {
        let to: IpAddr = to.parse().unwrap();
        let kind = if to.is_ipv4() { IPV4 } else { IPV6 };
        let packet = udp(self.ip(to.is_ipv4()), to, port, word.as_bytes());
        self.send(GATEWAY, kind, &packet);
    }

    /// The next frame of all.
    pub fn hears_anything(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u16::from_le_bytes(length).into()];
        self.stream.read_exact(&mut frame).unwrap();
        frame
    }

    /// The next frame that is of interest: bridges say which groups they listen to, and the gateway asks who has an
    /// address, which is answered as a kernel would.
    pub fn hears(&mut self) -> Vec<u8> {
        loop {
            let frame = self.hears_anything();
            let is_report = frame[12..14] == [0x86, 0xdd] && frame[20] == 0;
            if !is_report && !self.answers_who_asks(&frame) {
                return frame;
            }
        }
    }

    /// The next frame must be this word from somebody: a tap keeps its frames in their order, so none came before it.
    pub fn hears_next(&mut self, word: &str) {
        let frame = self.hears();
        assert_eq!(word_of(&frame).as_deref(), Some(word), "{frame:02x?}");
    }

    /// Refuses a connection that it is asked for: a reset (RFC 9293, section 3.5.2) of that segment.
    pub fn resets(&mut self, asked: &[u8]) {
        let (client, own) = (&asked[26..30], &asked[30..34]);
        let next = u32::from_be_bytes(asked[38..42].try_into().unwrap()).wrapping_add(1);
        let ports = [&asked[36..38], &asked[34..36]].concat();
        let mut segment =
            [ports.as_slice(), &[0; 4], &next.to_be_bytes(), &[0x50, 0x14, 0, 0, 0, 0, 0, 0]]
                .concat();
        let sum = checksum(&[own, client, &[0, 6, 0, 20], &segment].concat());
        segment[16..18].copy_from_slice(&sum);
        let to: [u8; 4] = client.try_into().unwrap();
        self.send(GATEWAY, IPV4, &packet(self.ip(true), to.into(), 6, &segment));
    }

    /// The next frame must be the gateway's refusal.
    pub fn hears_refusal(&mut self) {
        let frame = self.hears();
        assert!(is_refusal(&frame), "{frame:02x?}");
    }

    /// Answers the gateway when it asks for one of our addresses. False for any other frame.
    fn answers_who_asks(&mut self, frame: &[u8]) -> bool {
        if frame[6..12] != GATEWAY {
            return false;
        }
        match u16::from_be_bytes([frame[12], frame[13]]) {
            ARP if frame[21] == 1 => {
                let own = [self.mac.as_slice(), &[10, 88, 0, self.number]].concat();
                if frame[38..42] == own[6..] {
                    let asker = &frame[22..32];
                    let answer = [&[0, 1, 8, 0, 6, 4, 0, 2], own.as_slice(), asker].concat();
                    self.send(GATEWAY, ARP, &answer);
                }
                true
            }
            IPV6 if frame[20] == 58 && frame[54] == 135 => {
                let own = bytes(self.ip(false));
                if frame[62..78] == own {
                    let flags = [136, 0, 0, 0, 0x60, 0, 0, 0];
                    let message = [flags.as_slice(), &own, &[2, 1], &self.mac].concat();
                    self.send(GATEWAY, IPV6, &icmpv6(&own, &frame[22..38], message));
                }
                true
            }
            _ => false,
        }
    }
}

/// Whether it is the gateway's refusal: no route, where there is no way out at all, or administratively prohibited
/// (RFC 1812, RFC 4443).
pub fn is_refusal(frame: &[u8]) -> bool {
    let found = if frame[12..14] == [8, 0] { &frame[34..36] } else { &frame[54..56] };
    frame[6..12] == GATEWAY && [[3, 0], [3, 13], [1, 0], [1, 1]].iter().any(|one| found == one)
}

/// What a UDP packet in a frame says.
pub fn word_of(frame: &[u8]) -> Option<String> {
    let at = match frame[12..14] {
        [8, 0] if frame[23] == UDP => ETHERNET_BYTES + 20,
        [0x86, 0xdd] if frame[20] == UDP => ETHERNET_BYTES + 40,
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes([frame[at + 4], frame[at + 5]]));
    Some(String::from_utf8_lossy(&frame[at + 8..at + length]).into_owned())
}

pub fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The internet's checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pair = |two: &[u8]| u32::from(u16::from_be_bytes([two[0], *two.get(1).unwrap_or(&0)]));
    let sum: u32 = bytes.chunks(2).map(pair).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

/// A packet of this protocol.
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    if from.is_ipv6() {
        let [high, low] = length.to_be_bytes();
        let header = [0x60, 0, 0, 0, high, low, protocol, 64];
        return [header.as_slice(), &bytes(from), &bytes(to), payload].concat();
    }
    let [high, low] = (length + 20).to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0].to_vec();
    header.extend([bytes(from), bytes(to)].concat());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header.as_slice(), payload].concat()
}

/// A UDP packet, from port 4000.
pub fn udp(from: IpAddr, to: IpAddr, port: u16, word: &[u8]) -> Vec<u8> {
    let length = u16::try_from(word.len() + 8).unwrap();
    let mut message =
        [[0x0f, 0xa0].as_slice(), &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], word]
            .concat();
    let pseudo = [&bytes(from), &bytes(to), [0, UDP].as_slice(), &length.to_be_bytes(), &message];
    let sum = checksum(&pseudo.concat());
    message[6..8].copy_from_slice(&sum);
    packet(from, to, UDP, &message)
}

/// An `ICMPv6` packet that claims to be of this link.
pub fn icmpv6(from: &[u8], to: &[u8], mut message: Vec<u8>) -> Vec<u8> {
    let length = u8::try_from(message.len()).unwrap();
    let pseudo = [from, to, &[0, 0, 0, length, 0, 0, 0, 58], &message].concat();
    let sum = checksum(&pseudo);
    message[2..4].copy_from_slice(&sum);
    [[0x60, 0, 0, 0, 0, length, 58, 255].as_slice(), from, to, &message].concat()
}

/// IPv4 with an ICMP echo request.
pub fn echo(from: IpAddr, to: [u8; 4]) -> Vec<u8> {
    packet(from, to.into(), 1, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1])
}
