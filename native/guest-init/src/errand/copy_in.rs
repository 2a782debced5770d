//! An archive becomes files of the pod. Links in the path that was asked for lead where they lead in the pod; below it
//! nothing is written through a link, neither one of the archive nor one that was there, or is put there meanwhile.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::errand::Place;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, fstat, futimens, linkat, mkdirat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::archive::{Entry, Kind};
use super::archive_read::Archive;
use super::{OrTrouble, Outcome, say, shown, trouble};

/// Parts of a name; each but the last holds a descriptor.
const DEPTH_MAX: usize = 256;
const CHUNK: usize = 65_536;
/// Of a directory that an archive does not have itself.
const UNNAMED_MODE: u32 = 0o755;
/// A directory to go on from: it need not be readable.
const WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Writes what comes on standard input to `path`. False: something was left out, which was said.
///
/// # Errors
/// The first thing that cannot be written or is not to be; what was written before stays.
pub fn run(path: &str, place: Place, owners: bool) -> Outcome<bool> {
    let (root, renamed) = root_of(path, place)?;
    let mut tree = Tree { root, renamed, first: None, levels: Vec::new(), owners };
    let input = rustix::stdio::stdin().try_clone_to_owned().or_trouble("use standard input")?;
    let mut archive = Archive::new(BufReader::with_capacity(CHUNK, File::from(input)));
    let mut whole = true;
    while let Some(entry) = archive.next()? {
        whole &= tree.take(&entry, &mut archive)?;
    }
    tree.leave_to(0)?;
    archive.finish()?;
    Ok(whole)
}

/// The directory that the archive goes to, and what its one thing is to be called there, if not by its own name.
fn root_of(path: &str, place: Place) -> Outcome<(OwnedFd, Option<Vec<u8>>)> {
    let what = shown(path.as_bytes());
    let found = openat(CWD, path, WAY, Mode::empty());
    if let (Place::Named, Err(Errno::NOENT | Errno::NOTDIR)) = (place, &found)
        && let Some((above, name)) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty())
    {
        let above = if above.is_empty() { "/" } else { above };
        let root = openat(CWD, above, WAY, Mode::empty())
            .or_trouble(format!("enter {}", shown(above.as_bytes())))?;
        return Ok((root, Some(parts_of(name.as_bytes())?.concat())));
    }
    Ok((found.or_trouble(format!("enter {what}"))?, None))
}

/// What becomes of a directory of ours when all that is in it is there.
#[derive(Clone, Copy)]
struct Manner {
    mode: u32,
    mtime: Option<u64>,
}

type Owner = (Option<Uid>, Option<Gid>);

struct Level {
    name: Vec<u8>,
    directory: OwnedFd,
    /// It was made here.
    manner: Option<Manner>,
}

struct Tree {
    root: OwnedFd,
    /// What the one thing is called.
    renamed: Option<Vec<u8>>,
    /// What the archive calls it.
    first: Option<Vec<u8>>,
    /// The directories that are open, each in the one before.
    levels: Vec<Level>,
    owners: bool,
}

