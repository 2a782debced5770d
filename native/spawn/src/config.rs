//! Spawn's configuration (docs/formats.md section 4): what root decided for this host.
//!
//! Read once, at start. A file that somebody else could write is no decision of root's and is refused,
//! like every member that is missing, unknown or out of bounds.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use casemate_ticket::bytes::Digest;
use casemate_ticket::document::{read_levels, read_log_keys};
use casemate_ticket::json::{self, Value};
use casemate_ticket::note::LogKey;
use casemate_ticket::shape::{self, ShapeError, boolean, constant, fields, integer32, list, wrong};
use casemate_ticket::spec::{Level, verified_size};

use crate::host_paths::{self, Entry};
use crate::refusal::{Refusal, Result};
use crate::router::state::Uplink;

/// Most bytes of the file.
const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Ids a VM or worker may have: not root, not nobody-like specials, not the "no id" value.
const ID_RANGE: std::ops::RangeInclusive<u32> = 1..=u32::MAX - 1_000_001;
/// Most VMs at a time: as many as can be handed to the next spawn, three descriptors of each, with all their names in one
/// string of its environment, which the kernel has no more than 128 KiB for.
const VM_UID_COUNT_MAX: u32 = 1000;
/// User ids, and group ids, of a container (native/container/src/bundle.rs).
pub const CONTAINER_IDS: u32 = 65_536;
/// Most bytes of a scratch disk.
const SCRATCH_BYTES_MAX: u64 = 1 << 40;

/// The file's members, all required.
const MEMBERS: [&str; 24] = [
    "agent_gid",
    "agent_uid",
    "allow_software_kvm",
    "container",
    "host_paths",
    "init",
    "init_verity",
    "kernel",
    "levels",
    "log_keys",
    "node",
    "run_dir",
    "scratch",
    "state_dir",
    "template_dir",
    "uplink",
    "v",
    "vm_uid_base",
    "vm_uid_count",
    "vmm",
    "volume",
    "worker_gid",
    "worker_uid",
    "workers",
];

/// How the init disk is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitVerity {
    /// Data blocks of 4096 bytes.
    pub data_blocks: u64,
    /// Root of the dm-verity tree.
    pub root: [u8; 32],
    /// Salt, at most 64 bytes.
    pub salt: Vec<u8>,
}

/// What level container needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containers {
    /// The monitor's program.
    pub monitor: PathBuf,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// First of the ids of containers.
    pub uid_base: u32,
    /// How many ranges of [`CONTAINER_IDS`] there are from there: so many containers at a time.
    pub count: u32,
}

/// The configuration, every member within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Host id.
    pub node: String,
    /// Keys of logs whose receipts are tickets.
    pub log_keys: Vec<LogKey>,
    /// Whether a software KVM may be used at all.
    pub allow_software_kvm: bool,
    /// Tenants that may run below level vm.
    pub levels: Vec<(String, Vec<Level>)>,
    /// Paths of the host that tenants may have, by name.
    pub host_paths: Vec<Entry>,
    /// Null where this host runs no containers.
    pub container: Option<Containers>,
    /// Who may ask, beside root.
    pub agent: (u32, u32),
    /// Who workers run as.
    pub worker: (u32, u32),
    /// First of the user ids of VMs.
    pub vm_uid_base: u32,
    /// How many there are.
    pub vm_uid_count: u32,
    /// Socket and spent tickets: lost at a reboot, as the tickets are.
    pub run_dir: PathBuf,
    /// What stays: the workers' log.
    pub state_dir: PathBuf,
    /// Templates that outlive this spawn; spawns of one host may share it.
    pub template_dir: PathBuf,
    /// The way out for pods; `None`: there is none.
    pub uplink: Option<Uplink>,
    /// The VMM.
    pub vmm: PathBuf,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The disk with guest-init.
    pub init: PathBuf,
    /// Its tree.
    pub init_verity: InitVerity,
    /// The empty file system that every pod's scratch disk starts as.
    pub scratch: EmptyImage,
    /// The empty file system that every named volume begins as; no larger than the smallest of them.
    pub volume: EmptyImage,
    /// Commands of workers by kind; the first word is an absolute path.
    pub workers: Vec<(String, Vec<String>)>,
}

/// An empty file system of root's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyImage {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Its block digest.
    pub blocks: Digest,
}

