//! The app's namespaces, by descriptors that were opened before anything of the image ran: what the app's process
//! does to its own later (leave them, end, have its number given to another) changes nothing about them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Failure, OrFailure};

/// Kinds of namespaces, in the order in which they are entered.
pub type Kinds = &'static [(&'static str, LinkNameSpaceType)];

/// Those that an app has for itself in a machine. The one of processes is entered by being made: init's children are
/// in it.
pub const OF_A_MACHINE: Kinds = &[
    ("/proc/self/ns/cgroup", LinkNameSpaceType::ControlGroup),
    ("/proc/self/ns/ipc", LinkNameSpaceType::InterProcessCommunication),
    ("/proc/self/ns/uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("/proc/self/ns/mnt", LinkNameSpaceType::Mount),
];

/// Those in a container. The one of users comes last: it takes away what entering the others needs. A process that
/// enters the one of processes is not in it; its children are.
pub const OF_A_CONTAINER: Kinds = &[
    ("/proc/self/ns/cgroup", LinkNameSpaceType::ControlGroup),
    ("/proc/self/ns/ipc", LinkNameSpaceType::InterProcessCommunication),
    ("/proc/self/ns/uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("/proc/self/ns/net", LinkNameSpaceType::Network),
    ("/proc/self/ns/pid", LinkNameSpaceType::ProcessID),
    ("/proc/self/ns/mnt", LinkNameSpaceType::Mount),
    ("/proc/self/ns/user", LinkNameSpaceType::User),
];

/// Descriptors of the namespaces of one process.
#[derive(Debug)]
pub struct Namespaces {
    kinds: Kinds,
    descriptors: Vec<OwnedFd>,
}

impl Namespaces {
    /// Those of the calling process, by init's own /proc.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with the one that cannot be opened.
    pub fn of_self(kinds: Kinds) -> Result<Self, Failure> {
        let descriptors = kinds
            .iter()
            .map(|(path, _)| {
                openat(CWD, *path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .or_failure(ErrorCode::Other, format!("open {path}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { kinds, descriptors })
    }

    /// Those that [`Namespaces::descriptors`] gave, handed over.
    #[must_use]
    pub fn of(kinds: Kinds, descriptors: Vec<OwnedFd>) -> Option<Self> {
        (descriptors.len() == kinds.len()).then_some(Self { kinds, descriptors })
    }

    /// For handing over.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }

    /// Moves the calling process into all of them. Its root and its directory are the mount namespace's then.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with the one that the kernel refuses.
    pub fn enter(&self) -> Result<(), Failure> {
        for (descriptor, (path, kind)) in self.descriptors.iter().zip(self.kinds) {
            move_into_link_name_space(descriptor.as_fd(), Some(*kind))
                .or_failure(ErrorCode::Other, format!("enter {path} of the app"))?;
        }
        Ok(())
    }
}