impl Tree {
    fn take(&mut self, entry: &Entry, archive: &mut Archive<impl Read>) -> Outcome<bool> {
        let mut parts = parts_of(&entry.name)?;
        self.rename(&mut parts)?;
        let Some((name, above)) = parts.split_last() else {
            // The target itself, which is left as it is.
            return Ok(true);
        };
        let what = shown(&entry.name);
        let write = || format!("write {what}");
        self.enter(above)?;
        match entry.kind {
            Kind::Directory => {
                let manner = Manner { mode: entry.mode, mtime: Some(entry.mtime) };
                self.push(name, Some(manner), self.owner(entry))?;
            }
            Kind::File => self.file(name, entry, archive)?,
            Kind::Link => {
                let here = self.here();
                make_room(here, name, || symlinkat(&entry.target, here, name.as_slice()))
                    .or_trouble(write())?;
                if let Some(owner) = self.owner(entry) {
                    give_link(here, name, owner).or_trouble(write())?;
                }
            }
            Kind::HardLink => {
                let mut target = parts_of(&entry.target)?;
                self.rename(&mut target)?;
                let Some((old, above)) = target.split_last() else {
                    return trouble(format!("{what} is a link to a directory"));
                };
                let from = self.way_to(above)?;
                let here = self.here();
                let old = old.as_slice();
                make_room(here, name, || {
                    linkat(&from, old, here, name.as_slice(), AtFlags::empty())
                })
                .or_trouble(write())?;
            }
            Kind::Special => {
                say(&format!("left out: {what} is a device or a FIFO"));
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first part of each name is that of the one thing, where it has to be one.
    fn rename(&mut self, parts: &mut [Vec<u8>]) -> Outcome<()> {
        let (Some(name), Some(first)) = (&self.renamed, parts.first_mut()) else { return Ok(()) };
        if self.first.get_or_insert_with(|| first.clone()) != first {
            let what = shown(name);
            return trouble(format!("{what} is no directory, and the archive has several things"));
        }
        first.clone_from(name);
        Ok(())
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(self.root.as_fd(), |level| level.directory.as_fd())
    }

    /// Moves to a directory below the root, making what is not there.
    fn enter(&mut self, parts: &[Vec<u8>]) -> Outcome<()> {
        let common = self.levels.iter().zip(parts).take_while(|(level, part)| level.name == **part);
        let common = common.count();
        self.leave_to(common)?;
        let manner = Manner { mode: UNNAMED_MODE, mtime: None };
        parts.iter().skip(common).try_for_each(|part| self.push(part, Some(manner), None))
    }

    fn push(&mut self, name: &[u8], manner: Option<Manner>, owner: Option<Owner>) -> Outcome<()> {
        let here = self.here();
        let what = shown(name);
        let made = match mkdirat(here, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno).or_trouble(format!("make {what}")),
        };
        let way = if made { OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC } else { WAY };
        let directory = openat(here, name, way | OFlags::NOFOLLOW, Mode::empty())
            .or_trouble(format!("enter {what}"))?;
        let made = made && is_as_made(&directory).or_trouble(format!("look at {what}"))?;
        if let (true, Some((uid, gid))) = (made, owner) {
            fchown(&directory, uid, gid).or_trouble(format!("give away {what}"))?;
        }
        let manner = manner.filter(|_| made);
        self.levels.push(Level { name: name.to_vec(), directory, manner });
        Ok(())
    }

    /// Leaves directories until `depth` are open; those that were made here are as the archive has them then.
    fn leave_to(&mut self, depth: usize) -> Outcome<()> {
        while self.levels.len() > depth {
            let Some(Level { name, directory, manner }) = self.levels.pop() else { break };
            let Some(Manner { mode, mtime }) = manner else { continue };
            self.finish(&directory, mode, mtime).or_trouble(format!("set {}", shown(&name)))?;
        }
        Ok(())
    }

    fn finish(&self, it: &OwnedFd, mode: u32, mtime: Option<u64>) -> rustix::io::Result<()> {
        let kept = if self.owners { 0o7777 } else { 0o777 };
        fchmod(it, Mode::from_raw_mode(mode & kept))?;
        let Some(mtime) = mtime else { return Ok(()) };
        let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(i64::MAX), tv_nsec: 0 };
        futimens(it, &Timestamps { last_access: time, last_modification: time })
    }

    fn owner(&self, entry: &Entry) -> Option<Owner> {
        // -1 would say that nothing is to change.
        let known = self.owners && entry.uid != u32::MAX && entry.gid != u32::MAX;
        known.then(|| (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))))
    }

    fn file(&self, name: &[u8], entry: &Entry, archive: &mut Archive<impl Read>) -> Outcome<()> {
        let here = self.here();
        let what = shown(&entry.name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = make_room(here, name, || openat(here, name, flags, Mode::RUSR | Mode::WUSR))
            .or_trouble(format!("make {what}"))?;
        let mut file = File::from(made);
        let written = archive.write_body(&mut file, &entry.name);
        if written.is_err() {
            // Half a file is worse than none.
            let _ = unlinkat(here, name, AtFlags::empty());
            return written;
        }
        let file = OwnedFd::from(file);
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(&file, uid, gid).or_trouble(format!("give away {what}"))?;
        }
        self.finish(&file, entry.mode, Some(entry.mtime)).or_trouble(format!("set {what}"))
    }

    /// A directory below the root, for the target of a hard link.
    fn way_to(&self, parts: &[Vec<u8>]) -> Outcome<OwnedFd> {
        let mut at = self.root.try_clone().or_trouble("enter a directory")?;
        for part in parts {
            at = openat(&at, part.as_slice(), WAY | OFlags::NOFOLLOW, Mode::empty())
                .or_trouble(format!("enter {}", shown(part)))?;
        }
        Ok(at)
    }
}

