use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{AtFlags, RenameFlags, mknodat, renameat_with, statat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

const IDS: u32 = 3_000_000;

/// A place whose every directory is root's alone, unlike those for temporary files.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = PathBuf::from(format!("/run/casemate-paths-{}-{number}", std::process::id()));
        let made = Self(place);
        made.directory("data", 0o755);
        made.directory("data/sub", 0o755);
        made.file("data/sub/file");
        made.file("outside");
        made
    }

    fn directory(&self, name: &str, mode: u32) {
        DirBuilder::new().recursive(true).mode(0o755).create(self.0.join(name)).unwrap();
        fs::set_permissions(self.0.join(name), Permissions::from_mode(mode)).unwrap();
    }

    fn file(&self, name: &str) {
        fs::write(self.0.join(name), name).unwrap();
    }

    fn node(&self, name: &str, kind: FileType) {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, self.0.join(name), kind, mode, rustix::fs::makedev(1, 3)).unwrap();
    }

    fn entry(&self, name: &str, kind: Kind) -> Entry {
        let tenants = vec!["acme".into()];
        Entry { name: "e".into(), path: self.0.join(name), kind, tenants, ids: None, exec: false }
    }

    /// What is mounted, by inode, or the code of the refusal.
    fn open(
        &self,
        name: &str,
        kind: Kind,
        sub_path: Option<&str>,
    ) -> std::result::Result<u64, &'static str> {
        inode(&self.entry(name, kind), sub_path)
    }

    fn inode(&self, name: &str) -> u64 {
        fs::metadata(self.0.join(name)).unwrap().ino()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn tree(entry: &Entry, sub_path: Option<&str>) -> std::result::Result<OwnedFd, &'static str> {
    let wanted = HostPath {
        name: "e".into(),
        sub_path: sub_path.map(ToOwned::to_owned),
        read_only: true,
        exec: false,
        ids: entry.ids,
    };
    open(entry, &wanted).map_err(|refusal| refusal.code)
}

fn inode(entry: &Entry, sub_path: Option<&str>) -> std::result::Result<u64, &'static str> {
    Ok(fstat(tree(entry, sub_path)?).unwrap().st_ino)
}

#[test]
fn opens_what_root_has_put_there() {
    let place = Place::new();
    assert_eq!(place.open("data", Kind::Directory, None), Ok(place.inode("data")));
    assert_eq!(place.open("outside", Kind::File, None), Ok(place.inode("outside")));
    assert_eq!(place.open("data", Kind::Directory, Some("sub")), Ok(place.inode("data/sub")));
    let file = place.open("data", Kind::Directory, Some("sub/file"));
    assert_eq!(file, Ok(place.inode("data/sub/file")));
}

#[test]
fn refuses_links_wherever_they_are() {
    let place = Place::new();
    let link = |to: &str, name: &str| symlink(to, place.0.join(name)).unwrap();
    link("data", "link");
    link("../outside", "data/up");
    link("/etc", "data/absolute");
    link("/proc/self/root/etc", "data/magic");
    link("sub", "data/inside");
    assert_eq!(place.open("link", Kind::Directory, None), Err("HOST_PATH_UNSAFE"));
    assert_eq!(place.open("link/sub", Kind::Directory, None), Err("HOST_PATH_UNSAFE"));
    for name in ["up", "absolute", "magic", "inside"] {
        let found = place.open("data", Kind::Directory, Some(name));
        assert_eq!(found, Err("HOST_PATH_UNSAFE"), "{name}");
        let below = place.open("data", Kind::Directory, Some(&format!("{name}/file")));
        assert_eq!(below, Err("HOST_PATH_MISSING"), "{name}");
    }
    let magic = Entry { path: "/proc/self/root/etc".into(), ..place.entry("", Kind::Directory) };
    assert_eq!(inode(&magic, None), Err("HOST_PATH_UNSAFE"));
    // No spec has these.
    for up in ["..", "../data", "sub/../..", "/etc", "../../etc/passwd"] {
        let found = place.open("data", Kind::Directory, Some(up));
        assert_eq!(found, Err("HOST_PATH_MISSING"), "{up}");
    }
}

