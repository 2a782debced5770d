//! Sparse files: their digests and their copies, at the cost of their data.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use casemate_ticket::blocks::BlockDigest;
use casemate_ticket::bytes::Digest;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Size unit of extents: pages of tmpfs.
const PAGE: u64 = 4096;

/// All seals that keep a memfd as it is.
pub const SEALED: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// SHA-256 of the first `size` bytes of a file.
///
/// # Errors
/// A file that is shorter, or cannot be read.
pub fn digest(file: BorrowedFd<'_>, size: u64) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    read_range(file, 0..size, |_, bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(Digest(hasher.finalize().into()))
}

/// Block digest (docs/formats.md section 2) of a file of `size` bytes.
///
/// # Errors
/// A size that is no multiple of 4096, a file that is shorter, or cannot be read.
pub fn block_digest(file: BorrowedFd<'_>, size: u64) -> io::Result<Digest> {
    let mut blocks = BlockDigest::new();
    each_extent(file, size, |offset, bytes| {
        blocks.update(offset, bytes).map_err(io::Error::other)
    })?;
    blocks.finish(size).map_err(io::Error::other)
}

/// A sealed copy of the data extents, and how many bytes of data it holds.
///
/// # Errors
/// No memory, or what reading says.
pub fn copy(name: &str, file: BorrowedFd<'_>, size: u64) -> io::Result<(OwnedFd, u64)> {
    let copy = memfd(name)?;
    let data = copy_data(file, size, copy.as_fd())?;
    rustix::fs::fcntl_add_seals(&copy, SEALED)?;
    Ok((copy, data))
}

/// A copy in `directory` that has no name there and never gets one, open for reading and writing:
/// nobody but its holders can ever reach it.
///
/// # Errors
/// A file system without unnamed files, no space, or what reading says.
pub fn unnamed_copy(directory: &Path, file: BorrowedFd<'_>, size: u64) -> io::Result<OwnedFd> {
    let copy = unnamed(directory)?;
    copy_data(file, size, copy.as_fd())?;
    Ok(copy)
}

/// An empty file in `directory`, as [`unnamed_copy`] makes it.
///
/// # Errors
/// A file system without unnamed files.
pub fn unnamed(directory: &Path) -> io::Result<OwnedFd> {
    // EXCL: not even linkat can give it a name.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Copies the data extents, leaves holes, and says how many bytes of data there were.
///
/// # Errors
/// No space, or what reading says.
pub fn copy_data(file: BorrowedFd<'_>, size: u64, copy: BorrowedFd<'_>) -> io::Result<u64> {
    rustix::fs::ftruncate(copy, size)?;
    let mut data: u64 = 0;
    each_extent(file, size, |offset, bytes| {
        data = data.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        write_all(copy, offset, bytes)
    })?;
    Ok(data)
}

/// Copies the data extents that begin within `range`, `most` bytes of data at most, and says where to go on. Where there
/// is no more data that is the end of the range. The copy has to be given its length.
///
/// # Errors
/// No space, or what reading says.
pub fn copy_some(
    file: BorrowedFd<'_>,
    range: std::ops::Range<u64>,
    copy: BorrowedFd<'_>,
    most: u64,
) -> io::Result<u64> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(range.start)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(range.end),
        Err(errno) => return Err(errno.into()),
    };
    if start >= range.end {
        return Ok(range.end);
    }
    let hole = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    let end = hole.min(range.end).min(start.saturating_add(most));
    read_range(file, start..end, |offset, bytes| write_all(copy, offset, bytes))?;
    Ok(end)
}

/// A sealed memfd that holds `bytes`.
///
/// # Errors
/// No memory.
pub fn sealed_memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd(name)?;
    write_all(file.as_fd(), 0, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALED)?;
    Ok(file)
}

/// The same file, opened for reading only and with an offset of its own.
///
/// # Errors
/// No /proc, or no descriptors left.
pub fn reopen_read_only(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    match rustix::fs::memfd_create(name, flags) {
        // Kernels before 6.3 do not know NOEXEC_SEAL.
        Err(Errno::INVAL) => {
            Ok(rustix::fs::memfd_create(name, flags.difference(MemfdFlags::NOEXEC_SEAL))?)
        }
        result => Ok(result?),
    }
}

fn write_all(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
        offset = offset.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
    }
    Ok(())
}