/// Reads the file that `path` names.
///
/// # Errors
/// `CONFIG_UNSAFE` when somebody but root could write it, `CONFIG` when it is not as the format says.
pub fn load(path: &Path) -> Result<Config> {
    let shown = path.display();
    let unreadable = |error| Refusal::new("CONFIG", format!("{shown} cannot be read: {error}"));
    let mut file = File::open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() || facts.uid() != 0 || facts.mode() & 0o022 != 0 {
        let message = format!(
            "{shown} must be a regular file of root that group and others cannot write; chown root and chmod go-w it"
        );
        return Err(Refusal::new("CONFIG_UNSAFE", message));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(CONFIG_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.by_ref().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&bytes).map_err(|problem| Refusal::new("CONFIG", format!("{shown}: {problem}")))
}

/// Reads the canonical bytes. The error is a sentence about the member that is wrong.
fn parse(bytes: &[u8]) -> std::result::Result<Config, String> {
    let value = json::parse(bytes, CONFIG_BYTES_MAX).map_err(|error| error.to_string())?;
    read(&value).map_err(|error| error.to_string())
}

fn read(value: &Value) -> std::result::Result<Config, ShapeError> {
    fields(value, "spawn.json", MEMBERS)?;
    let of = |name: &str| value.get(name).unwrap_or(&Value::Null);
    // Root as agent is for tests and for hosts with one administrator; it gives nothing away.
    let agent = |name| integer32(of(name), name, 0..=*ID_RANGE.end());
    let id = |name| integer32(of(name), name, ID_RANGE);
    let path = |name| absolute(of(name), name);
    constant(of("v"), "v", "casemate.spawn/1")?;
    let log_keys = read_log_keys(of("log_keys"))?;
    if log_keys.is_empty() {
        return Err(wrong("log_keys", "names no log, so that no ticket could ever be good"));
    }
    let config = Config {
        node: shape::word(of("node"), "node", 64, shape::is_node_character)?.into(),
        log_keys,
        allow_software_kvm: boolean(of("allow_software_kvm"), "allow_software_kvm")?,
        levels: read_levels(of("levels"))?,
        container: read_containers(of("container"))?,
        host_paths: host_paths::read(of("host_paths"))?,
        agent: (agent("agent_uid")?, agent("agent_gid")?),
        worker: (id("worker_uid")?, id("worker_gid")?),
        vm_uid_base: id("vm_uid_base")?,
        vm_uid_count: integer32(of("vm_uid_count"), "vm_uid_count", 1..=VM_UID_COUNT_MAX)?,
        run_dir: path("run_dir")?,
        state_dir: path("state_dir")?,
        template_dir: path("template_dir")?,
        uplink: Uplink::read(of("uplink"))?,
        vmm: path("vmm")?,
        kernel: path("kernel")?,
        init: path("init")?,
        init_verity: read_verity(of("init_verity"))?,
        scratch: read_empty(of("scratch"), "scratch", SCRATCH_BYTES_MAX)?,
        volume: read_empty(of("volume"), "volume", casemate_ticket::volume::SIZE_MIN)?,
        workers: read_workers(of("workers"))?,
    };
    check_ids(&config)?;
    Ok(config)
}

/// A VM must not be able to signal or trace the agent, a worker or another VM: no id is used twice.
fn check_ids(config: &Config) -> std::result::Result<(), ShapeError> {
    let end = config.vm_uid_base.saturating_add(config.vm_uid_count);
    let vm = config.vm_uid_base..end;
    let (agent, worker) = (config.agent, config.worker);
    for (name, id) in [
        ("agent_uid", agent.0),
        ("agent_gid", agent.1),
        ("worker_uid", worker.0),
        ("worker_gid", worker.1),
    ] {
        if vm.contains(&id) {
            return Err(wrong(name, "lies within the ids of VMs (vm_uid_base, vm_uid_count)"));
        }
    }
    check_host_ids(config, &vm)?;
    if let Some(containers) = &config.container {
        let ids = containers.count.checked_mul(CONTAINER_IDS);
        let end = ids.and_then(|ids| containers.uid_base.checked_add(ids));
        let Some(end) = end.filter(|end| ID_RANGE.contains(end)) else {
            return Err(wrong("container.uid_base", "and count go beyond the ids there are"));
        };
        let taken = containers.uid_base..end;
        check_host_ids(config, &taken)?;
        let others = [agent.0, agent.1, worker.0, worker.1];
        if others.iter().any(|id| taken.contains(id))
            || (taken.start < vm.end && vm.start < taken.end)
        {
            let problem = "and count overlap the ids of VMs, workers or the agent";
            return Err(wrong("container.uid_base", problem));
        }
    }
    if worker.0 == agent.0 || worker.1 == agent.1 {
        return Err(wrong("worker_uid", "and worker_gid must not be the agent's"));
    }
    Ok(())
}

/// What pods leave on the host's disks belongs to nobody who runs.
fn check_host_ids(config: &Config, taken: &Range<u32>) -> std::result::Result<(), ShapeError> {
    let ids = config.host_paths.iter().filter_map(|entry| entry.ids);
    let mut ranges = ids.map(|first| first..first.saturating_add(CONTAINER_IDS));
    let others = [config.agent.0, config.agent.1, config.worker.0, config.worker.1];
    let is_taken = |ids: Range<u32>| {
        (ids.start < taken.end && taken.start < ids.end) || others.iter().any(|id| ids.contains(id))
    };
    if ranges.any(is_taken) {
        let problem = "has ids that are those of VMs, containers, workers or the agent";
        return Err(wrong("host_paths", problem));
    }
    Ok(())
}

fn read_containers(value: &Value) -> std::result::Result<Option<Containers>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    let names = ["count", "monitor", "runtime", "uid_base"];
    let [count, monitor, runtime, uid_base] = fields(value, "container", names)?;
    Ok(Some(Containers {
        monitor: absolute(monitor, "container.monitor")?,
        runtime: absolute(runtime, "container.runtime")?,
        uid_base: integer32(uid_base, "container.uid_base", ID_RANGE)?,
        count: integer32(count, "container.count", 1..=VM_UID_COUNT_MAX)?,
    }))
}

