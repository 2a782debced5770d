//! A client of spawn, as the agent is one.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use casemate_ticket::json::{self, Value};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Longest wait for anything; reached only when something is wrong.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub struct Client(pub UnixStream);

#[derive(Debug)]
pub struct Answer {
    pub value: Value,
    pub descriptors: Vec<OwnedFd>,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.value.get("code").and_then(Value::as_str).unwrap_or("ok")
    }

    pub fn text(&self) -> String {
        json::write(&self.value)
    }
}

pub fn framed(text: &str) -> Vec<u8> {
    [u32::try_from(text.len()).unwrap().to_le_bytes().as_slice(), text.as_bytes()].concat()
}

impl Client {
    pub fn connect(run_dir: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(run_dir.join("spawn.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    pub fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(300))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let part = [IoSlice::new(bytes)];
        let count = rustix::net::sendmsg(&self.0, &part, &mut control, SendFlags::NOSIGNAL)?;
        self.0.write_all(&bytes[count..])
    }

    /// `None` when spawn closed the connection.
    pub fn receive(&mut self) -> Option<Answer> {
        let mut first = [0; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut first)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = match rustix::net::recvmsg(&self.0, &mut into, &mut control, flags) {
            // Closed, also when spawn did not read all that was sent.
            Err(rustix::io::Errno::CONNRESET) => return None,
            message => message.unwrap(),
        };
        if message.bytes == 0 {
            return None;
        }
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        let mut rest = [0; 3];
        self.0.read_exact(&mut rest).unwrap();
        let length = u32::from_le_bytes([first[0], rest[0], rest[1], rest[2]]);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Some(Answer { value: json::parse(&body, 1 << 22).unwrap(), descriptors })
    }

    /// `None` when spawn closed the connection without an answer.
    pub fn try_ask(&mut self, text: &str) -> Option<Answer> {
        self.send(&framed(text), &[]).ok()?;
        self.receive()
    }

    pub fn ask(&mut self, text: &str, descriptors: &[OwnedFd]) -> Answer {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        self.send(&framed(text), &descriptors).unwrap();
        self.receive().expect("an answer")
    }
}

/// Reads until the other end closes.
pub fn read_to_end(stream: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    UnixStream::from(stream).read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn read_exactly(stream: &OwnedFd, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    UnixStream::from(stream.try_clone().unwrap()).read_exact(&mut bytes).unwrap();
    bytes
}
