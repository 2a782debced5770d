//! Files of a pod that are in memory alone: secrets, configuration, single files.
//!
//! All lie in one file system in memory, out of the way while the root is put together, and each is then mounted at its
//! place by itself. Nobody can write them, root inside neither, and nothing of them is on a disk but empty mount points.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::files;
use casemate_ticket::mounts::{Kind, Mount};
use casemate_wire::payload::ErrorCode;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, unlinkat};
use rustix::mount::{
    MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, mount_remount, open_tree, unmount,
};

use crate::failure::{Failure, OrFailure};
use crate::root::{attach, make};

/// Where they are meanwhile: in /dev, where nothing is the image's.
const PLACE: &str = "dev/.files";
const PATH: &str = "/dev/.files";
const PAGE_BYTES: u64 = 4096;
const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Files that wait for their places.
#[derive(Debug)]
pub struct Files {
    /// The file system that they are in; none without files.
    tree: Option<OwnedFd>,
    next: u32,
}

impl Files {
    /// Writes those of the list, whose content is `content`, one behind the other.
    ///
    /// # Errors
    /// [`ErrorCode::Config`] for another content than that of the list, [`ErrorCode::Mount`] for what the kernel refuses.
    pub fn write(root: BorrowedFd<'_>, mounts: &[Mount], content: &[u8]) -> Result<Self, Failure> {
        let wrong =
            || Failure::new(ErrorCode::Config, "the files are not those of the configuration");
        let sizes: Vec<u64> = files::sizes(mounts).collect();
        let pages: u64 = sizes.iter().map(|size| size.div_ceil(PAGE_BYTES)).sum();
        if sizes.is_empty() {
            return if content.is_empty() {
                Ok(Self { tree: None, next: 0 })
            } else {
                Err(wrong())
            };
        }
        let size = pages.saturating_add(1).saturating_mul(PAGE_BYTES).to_string();
        let tree = make("tmpfs", &[("size", &size), ("mode", "700")], INERT)?;
        let mut rest = content;
        let mut number = 0_u32;
        for mount in mounts {
            let Kind::File { size, mode, uid, gid } = mount.kind else { continue };
            let length = usize::try_from(size).unwrap_or(usize::MAX);
            let (own, behind) = rest.split_at_checked(length).ok_or_else(wrong)?;
            rest = behind;
            write_file(tree.as_fd(), number, own, (mode, uid, gid))
                .or_failure(ErrorCode::Mount, format!("write {}", mount.path))?;
            number = number.saturating_add(1);
        }
        if !rest.is_empty() {
            return Err(wrong());
        }
        attach(root, PLACE, &tree)?;
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        mount_remount(PATH, flags, "").or_failure(ErrorCode::Mount, "make files read-only")?;
        Ok(Self { tree: Some(tree), next: 0 })
    }

    /// The next of them, to be mounted.
    ///
    /// # Errors
    /// [`ErrorCode::Mount`] when there is none.
    pub fn take(&mut self) -> Result<OwnedFd, Failure> {
        let none = || Failure::new(ErrorCode::Mount, "a file is missing");
        let tree = self.tree.as_ref().ok_or_else(none)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let file = open_tree(tree, self.next.to_string(), flags);
        self.next = self.next.saturating_add(1);
        file.or_failure(ErrorCode::Mount, "take a file to its place")
    }

    /// Takes the place away where they were; those that are mounted stay.
    ///
    /// # Errors
    /// [`ErrorCode::Mount`] when the kernel refuses.
    pub fn leave(self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        if self.tree.is_none() {
            return Ok(());
        }
        unmount(PATH, UnmountFlags::DETACH)
            .and_then(|()| unlinkat(root, PLACE, AtFlags::REMOVEDIR))
            .or_failure(ErrorCode::Mount, "take the place of files away")
    }
}

fn write_file(
    tree: BorrowedFd<'_>,
    number: u32,
    content: &[u8],
    (mode, uid, gid): (u32, u32, u32),
) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(tree, number.to_string(), flags, Mode::RUSR)?);
    file.write_all(content)?;
    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
}
