//! The descriptors a VMM lives on, each checked against the spec before it is used.
//!
//! A descriptor proves nothing by its number: size, kind, access mode, seals and content are compared with what
//! the ticket's spec says, so that one file swapped for another ends the launch with the role's name.

use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use casemate_ticket::blocks::{BLOCK_SIZE, BlockDigest};
use casemate_ticket::bytes::Digest;
use casemate_ticket::files::{Files, SALT_BYTES};
use casemate_wire::control::Reason;
use rustix::fs::{
    FileType, OFlags, SealFlags, SeekFrom, fcntl_get_seals, fcntl_getfl, fstat, seek,
};
use rustix::io::Errno;

use crate::failure::{Failure, failure};
use crate::fds_unsafe::take;
use crate::tap_unsafe;

/// Launch document.
pub const DOCUMENT: RawFd = 3;
/// Control socket to spawn.
pub const CONTROL: RawFd = 4;
/// Pod stream to the agent.
pub const STREAM: RawFd = 5;
/// `/dev/kvm`.
pub const KVM: RawFd = 6;
/// Kernel image of a cold boot.
pub const KERNEL: RawFd = 7;
/// Init disk.
pub const INIT: RawFd = 8;
/// Template state.
pub const STATE: RawFd = 9;
/// Template memory.
pub const MEMORY: RawFd = 10;
/// The tenant's image.
pub const IMAGE: RawFd = 11;
/// The tenant's scratch disk.
pub const SCRATCH: RawFd = 12;
/// The pod's log.
pub const LOG: RawFd = 13;
/// The pod's tap.
pub const NET: RawFd = 14;
/// Content of the app's files.
pub const FILES: RawFd = 15;
/// The first of the pod's volumes; four numbers that one mask describes.
pub const VOLUMES: RawFd = 16;

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`: frames of Ethernet with a header of virtio's before, one queue, gone with its
/// last descriptor.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// `struct virtio_net_hdr_mrg_rxbuf`.
const TAP_HEADER_BYTES: i32 = 12;
/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6`.
const TAP_OFFLOAD: u64 = 1 | 2 | 4;

/// How a file may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Opened for reading only.
    Read,
    /// Opened for reading and writing.
    ReadWrite,
}

fn refuse(role: &str, text: std::fmt::Arguments<'_>) -> Failure {
    failure(Reason::Descriptor, format_args!("{role}: {text}"))
}

/// The descriptor at `number`.
///
/// # Errors
/// `DESCRIPTOR` when there is none.
pub fn present(number: RawFd, role: &str) -> Result<OwnedFd, Failure> {
    take(number).ok_or_else(|| refuse(role, format_args!("descriptor {number} is missing")))
}

/// The regular file at `number`, of exactly `size` bytes and opened for exactly `access`.
///
/// # Errors
/// `DESCRIPTOR` naming the role and what differs.
pub fn file(number: RawFd, role: &str, size: u64, access: Access) -> Result<File, Failure> {
    let descriptor = present(number, role)?;
    let unreadable = |error: Errno| refuse(role, format_args!("cannot be examined: {error}"));
    let status = fstat(&descriptor).map_err(unreadable)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(refuse(role, format_args!("is not a regular file")));
    }
    if u64::try_from(status.st_size) != Ok(size) {
        return Err(refuse(role, format_args!("has {} bytes, not {size}", status.st_size)));
    }
    let mode = fcntl_getfl(&descriptor).map_err(unreadable)? & OFlags::ACCMODE;
    let wanted = if access == Access::Read { OFlags::RDONLY } else { OFlags::RDWR };
    if mode != wanted {
        return Err(refuse(role, format_args!("is not opened for {access:?}")));
    }
    Ok(File::from(descriptor))
}

