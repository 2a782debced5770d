//! A file or a directory of the pod as an archive. Links in the path that was asked for lead where they lead in the pod;
//! those below are archived as links, and none is followed, also where one takes a directory's place meanwhile.

use std::ffi::CStr;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::archive::{BLOCK, Entry, Kind, header};
use super::{OrTrouble, Outcome, Trouble, say, shown, trouble};

/// Directories within each other; each holds a descriptor.
const DEPTH_MAX: usize = 256;
const CHUNK: usize = 65_536;
/// `PROC_SUPER_MAGIC`.
const PROC: i64 = 0x9fa0;
/// That and `SYSFS_MAGIC`: what is there is no file of anybody's.
const OF_THE_KERNEL: [i64; 2] = [PROC, 0x6265_6572];
/// What may be copied out of `/proc` by name: what a process is under. This one's memory is a copy of init's, which
/// other files there would show (`maps`, `map_files`, `exe`, `auxv`).
const OF_PROC: [&[u8]; 4] = [b"cgroup", b"limits", b"mountinfo", b"status"];
/// An open that waits for nobody and takes no terminal.
const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Writes what `path` is to standard output. False: a part of it could not be read, which was said.
///
/// # Errors
/// Why nothing can be read, or nothing more be written.
pub fn run(path: &str) -> Outcome<bool> {
    let what = shown(path.as_bytes());
    let Some((found, stat)) = open(path).or_trouble(format!("open {what}"))? else {
        return trouble(format!("{what} is the kernel's: read it with exec"));
    };
    let out = rustix::stdio::stdout().try_clone_to_owned().or_trouble("use standard output")?;
    let out = BufWriter::with_capacity(CHUNK, File::from(out));
    let mut copy = Copy { out, whole: true };
    let name = name_of(path);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => copy.file(found, &stat, &name)?,
        FileType::Directory => copy.directory(found, &stat, &name, 0)?,
        _ => return trouble(format!("{what} is neither a file nor a directory")),
    }
    copy.out
        .write_all(&[0; 2 * BLOCK])
        .and_then(|()| copy.out.flush())
        .or_trouble("write the archive")?;
    Ok(copy.whole)
}

/// What `path` leads to; `None` where the kernel has it, and it is not to be copied. Links of the kernel's own, as
/// `/proc/self/exe`, lead nowhere.
fn open(path: &str) -> Result<Option<(OwnedFd, Stat)>, Errno> {
    let open = |flags| openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    // A link may be called what it likes.
    let (found, is_named_so) = match open(OPEN | OFlags::NOFOLLOW) {
        Err(Errno::LOOP) => (open(OPEN)?, false),
        found => (found?, true),
    };
    let stat = fstat(&found)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let may = is_file && is_named_so && OF_PROC.contains(&name_of(path).as_slice());
    Ok((may || fstatfs(&found)?.f_type != PROC).then_some((found, stat)))
}

/// The last part of a path; of one that ends in `/.`, as of the root, what is in the directory is meant.
fn name_of(path: &str) -> Vec<u8> {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | ".." => b".".to_vec(),
        name => name.as_bytes().to_vec(),
    }
}

struct Copy {
    out: BufWriter<File>,
    /// Nothing was left out that could have been archived.
    whole: bool,
}

impl Copy {
    fn left_out(&mut self, trouble: &Trouble) {
        say(trouble);
        self.whole = false;
    }

    fn head(&mut self, kind: Kind, stat: &Stat, size: u64, names: [&[u8]; 2]) -> Outcome<()> {
        let [name, target] = names.map(<[u8]>::to_vec);
        let entry = Entry {
            kind,
            name,
            target,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        };
        self.out.write_all(&header(&entry)).or_trouble("write the archive")
    }

