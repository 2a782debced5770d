//! The spec's `descriptors`: what a VMM finds open, by role, access and content.

use crate::files::Files;
use crate::json::Value;
use crate::scratch::Scratch;
use crate::shape::{self, ShapeError, constant, fields, integer, wrong};
use crate::volume;

/// Bytes of a block of image, tree and disks.
pub const BLOCK_SIZE: u64 = 4096;
pub(crate) const DISK_SIZE_MAX: u64 = 1 << 40;

/// A disk whose every block is checked against a dm-verity tree as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedDisk {
    /// Bytes of data and tree.
    pub size: u64,
    /// Data blocks of 4096 bytes.
    pub data_blocks: u64,
    /// Root of the tree.
    pub root: [u8; 32],
    /// Salt, at most 64 bytes.
    pub salt: Vec<u8>,
}

/// All descriptors of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// At level vm, and only there.
    pub init: Option<VerifiedDisk>,
    pub image: VerifiedDisk,
    pub scratch: Scratch,
    /// Bytes of the pod's log.
    pub log_size: u64,
    pub volumes: Vec<VolumeDisk>,
    /// Whether there is a tap.
    pub net: bool,
    /// Content of the app's files, if it has any.
    pub files: Option<Files>,
}

/// The disk of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeDisk {
    /// Bytes.
    pub size: u64,
    /// Whether nothing can be written.
    pub read_only: bool,
}

impl Descriptors {
    pub(crate) fn read(value: &Value, is_vm: bool) -> Result<Self, ShapeError> {
        let order = || {
            let init = if is_vm { "init, " } else { "" };
            let rest = "then volumes, net and files if any";
            wrong("descriptors", format!("must be {init}image, scratch, log, {rest}"))
        };
        let Value::Array(items) = value else {
            return Err(wrong("descriptors", "must be an array"));
        };
        let (init, items) = match (is_vm, items.as_slice()) {
            (true, [init, items @ ..]) => (Some(init), items),
            (_, items) => (None, items),
        };
        let [image, scratch, log, items @ ..] = items else { return Err(order()) };
        let count = items.iter().take_while(|item| has_role(item, "volume")).count();
        let (volumes, items) = items.split_at(count);
        let (net, items) = match items {
            [net, items @ ..] if has_role(net, "net") => (read_net(net).map(|()| true)?, items),
            items => (false, items),
        };
        let files = match items {
            [] => None,
            [files] => Some(Files::read(files)?),
            [..] => return Err(order()),
        };
        Ok(Self {
            init: init.map(|init| read_disk(init, "init")).transpose()?,
            image: read_disk(image, "image")?,
            scratch: Scratch::read(scratch)?,
            log_size: read_log(log)?,
            volumes: volumes.iter().map(read_volume).collect::<Result<_, _>>()?,
            net,
            files,
        })
    }
}

pub(crate) fn read_disk(value: &Value, role: &str) -> Result<VerifiedDisk, ShapeError> {
    let [access, named, size, verity] = fields(value, role, ["access", "role", "size", "verity"])?;
    constant(named, "descriptors.role", role)?;
    constant(access, "descriptors.access", "read")?;
    let [data_blocks, root, salt] =
        fields(verity, "descriptors.verity", ["data_blocks", "root", "salt"])?;
    let data_blocks =
        integer(data_blocks, "descriptors.verity.data_blocks", 1..=DISK_SIZE_MAX / BLOCK_SIZE)?;
    let expected = verified_size(data_blocks);
    let root = shape::hex(root, "descriptors.verity.root", 32)?;
    Ok(VerifiedDisk {
        size: integer(size, "descriptors.size", expected..=expected)?,
        data_blocks,
        root: root.try_into().map_err(|_| wrong("descriptors.verity.root", "must be 32 bytes"))?,
        salt: shape::hex(salt, "descriptors.verity.salt", 64)?,
    })
}

/// Bytes of `data_blocks` data blocks and their dm-verity tree (version 1, 128 hashes a block, no
/// superblock). One data block needs no tree: its hash is the root.
#[must_use]
pub fn verified_size(data_blocks: u64) -> u64 {
    let mut blocks = data_blocks;
    let mut level = data_blocks;
    while level > 1 {
        level = level.div_ceil(128);
        blocks = blocks.saturating_add(level);
    }
    blocks.saturating_mul(BLOCK_SIZE)
}

fn read_log(value: &Value) -> Result<u64, ShapeError> {
    let [access, role, size] = fields(value, "log", ["access", "role", "size"])?;
    constant(role, "descriptors.role", "log")?;
    constant(access, "descriptors.access", "read-write")?;
    // A header block and at least two segments of 65536 bytes.
    let size = integer(size, "log.size", 135_168..=1 << 30)?;
    if !size.is_multiple_of(BLOCK_SIZE) {
        return Err(wrong("log.size", "must be a multiple of 4096"));
    }
    Ok(size)
}

fn has_role(value: &Value, role: &str) -> bool {
    value.get("role").and_then(Value::as_str) == Some(role)
}

fn read_volume(value: &Value) -> Result<VolumeDisk, ShapeError> {
    let [access, role, size] = fields(value, "volume", ["access", "role", "size"])?;
    constant(role, "descriptors.role", "volume")?;
    let read_only = match access.as_str() {
        Some("read") => true,
        Some("read-write") => false,
        _ => return Err(wrong("descriptors.access", "must be read or read-write")),
    };
    Ok(VolumeDisk { size: volume::size(size, "descriptors.size")?, read_only })
}

fn read_net(value: &Value) -> Result<(), ShapeError> {
    let [access, role] = fields(value, "net", ["access", "role"])?;
    constant(role, "descriptors.role", "net")?;
    constant(access, "descriptors.access", "read-write")
}
