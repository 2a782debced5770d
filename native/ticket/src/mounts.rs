//! What is mounted in an app's root beside the image (`apps.mounts` of the spec, docs/formats.md section 2).
//!
//! The list is in the order in which it is mounted. Nothing in it hides what was mounted before, so that what a record
//! says is mounted is what the app sees.

use crate::app::App;
use crate::files::FILE_BYTES_MAX;
use crate::host_path::{self, HostPath};
use crate::json::Value;
use crate::shape::{ShapeError, boolean, fields, integer, integer32, list, text, wrong};
use crate::volume;

/// Most mounts of an app.
pub const MOUNTS_MAX: usize = 32;
/// Most volumes among them: a machine has as many spare disks.
pub const VOLUMES_MAX: usize = 4;
/// `PATH_MAX` without its NUL, and `NAME_MAX`.
const PATH_BYTES_MAX: usize = 4095;
const NAME_BYTES_MAX: usize = 255;
/// Of a place below what is mounted: all of a pod's have room in a record.
const SUB_PATH_BYTES_MAX: usize = 512;
/// Bytes of a page, the least that a file system in memory holds; and as much memory as any machine has.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 4096..=16_384 << 20;
/// Permissions of a directory, with the sticky bit and without those that lend a user or group.
const MODE_MAX: u32 = 0o1777;
const FILE_MODE_MAX: u32 = 0o777;
/// The last user and group of a container, and so of every pod.
const ID_MAX: u32 = 65_535;
/// Made by guest-init, or by the runtime, for every app: what is mounted there, above or below would change what is
/// masked and protected.
const KERNEL_PLACES: [&str; 3] = ["/proc", "/sys", "/dev"];
/// The one place among them that is data of the app's.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where: absolute, without `.`, `..`, empty names or a slash at the end.
    pub path: String,
    /// What.
    pub kind: Kind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file system in the pod's memory.
    Tmpfs {
        /// Most bytes of its content.
        size: u64,
        /// Permissions of its root.
        mode: u32,
        /// Whether programs in it may be started.
        exec: bool,
        /// Whether nothing can be written: it hides what is below.
        read_only: bool,
    },
    /// An empty directory of the scratch disk.
    Empty {
        /// Its permissions.
        mode: u32,
        /// The name by which apps of the pod share it, if they do.
        name: Option<String>,
    },
    /// One file, in memory, which cannot be written.
    File {
        /// Its bytes.
        size: u64,
        /// Its permissions.
        mode: u32,
        /// Whose it is, inside.
        uid: u32,
        /// Of which group, inside.
        gid: u32,
    },
    /// What the image has at that place, to be written even where the root is read-only.
    Image,
    /// A volume of the tenant's: the descriptor of that role that is for its name.
    Volume {
        /// Its name.
        name: String,
        /// Whether nothing can be written.
        read_only: bool,
        /// What of it: names with slashes between them; `None` for all.
        sub_path: Option<String>,
    },
    /// Something of the host's that root lists for tenants.
    Host(HostPath),
}

/// A volume among mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// What of it; `None` for all.
    pub sub_path: Option<&'a str>,
}

/// Reads `apps.mounts`.
///
/// # Errors
/// A mount that is none, too many, or one that would hide another.
pub(crate) fn read(value: &Value) -> Result<Vec<Mount>, ShapeError> {
    let mounts = list(value, "apps.mounts", MOUNTS_MAX, read_mount)?;
    for (at, mount) in mounts.iter().enumerate() {
        let is_in_the_way = |before: &Mount| {
            is_within(&before.path, &mount.path)
                || (is_within(&mount.path, &before.path)
                    && matches!(before.kind, Kind::File { .. }))
        };
        if mounts.iter().take(at).any(is_in_the_way) {
            let text = format!("has {:?} where an earlier mount is in its way", mount.path);
            return Err(wrong("apps.mounts", text));
        }
    }
    refuse_volumes(&mounts)?;
    Ok(mounts)
}

/// Each volume once, and not too many of what is from outside of the pod.
fn refuse_volumes(mounts: &[Mount]) -> Result<(), ShapeError> {
    let mut names: Vec<&str> = volumes(mounts).map(|volume| volume.name).collect();
    if names.len() > VOLUMES_MAX {
        return Err(wrong("apps.mounts", format!("has more than {VOLUMES_MAX} volumes")));
    }
    if host_path::of(mounts).count() > host_path::MOUNTED_MAX {
        let most = host_path::MOUNTED_MAX;
        return Err(wrong("app.mounts", format!("has more than {most} paths of the host")));
    }
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(_) => Err(wrong("apps.mounts", "has a volume twice")),
        None => Ok(()),
    }
}

/// The volumes among mounts, in their order.
pub fn volumes(mounts: &[Mount]) -> impl Iterator<Item = Volume<'_>> {
    mounts.iter().filter_map(|mount| match &mount.kind {
        Kind::Volume { name, read_only, sub_path } => {
            Some(Volume { name, read_only: *read_only, sub_path: sub_path.as_deref() })
        }
        Kind::Tmpfs { .. }
        | Kind::Empty { .. }
        | Kind::File { .. }
        | Kind::Image
        | Kind::Host(_) => None,
    })
}

