//! The writable disk of a launch, as the spec names it.

use crate::bytes::Digest;
use crate::descriptors::{BLOCK_SIZE, DISK_SIZE_MAX};
use crate::json::Value;
use crate::shape::{ShapeError, constant, digest, fields, integer, wrong};

/// The writable disk of one launch, equal to a known empty file system when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Bytes at the start.
    pub size: u64,
    /// Bytes that it may grow to; at least `size`.
    pub size_max: u64,
    /// Block digest (section 2).
    pub blocks: Digest,
}

impl Scratch {
    pub(crate) fn read(value: &Value) -> Result<Self, ShapeError> {
        let [access, blocks, role, size, size_max] =
            fields(value, "scratch", ["access", "blocks", "role", "size", "size_max"])?;
        constant(role, "descriptors.role", "scratch")?;
        constant(access, "descriptors.access", "read-write")?;
        let size = whole_blocks(size, "scratch.size", BLOCK_SIZE)?;
        Ok(Self {
            size,
            size_max: whole_blocks(size_max, "scratch.size_max", size)?,
            blocks: digest(blocks, "scratch.blocks")?,
        })
    }

    /// Whether the two begin as the same file system, however far each may grow.
    #[must_use]
    pub fn begins_as(&self, other: &Self) -> bool {
        (self.size, self.blocks) == (other.size, other.blocks)
    }
}

fn whole_blocks(value: &Value, path: &str, least: u64) -> Result<u64, ShapeError> {
    let size = integer(value, path, least..=DISK_SIZE_MAX)?;
    if size.is_multiple_of(BLOCK_SIZE) {
        return Ok(size);
    }
    Err(wrong(path, "must be a multiple of 4096"))
}