fn each_extent(
    file: BorrowedFd<'_>,
    size: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(end)) {
            Ok(start) => (start / PAGE).saturating_mul(PAGE),
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        if start >= size {
            return Ok(());
        }
        let hole = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        end = hole.div_ceil(PAGE).saturating_mul(PAGE).min(size);
        read_range(file, start..end, &mut each)?;
    }
}

fn read_range(
    file: BorrowedFd<'_>,
    range: std::ops::Range<u64>,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0_u8; CHUNK];
    let mut offset = range.start;
    while offset < range.end {
        let left = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
        let mut filled: usize = 0;
        while filled < left {
            let into = buffer.get_mut(filled..left).unwrap_or_default();
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match rustix::io::pread(file, into, at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled = filled.saturating_add(count),
            }
        }
        each(offset, buffer.get(..filled).unwrap_or_default())?;
        offset = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_copies_only_data_and_keeps_holes() {
        let size = 64 << 20;
        let file = memfd("test").unwrap();
        rustix::fs::ftruncate(&file, size).unwrap();
        write_all(file.as_fd(), 8192, &[7; 4096]).unwrap();
        write_all(file.as_fd(), size - 4096, &[9; 4096]).unwrap();
        let mut expected = Vec::new();
        for (block, byte) in [(2_u64, 7_u8), (size / 4096 - 1, 9)] {
            expected.extend_from_slice(&block.to_le_bytes());
            expected.extend_from_slice(&[byte; 4096]);
        }
        expected.extend_from_slice(&size.to_le_bytes());
        let digest_of_file = block_digest(file.as_fd(), size).unwrap();
        assert_eq!(digest_of_file, Digest::of(&expected));
        let (copied, data) = copy("test", file.as_fd(), size).unwrap();
        assert_eq!(data, 8192);
        assert_eq!(block_digest(copied.as_fd(), size).unwrap(), digest_of_file);
        assert_eq!(rustix::fs::fstat(&copied).unwrap().st_blocks, 16, "holes stay holes");
        assert!(rustix::io::pwrite(&copied, b"x", 0).is_err(), "the copy is sealed");
        let reader = reopen_read_only(copied.as_fd()).unwrap();
        assert!(rustix::io::pwrite(&reader, b"x", 0).is_err());
        assert_eq!(rustix::fs::fcntl_getfl(&reader).unwrap() & OFlags::RWMODE, OFlags::RDONLY);
        let directory = std::env::temp_dir();
        let unnamed = unnamed_copy(&directory, file.as_fd(), size).unwrap();
        assert_eq!(block_digest(unnamed.as_fd(), size).unwrap(), digest_of_file);
        assert_eq!(rustix::fs::fstat(&unnamed).unwrap().st_nlink, 0, "it has no name");
        assert_eq!(rustix::fs::fcntl_getfl(&unnamed).unwrap() & OFlags::RWMODE, OFlags::RDWR);
    }

    #[test]
    fn copies_a_piece_at_a_time() {
        let size = 64 << 20;
        let (file, to) = (memfd("test").unwrap(), memfd("copy").unwrap());
        rustix::fs::ftruncate(&file, size).unwrap();
        write_all(file.as_fd(), 8192, &vec![7; 20_480]).unwrap();
        write_all(file.as_fd(), size - 4096, &[9; 4096]).unwrap();
        let (mut position, mut pieces) = (0, 0);
        while position < size {
            position = copy_some(file.as_fd(), position..size, to.as_fd(), 8192).unwrap();
            pieces += 1;
        }
        rustix::fs::ftruncate(&to, size).unwrap();
        assert_eq!(pieces, 4);
        let of = |file: &OwnedFd| block_digest(file.as_fd(), size).unwrap();
        assert_eq!(of(&to), of(&file));
        assert_eq!(rustix::fs::fstat(&to).unwrap().st_blocks, 48, "holes stay holes");
    }

    #[test]
    fn a_sealed_memfd_holds_its_bytes_and_refuses_others() {
        let file = sealed_memfd("test", b"abc").unwrap();
        assert_eq!(digest(file.as_fd(), 3).unwrap(), Digest::of(b"abc"));
        assert!(digest(file.as_fd(), 4).is_err(), "shorter than it is said to be");
        assert!(rustix::fs::ftruncate(&file, 10).is_err());
    }
}
