//! Named volumes: files of spawn's alone, `<state>/volumes/<tenant>/<name>/`, which outlive their pods.
//!
//! A folder holds `data`, the disk, sparse, and `volume.json`, what spawn knows of it. A snapshot is such a folder under
//! `<name>@<snapshot>`, and nothing writes to it again. What is being made or destroyed has a name that begins with a
//! dot, so a crash leaves a volume as it was or as it is to be, and rubbish that the next start removes.
//!
//! Who works with a disk holds a lock on it (flock(2)). It goes with the last copy of the very descriptor that took it,
//! and a VMM, a monitor and a loop device have copies: so a disk is free when the kernel itself has let go of it, also
//! when nobody remembers who had it.

mod attach;
mod copying;
mod facts;
mod orders;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

pub use attach::attached_names;
pub use copying::Copying;
pub use facts::Facts;

use crate::refusal::{Refusal, Result};
use crate::sparse;

/// Volumes and snapshots of one tenant: root's bound, above whatever the agent grants.
pub const FOLDERS_MAX: usize = 256;
/// Of what is being made, and of what is being destroyed.
const UNFINISHED: &str = ".new-";
const CONDEMNED: &str = ".old-";
const DATA: &str = "data";

/// The folder of all of them.
#[derive(Debug)]
pub struct Volumes {
    directory: PathBuf,
}

/// Whose, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Checked: nothing that a path reads as something else.
    pub tenant: &'a str,
    /// Likewise.
    pub volume: &'a str,
    /// Likewise; `None`: the volume itself.
    pub snapshot: Option<&'a str>,
}

/// One as it is listed.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub volume: String,
    /// Of a snapshot.
    pub snapshot: Option<String>,
    /// What is written down.
    pub facts: Facts,
    /// Bytes that it takes of the host's disk.
    pub used_bytes: u64,
}

/// How a disk is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading alone.
    Read,
    /// For both.
    ReadWrite,
}

impl Name<'_> {
    fn folder(&self) -> String {
        match self.snapshot {
            Some(snapshot) => format!("{}@{snapshot}", self.volume),
            None => self.volume.to_owned(),
        }
    }

    /// For sentences.
    pub fn shown(&self) -> String {
        match self.snapshot {
            Some(snapshot) => format!("snapshot {snapshot} of volume {}", self.volume),
            None => format!("volume {}", self.volume),
        }
    }
}

