//! An app: one process section that guest-init runs. Read from the spec by spawn and the VMM,
//! and once more by guest-init from the CONFIG frame.

use crate::bytes::{Digest, decode_base64};
use crate::health::Check;
use crate::json::{INTEGER_MAX, Value};
use crate::mounts::{self, Mount};
use crate::shape::{self, ShapeError, boolean, digest, fields, integer32, list, text, wrong};

/// Most apps of a pod.
pub const APPS_MAX: usize = 8;
const STRINGS_MAX: usize = 4096;
/// The kernel refuses longer single arguments (`MAX_ARG_STRLEN`, 32 pages).
const ARGUMENT_BYTES_MAX: usize = 131_071;
/// `BPF_MAXINSNS`.
const INSTRUCTIONS_MAX: usize = 4096;

/// The kernel's last real-time signal.
const SIGNAL_MAX: u32 = 64;

/// When an app is started, beside that the one before it in the list was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The app of which something must be so: one before it.
    pub app: String,
    /// What.
    pub condition: Condition,
}

/// What another app may have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its program was started.
    Started,
    /// Its health check had a right answer.
    Healthy,
    /// It ended with code 0.
    Exited,
}

/// One image with its process, inside a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Name, unique in the pod.
    pub name: String,
    /// What it waits for, if for anything.
    pub after: Option<After>,
    /// Which of the spec's images it has, by number.
    pub image: u32,
    /// How it is asked whether it does its work, if it is.
    pub health: Option<Check>,
    /// What is mounted beside the image, in this order.
    pub mounts: Vec<Mount>,
    /// Its process.
    pub process: Process,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// Its seccomp program, if any.
    pub seccomp: Option<Seccomp>,
    /// What it is sent first when it is told to stop, 1 to 64 (signal(7)).
    pub stop_signal: u8,
}

/// An OCI process section, reduced to what guest-init does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Arguments, at least one.
    pub args: Vec<String>,
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// User as in the image spec: empty, `uid`, `uid:gid`, `name`, `name:group`.
    pub user: String,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Whether to set `no_new_privs`.
    pub no_new_privileges: bool,
}

/// Capability sets, as bit sets: bit n is capability number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Ambient set.
    pub ambient: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
}

/// `RLIMIT_CORE`, `RLIMIT_NICE`, `RLIMIT_RTPRIO`, `RLIMIT_RTTIME`: who goes beyond them goes beyond its cgroup (a process of
/// real-time priority is under no quota of processor time), or to the host. Below level vm they are the host's to say.
pub const HOST_LIMITS: [u32; 4] = [4, 13, 14, 15];

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// The kernel's number of the resource (x86-64).
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// A classic BPF program for seccomp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seccomp {
    /// SHA-256 of `program`.
    pub digest: Digest,
    /// Array of `struct sock_filter`, 8 bytes each.
    pub program: Vec<u8>,
}

/// Capability names by number (capabilities(7)).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Resource names by number (getrlimit(2), x86-64).
pub const RESOURCES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

impl App {
    fn read(value: &Value) -> Result<Self, ShapeError> {
        let names = [
            "after",
            "health",
            "image",
            "mounts",
            "name",
            "process",
            "read_only_root",
            "seccomp",
            "stop_signal",
        ];
        let [after, health, image, mounts, name, process, read_only_root, seccomp, stop_signal] =
            fields(value, "apps", names)?;
        let stop_signal = integer32(stop_signal, "apps.stop_signal", 1..=SIGNAL_MAX)?;
        Ok(Self {
            mounts: mounts::read(mounts)?,
            name: shape::word(name, "apps.name", 63, shape::is_tenant_character)?.into(),
            after: After::read(after)?,
            health: Check::read(health)?,
            image: integer32(image, "apps.image", 0..=0)?,
            process: Process::read(process)?,
            read_only_root: boolean(read_only_root, "apps.read_only_root")?,
            seccomp: read_seccomp(seccomp)?,
            stop_signal: u8::try_from(stop_signal)
                .map_err(|_| wrong("apps.stop_signal", "must be 1 to 64"))?,
        })
    }
}

impl After {
    /// `null` is nothing.
    fn read(value: &Value) -> Result<Option<Self>, ShapeError> {
        if *value == Value::Null {
            return Ok(None);
        }
        let [app, condition] = fields(value, "apps.after", ["app", "condition"])?;
        let condition = match condition.as_str() {
            Some("started") => Condition::Started,
            Some("healthy") => Condition::Healthy,
            Some("exited") => Condition::Exited,
            _ => return Err(wrong("apps.after", "must be started, healthy or exited")),
        };
        let app = shape::word(app, "apps.after.app", 63, shape::is_tenant_character)?.into();
        Ok(Some(Self { app, condition }))
    }
}

/// Reads `apps`.
///
/// # Errors
/// None or too many, a name twice, an app that waits for one that is not before it, or for the health of one that
/// nobody asks for it; a directory that two of them have and not with the same mode.
pub(crate) fn read_all(value: &Value) -> Result<Vec<App>, ShapeError> {
    let apps = list(value, "apps", APPS_MAX, |item, _| App::read(item))?;
    if apps.is_empty() {
        return Err(wrong("apps", "must be at least one"));
    }
    for (at, app) in apps.iter().enumerate() {
        let before = || apps.iter().take(at);
        if before().any(|other| other.name == app.name) {
            return Err(wrong("apps.name", "must be another for each app"));
        }
        let Some(after) = &app.after else { continue };
        let awaited = before().find(|other| other.name == after.app);
        let awaited = awaited.ok_or_else(|| wrong("apps.after.app", "must be an app before it"))?;
        if after.condition == Condition::Healthy && awaited.health.is_none() {
            return Err(wrong("apps.after.app", "must have a health check"));
        }
    }
    mounts::check_shared(&apps)?;
    Ok(apps)
}

