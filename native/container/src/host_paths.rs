//! Paths of the host, as the starter opened them: trees that are mounted nowhere yet, made harmless before anything of the
//! pod has them.
//!
//! A container's root may be given `CAP_SYS_ADMIN`, and can then change flags of its own mounts, a read-only one's too.
//! What it cannot change is how ids are mapped. So what root does not let it write has a mapping in which none of its ids is
//! any on disk: the kernel lets nobody write an inode whose owner it cannot name, connect to a socket there or open a FIFO
//! to be written, and what everybody may read can be read. What may be written has ids of its own on disk, so that a pod
//! leaves nothing behind that runs as root, or as a user of the host, for whoever starts it.

use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::host_path::{self, HostPath};
use casemate_ticket::spec::Spec;
use casemate_vmm::failure::{Failure, failure};
use casemate_wire::control::Reason;
use rustix::fs::{FileType, fstat};

use crate::idmap_unsafe::{self, Map};
use crate::{bundle, mount_unsafe};

/// An id that nothing has on disk: the last there is.
const NOBODYS: u32 = u32::MAX - 1;

/// All of a pod's, whose ids are those from `ids` on.
///
/// # Errors
/// `HOST_PATH` for what is neither directory nor file, and for a file system that takes no mapping of ids.
pub fn secure(spec: &Spec, trees: &[OwnedFd], ids: u32) -> Result<(), Failure> {
    host_path::of_all(&spec.apps).zip(trees).try_for_each(|(wanted, tree)| {
        secure_one(wanted, tree, ids).map_err(|problem| {
            let name = &wanted.name;
            failure(Reason::HostPath, format_args!("path {name} of the host {problem}"))
        })
    })
}

fn secure_one(wanted: &HostPath, tree: &OwnedFd, ids: u32) -> Result<(), String> {
    let facts = fstat(tree).map_err(|errno| format!("cannot be examined: {errno}"))?;
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::Directory | FileType::RegularFile => {}
        _ => return Err("is neither a directory nor a regular file".into()),
    }
    let namespace = idmap_unsafe::namespace(map(wanted.ids, ids))
        .map_err(|error| format!("has no namespace for its ids: {error}"))?;
    let flags = mount_unsafe::Flags { read_only: wanted.read_only, exec: wanted.exec };
    mount_unsafe::make_private(tree.as_fd(), flags)
        .and_then(|()| idmap_unsafe::map(tree.as_fd(), namespace.as_fd()))
        .map_err(|error| {
            format!(
                "is on a file system that takes no mapping of ids (ext4, xfs and btrfs do): {error}"
            )
        })
}

/// From ids on disk to those of the host.
fn map(on_disk: Option<u32>, ids: u32) -> Map {
    match on_disk {
        Some(on_disk) => Map { on_disk, first: ids, count: bundle::IDS },
        // The id beside the container's: its monitor's.
        None => Map { on_disk: NOBODYS, first: ids.saturating_add(bundle::IDS), count: 1 },
    }
}