/// Makes something where there may be something: that is removed and never written to, be it a link, another name of a
/// file, or a FIFO. A directory stays.
fn make_room<T>(
    here: BorrowedFd<'_>,
    name: &[u8],
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(here, name, AtFlags::empty())?;
            make()
        }
        done => done,
    }
}

/// Whether a directory is one that was made just now. Whoever owns the one above may have put another in its place
/// before it was opened, which is not to be given away, nor to be opened to others.
fn is_as_made(directory: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = fstat(directory)?;
    // The set-group-ID bit comes from the directory above.
    let mode = Mode::from_raw_mode(stat.st_mode) & !Mode::SGID;
    if stat.st_uid != geteuid().as_raw() || mode != Mode::RWXU {
        return Ok(false);
    }
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a link away, and nothing else that is there in its place meanwhile.
fn give_link(here: BorrowedFd<'_>, name: &[u8], (uid, gid): Owner) -> rustix::io::Result<()> {
    let way = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat(here, name, way, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&link)?.st_mode) == FileType::Symlink {
        chownat(&link, "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

/// The parts of a name, from the root of the archive.
fn parts_of(name: &[u8]) -> Outcome<Vec<Vec<u8>>> {
    let what = shown(name);
    if name.starts_with(b"/") {
        return trouble(format!("{what} of the archive is absolute"));
    }
    let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    if parts.iter().any(|part| part == b"..") {
        return trouble(format!("{what} of the archive leads out of it"));
    }
    if parts.len() > DEPTH_MAX {
        return trouble(format!("{what} of the archive is too deep"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn takes_names_apart_that_stay_within() {
        assert_eq!(parts_of(b"./a//b/").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(parts_of(b"./").unwrap(), Vec::<Vec<u8>>::new());
        for wrong in ["/etc/passwd", "a/../../b", "..", &"d/".repeat(300)] {
            assert!(parts_of(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn knows_a_directory_that_was_put_in_the_place_of_its_own() {
        let above = std::env::temp_dir().join(format!("copy-in-{}", std::process::id()));
        fs::create_dir(&above).unwrap();
        let is_own = |name: &str, mode: u32, full: bool| {
            let path = above.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if full {
                fs::write(path.join("secret"), "").unwrap();
            }
            is_as_made(&OwnedFd::from(File::open(path).unwrap())).unwrap()
        };
        assert!(is_own("new", 0o700, false));
        assert!(is_own("of a group", 0o2700, false));
        assert!(!is_own("open", 0o755, false));
        assert!(!is_own("sticky", 0o1700, false));
        assert!(!is_own("full", 0o700, true));
        if geteuid().is_root() {
            let other = OwnedFd::from(File::open(above.join("new")).unwrap());
            fchown(&other, Some(Uid::from_raw(33)), None).unwrap();
            assert!(!is_as_made(&other).unwrap());
        }
        fs::remove_dir_all(above).unwrap();
    }

    #[test]
    fn gives_away_a_link_and_no_file_in_its_place() {
        if !geteuid().is_root() {
            return;
        }
        let path = std::env::temp_dir().join(format!("give-link-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("secret"), "").unwrap();
        symlink("secret", path.join("link")).unwrap();
        let here = OwnedFd::from(File::open(&path).unwrap());
        for (name, owner) in [("link", 33), ("secret", 0)] {
            give_link(here.as_fd(), name.as_bytes(), (Some(Uid::from_raw(33)), None)).unwrap();
            assert_eq!(fs::symlink_metadata(path.join(name)).unwrap().uid(), owner, "{name}");
        }
        fs::remove_dir_all(path).unwrap();
    }
}
