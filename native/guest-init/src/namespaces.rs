//! The app's namespaces, by descriptors that were opened before anything of the image ran: what the app's process
//! does to its own later (leave them, end, have its number given to another) changes nothing about them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Failure, OrFailure};

/// In the order in which they are entered: the one with the file systems last, since the way to the others leads
/// through those of init. The one of processes is entered by being made: init's children are in it.
const KINDS: [(&str, LinkNameSpaceType); 4] = [
    ("/proc/self/ns/cgroup", LinkNameSpaceType::ControlGroup),
    ("/proc/self/ns/ipc", LinkNameSpaceType::InterProcessCommunication),
    ("/proc/self/ns/uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("/proc/self/ns/mnt", LinkNameSpaceType::Mount),
];

/// Descriptors of the namespaces of one process.
#[derive(Debug)]
pub struct Namespaces([OwnedFd; 4]);

impl Namespaces {
    /// Those of the calling process, by init's own /proc.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with the one that cannot be opened.
    pub fn of_self() -> Result<Self, Failure> {
        let opened: Vec<OwnedFd> = KINDS
            .iter()
            .map(|(path, _)| {
                openat(CWD, *path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .or_failure(ErrorCode::Other, format!("open {path}"))
            })
            .collect::<Result<_, _>>()?;
        Self::of(opened).ok_or_else(|| Failure::new(ErrorCode::Other, "namespaces are missing"))
    }

    /// Those that [`Namespaces::descriptors`] gave, handed over.
    #[must_use]
    pub fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        descriptors.try_into().ok().map(Self)
    }

    /// For handing over.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        self.0.each_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process into all of them. Its root and its directory are the mount namespace's then.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with the one that the kernel refuses.
    pub fn enter(&self) -> Result<(), Failure> {
        for (descriptor, (path, kind)) in self.0.iter().zip(KINDS) {
            move_into_link_name_space(descriptor.as_fd(), Some(kind))
                .or_failure(ErrorCode::Other, format!("enter {path} of the app"))?;
        }
        Ok(())
    }
}
