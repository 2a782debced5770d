//! What the jail lets a process do, as canonical JSON.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use casemate_ticket::json::{self, Value};
use rustix::fs::StatVfsMountFlags;
use rustix::process::Resource;
use rustix::thread::CapabilitySets;

use crate::probe_unsafe;

/// Reads a file from its beginning.
pub fn read_whole(file: &OwnedFd) -> Option<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(file).ok()?.st_size).ok()?;
    let mut bytes = vec![0; size];
    let count = rustix::io::pread(file, &mut bytes, 0).ok()?;
    bytes.truncate(count);
    Some(bytes)
}

/// Writes the report at the beginning of `file`; `open` are the descriptors the probe began with.
pub fn write(file: &OwnedFd, open: &[i32]) -> Option<()> {
    let mut report = report()?;
    let open = open.iter().map(|fd| number(*fd)).collect();
    report.push(("descriptors".to_owned(), Value::Array(open)));
    let text = json::write(&Value::object(report));
    rustix::io::pwrite(file, text.as_bytes(), 0).ok()?;
    Some(())
}

fn number(value: impl TryInto<i64>) -> Value {
    value.try_into().map_or(Value::Null, Value::Integer)
}

/// The name of an error, or "ok".
fn outcome<T>(result: Result<T, i32>) -> Value {
    let name = match result.err() {
        None => "ok".to_owned(),
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::ENOSPC) => "ENOSPC".to_owned(),
        Some(libc::EINVAL) => "EINVAL".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::ENOENT) => "ENOENT".to_owned(),
        Some(libc::ESRCH) => "ESRCH".to_owned(),
        Some(libc::EROFS) => "EROFS".to_owned(),
        Some(other) => format!("errno {other}"),
    };
    Value::String(name)
}

fn errno<T>(result: rustix::io::Result<T>) -> Result<T, i32> {
    result.map_err(rustix::io::Errno::raw_os_error)
}

fn io<T>(result: std::io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| error.raw_os_error().unwrap_or(-1))
}

fn report() -> Option<Vec<(String, Value)>> {
    let mut members = identity();
    members.extend(capabilities()?);
    members.extend(file_system()?);
    members.extend(attempts());
    let limit = |resource| {
        let limit = rustix::process::getrlimit(resource);
        Value::Array(vec![
            limit.current.map_or(Value::Null, number),
            limit.maximum.map_or(Value::Null, number),
        ])
    };
    members.push(("rlimit_nofile", limit(Resource::Nofile)));
    members.push(("rlimit_fsize", limit(Resource::Fsize)));
    members.push(("rlimit_core", limit(Resource::Core)));
    members.push(("rlimit_memlock", limit(Resource::Memlock)));
    members.push(("rlimit_nproc", limit(Resource::Nproc)));
    Some(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn identity() -> Vec<(&'static str, Value)> {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let words = std::env::args().map(Value::String).collect();
    let interfaces = probe_unsafe::interfaces().into_iter().map(Value::String).collect();
    vec![
        ("argv", Value::Array(words)),
        ("environment", number(std::env::vars_os().count())),
        ("uids", Value::Array(probe_unsafe::uids().map(number).to_vec())),
        ("gids", Value::Array(probe_unsafe::gids().map(number).to_vec())),
        ("groups", number(groups.len())),
        ("pid", number(rustix::process::getpid().as_raw_nonzero().get())),
        ("has_parent", Value::Bool(rustix::process::getppid().is_some())),
        ("interfaces", Value::Array(interfaces)),
        ("core_cookie", Value::Bool(probe_unsafe::has_core_cookie())),
    ]
}

fn capabilities() -> Option<Vec<(&'static str, Value)>> {
    let CapabilitySets { effective, permitted, inheritable } =
        rustix::thread::capabilities(None).ok()?;
    let bits = |set: rustix::thread::CapabilitySet| number(set.bits());
    let secure = rustix::thread::capabilities_secure_bits().ok()?;
    Some(vec![
        ("cap_effective", bits(effective)),
        ("cap_permitted", bits(permitted)),
        ("cap_inheritable", bits(inheritable)),
        ("cap_bounding", number(probe_unsafe::bounding_set())),
        ("secure_bits", number(secure.bits())),
        ("no_new_privs", Value::Bool(rustix::thread::no_new_privs().ok()?)),
    ])
}

fn file_system() -> Option<Vec<(&'static str, Value)>> {
    let root = rustix::fs::statvfs(c"/").ok()?;
    let read_only = StatVfsMountFlags::RDONLY
        | StatVfsMountFlags::NOSUID
        | StatVfsMountFlags::NODEV
        | StatVfsMountFlags::NOEXEC;
    let here = rustix::process::getcwd(Vec::new()).ok()?;
    Some(vec![
        ("cwd", Value::String(here.to_string_lossy().into_owned())),
        ("root_inodes", number(root.f_files)),
        ("root_inodes_free", number(root.f_ffree)),
        ("root_inert", Value::Bool(root.f_flag.contains(read_only))),
        ("stat_proc", outcome(io(std::fs::metadata("/proc")))),
        ("stat_above", outcome(io(std::fs::metadata("/../../proc")))),
    ])
}

/// Things that must not work, each with what the kernel answers.
fn attempts() -> Vec<(&'static str, Value)> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 9));
    let second = Duration::from_secs(1);
    vec![
        ("open_root", outcome(io(std::fs::File::open("/")))),
        ("create_file", outcome(io(std::fs::write("/x", b"x")))),
        ("bind_tcp", outcome(io(TcpListener::bind("0.0.0.0:0")))),
        ("connect_tcp", outcome(io(TcpStream::connect_timeout(&loopback, second)))),
        ("setuid_root", outcome(probe_unsafe::setuid_root())),
        ("setgroups", outcome(errno(rustix::thread::set_thread_groups(&[])))),
        ("set_hostname", outcome(errno(rustix::system::sethostname(b"x")))),
        ("user_namespace", outcome(probe_unsafe::user_namespace())),
        ("mount", outcome(probe_unsafe::mount_tmpfs())),
        ("signal_all", outcome(probe_unsafe::signal_all())),
        ("trace_other", outcome(probe_unsafe::trace(2))),
        ("chroot", outcome(errno(rustix::process::chroot(c"/")))),
        ("exec", outcome(probe_unsafe::exec_itself())),
    ]
}
