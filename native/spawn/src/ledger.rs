//! What the next spawn must know of a pod and cannot ask the kernel: one file for each pod, `<run>/pods/<launch id>`,
//! in a directory of root's alone. docs/formats.md section 5 has its members.
//!
//! It is there before the VMM is let into its jail, is replaced as a whole at each change, before anybody else can
//! notice that change, holds the end when there is one, and goes when the pod is forgotten. It has to outlive spawn,
//! not the machine, so nothing is synced. What cannot be read strictly belongs to no pod.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_ticket::bytes::encode_hex;
use casemate_ticket::json::{self, Value};
use casemate_ticket::shape::{
    ShapeError, boolean, constant, digest, fields, hex, integer, integer32, is_tenant_character,
    list, uuid, word, wrong,
};
use casemate_ticket::spec::{Level, Vmm};
use casemate_wire::control::VMM_MESSAGE_MAX;
use rustix::time::{ClockId, clock_gettime};

use crate::answers::{number, object, string};
use crate::daemon::log;
use crate::pod::{Identity, Killed, PodExit, Shape};
use crate::resize::DiskSize;
use crate::router::state::Way;

/// Bytes of a file: seven digests, four messages, a sentence, a network with 64 rules and 32 hosts.
const ENTRY_BYTES_MAX: u64 = 64 << 10;
/// Messages of one VMM that count: STARTED, READY, EXIT, FAILURE.
const HEARD_MAX: usize = 4;
/// Volumes of one pod, and more.
const VOLUMES_MAX: usize = 64;
/// Of a file that is being written.
const UNFINISHED: &str = ".new";

/// One pod.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who it is.
    pub identity: Identity,
    /// Isolation level.
    pub level: Level,
    /// Virtual CPUs and MiB.
    pub shape: Shape,
    /// Filters the VMM must install.
    pub vmm: Vmm,
    /// Its pid.
    pub pid: i32,
    /// Its user id.
    pub uid: u32,
    /// Its place on its tenant's bridge, if it has one.
    pub way: Option<Way>,
    /// Its scratch disk.
    pub scratch: DiskSize,
    /// Names of its tenant's volumes that it has.
    pub volumes: Vec<String>,
    /// Whether its program runs, as far as spawn knows: before that nothing of it ever did.
    pub launched: bool,
    /// What the VMM said, packet by packet, but for counters.
    pub heard: Vec<Vec<u8>>,
    /// Why spawn killed it.
    pub killed: Option<Killed>,
    /// By when the guest must be ready.
    pub boot_until: Option<Instant>,
    /// By when it must have stopped.
    pub stop_until: Option<Instant>,
    /// How it ended.
    pub exit: Option<PodExit>,
}

/// The directory.
#[derive(Debug)]
pub struct Ledger {
    directory: PathBuf,
    boot_id: String,
}

impl Ledger {
    /// Makes the directory if needed, for root alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(run_dir: &std::path::Path, boot_id: &str) -> io::Result<Self> {
        let directory = run_dir.join("pods");
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        Ok(Self { directory, boot_id: boot_id.to_owned() })
    }

    /// Writes an entry in place of the one before.
    ///
    /// # Errors
    /// No room.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let path = self.directory.join(&entry.identity.pod);
        let unfinished = path.with_extension(&UNFINISHED[1..]);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        file.and_then(|mut file| file.write_all(self.text(entry).as_bytes()))?;
        fs::rename(&unfinished, &path)
    }

    /// Forgets a pod.
    pub fn remove(&self, pod: &str) {
        match fs::remove_file(self.directory.join(pod)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log(&format!("what was written down of pod {pod} could not be removed: {error}"));
            }
            _ => {}
        }
    }

    /// Every entry of this boot that can be read, in the order of launch ids. The others are removed, each with a line
    /// in the log: their pods are nobody's.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn read(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            match self.read_one(&name) {
                Ok(entry) => entries.extend(entry),
                Err(problem) => {
                    log(&format!("what was written down of pod {name:?} is refused: {problem}"));
                    self.remove(&name);
                }
            }
        }
        entries.sort_by(|a: &Entry, b| a.identity.pod.cmp(&b.identity.pod));
        Ok(entries)
    }

    fn read_one(&self, name: &str) -> Result<Option<Entry>, String> {
        if name.ends_with(UNFINISHED) {
            let _ = fs::remove_file(self.directory.join(name));
            return Ok(None);
        }
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let mut options = OpenOptions::new();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = options.read(true).custom_flags(flags).open(self.directory.join(name));
        let mut file: File = file.map_err(unreadable)?;
        let facts = file.metadata().map_err(unreadable)?;
        if !facts.is_file() || facts.uid() != 0 || facts.mode() & 0o077 != 0 || facts.nlink() != 1 {
            return Err("it is no file of root's alone".into());
        }
        let mut bytes = Vec::new();
        let limit = ENTRY_BYTES_MAX.saturating_add(1);
        Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        let size_max = usize::try_from(ENTRY_BYTES_MAX).unwrap_or(usize::MAX);
        let value = json::parse(&bytes, size_max).map_err(|error| error.to_string())?;
        let (boot_id, entry) = read_entry(&value).map_err(|error| error.to_string())?;
        if entry.identity.pod != name {
            return Err("it is of another pod".into());
        }
        if boot_id != self.boot_id {
            self.remove(name);
            return Ok(None);
        }
        Ok(Some(entry))
    }

    fn text(&self, entry: &Entry) -> String {
        let Identity { pod, tenant, spec } = &entry.identity;
        let heard = entry.heard.iter().map(|packet| string(&encode_hex(packet))).collect();
        let (vcpus, memory_mib) = entry.shape;
        json::write(&object(vec![
            ("v", string("casemate.pod/1")),
            ("boot_id", string(&self.boot_id)),
            ("boot_until_us", time(entry.boot_until)),
            ("exit", entry.exit.as_ref().map_or(Value::Null, PodExit::to_value)),
            ("heard", Value::Array(heard)),
            ("killed", entry.killed.map_or(Value::Null, |why| string(why.word()))),
            ("launched", Value::Bool(entry.launched)),
            ("level", string(entry.level.as_str())),
            ("memory_mib", number(memory_mib)),
            ("network", entry.way.as_ref().map_or(Value::Null, Way::to_value)),
            ("pid", Value::Integer(entry.pid.into())),
            ("pod", string(pod)),
            ("scratch_bytes", number(entry.scratch.bytes)),
            ("scratch_bytes_max", number(entry.scratch.bytes_max)),
            ("spec", string(spec)),
            ("stop_until_us", time(entry.stop_until)),
            ("tenant", string(tenant)),
            ("uid", number(entry.uid)),
            ("vcpus", number(vcpus)),
            ("vmm", crate::answers::vmm(&entry.vmm)),
            ("volumes", Value::Array(entry.volumes.iter().map(string).collect())),
        ]))
    }
}

