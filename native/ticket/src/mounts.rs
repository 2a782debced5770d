//! What is mounted in an app's root beside the image (`apps.mounts` of the spec, docs/formats.md section 2).
//!
//! The list is in the order in which it is mounted. Nothing in it hides what was mounted before, so that what a record
//! says is mounted is what the app sees.

use crate::files::FILE_BYTES_MAX;
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
    /// A volume of the tenant's: the next of the descriptors of that role.
    Volume {
        /// Its name.
        name: String,
        /// Whether nothing can be written.
        read_only: bool,
    },
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

/// Each volume once, and not too many.
fn refuse_volumes(mounts: &[Mount]) -> Result<(), ShapeError> {
    let mut names: Vec<&str> = volumes(mounts).map(|(name, _)| name).collect();
    if names.len() > VOLUMES_MAX {
        return Err(wrong("apps.mounts", format!("has more than {VOLUMES_MAX} volumes")));
    }
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(_) => Err(wrong("apps.mounts", "has a volume twice")),
        None => Ok(()),
    }
}

/// The volumes among mounts, in their order: the name, and whether nothing can be written.
pub fn volumes(mounts: &[Mount]) -> impl Iterator<Item = (&str, bool)> {
    mounts.iter().filter_map(|mount| match &mount.kind {
        Kind::Volume { name, read_only } => Some((name.as_str(), *read_only)),
        Kind::Tmpfs { .. } | Kind::Empty { .. } | Kind::File { .. } | Kind::Image => None,
    })
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
            let [_, mode, path] = fields(value, at, ["kind", "mode", "path"])?;
            (path, Kind::Empty { mode: integer32(mode, at, 0..=MODE_MAX)? })
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
            let [_, name, path, read_only] =
                fields(value, at, ["kind", "name", "path", "read_only"])?;
            let name = volume::name(name, at)?.into();
            (path, Kind::Volume { name, read_only: boolean(read_only, at)? })
        }
        _ => return Err(wrong(at, "must have a kind: tmpfs, empty, file, image or volume")),
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
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX;
    if !path.strip_prefix('/').is_some_and(|names| names.split('/').all(is_name)) {
        return Err(wrong(at, "must have an absolute path without . and .., that is not the root"));
    }
    if path != SHARED_MEMORY && KERNEL_PLACES.iter().any(|place| is_within(path, place)) {
        return Err(wrong(at, "must not be where the kernel's file systems are"));
    }
    Ok(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;
    use crate::json::parse;

    fn mounts(text: &str) -> Result<Vec<Mount>, ShapeError> {
        read(&parse(text.as_bytes(), 1 << 20).unwrap())
    }

    fn image(paths: &[&str]) -> Result<Vec<Mount>, ShapeError> {
        let items: Vec<String> =
            paths.iter().map(|path| format!(r#"{{"kind":"image","path":"{path}"}}"#)).collect();
        mounts(&format!("[{}]", items.join(",")))
    }

    #[test]
    fn takes_places_of_the_app_and_no_others() {
        for path in ["/x", "/tmp", "/var/lib/x", "/processes", "/device/x", "/..x", "/a b"] {
            assert!(image(&[path]).is_ok(), "{path}");
        }
        for path in [
            "",
            "/",
            "x",
            "//",
            "/x/",
            "/x//y",
            "/.",
            "/x/..",
            "/../x",
            "/x/./y",
            "/proc",
            "/proc/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/pts",
            "/dev/shm/x",
            "/dev/shm",
        ] {
            assert!(image(&[path]).is_err(), "{path}");
        }
        assert!(image(&[&format!("/{}", "a".repeat(256))]).is_err());
        assert!(image(&[&"/a".repeat(2048)]).is_err());
    }

    #[test]
    fn hides_nothing_that_was_mounted_before() {
        assert!(image(&["/x", "/x/y", "/xy"]).is_ok());
        for paths in [["/x", "/x"], ["/x/y", "/x"], ["/x/y/z", "/x"]] {
            assert!(image(&paths).is_err(), "{paths:?}");
        }
        let many: Vec<String> = (0..33).map(|number| format!("/{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(image(many.get(..32).unwrap()).is_ok() && image(&many).is_err());
    }

    #[test]
    fn takes_files_of_a_size_with_nothing_below_them() {
        let file = |path: &str, size: u64, mode: u32, uid: u32| {
            format!(
                r#"{{"gid":0,"kind":"file","mode":{mode},"path":"{path}","size":{size},"uid":{uid}}}"#
            )
        };
        assert!(mounts(&format!("[{}]", file("/x", 524_288, 0o777, 65_535))).is_ok());
        assert!(mounts(&format!("[{},{}]", file("/x", 0, 0, 0), file("/xy", 0, 0, 0))).is_ok());
        for bad in [
            file("/x", 524_289, 0, 0),
            file("/x", 0, 0o1000, 0),
            file("/x", 0, 0, 65_536),
            file("/dev/shm", 0, 0, 0),
            format!("{},{}", file("/x", 0, 0, 0), file("/x/y", 0, 0, 0)),
        ] {
            assert!(mounts(&format!("[{bad}]")).is_err(), "{bad}");
        }
    }

    #[test]
    fn takes_each_volume_once() {
        let volume = |name: &str, number: usize| {
            format!(r#"{{"kind":"volume","name":"{name}","path":"/v{number}","read_only":true}}"#)
        };
        let of = |names: &[&str]| {
            let items: Vec<String> =
                names.iter().enumerate().map(|(number, name)| volume(name, number)).collect();
            mounts(&format!("[{}]", items.join(",")))
        };
        let found = of(&["b", "a"]).unwrap_or_default();
        let names: Vec<_> = volumes(&found).collect();
        assert_eq!(names, [("b", true), ("a", true)]);
        assert!(of(&["a", "b", "c", "d"]).is_ok());
        for names in [&["a", "b", "a"][..], &["a", "b", "c", "d", "e"], &["../a"], &["-a"], &[""]] {
            assert!(of(names).is_err(), "{names:?}");
        }
        assert!(mounts(r#"[{"kind":"volume","name":"a","path":"/v"}]"#).is_err());
        assert!(mounts(r#"[{"kind":"volume","name":"a","path":"/","read_only":true}]"#).is_err());
    }

    #[test]
    fn bounds_what_is_in_memory() {
        let tmpfs = |members: &str| mounts(&format!("[{{{members}}}]"));
        let kind = Kind::Tmpfs { size: 4096, mode: 0o1777, exec: true, read_only: false };
        assert_eq!(
            tmpfs(
                r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/dev/shm","read_only":false,"size":4096"#
            ),
            Ok(vec![Mount { path: SHARED_MEMORY.into(), kind }])
        );
        for members in [
            r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/x","read_only":false,"size":4095"#,
            r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/x","read_only":false,"size":17179869185"#,
            r#""exec":true,"kind":"tmpfs","mode":1024,"path":"/x","read_only":false,"size":4096"#,
            r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/x","size":4096"#,
            r#""kind":"empty","mode":2541,"path":"/x""#,
            r#""kind":"bind","path":"/x""#,
            r#""path":"/x""#,
        ] {
            assert!(tmpfs(members).is_err(), "{members}");
        }
    }
}
