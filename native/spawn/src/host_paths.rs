//! Paths of the host that root lists for tenants (`host_paths` of spawn.json).
//!
//! A launch names an entry; no tenant, and not the agent, ever names a path. Spawn compares the spec with the list before
//! the ticket is spent, and the starter, which opens the path, compares it again with the list as it has read it.

use std::path::{Path, PathBuf};

use casemate_ticket::host_path::{self, HostPath, read_ids};
use casemate_ticket::json::Value;
use casemate_ticket::shape::{
    ShapeError, boolean, constant, fields, is_tenant_character, list, word, wrong,
};
use casemate_ticket::spec::{Level, Spec};
use casemate_ticket::volume;

use crate::config::absolute;
use crate::refusal::{Refusal, Result};

/// Most entries, and most tenants of one.
const ENTRIES_MAX: usize = 1024;
const TENANTS_MAX: usize = 4096;
/// Most bytes of a tenant's id.
const TENANT_BYTES_MAX: usize = 63;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory and all below it, but for what is mounted there.
    Directory,
    /// One regular file.
    File,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// By which launches name it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it has to be.
    pub kind: Kind,
    /// Who may have it.
    pub tenants: Vec<String>,
    /// First id on disk of who writes; `None`: nobody writes.
    pub ids: Option<u32>,
    /// Whether programs in it may be started.
    pub exec: bool,
}

/// Reads `host_paths`.
///
/// # Errors
/// An entry with a member that is missing, unknown or out of bounds.
pub fn read(value: &Value) -> std::result::Result<Vec<Entry>, ShapeError> {
    let Value::Object(members) = value else {
        return Err(wrong("host_paths", "must be an object of entries by name"));
    };
    if members.len() > ENTRIES_MAX {
        return Err(wrong("host_paths", format!("has more than {ENTRIES_MAX} entries")));
    }
    members.iter().map(|(name, entry)| read_entry(name, entry)).collect()
}

fn read_entry(name: &str, value: &Value) -> std::result::Result<Entry, ShapeError> {
    let at = format!("host_paths.{name}");
    let [exec, ids, kind, path, tenants] =
        fields(value, &at, ["exec", "ids", "kind", "path", "tenants"])?;
    let kind = match kind.as_str() {
        Some("directory") => Kind::Directory,
        _ => constant(kind, &format!("{at}.kind"), "file").map(|()| Kind::File)?,
    };
    let tenant = |item: &Value, at: &str| {
        word(item, at, TENANT_BYTES_MAX, is_tenant_character).map(ToOwned::to_owned)
    };
    let path = absolute(path, &format!("{at}.path"))?;
    if path == Path::new("/") {
        return Err(wrong(&format!("{at}.path"), "must not be the whole host"));
    }
    Ok(Entry {
        name: volume::name(&Value::String(name.into()), &at)?.into(),
        path,
        kind,
        tenants: list(tenants, &format!("{at}.tenants"), TENANTS_MAX, tenant)?,
        ids: read_ids(ids, &format!("{at}.ids"))?,
        exec: boolean(exec, &format!("{at}.exec"))?,
    })
}

/// The entries that a spec has, in the order of its mounts.
///
/// # Errors
/// `HOST_PATH_UNKNOWN` for one that is not there, or not for its tenant: which, is not told. `HOST_PATH_CHANGED` for one
/// that is not as the spec has it.
pub fn permit<'a>(entries: &'a [Entry], spec: &'a Spec) -> Result<Vec<(&'a Entry, &'a HostPath)>> {
    host_path::of_all(&spec.apps)
        .map(|wanted| Ok((permit_one(entries, spec, wanted)?, wanted)))
        .collect()
}

fn permit_one<'a>(entries: &'a [Entry], spec: &Spec, wanted: &HostPath) -> Result<&'a Entry> {
    let name = &wanted.name;
    let is_wanted = |entry: &&Entry| entry.name == *name && entry.tenants.contains(&spec.tenant);
    let Some(entry) = entries.iter().find(is_wanted) else {
        let message = format!("root lists no path {name} of the host for this tenant");
        return Err(Refusal::new("HOST_PATH_UNKNOWN", message));
    };
    // Anything weaker than a container has no ids of its own to map.
    if spec.level != Level::Container {
        let message = format!("path {name} of the host is for containers alone");
        return Err(Refusal::new("HOST_PATH_LEVEL", message));
    }
    if (wanted.ids, wanted.exec) != (entry.ids, entry.exec) {
        let message = format!("root's entry for path {name} of the host has changed; decide again");
        return Err(Refusal::new("HOST_PATH_CHANGED", message));
    }
    if entry.kind == Kind::File && wanted.sub_path.is_some() {
        let message = format!("path {name} of the host is a file, with nothing below it");
        return Err(Refusal::new("HOST_PATH_CHANGED", message));
    }
    Ok(entry)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "host_paths_tests.rs"]
mod tests;
