//! A writable disk on a file. Callers have checked that ranges lie inside the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use super::SECTOR_BYTES;

/// A scratch disk was refused.
#[derive(Debug)]
pub enum ScratchError {
    /// The size is zero, not a multiple of 4096, smaller than before or larger than it may become.
    Size(u64),
    /// The file's length is not the size.
    Length(u64),
    /// The file's length could not be read.
    Io(io::Error),
}

impl std::fmt::Display for ScratchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size(size) => write!(f, "the scratch disk cannot have {size} bytes"),
            Self::Length(len) => write!(f, "the scratch file has {len} bytes, not its size"),
            Self::Io(error) => write!(f, "the scratch file cannot be measured: {error}"),
        }
    }
}

impl std::error::Error for ScratchError {}

/// A file that the guest may read and write, and nothing beyond its size.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    size: u64,
    size_max: u64,
}

impl Scratch {
    /// Takes a file of exactly `size` bytes.
    ///
    /// # Errors
    /// [`ScratchError`] for a size that is no whole number of blocks or not the file's.
    pub fn new(file: File, size: u64) -> Result<Self, ScratchError> {
        if size == 0 || !size.is_multiple_of(4096) {
            return Err(ScratchError::Size(size));
        }
        let len = file.metadata().map_err(ScratchError::Io)?.len();
        if len != size {
            return Err(ScratchError::Length(len));
        }
        Ok(Self { file, size, size_max: size })
    }

    /// The same disk, which may grow to `size_max` bytes.
    #[must_use]
    pub fn growing_to(self, size_max: u64) -> Self {
        Self { size_max, ..self }
    }

    /// The file is longer. Only its owner knows: nothing here looks at it, and a file that is not has
    /// no bytes there, which is an I/O error for the guest.
    pub(super) fn grow(&mut self, size: u64) -> Result<(), ScratchError> {
        if size < self.size || size > self.size_max || !size.is_multiple_of(4096) {
            return Err(ScratchError::Size(size));
        }
        self.size = size;
        Ok(())
    }

    pub(super) fn sectors(&self) -> u64 {
        self.size.checked_div(SECTOR_BYTES).unwrap_or(0)
    }

    pub(super) fn read(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Leaves zeros, and gives the space back to the host.
    pub(super) fn clear(&mut self, at: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, at, bytes)?;
        Ok(())
    }
}