/// The tap at [`NET`], which does not block and hands over frames as the network card takes them.
///
/// # Errors
/// `DESCRIPTOR` saying what differs.
pub fn tap() -> Result<OwnedFd, Failure> {
    let role = "net";
    let tap = present(NET, role)?;
    let open = fcntl_getfl(&tap)
        .map_err(|error| refuse(role, format_args!("cannot be examined: {error}")))?;
    if open & (OFlags::ACCMODE | OFlags::NONBLOCK) != OFlags::RDWR | OFlags::NONBLOCK {
        return Err(refuse(role, format_args!("is not opened for ReadWrite without waiting")));
    }
    let not_ours = |error: std::io::Error| refuse(role, format_args!("is no tap: {error}"));
    let flags = tap_unsafe::flags(tap.as_fd()).map_err(not_ours)?;
    if flags != TAP_FLAGS {
        return Err(refuse(role, format_args!("has flags {flags:#x}, not {TAP_FLAGS:#x}")));
    }
    let header = tap_unsafe::header_bytes(tap.as_fd()).map_err(not_ours)?;
    if header != TAP_HEADER_BYTES {
        return Err(refuse(role, format_args!("has headers of {header} bytes")));
    }
    tap_unsafe::set_offload(tap.as_fd(), TAP_OFFLOAD)
        .map_err(|error| refuse(role, format_args!("takes no offloads: {error}")))?;
    Ok(tap)
}

/// All of `file`, when its digest is `digest`. Read once into private memory and hashed there, so that what was
/// checked is what is used.
///
/// # Errors
/// `DESCRIPTOR` when it cannot be read or is another file.
pub fn read_verified(
    file: &File,
    role: &str,
    size: u64,
    digest: Digest,
) -> Result<Vec<u8>, Failure> {
    let length = usize::try_from(size).map_err(|_| refuse(role, format_args!("is too large")))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| refuse(role, format_args!("cannot be read: {error}")))?;
    if Digest::of(&bytes) != digest {
        return Err(refuse(role, format_args!("is not the file the spec names")));
    }
    Ok(bytes)
}

/// Content of the app's files, read once from the sealed file at `number` and hashed there, without its salt; nothing
/// for an app that has none.
///
/// # Errors
/// `DESCRIPTOR` when it is not sealed, or another file than the spec names.
pub fn content(number: RawFd, files: Option<&Files>) -> Result<Vec<u8>, Failure> {
    let Some(files) = files else { return Ok(Vec::new()) };
    let role = "files";
    let descriptor = file(number, role, files.size, Access::Read)?;
    sealed(&descriptor, role)?;
    let mut content = read_verified(&descriptor, role, files.size, files.digest)?;
    let salt = usize::try_from(SALT_BYTES).unwrap_or(usize::MAX).min(content.len());
    content.drain(..salt);
    Ok(content)
}

/// Checks that a sealed file is the one that the spec names, without holding it: what was checked stays what it is.
///
/// # Errors
/// `DESCRIPTOR` when it cannot be read or is another file.
pub fn check_digest(mut file: &File, role: &str, digest: Digest) -> Result<(), Failure> {
    let found = file
        .rewind()
        .and_then(|()| Digest::of_reader(file))
        .map_err(|error| refuse(role, format_args!("cannot be read: {error}")))?;
    if found == digest {
        return Ok(());
    }
    Err(refuse(role, format_args!("is not the file the spec names")))
}

/// Checks that nobody can change `file` any more.
///
/// # Errors
/// `DESCRIPTOR` when a seal is missing.
pub fn sealed(file: &File, role: &str) -> Result<(), Failure> {
    let wanted = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    match fcntl_get_seals(file) {
        Ok(seals) if seals.contains(wanted) => Ok(()),
        _ => Err(refuse(role, format_args!("is not sealed"))),
    }
}

/// Checks the block digest of sparse data (docs/formats.md section 2); holes cost nothing.
///
/// # Errors
/// `DESCRIPTOR` when it cannot be read or is other data.
pub fn check_blocks(file: &File, role: &str, size: u64, digest: Digest) -> Result<(), Failure> {
    let found = block_digest(file, size)
        .map_err(|error| refuse(role, format_args!("cannot be read: {error}")))?;
    if found == digest {
        return Ok(());
    }
    Err(refuse(role, format_args!("does not hold the data the spec names")))
}

/// The block digest of `file`, `size` bytes long.
///
/// # Errors
/// What reading answers.
pub fn block_digest(file: &File, size: u64) -> std::io::Result<Digest> {
    let mut digest = BlockDigest::new();
    let mut block = [0; BLOCK_SIZE];
    let step = u64::try_from(BLOCK_SIZE).unwrap_or(1);
    let mut position = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = seek(file, SeekFrom::Hole(start))?;
        position = start.checked_div(step).unwrap_or(0).saturating_mul(step);
        while position < hole {
            file.read_exact_at(&mut block, position)?;
            digest.update(position, &block).map_err(std::io::Error::other)?;
            position = position.saturating_add(step);
        }
    }
    digest.finish(size).map_err(std::io::Error::other)
}
