//! The OCI bundle's configuration (OCI runtime specification 1.0.2, `config.md`, `config-linux.md`).
//!
//! The runtime makes namespaces, mounts, devices and the inner cgroup. It starts our own program, which the bundle's
//! process section describes, by a descriptor that no path of the image can name; what the app may is settled there, after
//! every descriptor is closed and while nothing else runs in the container. So the runtime gets no path, name, user or
//! profile of an image or of a tenant to interpret: CVE-2024-21626 (a working directory that is a leaked descriptor),
//! CVE-2019-5736 (a program that is the runtime's own), CVE-2025-31133 and -52881 (masks and labels that another process
//! of the container redirects) and CVE-2025-52565 (the console) each need one of those.

use casemate_ticket::app::CAPABILITIES;
use casemate_ticket::bytes::Digest;
use casemate_ticket::json::{self, Value};
use casemate_ticket::spec::Level;

/// First argument of our program inside a container.
pub const INSIDE: &str = "--app";
/// And at level host.
pub const INSIDE_HOST: &str = "--app-of-host";
/// Where our program is, inside, until it has begun.
pub const PROGRAM: i32 = 3;
/// The pipe for why the app could not be started.
pub const REPORT: i32 = 4;
/// What the app is: canonical JSON, sealed.
pub const CONFIG: i32 = 5;
/// Content of its files, sealed.
pub const FILES: i32 = 6;
/// How many descriptors the runtime passes on, from 3, to every container. Behind them are the trees of mounts that
/// are from outside, in the order of the mounts.
pub const PASSED: i32 = 4;
/// User ids, and group ids, of a pod: all of its range but the last one, as which its monitor runs.
pub const IDS: u32 = 65_535;

/// File systems of the kernel's that the monitor has mounted for the containers.
pub const SYS: &str = "/tmp/sys";
/// Message queues of the pod's IPC namespace.
pub const QUEUES: &str = "/tmp/queues";

/// What differs from app to app.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    /// Of the two below vm.
    pub level: Level,
    /// First of its ids on the host; at level host the app's are the host's.
    pub ids: u32,
    /// Capabilities, as bits, that our program begins with: in a container all, which are of its user namespace.
    pub capabilities: u64,
    /// The inner cgroup, as a path below the mount points of the hierarchies.
    pub group: &'a str,
    /// The app's place among the pod's.
    pub place: usize,
    /// Bytes of memory of the app.
    pub memory_bytes: u64,
    /// Tasks of the app.
    pub pids: u32,
}

/// Digest of everything that is the same for all apps of all pods of a level, of both levels.
#[must_use]
pub fn digest() -> Digest {
    let of = |level| {
        let nobody =
            Pod { level, ids: 0, capabilities: 0, group: "", place: 0, memory_bytes: 0, pids: 0 };
        write(&nobody, "")
    };
    Digest::of([of(Level::Container), of(Level::Host)].concat().as_bytes())
}

/// `config.json` for an app whose root file system is mounted at `root`.
#[must_use]
pub fn write(pod: &Pod<'_>, root: &str) -> String {
    json::write(&object(vec![
        ("ociVersion", text("1.0.2")),
        ("process", process(pod)),
        // Made read-only by our program, after it has made the app's working directory.
        ("root", object(vec![("path", text(root)), ("readonly", Value::Bool(false))])),
        ("mounts", mounts()),
        ("linux", linux(pod)),
    ]))
}

fn process(pod: &Pod<'_>) -> Value {
    // For the last steps inside; the app keeps those of its spec.
    let held = (0_u32..).zip(CAPABILITIES).filter(|(number, _)| {
        1_u64.checked_shl(*number).is_some_and(|bit| pod.capabilities & bit != 0)
    });
    let held = Value::Array(held.map(|(_, name)| text(name)).collect());
    let capabilities = ["bounding", "effective", "permitted"].map(|set| (set, held.clone()));
    let capabilities = capabilities.to_vec();
    let program = format!("/proc/self/fd/{PROGRAM}");
    let word = if pod.level == Level::Host { INSIDE_HOST } else { INSIDE };
    object(vec![
        ("args", Value::Array(vec![text(&program), text(word), text(&pod.place.to_string())])),
        ("capabilities", object(capabilities)),
        ("cwd", text("/")),
        ("env", Value::Array(vec![])),
        ("noNewPrivileges", Value::Bool(true)),
        ("terminal", Value::Bool(false)),
        ("user", object(vec![("gid", Value::Integer(0)), ("uid", Value::Integer(0))])),
    ])
}

/// As guest-init mounts them (native/guest-init/src/root.rs, devices.rs).
fn mounts() -> Value {
    const INERT: [&str; 3] = ["nosuid", "nodev", "noexec"];
    let of = |kind: &str, source: &str, target: &str, options: &[&str]| {
        let options = options.iter().map(|option| text(option)).collect();
        object(vec![
            ("destination", text(target)),
            ("options", Value::Array(options)),
            ("source", text(source)),
            ("type", text(kind)),
        ])
    };
    let mount = |kind: &str, target: &str, options: &[&str]| of(kind, kind, target, options);
    let bound = |source: &str, target: &str, options: &[&str]| of("bind", source, target, options);
    let inert = |more: &[&'static str]| [INERT.as_slice(), more].concat();
    Value::Array(vec![
        mount("proc", "/proc", &INERT),
        mount("tmpfs", "/dev", &["nosuid", "mode=755", "size=64m"]),
        mount("devpts", "/dev/pts", &["nosuid", "noexec", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("tmpfs", "/dev/shm", &inert(&["mode=1777", "size=64m"])),
        // Of the pod's IPC and network namespaces, which are not its user namespace's: the kernel lets nobody mount
        // that inside.
        bound(QUEUES, "/dev/mqueue", &inert(&["bind"])),
        bound(SYS, "/sys", &inert(&["ro", "bind"])),
        mount("cgroup", "/sys/fs/cgroup", &inert(&["ro"])),
    ])
}

fn linux(pod: &Pod<'_>) -> Value {
    // Network, IPC and names are the monitor's, which has no socket or queue in them: made for the pod, shared by its apps,
    // and root's, so that nobody in an app's user namespace has a privilege over them. At level host all but IPC is the host's.
    let names: &[&str] = match pod.level {
        Level::Host => &["mount"],
        _ => &["pid", "mount", "user", "cgroup"],
    };
    let namespaces = names.iter().map(|name| object(vec![("type", text(name))])).collect();
    let range = || {
        Value::Array(vec![object(vec![
            ("containerID", Value::Integer(0)),
            ("hostID", Value::Integer(pod.ids.into())),
            ("size", Value::Integer(IDS.into())),
        ])])
    };
    let nothing = object(vec![("access", text("rwm")), ("allow", Value::Bool(false))]);
    let memory = i64::try_from(pod.memory_bytes).unwrap_or(i64::MAX);
    let mut members = vec![
        ("cgroupsPath", text(pod.group)),
        ("namespaces", Value::Array(namespaces)),
        (
            "resources",
            object(vec![
                // Beside what the runtime always allows: null, zero, full, random, urandom, tty, terminals.
                ("devices", Value::Array(vec![nothing])),
                ("memory", object(vec![("limit", Value::Integer(memory))])),
                ("pids", object(vec![("limit", Value::Integer(pod.pids.into()))])),
            ]),
        ),
    ];
    if pod.level != Level::Host {
        members.extend([("gidMappings", range()), ("uidMappings", range())]);
    }
    object(members)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
