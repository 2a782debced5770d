//! Paths of the host in a spec: by the name under which root lists them (`host_paths` of spawn.json), never by a path.
//!
//! What the list says of a name is repeated here, so that it is on record, and whoever opens the path compares both.

use crate::app::App;
use crate::json::Value;
use crate::mounts::{Kind, Mount, read_sub_path};
use crate::shape::{ShapeError, boolean, fields, integer32, wrong};
use crate::volume;

/// Most of them among an app's mounts.
pub const MOUNTED_MAX: usize = 8;
/// Ids on disk for those of a pod: above what a host gives to its own users, and with 65,535 from there. With lower ones a
/// pod could leave programs behind that run as root, or as some user of the host, for whoever starts them.
pub const IDS: std::ops::RangeInclusive<u32> = 65_536..=u32::MAX - 65_536;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// Its name in root's list.
    pub name: String,
    /// What of it: names with slashes between them; `None` for all.
    pub sub_path: Option<String>,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether programs in it may be started.
    pub exec: bool,
    /// On disk the pod's ids are those from here on; `None`: none of the pod's is any on disk, so that nothing can be
    /// written, and only what everybody may read can be read.
    pub ids: Option<u32>,
}

/// Those among mounts, in their order.
pub fn of(mounts: &[Mount]) -> impl Iterator<Item = &HostPath> {
    mounts.iter().filter_map(|mount| match &mount.kind {
        Kind::Host(host) => Some(host),
        Kind::Tmpfs { .. }
        | Kind::Empty { .. }
        | Kind::File { .. }
        | Kind::Image
        | Kind::Volume { .. } => None,
    })
}

/// Those of all apps of a pod, in the order of the apps.
pub fn of_all(apps: &[App]) -> impl Iterator<Item = &HostPath> {
    apps.iter().flat_map(|app| of(&app.mounts))
}

impl HostPath {
    /// Reads a mount of kind `host`: where it is to be, which is not looked at, and what is to be there.
    pub(crate) fn read<'a>(value: &'a Value, at: &str) -> Result<(&'a Value, Self), ShapeError> {
        let [exec, ids, _, name, path, read_only, sub_path] =
            fields(value, at, ["exec", "ids", "kind", "name", "path", "read_only", "sub_path"])?;
        let ids = read_ids(ids, at)?;
        let read_only = boolean(read_only, at)?;
        if ids.is_none() && !read_only {
            return Err(wrong(at, "must be read-only without ids to write as"));
        }
        let name = volume::name(name, at)?.into();
        let sub_path = read_sub_path(sub_path, at)?;
        Ok((path, Self { name, sub_path, read_only, exec: boolean(exec, at)?, ids }))
    }
}

/// First of the ids on disk, or null.
///
/// # Errors
/// Ids that may be the host's own.
pub fn read_ids(value: &Value, at: &str) -> Result<Option<u32>, ShapeError> {
    match value {
        Value::Null => Ok(None),
        ids => integer32(ids, at, IDS).map(Some),
    }
}
