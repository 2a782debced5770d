//! The digest of sparse data (scratch disks, template memory): docs/formats.md section 2.
//!
//! Blocks that are all zero count like holes, so the digest does not depend on how a file system
//! or a copy laid the data out, and hashing costs as much as there is data.

use crate::bytes::Digest;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Bytes of one block.
pub const BLOCK_SIZE: usize = 4096;

/// Why data could not be hashed: the caller fed it wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlocksError {
    /// Offset or length not a multiple of the block size.
    #[error("data must come in whole blocks of 4096 bytes")]
    Unaligned,
    /// A block came twice or out of order.
    #[error("block {0} came after a later one")]
    Order(u64),
    /// A block lies beyond the total size.
    #[error("block {0} lies beyond the size")]
    Beyond(u64),
}

/// Hashes the data extents of a sparse file in ascending order.
#[derive(Clone, Debug)]
pub struct BlockDigest {
    hasher: Sha256,
    next: u64,
}

impl Default for BlockDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockDigest {
    /// A digest of nothing so far.
    #[must_use]
    pub fn new() -> Self {
        Self { hasher: Sha256::new(), next: 0 }
    }

    /// Adds the extent `bytes` that starts at byte `offset`. Both are multiples of 4096.
    ///
    /// # Errors
    /// Extents that are unaligned, overlap or go backwards.
    pub fn update(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlocksError> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_SIZE>();
        if !rest.is_empty() || !offset.is_multiple_of(4096) {
            return Err(BlocksError::Unaligned);
        }
        let mut index = offset / 4096;
        if index < self.next {
            return Err(BlocksError::Order(index));
        }
        for block in blocks {
            if block.iter().any(|byte| *byte != 0) {
                self.hasher.update(index.to_le_bytes());
                self.hasher.update(block);
            }
            index = index.checked_add(1).ok_or(BlocksError::Beyond(index))?;
        }
        self.next = index;
        Ok(())
    }

    /// The digest, for data of `size` bytes in all.
    ///
    /// # Errors
    /// A size that is no multiple of 4096 or that ends before the last extent.
    pub fn finish(mut self, size: u64) -> Result<Digest, BlocksError> {
        if !size.is_multiple_of(4096) {
            return Err(BlocksError::Unaligned);
        }
        if self.next > size / 4096 {
            return Err(BlocksError::Beyond(self.next.saturating_sub(1)));
        }
        self.hasher.update(size.to_le_bytes());
        Ok(Digest(self.hasher.finalize().into()))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::{BlockDigest, BlocksError};
    use crate::bytes::Digest;

    #[test]
    fn holes_and_zero_blocks_are_the_same() {
        let mut whole = BlockDigest::new();
        let mut data = vec![0u8; 4 * 4096];
        data[2 * 4096 + 7] = 9;
        whole.update(0, &data).unwrap();
        let mut extents = BlockDigest::new();
        extents.update(2 * 4096, &data[2 * 4096..3 * 4096]).unwrap();
        let expected = {
            let mut bytes = 2u64.to_le_bytes().to_vec();
            bytes.extend_from_slice(&data[2 * 4096..3 * 4096]);
            bytes.extend_from_slice(&(4u64 * 4096).to_le_bytes());
            Digest::of(&bytes)
        };
        assert_eq!(whole.finish(4 * 4096).unwrap(), expected);
        assert_eq!(extents.clone().finish(4 * 4096).unwrap(), expected);
        assert_ne!(extents.finish(5 * 4096).unwrap(), expected);
    }

    #[test]
    fn refuses_wrong_feeding() {
        let block = [1u8; 4096];
        let mut digest = BlockDigest::new();
        assert_eq!(digest.update(1, &block), Err(BlocksError::Unaligned));
        assert_eq!(digest.update(0, &block[1..]), Err(BlocksError::Unaligned));
        digest.update(4096, &block).unwrap();
        assert_eq!(digest.update(4096, &block), Err(BlocksError::Order(1)));
        assert_eq!(digest.clone().finish(4096), Err(BlocksError::Beyond(1)));
        assert_eq!(digest.finish(8193), Err(BlocksError::Unaligned));
    }
}
