//! The app's namespaces, by descriptors that were opened before anything of the image ran: what the app's process
//! does to its own later (leave them, end, have its number given to another) changes nothing about them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_wire::payload::ErrorCode;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{
    Gid, LinkNameSpaceType, Uid, UnshareFlags, move_into_link_name_space, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::failure::{Failure, OrFailure};
use crate::process_unsafe::{self, Fork};

const CGROUP: (&str, LinkNameSpaceType) = ("/proc/self/ns/cgroup", LinkNameSpaceType::ControlGroup);
const MOUNT: (&str, LinkNameSpaceType) = ("/proc/self/ns/mnt", LinkNameSpaceType::Mount);
const PROCESSES: (&str, LinkNameSpaceType) = ("/proc/self/ns/pid", LinkNameSpaceType::ProcessID);
const USERS: (&str, LinkNameSpaceType) = ("/proc/self/ns/user", LinkNameSpaceType::User);
/// Most of them.
pub const KINDS_MAX: usize = 4;

/// Which namespaces an app has of its own, in the order in which they are entered: the one with the file systems last,
/// since the way to the others leads through those of who enters. Network, IPC and names are the pod's, and of whoever
/// runs the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Of an app in a machine.
    Machine,
    /// Of one in a container. Users come first: from then on the process has no privilege but within the container.
    Container,
    /// Of one beside the host's own services: all but what it sees of files is the host's.
    Host,
}

impl Kinds {
    const fn list(self) -> &'static [(&'static str, LinkNameSpaceType)] {
        match self {
            Self::Machine => &[PROCESSES, CGROUP, MOUNT],
            Self::Container => &[PROCESSES, USERS, CGROUP, MOUNT],
            Self::Host => &[MOUNT],
        }
    }
}

/// Descriptors of the namespaces of one process.
#[derive(Debug)]
pub struct Namespaces {
    kinds: Kinds,
    descriptors: Vec<OwnedFd>,
}

impl Namespaces {
    /// Those of the calling process, by its own /proc.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with the one that cannot be opened.
    pub fn of_self(kinds: Kinds) -> Result<Self, Failure> {
        let open = |(path, _): &(&'static str, _)| {
            openat(CWD, *path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .or_failure(ErrorCode::Other, format!("open {path}"))
        };
        let descriptors = kinds.list().iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { kinds, descriptors })
    }

    /// Those that [`Namespaces::descriptors`] gave, handed over.
    #[must_use]
    pub fn of(kinds: Kinds, descriptors: Vec<OwnedFd>) -> Option<Self> {
        (descriptors.len() == kinds.list().len()).then_some(Self { kinds, descriptors })
    }

    /// For handing over.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }

    /// Makes a copy of this process that is a process of the app's, so far in this respect alone.
    pub(crate) fn fork(&self) -> io::Result<Fork> {
        if self.kinds == Kinds::Host {
            return process_unsafe::fork();
        }
        let [processes, ..] = self.descriptors.as_slice() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        fork_in(|kind| Ok(move_into_link_name_space(processes.as_fd(), Some(kind))?))
    }

    /// Moves the calling process into all of them. Its root and its directory are the mount namespace's then.
    ///
    /// # Errors
    /// [`ErrorCode::Other`] with the one that the kernel refuses.
    pub fn enter(&self) -> Result<(), Failure> {
        if self.kinds == Kinds::Host {
            leave_keys()?;
        }
        for (descriptor, (path, kind)) in self.descriptors.iter().zip(self.kinds.list()) {
            if *kind == LinkNameSpaceType::ProcessID {
                continue;
            }
            move_into_link_name_space(descriptor.as_fd(), Some(*kind))
                .or_failure(ErrorCode::Other, format!("enter {path} of the app"))?;
            if *kind == LinkNameSpaceType::User {
                become_root_of_it()?;
            }
        }
        Ok(())
    }
}

/// Makes a copy of this process that is process 1 of a new namespace of processes.
pub(crate) fn fork_apart() -> io::Result<Fork> {
    fork_in(|_| Ok(process_unsafe::unshare(UnshareFlags::NEWPID)?))
}

/// `choose` says in which namespace children are made; this process stays where it is, and its next children come to be
/// where it is.
fn fork_in(choose: impl FnOnce(LinkNameSpaceType) -> io::Result<()>) -> io::Result<Fork> {
    let (path, kind) = PROCESSES;
    let own = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    choose(kind)?;
    let forked = process_unsafe::fork();
    if !matches!(forked, Ok(Fork::Child))
        && move_into_link_name_space(own.as_fd(), Some(kind)).is_err()
    {
        // What is started next would be among the app's processes, with all privileges of this one.
        process_unsafe::exit_now(1);
    }
    forked
}

/// As a process that was made in the user namespace: no id and no key of the host's.
fn become_root_of_it() -> Result<(), Failure> {
    let step = "be root of the app's user namespace";
    set_thread_groups(&[]).or_failure(ErrorCode::Other, step)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).or_failure(ErrorCode::Other, step)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).or_failure(ErrorCode::Other, step)?;
    leave_keys()
}

fn leave_keys() -> Result<(), Failure> {
    process_unsafe::leave_keyring().or_failure(ErrorCode::Other, "leave the host's keys")
}