    /// As long as it was when it was looked at; one that is short is read first, since the kernel's own files say
    /// that they are empty.
    fn file(&mut self, file: OwnedFd, stat: &Stat, name: &[u8]) -> Outcome<()> {
        let what = shown(name);
        let mut file = File::from(file);
        let mut begin = Vec::new();
        let most = u64::try_from(CHUNK).unwrap_or(0);
        if let Err(error) = Read::by_ref(&mut file).take(most).read_to_end(&mut begin) {
            self.left_out(&Trouble(format!("left out: cannot read {what}: {error}")));
            return Ok(());
        }
        let mut size = u64::try_from(begin.len()).unwrap_or(0);
        if size == most {
            size = size.max(u64::try_from(stat.st_size).unwrap_or(0));
        }
        self.head(Kind::File, stat, size, [name, &[]])?;
        self.out.write_all(&begin).or_trouble("write the archive")?;
        let mut left = size.saturating_sub(u64::try_from(begin.len()).unwrap_or(0));
        let mut chunk = begin;
        chunk.resize(CHUNK, 0);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let piece = chunk.get_mut(..most).unwrap_or_default();
            let count = match file.read(piece) {
                Ok(count) if count > 0 => count,
                // The header is out: what is missing is zeros.
                ended => {
                    let why = ended.err().map_or("it is shorter now".into(), |why| why.to_string());
                    self.left_out(&Trouble(format!("not whole: {what}: {why}")));
                    return self.fill(left.saturating_add(gap(size)));
                }
            };
            self.out
                .write_all(piece.get(..count).unwrap_or_default())
                .or_trouble("write the archive")?;
            left = left.saturating_sub(u64::try_from(count).unwrap_or(0));
        }
        self.fill(gap(size))
    }

    fn fill(&mut self, bytes: u64) -> Outcome<()> {
        std::io::copy(&mut std::io::repeat(0).take(bytes), &mut self.out)
            .or_trouble("write the archive")?;
        Ok(())
    }

    fn directory(
        &mut self,
        directory: OwnedFd,
        stat: &Stat,
        name: &[u8],
        depth: usize,
    ) -> Outcome<()> {
        self.head(Kind::Directory, stat, 0, [name, &[]])?;
        let mut entries = match Dir::new(directory) {
            Ok(entries) => entries,
            Err(errno) => {
                self.left_out(&Trouble(format!("left out: cannot read {}: {errno}", shown(name))));
                return Ok(());
            }
        };
        while let Some(entry) = entries.read() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    let what = shown(name);
                    self.left_out(&Trouble(format!("not whole: {what}: {errno}")));
                    break;
                }
            };
            let own = entry.file_name();
            if matches!(own.to_bytes(), b"." | b"..") {
                continue;
            }
            let full = [name, b"/", own.to_bytes()].concat();
            let within = entries.fd().or_trouble("read a directory")?;
            self.entry(within, own, &full, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        within: BorrowedFd<'_>,
        own: &CStr,
        name: &[u8],
        depth: usize,
    ) -> Outcome<()> {
        let what = shown(name);
        let found = match look(within, own) {
            Ok(found) => found,
            Err(errno) => {
                self.left_out(&Trouble(format!("left out: cannot open {what}: {errno}")));
                return Ok(());
            }
        };
        match found {
            Found::File(file, stat) => self.file(file, &stat, name),
            Found::Directory(_, _) if depth >= DEPTH_MAX => {
                self.left_out(&Trouble(format!("left out: {what} is too deep")));
                Ok(())
            }
            Found::Directory(directory, stat) => {
                self.directory(directory, &stat, name, depth.saturating_add(1))
            }
            Found::Link(target, stat) => self.head(Kind::Link, &stat, 0, [name, &target]),
            Found::Other => {
                say(&format!("left out: {what} is neither a file, a directory nor a link"));
                Ok(())
            }
            Found::OfTheKernel => {
                say(&format!("left out: {what} is the kernel's"));
                Ok(())
            }
        }
    }
}

enum Found {
    File(OwnedFd, Stat),
    Directory(OwnedFd, Stat),
    Link(Vec<u8>, Stat),
    Other,
    OfTheKernel,
}

/// What is there. What was seen first decides how it is opened, what was opened decides what it is.
fn look(within: BorrowedFd<'_>, own: &CStr) -> Result<Found, Errno> {
    let seen = statat(within, own, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(seen.st_mode) {
        FileType::Symlink => {
            let target = readlinkat(within, own, Vec::new())?.into_bytes();
            return Ok(Found::Link(target, seen));
        }
        FileType::RegularFile | FileType::Directory => {}
        _ => return Ok(Found::Other),
    }
    let opened = openat(within, own, OPEN | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = fstat(&opened)?;
    let crossed = fstat(within)?.st_dev != stat.st_dev;
    if crossed && OF_THE_KERNEL.contains(&fstatfs(&opened)?.f_type) {
        return Ok(Found::OfTheKernel);
    }
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File(opened, stat),
        FileType::Directory => Found::Directory(opened, stat),
        _ => Found::Other,
    })
}

/// Up to the next whole block.
fn gap(size: u64) -> u64 {
    let block = u64::try_from(BLOCK).unwrap_or(1);
    size.checked_next_multiple_of(block).map_or(0, |all| all.saturating_sub(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_an_archive_after_the_path() {
        for (path, name) in
            [("/a/b", "b"), ("/a/b/", "b"), ("/", "."), ("/a/.", "."), ("/a/..", "."), ("//x", "x")]
        {
            assert_eq!(name_of(path), name.as_bytes(), "{path}");
        }
    }
}
