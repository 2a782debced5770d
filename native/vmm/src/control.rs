//! The control thread: what spawn asks of a running VM.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use casemate_wire::control::{FromSpawn, SPAWN_MESSAGE_MAX};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::board::Board;
use crate::mailbox::Mailbox;
use crate::report::{Report, exit};

/// Serves spawn until everybody has hung up who holds the other end: spawn, and who keeps it for the next one. A VM
/// without both has nobody to account for it, so it ends.
pub fn serve(report: &Report, mailbox: &Mailbox, board: &Board) -> ! {
    loop {
        let (message, descriptor) = match receive(report) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(_) => exit(0),
        };
        match (message, descriptor) {
            (Some(FromSpawn::Stop { timeout_ms }), None) => mailbox.put_stop(timeout_ms),
            (Some(FromSpawn::Stream), Some(stream)) => mailbox.put_stream(stream),
            (Some(FromSpawn::Metrics), None) => mailbox.put_metrics_request(),
            (Some(FromSpawn::Resize { bytes }), None) => mailbox.put_resize(bytes),
            // Spawn is root and trusted; a packet it never sends says that this is not spawn.
            _ => exit(1),
        }
        board.wake();
    }
}

/// The next packet of spawn's, waited for, and the descriptor that rides along; `None` for one that is no message.
///
/// # Errors
/// `PIPE` when everybody has hung up; what receiving answers.
pub fn receive(report: &Report) -> Result<(Option<FromSpawn>, Option<OwnedFd>), Errno> {
    let mut bytes = [0; SPAWN_MESSAGE_MAX.saturating_add(1)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        report.socket(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(Errno::PIPE);
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let message = bytes.get(..received.bytes).and_then(|packet| FromSpawn::parse(packet).ok());
    Ok((message, descriptor))
}
