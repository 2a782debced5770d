//! Templates on disk: what one spawn built, the next one of the same boot need not build again.
//!
//! One directory of root's for all spawns of a host, in it one folder for each template: `state`,
//! `memory`, and `template.json`, which says of what it was built and what it became. A template is
//! good for what it was built of and nothing else, in the boot it was built in: another kernel of the
//! host, other microcode or another clock is other hardware, and a guest is not told that it moved.
//! What is read is copied into sealed memory and judged there, so that files which were damaged, or
//! change while they are read, make a template that is built again and never one that runs.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use casemate_ticket::bytes::{Digest, encode_hex};
use casemate_ticket::json::{self, Value};

use crate::answers::{object, string};
use crate::sparse;
use crate::template::{STATE_BYTES_MAX, Shape, Taken, Template, memory_bytes};

/// Most templates: the catalogue for each of a few builds of VMM, kernel and init.
const ENTRIES_MAX: usize = 8;
/// Ends the name of a folder that is being written.
const UNFINISHED: &str = ".new";
/// A folder that is still being written after this long never will be.
const UNFINISHED_AGE: Duration = Duration::from_hours(1);

/// The directory.
#[derive(Debug)]
pub struct TemplateStore {
    directory: PathBuf,
    boot_id: String,
}

impl TemplateStore {
    /// Makes the directory if needed, for root alone, and removes what no spawn can use any more.
    ///
    /// # Errors
    /// A directory that is not root's, or cannot be made or read.
    pub fn open(directory: &Path, boot_id: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let facts = fs::symlink_metadata(directory)?;
        if !facts.is_dir() || facts.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is no directory of root's"));
        }
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        let store = Self { directory: directory.to_owned(), boot_id: boot_id.to_owned() };
        store.sweep()?;
        Ok(store)
    }

    /// The template that was built of `source`.
    ///
    /// # Errors
    /// Not found, damaged, or no memory for it.
    pub fn load(&self, source: &Value, shape: Shape) -> io::Result<Template> {
        let folder = self.folder(source);
        let description = fs::read_to_string(folder.join("template.json"))?;
        let state = File::open(folder.join("state"))?;
        let memory = File::open(folder.join("memory"))?;
        let (state_size, memory_size) = (state.metadata()?.len(), memory_bytes(shape));
        if state_size > STATE_BYTES_MAX || memory.metadata()?.len() != memory_size {
            return Err(damaged("its files have other sizes"));
        }
        let (state, _) = sparse::copy("casemate-state", state.as_fd(), state_size)?;
        let (memory, _) = sparse::copy("casemate-memory", memory.as_fd(), memory_size)?;
        let taken = Taken::new(vec![state, memory], state_size, memory_size);
        let template = taken.ok_or("two descriptors").map_err(damaged)?;
        let template = Template::judge(template, shape).map_err(damaged)?;
        if description != describe(source, shape, &template) {
            return Err(damaged("it is not what template.json says"));
        }
        Ok(template)
    }

    /// Keeps a template, beside the newest others. One that another spawn kept meanwhile is as good.
    ///
    /// # Errors
    /// No space, or what writing says.
    pub fn keep(&self, source: &Value, shape: Shape, template: &Template) -> io::Result<()> {
        let folder = self.folder(source);
        let unfinished = folder.with_extension(format!("{}{UNFINISHED}", std::process::id()));
        fs::create_dir(&unfinished)?;
        let written = write(&unfinished, source, shape, template)
            .and_then(|()| fs::rename(&unfinished, &folder));
        if written.is_err() {
            fs::remove_dir_all(&unfinished)?;
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sweep(),
        }
    }

    /// Removes what was built of `source`.
    pub fn remove(&self, source: &Value) {
        let _ = fs::remove_dir_all(self.folder(source));
    }

    /// `<boot id>-<digest of what it was built of>`.
    fn folder(&self, source: &Value) -> PathBuf {
        let digest = encode_hex(&Digest::of(json::write(source).as_bytes()).0);
        self.directory.join(format!("{}-{digest}", self.boot_id))
    }

    /// Removes folders of other boots, those that were never finished, and the oldest beyond the most.
    fn sweep(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Gone already: another spawn sweeps as well.
            let Ok(written) = entry.metadata().and_then(|facts| facts.modified()) else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let age = SystemTime::now().duration_since(written).unwrap_or_default();
            let abandoned = name.ends_with(UNFINISHED) && age > UNFINISHED_AGE;
            if !name.starts_with(&self.boot_id) || abandoned {
                let _ = fs::remove_dir_all(entry.path());
            } else if !name.ends_with(UNFINISHED) {
                kept.push((written, entry.path()));
            }
        }
        kept.sort();
        let surplus = kept.len().saturating_sub(ENTRIES_MAX);
        for (_, folder) in kept.into_iter().take(surplus) {
            let _ = fs::remove_dir_all(folder);
        }
        Ok(())
    }
}

fn damaged(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

fn write(folder: &Path, source: &Value, shape: Shape, template: &Template) -> io::Result<()> {
    let files = [("state", &template.state, template.digests.state.size)];
    let files =
        files.into_iter().chain([("memory", &template.memory, template.digests.memory.size)]);
    for (name, from, size) in files {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(folder.join(name))?;
        sparse::copy_data(from.as_fd(), size, file.as_fd())?;
    }
    fs::write(folder.join("template.json"), describe(source, shape, template))
}

/// `template.json`.
fn describe(source: &Value, shape: Shape, template: &Template) -> String {
    json::write(&object(vec![
        ("v", string("casemate.template/1")),
        ("source", source.clone()),
        ("template", template.describe(shape)),
    ]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "template_store_tests.rs"]
mod tests;