pub(crate) fn absolute(value: &Value, path: &str) -> std::result::Result<PathBuf, ShapeError> {
    let text = shape::text(value, path, 4096)?;
    let file = PathBuf::from(text);
    let plain = file.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if file.is_absolute() && plain {
        Ok(file)
    } else {
        Err(wrong(path, "must be an absolute path without .."))
    }
}

fn read_verity(value: &Value) -> std::result::Result<InitVerity, ShapeError> {
    let [data_blocks, root, salt] = fields(value, "init_verity", ["data_blocks", "root", "salt"])?;
    let root = shape::hex(root, "init_verity.root", 32)?;
    Ok(InitVerity {
        data_blocks: shape::integer(data_blocks, "init_verity.data_blocks", 1..=1 << 20)?,
        root: root.try_into().map_err(|_| wrong("init_verity.root", "must be 32 bytes"))?,
        salt: shape::hex(salt, "init_verity.salt", 64)?,
    })
}

fn read_empty(
    value: &Value,
    name: &str,
    bytes_max: u64,
) -> std::result::Result<EmptyImage, ShapeError> {
    let of = |member: &str| format!("{name}.{member}");
    let [blocks, path, size] = fields(value, name, ["blocks", "path", "size"])?;
    let size = shape::integer(size, &of("size"), 4096..=bytes_max)?;
    if size % 4096 != 0 {
        return Err(wrong(&of("size"), "must be whole blocks of 4096 bytes"));
    }
    let blocks = shape::digest(blocks, &of("blocks"))?;
    Ok(EmptyImage { path: absolute(path, &of("path"))?, size, blocks })
}

fn read_workers(value: &Value) -> std::result::Result<Vec<(String, Vec<String>)>, ShapeError> {
    let Value::Object(members) = value else {
        return Err(wrong("workers", "must be an object of commands by kind"));
    };
    if members.len() > 16 {
        return Err(wrong("workers", "has more than 16 kinds"));
    }
    let mut workers = Vec::new();
    for (kind, command) in members {
        let path = format!("workers.{kind}");
        shape::word(&Value::String(kind.clone()), "workers", 32, shape::is_tenant_character)?;
        let words =
            list(command, &path, 64, |word, at| Ok(shape::text(word, at, 4096)?.to_owned()))?;
        let program = words.first().ok_or_else(|| wrong(&path, "has no program"))?;
        if !Path::new(program).is_absolute() {
            return Err(wrong(&path, "must begin with an absolute path"));
        }
        workers.push((kind.clone(), words));
    }
    Ok(workers)
}

impl Config {
    /// Bytes of the init disk: data and tree.
    pub fn init_size(&self) -> u64 {
        verified_size(self.init_verity.data_blocks)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "config_tests.rs"]
mod tests;
