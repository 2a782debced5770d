//! The starter itself.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use casemate_ticket::bytes::Digest;
use casemate_ticket::document::{Context, DOCUMENT_BYTES_MAX, LaunchDocument};
use casemate_ticket::json;
use casemate_ticket::shape::{digest, fields};
use casemate_ticket::spec::{Level, Means};
use casemate_ticket::ticket::{TicketError, check};
use rustix::fs::{MemfdFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::{DESCRIPTORS_MAX, Facts, PACKET_BYTES_MAX, paths};
use crate::config::{self, CONTAINER_IDS, Config, Containers};
use crate::connection;
use crate::host;
use crate::host_paths::{Entry, permit};
use crate::jail::{self, Jail, Jailed, pointers};
use crate::jail_child_unsafe::{Program, Root};
use crate::refusal::{Refusal, Result};
use crate::sparse::SEALED;
use crate::sys_unsafe::{close_from, inherited_descriptor};

/// Descriptors that every monitor gets of spawn. What a pod alone has comes behind the starter's own.
const ALWAYS: usize = 7;
/// Most bytes of a program.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
/// Bytes of what a runtime says of its version that are kept.
const VERSION_MAX: usize = 64;
/// Codes of its own; others are those of the ticket's check.
const CODES: [&str; 12] = [
    "CONTAINER_UNAVAILABLE",
    "DESCRIPTORS",
    "HOST_PATH_CHANGED",
    "HOST_PATH_LEVEL",
    "HOST_PATH_MISSING",
    "HOST_PATH_UNKNOWN",
    "HOST_PATH_UNSAFE",
    "HOST_RESOURCES",
    "JAIL_FAILED",
    "LEVEL_NOT_AVAILABLE",
    "SPEC_NOT_OF_THIS_HOST",
    "TICKET_SPENT",
];

/// The code, if the starter has one of that name: spawn's answers have static ones.
pub fn known(code: &str) -> &'static str {
    let own = CODES.into_iter().find(|known| *known == code);
    own.or_else(|| TicketError::code_named(code)).unwrap_or("STARTER_GONE")
}

struct Server {
    socket: OwnedFd,
    /// The host's, which this process is not in.
    network: OwnedFd,
    containers: Containers,
    host_paths: Vec<Entry>,
    context: Context,
    monitor: OwnedFd,
    runtime: OwnedFd,
    null: OwnedFd,
    facts: Facts,
    /// Leaf hashes of tickets that were used, with their deadlines.
    spent: Vec<([u8; 32], u64)>,
}

/// Serves spawn until it hangs up.
pub fn run(path: &Path) -> ExitCode {
    // Whatever spawn's starter left open is nobody's here.
    close_from(3);
    let (Ok(socket), Ok(network)) = (inherited_descriptor(0), inherited_descriptor(1)) else {
        return ExitCode::FAILURE;
    };
    let mut server = match Server::open(socket, network, path) {
        Ok(server) => server,
        Err((socket, sentence)) => {
            refuse(&socket, &Refusal::new("CONTAINER_UNAVAILABLE", sentence));
            return ExitCode::FAILURE;
        }
    };
    let _ = connection::send(server.socket.as_fd(), plus(&server.facts.write()).as_bytes(), &[]);
    while let Ok((bytes, descriptors)) = receive(server.socket.as_fd()) {
        match server.start(&bytes, &descriptors) {
            // The child is on its own; only spawn's copies of these may keep its channel open.
            Ok(Jailed { pid, pidfd, channel }) => {
                let text = plus(&pid.to_string());
                let _ = connection::send(server.socket.as_fd(), text.as_bytes(), &[pidfd, channel]);
            }
            Err(refusal) => refuse(&server.socket, &refusal),
        }
    }
    ExitCode::SUCCESS
}

fn plus(text: &str) -> String {
    format!("+{text}")
}

fn refuse(socket: &OwnedFd, refusal: &Refusal) {
    let sentence: String = refusal.message.chars().take(PACKET_BYTES_MAX / 8).collect();
    let text = format!("-{}\n{sentence}", refusal.code);
    let _ = connection::send(socket.as_fd(), text.as_bytes(), &[]);
}

/// One packet, waited for.
///
/// # Errors
/// The other end is closed, or sends what no packet of ours is.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut into = [IoSliceMut::new(&mut buffer)];
        match recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    let is_cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if message.bytes == 0 || is_cut {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(message.bytes);
    Ok((buffer, descriptors))
}

