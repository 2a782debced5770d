//! The descriptors that the agent sends along with a launch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::spec::Spec;
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags};

use crate::refusal::{Refusal, Result};

/// What the agent sends along, in this order.
pub struct Files {
    /// The tenant's image.
    pub image: OwnedFd,
    /// The pod's log.
    pub log: OwnedFd,
    /// Content of its app's files, if it has any.
    pub content: Option<OwnedFd>,
}

impl Files {
    /// Those of a launch, as its spec has them.
    ///
    /// # Errors
    /// `DESCRIPTORS` for another number of them, `DESCRIPTOR` for one that is not as the spec says.
    pub fn check(spec: &Spec, fds: Vec<OwnedFd>) -> Result<Self> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        let (Some(image), Some(log), content, None) =
            (fds.next(), fds.next(), fds.next(), fds.next())
        else {
            let message =
                format!("a launch takes 2 descriptors (image, log), or files too, not {count}");
            return Err(Refusal::new("DESCRIPTORS", message));
        };
        match (&spec.files, &content) {
            (Some(wanted), Some(content)) => {
                check_file("files", content.as_fd(), wanted.size, OFlags::RDONLY)?;
            }
            (None, None) => {}
            _ => {
                return Err(Refusal::new(
                    "DESCRIPTORS",
                    "files come with a spec that has some, and only then",
                ));
            }
        }
        check_file("image", image.as_fd(), spec.image.size, OFlags::RDONLY)?;
        check_file("log", log.as_fd(), spec.log_size, OFlags::RDWR)?;
        Ok(Self { image, log, content })
    }
}

/// Kind, size and access. The content is the VMM's to verify; spawn reads no byte of a tenant's file.
fn check_file(role: &str, file: BorrowedFd<'_>, size: u64, access: OFlags) -> Result<()> {
    let refuse =
        |problem: String| Refusal::new("DESCRIPTOR", format!("the descriptor {role} {problem}"));
    // DONT_SYNC: the server of a file system in user space (FUSE), which may be the agent, is not asked here. It is
    // asked when the file is closed, so such an agent can hold spawn up: docs/threat-model.md, "A stolen agent".
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let facts = rustix::fs::statx(file, c"", flags, StatxFlags::TYPE | StatxFlags::SIZE)
        .map_err(|errno| refuse(format!("cannot be examined: {errno}")))?;
    if FileType::from_raw_mode(facts.stx_mode.into()) != FileType::RegularFile {
        return Err(refuse("is no regular file".into()));
    }
    if facts.stx_size != size {
        return Err(refuse(format!("has {} bytes, the spec says {size}", facts.stx_size)));
    }
    let open =
        rustix::fs::fcntl_getfl(file).map_err(|errno| refuse(format!("has no flags: {errno}")))?;
    // Others change what reading and writing mean: O_PATH, O_APPEND, O_DIRECT, O_NONBLOCK, O_ASYNC.
    let harmless = OFlags::LARGEFILE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    if open.difference(harmless) != access {
        let wanted = if access == OFlags::RDWR { "reading and writing" } else { "reading only" };
        return Err(refuse(format!("must be opened for {wanted}, without other flags")));
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "launch_files_tests.rs"]
mod tests;
