//! Opening paths of the host: by a process that has no filter, in the host's own mount namespace.
//!
//! Every directory on the way must be root's and nobody else's to write, so that nobody but root decides what is at the
//! path; each is opened beneath the one before, without following a link, and looked at as it is open. A sub-path is below
//! that, where tenants and others may write: no link, no `..` and no mount leads out of it (CVE-2017-1002101,
//! CVE-2021-25741), and as it is root who opens it, it leads through no directory that the pod could not pass. What was
//! opened is what is handed on: no name is looked at twice.

use std::os::fd::OwnedFd;
use std::path::Component;

use casemate_ticket::host_path::HostPath;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::config::CONTAINER_IDS;
use crate::host_paths::{Entry, Kind};
use crate::refusal::{Refusal, Result};

/// Write permission of others than the owner. The group's bits bound what an access control list grants, too.
const OTHERS_WRITE: u32 = 0o022;
/// Search permission of everybody.
const ALL_SEARCH: u32 = 0o001;
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NO_LINKS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A tree of what the launch is to have, mounted nowhere yet: of one mount, without those below it.
///
/// # Errors
/// `HOST_PATH_UNSAFE` for what others than root decide on, `HOST_PATH_MISSING` for what is not there.
pub fn open(entry: &Entry, wanted: &HostPath) -> Result<OwnedFd> {
    let found = open_entry(entry)?;
    let found = match &wanted.sub_path {
        Some(sub_path) => below(found, sub_path, entry.ids)
            .map_err(|errno| missing(&format!("{sub_path} of path {}", entry.name), errno))?,
        None => found,
    };
    let refuse = |what: &str| {
        Refusal::new("HOST_PATH_UNSAFE", format!("path {} of the host {what}", entry.name))
    };
    match (kind_of(&found), entry.kind, &wanted.sub_path) {
        (Some(FileType::Directory), Kind::Directory, _)
        | (Some(FileType::RegularFile), Kind::File, _)
        | (Some(FileType::RegularFile), Kind::Directory, Some(_)) => {}
        (Some(FileType::Symlink), ..) => return Err(refuse("leads to a link")),
        _ => return Err(refuse("is not the directory or regular file that it has to be")),
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&found, "", flags).map_err(|errno| refuse(&format!("cannot be mounted: {errno}")))
}

/// The names of the path one after the other, from the root on.
fn open_entry(entry: &Entry) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let what = format!("path {}", entry.name);
    let mut found =
        openat(CWD, "/", directory, Mode::empty()).map_err(|errno| missing(&what, errno))?;
    for name in entry.path.components() {
        let Component::Normal(name) = name else { continue };
        check_way(&found, &entry.name)?;
        found = openat2(&found, name, PATH, Mode::empty(), NO_LINKS)
            .map_err(|errno| missing(&what, errno))?;
    }
    Ok(found)
}

fn check_way(directory: &OwnedFd, name: &str) -> Result<()> {
    let facts = fstat(directory).map_err(|errno| missing(&format!("path {name}"), errno))?;
    if facts.st_uid == 0 && facts.st_mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    let message = format!(
        "a directory above path {name} of the host is not root's, or others can write it; chown root and chmod go-w it"
    );
    Err(Refusal::new("HOST_PATH_UNSAFE", message))
}

fn below(top: OwnedFd, sub_path: &str, ids: Option<u32>) -> rustix::io::Result<OwnedFd> {
    sub_path.split('/').try_fold(top, |directory, name| {
        let facts = fstat(&directory)?;
        let is_pods = |id: u32| {
            ids.is_some_and(|first| (first..first.saturating_add(CONTAINER_IDS - 1)).contains(&id))
        };
        // The pod's root may pass what is the pod's, as the mapping has it.
        if facts.st_mode & ALL_SEARCH == 0 && !(is_pods(facts.st_uid) && is_pods(facts.st_gid)) {
            return Err(Errno::ACCESS);
        }
        openat2(&directory, name, PATH, Mode::empty(), NO_LINKS | ResolveFlags::NO_XDEV)
    })
}

fn kind_of(found: &OwnedFd) -> Option<FileType> {
    fstat(found).ok().map(|facts| FileType::from_raw_mode(facts.st_mode))
}

fn missing(what: &str, errno: Errno) -> Refusal {
    let problem = match errno {
        Errno::NOENT => "is not there".into(),
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            "leads by a link, a file or another mount".into()
        }
        Errno::ACCESS => "leads by a directory that not everybody may pass".into(),
        errno => format!("cannot be opened: {errno}"),
    };
    Refusal::new("HOST_PATH_MISSING", format!("{what} of the host {problem}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "paths_tests.rs"]
mod tests;
