//! Reads of a file that are proved against a Merkle root, in the dm-verity format, version 1:
//! SHA-256(salt || block), blocks of 4096, tree after the data with its top level first
//! (Linux Documentation/admin-guide/device-mapper/verity.rst).
//!
//! The file may change at any time: its owner is a process we do not trust with this. So each byte
//! is read once, into private memory, is hashed there, and only that copy goes on.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::SECTOR_BYTES;
use crate::number::{narrow, widen};

/// Size of data blocks and tree nodes.
pub const VERITY_BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = 4096;
const DIGEST_BYTES: usize = 32;
/// Digests in a node.
const FANOUT: u64 = 128;
const SALT_BYTES_MAX: usize = 256;
/// Nodes kept after they were verified. Memory is touched only as they are: 512 KiB a disk.
const CACHE_NODES: usize = 128;
/// Enough for 2^63 bytes of data.
const LEVELS_MAX: usize = 8;

/// What the spec says of a verified image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    /// Blocks of data, before the tree.
    pub data_blocks: u64,
    /// Digest of the top node, or of the data where there is one block.
    pub root: [u8; 32],
    /// Prefix of everything hashed, at most 256 bytes.
    pub salt: Vec<u8>,
}

/// A verified file was refused, or a read of it.
#[derive(Debug)]
pub enum VerityError {
    /// No data, or more than a file can have.
    DataBlocks(u64),
    /// The salt is too long.
    Salt(usize),
    /// The size is not that of the data and its tree.
    Size(u64),
    /// This data block is not the one the root stands for.
    Mismatch(u64),
    /// The file could not be read.
    Io(io::Error),
}

impl fmt::Display for VerityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataBlocks(blocks) => write!(f, "{blocks} data blocks are not possible"),
            Self::Salt(len) => write!(f, "a salt of {len} bytes is longer than {SALT_BYTES_MAX}"),
            Self::Size(size) => write!(f, "{size} bytes are not the data and its tree"),
            Self::Mismatch(block) => write!(f, "data block {block} does not match the root"),
            Self::Io(error) => write!(f, "the image could not be read: {error}"),
        }
    }
}

impl std::error::Error for VerityError {}

/// A file whose data is known by its Merkle root.
pub struct Verified {
    file: File,
    verity: Verity,
    /// First block of each level in the file, the leaves' first.
    levels: Vec<u64>,
    cache: Cache,
    node: Box<[u8; VERITY_BLOCK_BYTES]>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Verified nodes by their block in the file, direct mapped.
struct Cache {
    blocks: Vec<Option<u64>>,
    bytes: Vec<u8>,
}

impl Cache {
    fn new() -> Self {
        Self {
            blocks: vec![None; CACHE_NODES],
            bytes: vec![0; CACHE_NODES.saturating_mul(VERITY_BLOCK_BYTES)],
        }
    }

    fn place(block: u64) -> usize {
        narrow(block.checked_rem(widen(CACHE_NODES)).unwrap_or(0))
    }

    /// One digest of a node, if the node is here.
    fn digest(&self, block: u64, entry: u64) -> Option<[u8; DIGEST_BYTES]> {
        let place = Self::place(block);
        if *self.blocks.get(place)? != Some(block) {
            return None;
        }
        let start = place.saturating_mul(VERITY_BLOCK_BYTES);
        digest_in(self.bytes.get(start..)?, entry)
    }

    fn keep(&mut self, block: u64, node: &[u8; VERITY_BLOCK_BYTES]) {
        let place = Self::place(block);
        let start = place.saturating_mul(VERITY_BLOCK_BYTES);
        let end = start.saturating_add(VERITY_BLOCK_BYTES);
        if let (Some(name), Some(bytes)) =
            (self.blocks.get_mut(place), self.bytes.get_mut(start..end))
        {
            bytes.copy_from_slice(node);
            *name = Some(block);
        }
    }
}

/// The digest at `entry` of a node.
fn digest_in(node: &[u8], entry: u64) -> Option<[u8; DIGEST_BYTES]> {
    let start = narrow(entry).checked_mul(DIGEST_BYTES)?;
    node.get(start..)?.first_chunk().copied()
}

impl Verified {
    /// Takes a file of exactly `size` bytes: the data blocks, then their tree. Reads nothing yet.
    ///
    /// # Errors
    /// [`VerityError`] when the numbers do not belong together or are not the file's.
    pub fn new(file: File, size: u64, verity: Verity) -> Result<Self, VerityError> {
        if verity.salt.len() > SALT_BYTES_MAX {
            return Err(VerityError::Salt(verity.salt.len()));
        }
        if verity.data_blocks == 0 || verity.data_blocks > u64::MAX >> 14 {
            return Err(VerityError::DataBlocks(verity.data_blocks));
        }
        let (levels, blocks) = layout(verity.data_blocks);
        if blocks.checked_mul(BLOCK) != Some(size)
            || file.metadata().map_err(VerityError::Io)?.len() != size
        {
            return Err(VerityError::Size(size));
        }
        let node = Box::new([0; VERITY_BLOCK_BYTES]);
        Ok(Self { file, verity, levels, cache: Cache::new(), node })
    }

    pub(super) fn sectors(&self) -> u64 {
        let per_block = BLOCK.checked_div(SECTOR_BYTES).unwrap_or(0);
        self.verity.data_blocks.saturating_mul(per_block)
    }

