//! The content of a launch's files (`apps.mounts` of kind `file`), as the spec names it.
//!
//! One sealed descriptor holds all of them, behind a salt: the digest is in the spec, the spec's in the record, and a
//! short secret must not be guessed from either.

use crate::app::App;
use crate::bytes::Digest;
use crate::json::Value;
use crate::mounts::{Kind, Mount};
use crate::shape::{ShapeError, constant, digest, fields, integer, wrong};

/// Bytes of the salt.
pub const SALT_BYTES: u64 = 32;
/// Most bytes of one file.
pub const FILE_BYTES_MAX: u64 = 512 << 10;
/// Most bytes of all files of a pod.
pub const FILES_BYTES_MAX: u64 = 1 << 20;

/// Salt and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// Bytes of the salt and of all files.
    pub size: u64,
    /// SHA-256 of them.
    pub digest: Digest,
}

impl Files {
    pub(crate) fn read(value: &Value) -> Result<Self, ShapeError> {
        let [access, sum, role, size] =
            fields(value, "files", ["access", "digest", "role", "size"])?;
        constant(role, "descriptors.role", "files")?;
        constant(access, "descriptors.access", "read")?;
        let most = SALT_BYTES.saturating_add(FILES_BYTES_MAX);
        Ok(Self {
            size: integer(size, "files.size", SALT_BYTES..=most)?,
            digest: digest(sum, "files.digest")?,
        })
    }
}

/// Bytes of each file of the list, in its order.
pub fn sizes(mounts: &[Mount]) -> impl Iterator<Item = u64> {
    mounts.iter().filter_map(|mount| match mount.kind {
        Kind::File { size, .. } => Some(size),
        Kind::Tmpfs { .. }
        | Kind::Empty { .. }
        | Kind::Image
        | Kind::Volume { .. }
        | Kind::Host(_) => None,
    })
}

/// Whether the descriptor is there with the files, and only then, and holds just them.
pub(crate) fn check(files: Option<&Files>, apps: &[App]) -> Result<(), ShapeError> {
    let wanted = apps
        .iter()
        .flat_map(|app| sizes(&app.mounts))
        .fold(None, |sum: Option<u64>, size| Some(sum.unwrap_or(SALT_BYTES).saturating_add(size)));
    if files.map(|files| files.size) == wanted {
        return Ok(());
    }
    Err(wrong("files.size", "must be that of a salt and the files of apps.mounts"))
}