/// What a server is made of, but for its socket.
struct Parts {
    config: Config,
    containers: Containers,
    monitor: OwnedFd,
    runtime: OwnedFd,
    facts: Facts,
    null: OwnedFd,
    boot_id: String,
}

impl Parts {
    fn open(path: &Path) -> std::result::Result<Self, String> {
        let config = config::load(path).map_err(|refusal| refusal.message)?;
        let containers = config.container.clone().ok_or("spawn.json has no containers")?;
        let (monitor, monitor_digest) = sealed_copy(&containers.monitor)?;
        let (runtime, runtime_digest) = roots_own(&containers.runtime)?;
        let facts = Facts {
            bundle: bundle_of(&monitor).map_err(|problem| named(&containers.monitor, &problem))?,
            monitor: monitor_digest,
            runtime: runtime_digest,
            version: version_of(&runtime)
                .map_err(|problem| named(&containers.runtime, &problem))?,
        };
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| format!("/dev/null: {error}"))?.into();
        let boot_id = host::boot_id().map_err(|error| format!("boot id: {error}"))?;
        Ok(Self { config, containers, monitor, runtime, facts, null, boot_id })
    }
}

impl Server {
    fn open(
        socket: OwnedFd,
        network: OwnedFd,
        path: &Path,
    ) -> std::result::Result<Self, (OwnedFd, String)> {
        let Parts { config, containers, monitor, runtime, facts, null, boot_id } =
            match Parts::open(path) {
                Ok(parts) => parts,
                Err(sentence) => return Err((socket, sentence)),
            };
        let context = Context {
            node: config.node,
            boot_id,
            kvm: None,
            allow_software_kvm: false,
            levels: config.levels,
            log_keys: config.log_keys,
        };
        let spent = Vec::new();
        let host_paths = config.host_paths;
        Ok(Self {
            socket,
            network,
            containers,
            host_paths,
            context,
            monitor,
            runtime,
            null,
            facts,
            spent,
        })
    }

    /// Makes a monitor for a ticket that is good and was not used.
    fn start(&mut self, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<Jailed> {
        let none = || Refusal::new("DESCRIPTORS", "an order of nobody's came to the starter");
        let text = str::from_utf8(bytes).map_err(|_| none())?;
        let mut lines = text.lines();
        let (Some(ids), Some(group), Some(oom), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(none());
        };
        let document = descriptors.first().ok_or_else(none)?;
        let (level, host_paths) = self.admit(document, ids, group)?;
        let words = ["casemate-container", "--run", ids, group, oom];
        let argv: Vec<_> = words
            .into_iter()
            .map(std::ffi::CString::new)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| none())?;
        let null = self.null.as_fd();
        let mut all = vec![Some(null), Some(null), Some(null)];
        let (always, more) = descriptors.split_at_checked(ALWAYS).ok_or_else(none)?;
        all.extend(always.iter().map(|fd| Some(fd.as_fd())));
        all.extend([Some(self.runtime.as_fd()), Some(self.monitor.as_fd())]);
        all.extend(more.iter().chain(&host_paths).map(|fd| Some(fd.as_fd())));
        jail::begin(&Jail {
            own_user_namespace: false,
            id: (0, 0),
            cgroup: None,
            is_monitor: true,
            host: (level == Level::Host).then(|| self.network.as_fd()),
            limits: &[],
            root: Root::Monitor,
            descriptors: &all,
            landlock: None,
            filter: None,
            program: Program::Descriptor { file: self.monitor.as_fd(), argv: &pointers(&argv) },
        })
    }

