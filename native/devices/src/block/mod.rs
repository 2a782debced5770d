//! Disks (virtio 1.2, section 5.2): read-only ones whose every block is verified, and scratch.
//!
//! What a disk is decides its features, never what is behind it: in a template the image and the
//! scratch disk have no backend and no capacity; after the restore [`Block::attach`] gives them one.

mod request;
mod scratch;
mod verity;

use std::fmt;

pub use scratch::{Scratch, ScratchError};
pub use verity::{VERITY_BLOCK_BYTES, Verified, Verity, VerityError};

use crate::device::CONFIG_BYTES;
use crate::rate::Rate;

/// Unit of capacity and of request positions.
pub const SECTOR_BYTES: u64 = 512;
/// The most data one request moves: `SEG_MAX` segments of `SIZE_MAX` bytes.
pub const REQUEST_BYTES_MAX: u32 = SEGMENTS_MAX * SEGMENT_BYTES_MAX;

const SEGMENTS_MAX: u32 = 126;
const SEGMENT_BYTES_MAX: u32 = 32 * 1024;
/// Blocks of 4 KiB, so that Linux reads images in the unit they are verified in.
const IMAGE_BLOCK_BYTES: u32 = 4096;
/// The most sectors of one discard or write-zeroes request: 2 GiB.
const CLEAR_SECTORS_MAX: u32 = 1 << 22;
/// Bytes of private memory a request's data passes through.
const BUFFER_BYTES: usize = 64 * 1024;
const ID_BYTES: usize = 20;

const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

/// What a disk is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Read-only and verified.
    Image,
    /// Writable.
    Scratch,
}

impl BlockKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Image => 1,
            Self::Scratch => 2,
        }
    }
}

/// Where a disk's bytes are.
#[derive(Debug)]
pub enum Backend {
    /// Nowhere yet: capacity 0.
    Absent,
    /// A file with a Merkle tree.
    Verified(Verified),
    /// A file that may be written.
    Scratch(Scratch),
}

impl Backend {
    fn sectors(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Verified(verified) => verified.sectors(),
            Self::Scratch(scratch) => scratch.sectors(),
        }
    }

    fn fits(&self, kind: BlockKind) -> bool {
        match self {
            Self::Absent => true,
            Self::Verified(_) => kind == BlockKind::Image,
            Self::Scratch(_) => kind == BlockKind::Scratch,
        }
    }
}

/// A backend was refused. The backend is dropped, which closes its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// A writable backend for an image, or a verified one for scratch.
    Kind,
    /// The device has a backend.
    Attached,
    /// The device is no disk.
    NotBlock,
    /// The device is no network card.
    NotNet,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "the backend is not of the kind that the disk is",
            Self::Attached => "the device has a backend already",
            Self::NotNet => "the device is not a network card",
            Self::NotBlock => "the device is not a disk",
        })
    }
}

impl std::error::Error for AttachError {}

/// A disk. One queue.
#[derive(Debug)]
pub struct Block {
    kind: BlockKind,
    backend: Backend,
    id: [u8; ID_BYTES],
    buffer: Box<[u8]>,
    unverified: Option<u64>,
    rates: Box<Rates>,
}

/// What limits a disk in each direction.
#[derive(Debug, Default)]
struct Rates {
    read: Rate,
    write: Rate,
}

impl Block {
    pub(crate) const QUEUE_SIZES: [u16; 1] = [128];

    /// A disk of this kind with this backend; `id` is what the guest reads as its serial number, of
    /// which 20 bytes count.
    ///
    /// # Errors
    /// [`AttachError::Kind`] when the backend does not fit the kind.
    pub fn new(kind: BlockKind, backend: Backend, id: &str) -> Result<Self, AttachError> {
        if !backend.fits(kind) {
            return Err(AttachError::Kind);
        }
        let mut padded = [0; ID_BYTES];
        for (to, from) in padded.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let rates = Box::default();
        Ok(Self { kind, backend, id: padded, buffer, unverified: None, rates })
    }

    /// The same disk with limits. A flush, a discard and a write of zeros are an operation of no
    /// bytes of `write`; whatever else is not a write is one of `read`.
    #[must_use]
    pub fn limited(self, read: Rate, write: Rate) -> Self {
        Self { rates: Box::new(Rates { read, write }), ..self }
    }

    /// Gives a disk without a backend one. Only the transport can tell the guest of it:
    /// [`crate::MmioTransport::attach`].
    pub(crate) fn attach(&mut self, backend: Backend) -> Result<(), AttachError> {
        if !matches!(self.backend, Backend::Absent) {
            return Err(AttachError::Attached);
        }
        if !backend.fits(self.kind) {
            return Err(AttachError::Kind);
        }
        self.backend = backend;
        Ok(())
    }

    /// Gives a scratch disk more bytes. Only the transport can tell the guest of it.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), ScratchError> {
        match &mut self.backend {
            Backend::Scratch(scratch) => scratch.grow(bytes),
            Backend::Absent | Backend::Verified(_) => Err(ScratchError::Size(bytes)),
        }
    }

    /// What the disk is.
    #[must_use]
    pub fn kind(&self) -> BlockKind {
        self.kind
    }

    /// The first data block since the last call that could not be verified, for the monitor to end
    /// the guest with FAILURE VERITY. The guest saw an I/O error.
    pub(crate) fn take_verity_failure(&mut self) -> Option<u64> {
        self.unverified.take()
    }

    pub(crate) fn features(&self) -> u64 {
        FEATURE_SIZE_MAX
            | FEATURE_SEG_MAX
            | match self.kind {
                BlockKind::Image => FEATURE_READ_ONLY | FEATURE_BLOCK_SIZE,
                BlockKind::Scratch => FEATURE_FLUSH | FEATURE_DISCARD | FEATURE_WRITE_ZEROES,
            }
    }

    /// `struct virtio_blk_config`.
    pub(crate) fn config(&self) -> [u8; CONFIG_BYTES] {
        let block_bytes = match self.kind {
            BlockKind::Image => IMAGE_BLOCK_BYTES,
            BlockKind::Scratch => 0,
        };
        let clear_sectors = match self.kind {
            BlockKind::Image => 0,
            BlockKind::Scratch => CLEAR_SECTORS_MAX,
        };
        let clear_segments = u32::from(self.kind == BlockKind::Scratch);
        let mut config = Fields::new();
        config.put(0, &self.backend.sectors().to_le_bytes());
        config.put(8, &SEGMENT_BYTES_MAX.to_le_bytes());
        config.put(12, &SEGMENTS_MAX.to_le_bytes());
        config.put(20, &block_bytes.to_le_bytes());
        config.put(34, &1_u16.to_le_bytes());
        config.put(36, &clear_sectors.to_le_bytes());
        config.put(40, &clear_segments.to_le_bytes());
        config.put(44, &8_u32.to_le_bytes());
        config.put(48, &clear_sectors.to_le_bytes());
        config.put(52, &clear_segments.to_le_bytes());
        config.put(56, &[u8::from(self.kind == BlockKind::Scratch)]);
        config.bytes
    }
}

/// A configuration space being filled in.
struct Fields {
    bytes: [u8; CONFIG_BYTES],
}

impl Fields {
    fn new() -> Self {
        Self { bytes: [0; CONFIG_BYTES] }
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
    }
}
