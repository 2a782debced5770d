//! The host's side: a tap, or whatever reads and writes whole frames behind a header of 12 bytes.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, read, write};

use super::guard::Guard;
use crate::rate::Rate;

/// What connects a guest to a network.
#[derive(Debug)]
pub struct Network {
    /// A tap with `IFF_NO_PI | IFF_VNET_HDR`, a header of 12 bytes, and offloads for checksums and TCP
    /// segments of both versions; it must not block.
    pub tap: OwnedFd,
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// The guest's addresses; when there are none, any source may be used.
    pub addresses: Vec<IpAddr>,
    /// Bytes of the largest packet.
    pub mtu: u16,
    /// Limits of what the guest receives.
    pub receive: Rate,
    /// Limits of what the guest sends.
    pub transmit: Rate,
}

/// A [`Network`] in use.
#[derive(Debug)]
pub struct Link {
    tap: OwnedFd,
    pub guard: Guard,
    pub mtu: u16,
    pub receive: Rate,
    pub transmit: Rate,
    /// The network interface is gone. The descriptor stays open: its number must not come to mean
    /// something else to the monitor's epoll.
    pub lost: bool,
}

/// How reading a frame ended.
pub enum Received {
    Frame(usize),
    Nothing,
    Lost,
}

/// How writing a frame ended.
pub enum Sent {
    Done,
    /// Nothing was taken.
    Full,
    /// The frame was refused.
    Refused,
}

impl Link {
    pub fn new(network: Network) -> Self {
        let Network { tap, mac, addresses, mtu, receive, transmit } = network;
        let guard = Guard::new(mac, addresses.into_boxed_slice());
        Self { tap, guard, mtu, receive, transmit, lost: false }
    }

    pub fn tap(&self) -> &OwnedFd {
        &self.tap
    }

    /// Reads one frame and its header.
    pub fn read(&self, buffer: &mut [u8]) -> Received {
        match read(&self.tap, buffer) {
            Ok(0) => Received::Lost,
            Ok(count) => Received::Frame(count),
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Lost,
        }
    }

    /// Writes one frame behind its header, whole or not at all.
    pub fn write(&self, frame: &[u8]) -> Sent {
        match write(&self.tap, frame) {
            Ok(_) => Sent::Done,
            Err(Errno::AGAIN | Errno::INTR) => Sent::Full,
            // An interface that is down, or a frame that the host's kernel does not like.
            Err(_) => Sent::Refused,
        }
    }
}