#[test]
fn refuses_what_others_than_root_decide_on() {
    let place = Place::new();
    for (uid, gid, mode) in [(0, 0, 0o775), (0, 0, 0o757), (0, 0, 0o1777), (1000, 0, 0o755)] {
        place.directory("way", mode);
        place.directory("way/data", 0o755);
        chown(place.0.join("way"), Some(uid), Some(gid)).unwrap();
        let found = place.open("way/data", Kind::Directory, None);
        assert_eq!(found, Err("HOST_PATH_UNSAFE"), "{uid} {mode:o}");
        chown(place.0.join("way"), Some(0), Some(0)).unwrap();
        place.directory("way", 0o755);
        assert!(place.open("way/data", Kind::Directory, None).is_ok());
    }
    // Whose the entry itself is does not matter: that is what is shared.
    chown(place.0.join("data"), Some(1000), Some(1000)).unwrap();
    assert!(place.open("data", Kind::Directory, None).is_ok());
}

#[test]
fn refuses_what_is_no_directory_and_no_regular_file() {
    let place = Place::new();
    place.node("data/fifo", FileType::Fifo);
    place.node("data/device", FileType::CharacterDevice);
    let _listener = UnixListener::bind(place.0.join("data/socket")).unwrap();
    assert!(fs::metadata(place.0.join("data/device")).unwrap().file_type().is_char_device());
    for name in ["fifo", "device", "socket"] {
        let whole = format!("data/{name}");
        for kind in [Kind::File, Kind::Directory] {
            assert_eq!(place.open(&whole, kind, None), Err("HOST_PATH_UNSAFE"), "{name}");
        }
        let part = place.open("data", Kind::Directory, Some(name));
        assert_eq!(part, Err("HOST_PATH_UNSAFE"), "{name}");
    }
    assert_eq!(place.open("data", Kind::File, None), Err("HOST_PATH_UNSAFE"));
    assert_eq!(place.open("outside", Kind::Directory, None), Err("HOST_PATH_UNSAFE"));
    assert_eq!(place.open("nothing", Kind::Directory, None), Err("HOST_PATH_MISSING"));
    assert_eq!(place.open("data", Kind::Directory, Some("nothing")), Err("HOST_PATH_MISSING"));
}

#[test]
fn shares_nothing_that_is_mounted_below() {
    let place = Place::new();
    let below = place.0.join("data/sub");
    mount("tmpfs", &below, "tmpfs", MountFlags::NOSUID, None).unwrap();
    fs::write(below.join("secret"), "").unwrap();
    let through = place.open("data", Kind::Directory, Some("sub"));
    let found = tree(&place.entry("data", Kind::Directory), None).unwrap();
    let hidden = statat(&found, "sub/secret", AtFlags::empty()).err();
    let under = statat(&found, "sub/file", AtFlags::empty()).err();
    unmount(&below, UnmountFlags::DETACH).unwrap();
    assert_eq!(through, Err("HOST_PATH_MISSING"));
    assert_eq!((hidden, under), (Some(Errno::NOENT), None));
}

#[test]
fn leads_through_no_directory_that_the_pod_could_not_pass() {
    let place = Place::new();
    let with = |ids| Entry { ids, ..place.entry("data", Kind::Directory) };
    place.directory("data/private", 0o750);
    place.directory("data/private/open", 0o755);
    assert_eq!(inode(&with(None), Some("private/open")), Err("HOST_PATH_MISSING"));
    assert_eq!(inode(&with(Some(IDS)), Some("private/open")), Err("HOST_PATH_MISSING"));
    let private = place.0.join("data/private");
    for (uid, gid, is_pods) in [
        (IDS, IDS + 65_534, true),
        (IDS, IDS + 65_535, false),
        (IDS - 1, IDS, false),
        (IDS, 0, false),
    ] {
        chown(&private, Some(uid), Some(gid)).unwrap();
        let found = inode(&with(Some(IDS)), Some("private/open"));
        assert_eq!(found.is_ok(), is_pods, "{uid} {gid}");
        assert_eq!(inode(&with(None), Some("private/open")), Err("HOST_PATH_MISSING"));
    }
}

/// What a pod that writes to an entry does while another one is started (CVE-2021-25741).
#[test]
fn opens_nothing_outside_while_links_are_swapped() {
    let place = Place::new();
    let outside = place.0.join("elsewhere");
    place.directory("elsewhere", 0o755);
    place.file("elsewhere/file");
    let [real, trick] = ["data/sub", "data/trick"].map(|name| place.0.join(name));
    symlink(&outside, &trick).unwrap();
    let good = Ok(place.inode("data/sub/file"));
    let over = AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                swap(&real, &trick);
            }
        });
        let mut others = vec![];
        while (opened < 200 || refused < 200) && others.is_empty() {
            match place.open("data", Kind::Directory, Some("sub/file")) {
                Err("HOST_PATH_MISSING") => refused += 1,
                found if found == good => opened += 1,
                found => others.push(found),
            }
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(others, []);
    });
}

fn swap(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}
