//! What starts containers, spoken to as by a spawn that was taken over: it believes no word of it but the ticket.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use casemate_ticket::document::{Context, LaunchDocument, Mode};
use casemate_ticket::json::{self, Value};
use casemate_ticket::note::LogKey;
use casemate_ticket::spec::Level;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::documents::{self, as_container, key, object, record, set, text, ticket, vkey};
use crate::host::{Host, ended, example, host_with};

const IDS: u32 = 1_900_000_000;

/// A spawn whose tenants `trusty` may run containers, of which no part is real.
fn host() -> Option<Host> {
    host_with("", trust)
}

fn trust(config: &mut Value) {
    set(config, "levels", object([("trusty", Value::Array(vec![text("container")]))]));
    let program = || text(example("monitor_probe").to_str().unwrap());
    let container = [
        ("count", Value::Integer(2)),
        ("monitor", program()),
        ("runtime", program()),
        ("uid_base", Value::Integer(IDS.into())),
    ];
    set(config, "container", object(container));
}

/// A starter of the same configuration, and the test in spawn's place.
struct Starter {
    process: Child,
    socket: OwnedFd,
}

impl Starter {
    fn of(host: &Host) -> Self {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_casemate-spawn"))
            .args(["--starter", "--config"])
            .arg(host.directory.join("spawn.json"))
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let starter = Self { process, socket };
        assert!(starter.hears().0.starts_with("+sha256:"));
        starter
    }