/// A moment by the kernel's monotonic clock, microseconds: the next spawn has the same.
fn time(at: Option<Instant>) -> Value {
    let Some(at) = at else { return Value::Null };
    let now = Instant::now();
    let ahead = micros(at.saturating_duration_since(now));
    let behind = micros(now.saturating_duration_since(at));
    number(monotonic_us().saturating_add(ahead).saturating_sub(behind))
}

fn read_time(value: &Value, path: &str) -> Result<Option<Instant>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    let at = integer(value, path, 0..=1 << 53)?;
    let left = Duration::from_micros(at.saturating_sub(monotonic_us()));
    Ok(Instant::now().checked_add(left))
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const MEMBERS: [&str; 21] = [
    "boot_id",
    "boot_until_us",
    "exit",
    "heard",
    "killed",
    "launched",
    "level",
    "memory_mib",
    "network",
    "pid",
    "pod",
    "scratch_bytes",
    "scratch_bytes_max",
    "spec",
    "stop_until_us",
    "tenant",
    "uid",
    "v",
    "vcpus",
    "vmm",
    "volumes",
];

fn read_entry(value: &Value) -> Result<(String, Entry), ShapeError> {
    fields(value, "entry", MEMBERS)?;
    let of = |name: &str| value.get(name).unwrap_or(&Value::Null);
    constant(of("v"), "v", "casemate.pod/1")?;
    let id = |name| integer32(of(name), name, 1..=u32::MAX);
    let pid = i32::try_from(id("pid")?).map_err(|_| wrong("pid", "must be a pid"))?;
    let packet = |item, path: &str| hex(item, path, VMM_MESSAGE_MAX);
    let entry = Entry {
        identity: Identity {
            pod: uuid(of("pod"), "pod", Some(b'7'))?.to_owned(),
            tenant: word(of("tenant"), "tenant", 63, is_tenant_character)?.to_owned(),
            spec: digest(of("spec"), "spec")?,
        },
        level: read_level(of("level"))?,
        shape: (id("vcpus")?, id("memory_mib")?),
        vmm: Vmm::read(of("vmm"))?,
        pid,
        uid: id("uid")?,
        way: optional(of("network"), |way| Way::read(way, "network"))?,
        scratch: DiskSize {
            bytes: integer(of("scratch_bytes"), "scratch_bytes", 1..=1 << 40)?,
            bytes_max: integer(of("scratch_bytes_max"), "scratch_bytes_max", 1..=1 << 40)?,
        },
        volumes: list(of("volumes"), "volumes", VOLUMES_MAX, |name, path| {
            Ok(casemate_ticket::volume::name(name, path)?.to_owned())
        })?,
        launched: boolean(of("launched"), "launched")?,
        heard: list(of("heard"), "heard", HEARD_MAX, packet)?,
        killed: optional(of("killed"), |word| {
            let why = word.as_str().and_then(Killed::of_word);
            why.ok_or_else(|| wrong("killed", "must be a reason to kill"))
        })?,
        boot_until: read_time(of("boot_until_us"), "boot_until_us")?,
        stop_until: read_time(of("stop_until_us"), "stop_until_us")?,
        exit: optional(of("exit"), PodExit::read)?,
    };
    Ok((uuid(of("boot_id"), "boot_id", None)?.to_owned(), entry))
}

fn read_level(value: &Value) -> Result<Level, ShapeError> {
    let level = value.as_str().and_then(Level::parse);
    level.ok_or_else(|| wrong("level", "must be a level"))
}

fn optional<T>(
    value: &Value,
    read: impl FnOnce(&Value) -> Result<T, ShapeError>,
) -> Result<Option<T>, ShapeError> {
    if *value == Value::Null { Ok(None) } else { read(value).map(Some) }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
#[path = "ledger_tests.rs"]
mod tests;