impl Volumes {
    /// Makes the folder if needed, for root alone, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("volumes");
        private_directory(&directory)?;
        for tenant in fs::read_dir(&directory)? {
            for folder in fs::read_dir(tenant?.path())? {
                let folder = folder?;
                if folder.file_name().as_encoded_bytes().starts_with(b".") {
                    fs::remove_dir_all(folder.path())?;
                }
            }
        }
        Ok(Self { directory })
    }

    fn place(&self, name: &Name<'_>) -> PathBuf {
        self.directory.join(name.tenant).join(name.folder())
    }

    fn beside(&self, name: &Name<'_>, prefix: &str) -> PathBuf {
        self.directory.join(name.tenant).join(format!("{prefix}{}", name.folder()))
    }

    /// What is written down of one; `None` where there is none.
    ///
    /// # Errors
    /// `SPAWN_STORAGE` for what cannot be read.
    pub fn facts(&self, name: &Name<'_>) -> Result<Option<Facts>> {
        Facts::read(&self.place(name)).map_err(storage)
    }

    /// The same of one that is to be there.
    ///
    /// # Errors
    /// `VOLUME_UNKNOWN`.
    pub fn known(&self, name: &Name<'_>) -> Result<Facts> {
        let message = || format!("the tenant has no {}", name.shown());
        self.facts(name)?.ok_or_else(|| Refusal::new("VOLUME_UNKNOWN", message()))
    }

    /// All of a tenant, each volume before its snapshots.
    ///
    /// # Errors
    /// `SPAWN_STORAGE`.
    pub fn list(&self, tenant: &str) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for folder in self.folders(tenant).map_err(storage)? {
            let (volume, snapshot) = match folder.split_once('@') {
                Some((volume, snapshot)) => (volume.to_owned(), Some(snapshot.to_owned())),
                None => (folder, None),
            };
            let name = Name { tenant, volume: &volume, snapshot: snapshot.as_deref() };
            let Some(facts) = self.facts(&name)? else { continue };
            let used_bytes = used_bytes(&self.place(&name)).map_err(storage)?;
            listed.push(Listed { volume, snapshot, facts, used_bytes });
        }
        listed.sort_by(|a, b| (&a.volume, &a.snapshot).cmp(&(&b.volume, &b.snapshot)));
        Ok(listed)
    }

    fn folders(&self, tenant: &str) -> io::Result<Vec<String>> {
        let read = match fs::read_dir(self.directory.join(tenant)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            read => read?,
        };
        let names = read.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: io::Result<Vec<String>> = names.collect();
        Ok(names?.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    /// Bytes of the host's disk that all of them may still come to take, and how many its file system has left.
    ///
    /// # Errors
    /// `SPAWN_STORAGE`.
    pub fn promised_and_free(&self) -> Result<(u64, u64)> {
        let mut promised: u64 = 0;
        for tenant in fs::read_dir(&self.directory).map_err(storage)? {
            let tenant = tenant.map_err(storage)?.file_name().to_string_lossy().into_owned();
            for Listed { facts, used_bytes, snapshot, .. } in self.list(&tenant)? {
                // A snapshot never takes more than it has.
                let more = facts.size_bytes.saturating_sub(used_bytes);
                promised = promised.saturating_add(if snapshot.is_none() { more } else { 0 });
            }
        }
        let directory = File::open(&self.directory).map_err(storage)?;
        let free = crate::resize::free_bytes(&directory.into()).map_err(storage)?;
        Ok((promised, free))
    }

    /// Opens the disk and locks it. Its length is what is written down: a crash may have left it longer.
    ///
    /// # Errors
    /// `VOLUME_UNKNOWN`, `VOLUME_BUSY` while somebody has it.
    pub fn hold(&self, name: &Name<'_>, access: Access) -> Result<(OwnedFd, Facts)> {
        let facts = self.known(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite).custom_flags(libc::O_NOFOLLOW);
        let disk = options.open(self.place(name).join(DATA)).map_err(storage)?;
        match flock(&disk, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                let message = format!("{} is being worked with; try again", name.shown());
                return Err(Refusal::new("VOLUME_BUSY", message));
            }
            Err(errno) => return Err(storage(errno)),
        }
        let length = disk.metadata().map_err(storage)?.len();
        if length < facts.size_bytes {
            return Err(storage(io::Error::other("the disk is shorter than it was made")));
        }
        if length > facts.size_bytes {
            let whole = OpenOptions::new().write(true).open(self.place(name).join(DATA));
            whole.and_then(|file| file.set_len(facts.size_bytes)).map_err(storage)?;
        }
        Ok((disk.into(), facts))
    }

    /// A descriptor that can only read, of one that nothing writes to.
    fn read_only(&self, name: &Name<'_>) -> Result<OwnedFd> {
        let path = self.place(name).join(DATA);
        let flags = libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        Ok(file.map_err(storage)?.into())
    }

    /// An empty file for a disk that is being made.
    fn begin(&self, name: &Name<'_>) -> io::Result<File> {
        private_directory(&self.directory.join(name.tenant))?;
        sync(&self.directory)?;
        let place = self.beside(name, UNFINISHED);
        clear(&place)?;
        DirBuilder::new().mode(0o700).create(&place)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(place.join(DATA))
    }

    /// What was begun is whole; it takes the place of one of that name where it `replaces` it.
    fn finish(&self, name: &Name<'_>, disk: &File, facts: Facts, replaces: bool) -> io::Result<()> {
        let (unfinished, place) = (self.beside(name, UNFINISHED), self.place(name));
        disk.sync_all()?;
        facts.write(&unfinished)?;
        sync(&unfinished)?;
        let how = if replaces { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &unfinished, CWD, &place, how)?;
        sync(&self.directory.join(name.tenant))?;
        if replaces { fs::remove_dir_all(unfinished) } else { Ok(()) }
    }

    /// What was begun comes to nothing.
    fn give_up(&self, name: &Name<'_>) {
        let _ = fs::remove_dir_all(self.beside(name, UNFINISHED));
    }

    /// Makes an empty volume that begins as `empty`.
    ///
    /// # Errors
    /// No room.
    pub fn create(
        &self,
        name: &Name<'_>,
        empty: (&OwnedFd, u64),
        size_bytes: u64,
    ) -> io::Result<()> {
        let made = self.begin(name).and_then(|disk| {
            sparse::copy_data(empty.0.as_fd(), empty.1, disk.as_fd())?;
            disk.set_len(size_bytes)?;
            self.finish(name, &disk, Facts::new(size_bytes), false)
        });
        made.inspect_err(|_| self.give_up(name))
    }

    /// Destroys one. It is gone for everybody in one step, and its bytes in the next.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, name: &Name<'_>) -> io::Result<()> {
        let condemned = self.beside(name, CONDEMNED);
        clear(&condemned)?;
        fs::rename(self.place(name), &condemned)?;
        sync(&self.directory.join(name.tenant))?;
        fs::remove_dir_all(condemned)
    }

    /// Writes down that one has changed.
    ///
    /// # Errors
    /// No room.
    pub fn write_down(&self, name: &Name<'_>, facts: Facts) -> io::Result<()> {
        let place = self.place(name);
        facts.write(&place)?;
        sync(&place)
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Of an earlier try that failed half-way.
fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes a file of root's whole, durably but for its folder.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))?;
    fs::rename(unfinished, path)
}

fn used_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::symlink_metadata(folder.join(DATA))?.blocks().saturating_mul(512))
}

/// The disk that volumes lie on failed.
pub fn storage(error: impl Into<io::Error>) -> Refusal {
    let error: io::Error = error.into();
    let message = format!("what spawn keeps of volumes: {error}");
    Refusal::new("SPAWN_STORAGE", message)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "tests.rs"]
mod tests;