    fn ask(&self, order: &str, descriptors: &[OwnedFd]) -> (String, Vec<OwnedFd>) {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(borrowed.is_empty() || control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        let bytes = [IoSlice::new(order.as_bytes())];
        sendmsg(&self.socket, &bytes, &mut control, SendFlags::NOSIGNAL).unwrap();
        self.hears()
    }

    fn hears(&self) -> (String, Vec<OwnedFd>) {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let count = recvmsg(&self.socket, &mut into, &mut control, flags).unwrap().bytes;
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        (String::from_utf8(bytes[..count].to_vec()).unwrap(), descriptors)
    }

    /// The code of a refusal.
    fn refuses(&self, order: &str, descriptors: &[OwnedFd]) -> String {
        let (answer, descriptors) = self.ask(order, descriptors);
        assert!(descriptors.is_empty());
        answer.strip_prefix('-').unwrap().split_once('\n').unwrap().0.to_owned()
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A launch document that says of the host what a spawn that was taken over would have it say.
fn document(spec: &Value, ticketed: bool) -> String {
    let record = json::write(&record(spec));
    let ticket = if ticketed { ticket(record.as_bytes(), &key(7)) } else { String::new() };
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let everybody = ["acme", "trusty"].map(|name| (name.to_owned(), vec![Level::Container]));
    let context = Context {
        node: documents::NODE.into(),
        boot_id: boot_id.trim().into(),
        kvm: None,
        allow_software_kvm: true,
        levels: everybody.to_vec(),
        log_keys: vec![LogKey::parse(&vkey(&key(7))).unwrap()],
    };
    LaunchDocument { context, mode: Mode::Launch, record, spec: json::write(spec), ticket }.write()
}

fn memfd(bytes: &str, sealed: bool) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("document", flags).unwrap();
    File::from(file.try_clone().unwrap()).write_all(bytes.as_bytes()).unwrap();
    if sealed {
        let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, all).unwrap();
    }
    file
}

/// A container's spec for this host, of `tenant`, and an order for it.
fn launch(host: &Host, tenant: &str) -> (Value, String) {
    let (pod, mut spec) = host.spec(&["serve"]);
    as_container(&mut spec, "container");
    let described = host.describe();
    for name in ["bundle", "digest", "runtime"] {
        let of = described.get("container").and_then(|container| container.get(name));
        set(&mut spec, &format!("container.{name}"), of.unwrap().clone());
    }
    set(&mut spec, "tenant", text(tenant));
    (spec, format!("{IDS}\n/casemate/x/{pod}/app\n/nowhere"))
}

#[test]
fn makes_nothing_without_a_good_ticket_of_a_listed_tenant_whatever_spawn_says() {
    let Some(host) = host() else { return };
    let starter = Starter::of(&host);
    let (spec, order) = launch(&host, "trusty");
    let good = || memfd(&document(&spec, true), true);
    assert_eq!(starter.refuses(&order, &[]), "DESCRIPTORS");
    assert_eq!(starter.refuses(&order, &[memfd(&document(&spec, true), false)]), "DESCRIPTORS");
    assert_eq!(starter.refuses(&order, &[memfd("{}", true)]), "DESCRIPTORS");
    assert_eq!(starter.refuses(&order, &[memfd(&document(&spec, false), true)]), "TICKET_MISSING");
    for odd in [
        order.replace(&IDS.to_string(), "0"),
        order.replace(&IDS.to_string(), &(IDS + 1).to_string()),
        order.replace(&IDS.to_string(), &(IDS + 2 * 65_536).to_string()),
        order.replace("/app", ""),
        order.replace("/nowhere", "/nowhere\nmore"),
    ] {
        assert_eq!(starter.refuses(&odd, &[good()]), "DESCRIPTORS", "{odd}");
    }
    let (unlisted, other) = launch(&host, "acme");
    let papers = memfd(&document(&unlisted, true), true);
    assert_eq!(starter.refuses(&other, &[papers]), "LEVEL_NOT_LISTED");
    let (mut bent, other) = launch(&host, "trusty");
    set(&mut bent, "container.runtime", text(&format!("sha256:{}", "0".repeat(64))));
    let papers = memfd(&document(&bent, true), true);
    assert_eq!(starter.refuses(&other, &[papers]), "SPEC_NOT_OF_THIS_HOST");
    let (_, vm) = host.spec(&["serve"]);
    assert_eq!(starter.refuses(&order, &[memfd(&document(&vm, true), true)]), "KVM_CLASS");
}

fn mount_host(spec: &mut Value, name: &str) {
    let mount = [
        ("exec", Value::Bool(false)),
        ("ids", Value::Null),
        ("kind", text("host")),
        ("name", text(name)),
        ("path", text("/x")),
        ("read_only", Value::Bool(true)),
        ("sub_path", Value::Null),
    ];
    let Some(Value::Array(apps)) = spec.get("apps") else { panic!("apps") };
    let mut app = apps[0].clone();
    set(&mut app, "mounts", Value::Array(vec![object(mount)]));
    set(spec, "apps", Value::Array(vec![app]));
}

/// A spawn that was taken over, or that read its list before root changed it, makes no difference to the starter.
#[test]
fn opens_no_path_of_the_host_but_by_the_list_that_it_read_itself() {
    let entry = |path: &str, tenants: &[&str]| {
        let tenants = tenants.iter().map(|tenant| text(tenant)).collect();
        object([
            ("exec", Value::Bool(false)),
            ("ids", Value::Null),
            ("kind", text("directory")),
            ("path", text(path)),
            ("tenants", Value::Array(tenants)),
        ])
    };
    let Some(host) = host_with("", |config| {
        trust(config);
        let entries = [
            ("etc", entry("/etc", &["trusty"])),
            ("foreign", entry("/etc", &["acme"])),
            ("linked", entry("/proc/self/root/etc", &["trusty"])),
        ];
        set(config, "host_paths", object(entries));
    }) else {
        return;
    };
    let starter = Starter::of(&host);
    for (name, code) in [
        ("foreign", "HOST_PATH_UNKNOWN"),
        ("unheard", "HOST_PATH_UNKNOWN"),
        ("linked", "HOST_PATH_UNSAFE"),
    ] {
        let (mut spec, order) = launch(&host, "trusty");
        mount_host(&mut spec, name);
        assert_eq!(starter.refuses(&order, &[memfd(&document(&spec, true), true)]), code, "{name}");
    }
    let (mut spec, order) = launch(&host, "trusty");
    mount_host(&mut spec, "etc");
    let papers = || memfd(&document(&spec, true), true);
    let all: Vec<OwnedFd> = (0..7).map(|_| papers()).collect();
    let (answer, descriptors) = starter.ask(&order, &all);
    assert!(answer.starts_with('+'), "{answer}");
    let [pidfd, channel] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
    drop(channel);
    ended(&pidfd);
}

#[test]
fn makes_one_monitor_for_a_ticket_which_waits_to_be_let_in_and_ends_when_it_is_not() {
    let Some(host) = host() else { return };
    let starter = Starter::of(&host);
    let (spec, order) = launch(&host, "trusty");
    let document = document(&spec, true);
    let papers = || memfd(&document, true);
    let all: Vec<OwnedFd> = (0..7).map(|_| papers()).collect();
    let (answer, descriptors) = starter.ask(&order, &all);
    let pid: u32 = answer.strip_prefix('+').unwrap().parse().unwrap();
    let [pidfd, channel] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = format!("PPid:\t{}\n", std::process::id());
    assert!(status.contains(&parent), "a child of the starter's parent: {status}");
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "casemate-spawn", "it has not been let in");
    assert_eq!(starter.refuses(&order, &[papers()]), "TICKET_SPENT");
    drop(channel);
    ended(&pidfd);
}