/// The volumes of all apps, each once and as a whole, in the order in which they are first named: that of their
/// descriptors. One can be written when one of the apps can.
#[must_use]
pub fn of_all(apps: &[App]) -> Vec<Volume<'_>> {
    let mut found: Vec<Volume<'_>> = Vec::new();
    for volume in apps.iter().flat_map(|app| volumes(&app.mounts)) {
        match found.iter_mut().find(|known| known.name == volume.name) {
            Some(known) => known.read_only &= volume.read_only,
            None => found.push(Volume { sub_path: None, ..volume }),
        }
    }
    found
}

/// What apps share is the same for all of them, and no more than a pod has.
pub(crate) fn check_shared(apps: &[App]) -> Result<(), ShapeError> {
    if of_all(apps).len() > VOLUMES_MAX {
        return Err(wrong("apps.mounts", format!("have more than {VOLUMES_MAX} volumes")));
    }
    if apps.iter().flat_map(|app| host_path::of(&app.mounts)).count() > host_path::MOUNTED_MAX {
        let most = host_path::MOUNTED_MAX;
        return Err(wrong("apps.mounts", format!("have more than {most} paths of the host")));
    }
    let mut modes: Vec<(&str, u32)> = Vec::new();
    for mount in apps.iter().flat_map(|app| &app.mounts) {
        let Kind::Empty { mode, name: Some(name) } = &mount.kind else { continue };
        match modes.iter().find(|(known, _)| known == name) {
            Some((_, other)) if other != mode => {
                return Err(wrong("apps.mounts", "have a directory of a name with two modes"));
            }
            Some(_) => {}
            None => modes.push((name, *mode)),
        }
    }
    Ok(())
}

/// Whether `path` is `place` or below it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn read_mount(value: &Value, at: &str) -> Result<Mount, ShapeError> {
    let kind = value.get("kind").and_then(Value::as_str);
    let (path, kind) = match kind {
        Some("tmpfs") => {
            let [exec, _, mode, path, read_only, size] =
                fields(value, at, ["exec", "kind", "mode", "path", "read_only", "size"])?;
            let kind = Kind::Tmpfs {
                size: integer(size, at, MEMORY_BYTES)?,
                mode: integer32(mode, at, 0..=MODE_MAX)?,
                exec: boolean(exec, at)?,
                read_only: boolean(read_only, at)?,
            };
            (path, kind)
        }
        Some("empty") => {
            let [_, mode, name, path] = fields(value, at, ["kind", "mode", "name", "path"])?;
            let given = (*name != Value::Null).then_some(name);
            let name = given.map(|name| volume::name(name, at).map(String::from)).transpose()?;
            (path, Kind::Empty { mode: integer32(mode, at, 0..=MODE_MAX)?, name })
        }
        Some("file") => {
            let [gid, _, mode, path, size, uid] =
                fields(value, at, ["gid", "kind", "mode", "path", "size", "uid"])?;
            let kind = Kind::File {
                size: integer(size, at, 0..=FILE_BYTES_MAX)?,
                mode: integer32(mode, at, 0..=FILE_MODE_MAX)?,
                uid: integer32(uid, at, 0..=ID_MAX)?,
                gid: integer32(gid, at, 0..=ID_MAX)?,
            };
            (path, kind)
        }
        Some("image") => {
            let [_, path] = fields(value, at, ["kind", "path"])?;
            (path, Kind::Image)
        }
        Some("volume") => {
            let [_, name, path, read_only, sub_path] =
                fields(value, at, ["kind", "name", "path", "read_only", "sub_path"])?;
            let name = volume::name(name, at)?.into();
            let sub_path = read_sub_path(sub_path, at)?;
            (path, Kind::Volume { name, read_only: boolean(read_only, at)?, sub_path })
        }
        Some("host") => HostPath::read(value, at).map(|(path, host)| (path, Kind::Host(host)))?,
        _ => return Err(wrong(at, "must have a kind: tmpfs, empty, file, image, volume or host")),
    };
    let path = read_path(path, at)?;
    if path == SHARED_MEMORY && !matches!(kind, Kind::Tmpfs { .. }) {
        return Err(wrong(at, "must be a tmpfs where shared memory is"));
    }
    Ok(Mount { path: path.into(), kind })
}

/// A place in an app's root where something may be mounted.
fn read_path<'a>(value: &'a Value, at: &str) -> Result<&'a str, ShapeError> {
    let path = text(value, at, PATH_BYTES_MAX)?;
    if !path.strip_prefix('/').is_some_and(|names| names.split('/').all(is_name)) {
        return Err(wrong(at, "must have an absolute path without . and .., that is not the root"));
    }
    if path != SHARED_MEMORY && KERNEL_PLACES.iter().any(|place| is_within(path, place)) {
        return Err(wrong(at, "must not be where the kernel's file systems are"));
    }
    Ok(path)
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX
}

/// A place below what is mounted: names with slashes between them, none of which leads up or out.
pub(crate) fn read_sub_path(value: &Value, at: &str) -> Result<Option<String>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    let path = text(value, at, SUB_PATH_BYTES_MAX)?;
    if path.split('/').all(is_name) {
        return Ok(Some(path.into()));
    }
    Err(wrong(at, "must have a sub-path of names with one slash between them, without . and .."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#[path = "mounts_tests.rs"]
mod tests;