impl Process {
    fn read(value: &Value) -> Result<Self, ShapeError> {
        let [additional_gids, args, capabilities, cwd, env, no_new_privileges, rlimits, user] =
            fields(
                value,
                "apps.process",
                [
                    "additional_gids",
                    "args",
                    "capabilities",
                    "cwd",
                    "env",
                    "no_new_privileges",
                    "rlimits",
                    "user",
                ],
            )?;
        let args = read_args(args, "apps.process.args")?;
        let env = read_env(env, "apps.process.env")?;
        Ok(Self {
            args,
            env,
            cwd: read_cwd(cwd, "apps.process.cwd")?,
            user: read_user(user, "apps.process.user")?,
            additional_gids: list(
                additional_gids,
                "apps.process.additional_gids",
                64,
                |item, path| integer32(item, path, 0..=u32::MAX - 1),
            )?,
            capabilities: read_capabilities(capabilities)?,
            rlimits: read_rlimits(rlimits)?,
            no_new_privileges: boolean(no_new_privileges, "apps.process.no_new_privileges")?,
        })
    }
}

pub(crate) fn read_args(value: &Value, path: &str) -> Result<Vec<String>, ShapeError> {
    let args = list(value, path, STRINGS_MAX, |item, path| {
        text(item, path, ARGUMENT_BYTES_MAX).map(String::from)
    })?;
    if args.is_empty() { Err(wrong(path, "must name a program")) } else { Ok(args) }
}

pub(crate) fn read_env(value: &Value, path: &str) -> Result<Vec<String>, ShapeError> {
    list(value, path, STRINGS_MAX, |item, path| {
        let entry = text(item, path, ARGUMENT_BYTES_MAX)?;
        match entry.find('=') {
            Some(at) if at > 0 => Ok(entry.into()),
            _ => Err(wrong(path, "must be NAME=value")),
        }
    })
}

pub(crate) fn read_cwd(value: &Value, path: &str) -> Result<String, ShapeError> {
    let cwd = text(value, path, 4095)?;
    if cwd.starts_with('/') { Ok(cwd.into()) } else { Err(wrong(path, "must be an absolute path")) }
}

pub(crate) fn read_user(value: &Value, path: &str) -> Result<String, ShapeError> {
    text(value, path, 256).map(String::from)
}

fn read_capabilities(value: &Value) -> Result<Capabilities, ShapeError> {
    let path = "apps.process.capabilities";
    let [ambient, bounding, effective, inheritable, permitted] =
        fields(value, path, ["ambient", "bounding", "effective", "inheritable", "permitted"])?;
    Ok(Capabilities {
        ambient: read_set(ambient, path)?,
        bounding: read_set(bounding, path)?,
        effective: read_set(effective, path)?,
        inheritable: read_set(inheritable, path)?,
        permitted: read_set(permitted, path)?,
    })
}

fn read_set(value: &Value, path: &str) -> Result<u64, ShapeError> {
    let mut set = 0u64;
    list(value, path, CAPABILITIES.len(), |item, path| {
        let name = text(item, path, 64)?;
        let bit = CAPABILITIES
            .iter()
            .position(|known| *known == name)
            .and_then(|number| 1u64.checked_shl(u32::try_from(number).ok()?))
            .filter(|bit| set & bit == 0)
            .ok_or_else(|| wrong(path, "is not a capability, or is there twice"))?;
        set |= bit;
        Ok(())
    })?;
    Ok(set)
}

fn read_rlimits(value: &Value) -> Result<Vec<Rlimit>, ShapeError> {
    let mut seen = 0u32;
    list(value, "apps.process.rlimits", RESOURCES.len(), |item, path| {
        let [hard, soft, kind] = fields(item, path, ["hard", "soft", "type"])?;
        let name = text(kind, path, 32)?;
        let resource = RESOURCES
            .iter()
            .position(|known| *known == name)
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong(path, "has a type that is not a resource"))?;
        let bit = 1u32.checked_shl(resource).unwrap_or(0);
        let limit = Rlimit { resource, soft: amount(soft, path)?, hard: amount(hard, path)? };
        if seen & bit != 0 || limit.soft > limit.hard {
            return Err(wrong(path, "is there twice, or its soft limit is above the hard one"));
        }
        seen |= bit;
        Ok(limit)
    })
}

/// A number up to 2^64 - 1: as an integer where it fits, else as a decimal string (section 1).
fn amount(value: &Value, path: &str) -> Result<u64, ShapeError> {
    let large = |text: &str| {
        let number = text.parse::<u64>().ok()?;
        (number > INTEGER_MAX.unsigned_abs() && number.to_string() == text).then_some(number)
    };
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(large))
        .ok_or_else(|| wrong(path, "limits must be integers, or decimal strings above 2^53-1"))
}

fn read_seccomp(value: &Value) -> Result<Option<Seccomp>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    let [sum, program] = fields(value, "apps.seccomp", ["digest", "program"])?;
    let sum = digest(sum, "apps.seccomp.digest")?;
    let program = program
        .as_str()
        .and_then(decode_base64)
        .filter(|bytes| bytes.len().is_multiple_of(8))
        .filter(|bytes| (1..=INSTRUCTIONS_MAX).contains(&(bytes.len() / 8)))
        .ok_or_else(|| wrong("apps.seccomp.program", "must be base64 of 1 to 4096 instructions"))?;
    Ok(Some(Seccomp { digest: sum, program }))
}

#[cfg(test)]
#[path = "apps_tests.rs"]
mod tests;
