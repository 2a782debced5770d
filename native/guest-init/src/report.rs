//! What a child tells init before it becomes its program: descriptors that init needs, and why it
//! could not. A successful exec closes the child's end, and that is the good news.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_wire::payload::{ErrorCode, StartError};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

use crate::failure::{Failure, OrFailure};
use crate::link::Broken;
use crate::namespaces::KINDS_MAX;

/// Most bytes of a report: code and text of ERROR.
const REPORT_MAX: usize = 1026;
/// Most descriptors in one message.
const DESCRIPTORS_MAX: usize = KINDS_MAX;
/// All a message says that has descriptors.
const HANDED_OVER: &[u8] = b"+";

/// What the child's report says so far.
#[derive(Debug)]
pub enum Report {
    /// The child is still at it.
    Unfinished,
    /// The child's end closed without a complaint: exec has happened.
    Started,
    /// A step failed.
    Failed(Failure),
}

/// The child's end, which exec closes.
#[derive(Debug)]
pub struct Reporter(OwnedFd);

impl Reporter {
    /// One that came by descriptor; exec closes it.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn inherited(descriptor: OwnedFd) -> rustix::io::Result<Self> {
        fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
        Ok(Self(descriptor))
    }

    /// Gives init copies of `descriptors`.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] when init does not take them.
    pub fn hand_over(&self, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
        let sent = if fits {
            sendmsg(&self.0, &[IoSlice::new(HANDED_OVER)], &mut control, SendFlags::NOSIGNAL)
        } else {
            Err(Errno::NOBUFS)
        };
        sent.map(drop).or_failure(ErrorCode::Other, "hand descriptors to init")
    }

    /// Tells why not. Nobody is left to tell when that fails too; init sees a program that ended at once.
    pub fn fail(&self, failure: &Failure) {
        let encoded = StartError { code: failure.code, text: &failure.text }.encode();
        let _ = send(&self.0, &encoded, SendFlags::NOSIGNAL);
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Init's end.
#[derive(Debug)]
pub struct Reports {
    socket: OwnedFd,
    descriptors: Vec<OwnedFd>,
    failure: Option<Failure>,
}

/// Both ends.
///
/// # Errors
/// [`ErrorCode::Other`] when the kernel refuses.
pub fn pair() -> Result<(Reports, Reporter), Failure> {
    let (socket, child) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .or_failure(ErrorCode::Other, "make a socket")?;
    Ok((Reports { socket, descriptors: Vec::new(), failure: None }, Reporter(child)))
}

impl Reports {
    /// Takes one message, if there is one.
    ///
    /// # Errors
    /// What receiving answers.
    pub fn read(&mut self) -> Result<Report, Broken> {
        let mut bytes = [0_u8; REPORT_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let length =
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Ok(message) => message.bytes,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Report::Unfinished),
                Err(errno) => return Err(Broken::Io(errno)),
            };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        match bytes.get(..length).unwrap_or_default() {
            [] => Ok(self.failure.take().map_or(Report::Started, Report::Failed)),
            HANDED_OVER => Ok(Report::Unfinished),
            told => {
                self.failure.get_or_insert_with(|| match StartError::parse(told) {
                    Some(error) => Failure::new(error.code, error.text),
                    None => Failure::new(ErrorCode::Other, "the process spoke before it ran"),
                });
                Ok(Report::Unfinished)
            }
        }
    }

    /// The descriptors that were handed over, in their order.
    #[must_use]
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        self.descriptors
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