    /// Copies all data to `copy`, each block after it was verified; blocks of zeros become holes.
    ///
    /// # Errors
    /// A block that is not the one the root stands for, or a file that cannot be read or written.
    pub fn copy_to(&mut self, copy: &File) -> Result<(), VerityError> {
        const COPY_BLOCKS: usize = 64;
        let mut buffer = vec![0; VERITY_BLOCK_BYTES.saturating_mul(COPY_BLOCKS)];
        let size = self.verity.data_blocks.saturating_mul(BLOCK);
        copy.set_len(size).map_err(VerityError::Io)?;
        let mut at = 0;
        while at < size {
            let wanted = narrow(size.saturating_sub(at)).min(buffer.len());
            let bytes = self.read(at, wanted, &mut buffer)?;
            for (place, block) in
                (at..).step_by(VERITY_BLOCK_BYTES).zip(bytes.chunks(VERITY_BLOCK_BYTES))
            {
                if block.iter().any(|byte| *byte != 0) {
                    copy.write_all_at(block, place).map_err(VerityError::Io)?;
                }
            }
            at = at.saturating_add(widen(bytes.len()));
        }
        Ok(())
    }

    /// Reads and verifies from byte `at` on, through `buffer`: gives at least one byte and at most
    /// `wanted`. The caller has checked that the range lies inside the data.
    pub(super) fn read<'a>(
        &mut self,
        at: u64,
        wanted: usize,
        buffer: &'a mut [u8],
    ) -> Result<&'a [u8], VerityError> {
        let first = at.checked_div(BLOCK).unwrap_or(0);
        let skip = narrow(at.checked_rem(BLOCK).unwrap_or(0));
        // Whole blocks around what is wanted, as many as the buffer takes.
        let blocks = skip
            .saturating_add(wanted)
            .div_ceil(VERITY_BLOCK_BYTES)
            .min(buffer.len().div_euclid(VERITY_BLOCK_BYTES));
        let len = blocks.saturating_mul(VERITY_BLOCK_BYTES);
        let mismatch = || VerityError::Mismatch(first);
        let whole = buffer.get_mut(..len).ok_or_else(mismatch)?;
        read_all(&self.file, first.saturating_mul(BLOCK), whole)
            .map_err(|error| error.of(first))?;
        let (chunks, _) = whole.as_chunks::<VERITY_BLOCK_BYTES>();
        for (block, chunk) in (first..).zip(chunks) {
            let expected = self.expected(0, block).map_err(|error| error.of(block))?;
            if self.hash(chunk) != expected {
                return Err(VerityError::Mismatch(block));
            }
        }
        let end = skip.saturating_add(wanted).min(len);
        whole.get(skip..end).filter(|bytes| !bytes.is_empty()).ok_or_else(mismatch)
    }

    /// The digest that block `index` of the level below `level` must have. Level 0 holds the
    /// digests of data blocks. Verifies nodes from the top down; depth is that of the tree.
    fn expected(&mut self, level: usize, index: u64) -> Result<[u8; DIGEST_BYTES], NodeError> {
        let Some(start) = self.levels.get(level).copied() else { return Ok(self.verity.root) };
        let node_index = index.checked_div(FANOUT).unwrap_or(0);
        let entry = index.checked_rem(FANOUT).unwrap_or(0);
        let block = start.saturating_add(node_index);
        if let Some(digest) = self.cache.digest(block, entry) {
            return Ok(digest);
        }
        let expected = self.expected(level.saturating_add(1), node_index)?;
        read_all(&self.file, block.saturating_mul(BLOCK), &mut self.node[..])?;
        if self.hash(&self.node) != expected {
            return Err(NodeError::Mismatch);
        }
        self.cache.keep(block, &self.node);
        digest_in(&self.node[..], entry).ok_or(NodeError::Mismatch)
    }

    fn hash(&self, block: &[u8; VERITY_BLOCK_BYTES]) -> [u8; DIGEST_BYTES] {
        let mut hash = Sha256::new();
        hash.update(&self.verity.salt);
        hash.update(block);
        hash.finalize().into()
    }
}

/// A block that could not be read or is not the right one; the caller knows which data it is for.
enum NodeError {
    Mismatch,
    Io(io::Error),
}

impl NodeError {
    fn of(self, block: u64) -> VerityError {
        match self {
            Self::Mismatch => VerityError::Mismatch(block),
            Self::Io(error) => VerityError::Io(error),
        }
    }
}

/// Reads exactly. A file that became shorter has not the bytes that were signed.
fn read_all(file: &File, at: u64, bytes: &mut [u8]) -> Result<(), NodeError> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => NodeError::Mismatch,
        _ => NodeError::Io(error),
    })
}

/// First block of each level, the leaves' first, and the number of blocks of data and tree.
/// One data block has no tree: the root is its digest.
fn layout(data_blocks: u64) -> (Vec<u64>, u64) {
    let mut sizes = Vec::with_capacity(LEVELS_MAX);
    let mut below = data_blocks;
    while below > 1 {
        below = below.div_ceil(FANOUT);
        sizes.push(below);
    }
    let mut next = data_blocks;
    let mut starts: Vec<u64> = sizes
        .iter()
        .rev()
        .map(|size| {
            let start = next;
            next = next.saturating_add(*size);
            start
        })
        .collect();
    starts.reverse();
    (starts, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lie_top_first_after_the_data() {
        assert_eq!(layout(1), (vec![], 1));
        assert_eq!(layout(2), (vec![2], 3));
        assert_eq!(layout(128), (vec![128], 129));
        assert_eq!(layout(129), (vec![130, 129], 132));
        assert_eq!(layout(16_385), (vec![16_388, 16_386, 16_385], 16_517));
    }
}