    /// The second wall: the same checks as spawn's, by what this process read itself. Answers the pod's level, and the paths
    /// of the host that the launch is to have.
    fn admit(
        &mut self,
        document: &OwnedFd,
        ids: &str,
        group: &str,
    ) -> Result<(Level, Vec<OwnedFd>)> {
        let refused = |error: &dyn std::fmt::Display| {
            Refusal::new("DESCRIPTORS", format!("the launch document: {error}"))
        };
        let document = read_document(document).map_err(|error| refused(&error))?;
        let document = LaunchDocument::parse(&document).map_err(|error| refused(&error))?;
        let now = host::boottime_ns();
        let record = document.record.as_bytes();
        let admitted =
            check(&document.ticket, record, document.spec.as_bytes(), &self.context, now)
                .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        let spec = admitted.spec;
        let Means::Container(container) = &spec.means else {
            let message = format!("the starter starts no pods at level {}", spec.level.as_str());
            return Err(Refusal::new("LEVEL_NOT_AVAILABLE", message));
        };
        let Facts { bundle, monitor, runtime, .. } = &self.facts;
        if [container.bundle, container.digest, container.runtime] != [*bundle, *monitor, *runtime]
        {
            let message = "the spec's container is not this host's; ask describe and decide again";
            return Err(Refusal::new("SPEC_NOT_OF_THIS_HOST", message));
        }
        let base = self.containers.uid_base;
        let own = |ids: u32| {
            let place = ids.checked_sub(base).filter(|place| place.is_multiple_of(CONTAINER_IDS));
            place.is_some_and(|place| place / CONTAINER_IDS < self.containers.count)
        };
        let inner = format!("/{}/app", spec.launch_id);
        if !ids.parse().is_ok_and(own) || !group.starts_with('/') || !group.ends_with(&inner) {
            return Err(Refusal::new(
                "DESCRIPTORS",
                "ids or cgroup are no container's of this host",
            ));
        }
        self.spent.retain(|(_, deadline)| *deadline >= now);
        if self.spent.iter().any(|(hash, _)| *hash == admitted.leaf_hash) {
            return Err(Refusal::new("TICKET_SPENT", "this ticket was used before"));
        }
        self.spent.push((admitted.leaf_hash, admitted.deadline_ns));
        let wanted = permit(&self.host_paths, &spec)?.into_iter();
        let opened = wanted.map(|(entry, wanted)| paths::open(entry, wanted));
        Ok((spec.level, opened.collect::<Result<_>>()?))
    }
}

fn read_document(document: &OwnedFd) -> io::Result<Vec<u8>> {
    if !fcntl_get_seals(document).is_ok_and(|seals| seals.contains(SEALED)) {
        return Err(io::Error::other("is not sealed"));
    }
    let file = File::from(document.try_clone()?);
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > DOCUMENT_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn named(path: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {problem}", path.display())
}

/// A file that root alone can change, and its digest.
fn roots_own(path: &Path) -> std::result::Result<(OwnedFd, Digest), String> {
    let unreadable = |error: io::Error| named(path, &error);
    let file = File::open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() || facts.len() > PROGRAM_BYTES_MAX {
        return Err(named(path, &"is no program"));
    }
    if facts.uid() != 0 || facts.mode() & 0o022 != 0 {
        return Err(named(path, &"can be changed by others than root"));
    }
    let digest = Digest::of_reader(&file).map_err(unreadable)?;
    Ok((file.into(), digest))
}

/// A copy that nobody can change: it is executed inside containers as well.
fn sealed_copy(path: &Path) -> std::result::Result<(OwnedFd, Digest), String> {
    let copy = || -> io::Result<(OwnedFd, Digest)> {
        let mut bytes = Vec::new();
        File::open(path)?.take(PROGRAM_BYTES_MAX).read_to_end(&mut bytes)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match memfd_create("casemate-container", flags | MemfdFlags::EXEC) {
            // Kernels before 6.3 do not know EXEC, and make all executable.
            Err(Errno::INVAL) => memfd_create("casemate-container", flags)?,
            result => result?,
        };
        File::from(file.try_clone()?).write_all_at(&bytes, 0)?;
        fcntl_add_seals(&file, SEALED)?;
        Ok((file, Digest::of(&bytes)))
    };
    copy().map_err(|error| named(path, &error))
}

fn ask(program: &OwnedFd, word: &str) -> std::result::Result<String, String> {
    let output = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg(word)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn bundle_of(monitor: &OwnedFd) -> std::result::Result<Digest, String> {
    let said = |error: &dyn std::fmt::Display| format!("--digests printed no answer: {error}");
    let text = ask(monitor, "--digests")?;
    let value = json::parse(text.trim_end().as_bytes(), PACKET_BYTES_MAX);
    let value = value.map_err(|error| said(&error))?;
    let [bundle] = fields(&value, "digests", ["bundle"]).map_err(|error| said(&error))?;
    digest(bundle, "bundle").map_err(|error| said(&error))
}

/// The first line of `--version`, of an OCI runtime that is runc: no other was tried.
fn version_of(runtime: &OwnedFd) -> std::result::Result<String, String> {
    let text = ask(runtime, "--version")?;
    let line = text.lines().next().unwrap_or_default();
    if !line.starts_with("runc version ") {
        return Err("is not runc".into());
    }
    Ok(line.chars().filter(|c| matches!(c, ' '..='~')).take(VERSION_MAX).collect())
}
