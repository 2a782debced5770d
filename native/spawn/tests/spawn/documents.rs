//! Specs, records and tickets as an honest agent and signer would make them, to be bent by the tests.

use casemate_ticket::bytes::{Digest, encode_base64, encode_hex};
use casemate_ticket::json::{self, Value};
use casemate_ticket::proof::{leaf_hash, node_hash};
use ed25519_dalek::{Signer, SigningKey};
use rustix::time::{ClockId, clock_gettime};

pub const TENANT: &str = "acme";
pub const NODE: &str = "test-host";
pub const ORIGIN: &str = "log.example/casemate";

pub fn text(value: &str) -> Value {
    Value::String(value.into())
}

pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Changes one member of a document, named by its path.
pub fn set(document: &mut Value, path: &str, new: Value) {
    let mut place = document;
    for name in path.split('.') {
        place = match place {
            Value::Object(members) => {
                &mut members.iter_mut().find(|(key, _)| key == name).expect(path).1
            }
            Value::Array(items) => &mut items[name.parse::<usize>().unwrap()],
            _ => panic!("{path}"),
        };
    }
    *place = new;
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key_blob(key: &SigningKey) -> (String, Vec<u8>) {
    let blob = [[1].as_slice(), key.verifying_key().as_bytes()].concat();
    let id = Digest::of(&[ORIGIN.as_bytes(), b"\n", &blob].concat());
    (encode_hex(&id.0[..4]), blob)
}

pub fn vkey(key: &SigningKey) -> String {
    let (id, blob) = key_blob(key);
    format!("{ORIGIN}+{id}+{}", encode_base64(&blob))
}

/// A ticket for `record`, second of two leaves of the log of `key`.
pub fn ticket(record: &[u8], key: &SigningKey) -> String {
    let sibling = leaf_hash(b"an earlier record");
    let root = node_hash(&sibling, &leaf_hash(record));
    let note = format!("{ORIGIN}\n2\n{}\n", encode_base64(&root));
    let signature = key.sign(note.as_bytes()).to_bytes();
    let (id, _) = key_blob(key);
    let id = u32::from_str_radix(&id, 16).unwrap().to_be_bytes();
    let signed = encode_base64(&[id.as_slice(), &signature].concat());
    format!(
        "c2sp.org/tlog-proof@v1\nindex 1\n{}\n\n{note}\n\u{2014} {ORIGIN} {signed}\n",
        encode_base64(&sibling)
    )
}

pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// The launch.intent of a spec.
pub fn record(spec: &Value) -> Value {
    let member = |name: &str| spec.get(name).unwrap().clone();
    let bytes = json::write(spec);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let size = i64::try_from(bytes.len()).unwrap();
    object([
        ("v", text("casemate.audit/1")),
        ("type", text("launch.intent")),
        ("launch_id", member("launch_id")),
        ("tenant", member("tenant")),
        ("clock", object([("boot_id", text(boot_id.trim()))])),
        ("node", object([("id", member("node"))])),
        ("isolation", object([("level", member("level")), ("kvm", member("kvm"))])),
        (
            "spec",
            object([
                ("digest", text(&Digest::of(bytes.as_bytes()).to_string())),
                ("size", Value::Integer(size)),
            ]),
        ),
        (
            "deadline",
            object([("boottime_ns", text(&(boottime_ns() + 20_000_000_000).to_string()))]),
        ),
    ])
}

pub fn launch_request(ticket: &str, record: &str, spec: &str) -> String {
    json::write(&object([
        ("op", text("launch")),
        ("ticket", text(ticket)),
        ("record", text(record)),
        ("spec", text(spec)),
    ]))
}

/// Ticket and record for a spec, all good.
pub fn admitted(spec: &Value) -> String {
    let record = json::write(&record(spec));
    launch_request(&ticket(record.as_bytes(), &key(7)), &record, &json::write(spec))
}

/// A spec for this host (its `describe` answer) whose app does what `words` say.
pub fn spec(describe: &Value, launch_id: &str, words: &[&str]) -> Value {
    let of = |name: &str| describe.get(name).unwrap().clone();
    let disk = |role: &str, size: Value, verity: Value| {
        object([("role", text(role)), ("access", text("read")), ("size", size), ("verity", verity)])
    };
    let one_block = object([
        ("data_blocks", Value::Integer(1)),
        ("root", text(&"c".repeat(64))),
        ("salt", text("")),
    ]);
    let init = describe.get("init").unwrap();
    let init = disk("init", init.get("size").unwrap().clone(), init.get("verity").unwrap().clone());
    let scratch = object([
        ("role", text("scratch")),
        ("access", text("read-write")),
        ("size", Value::Integer(SCRATCH_SIZE)),
        ("size_max", Value::Integer(SCRATCH_SIZE_MAX)),
        ("blocks", text(&scratch_digest())),
    ]);
    let log = object([
        ("role", text("log")),
        ("access", text("read-write")),
        ("size", Value::Integer(LOG_SIZE)),
    ]);
    let limits = |ms: i64| {
        object([
            ("boot_ms", Value::Integer(ms)),
            ("boot_log_bytes", Value::Integer(65_536)),
            ("cpu_quota_percent", Value::Integer(150)),
            ("pids", Value::Integer(32)),
            ("rates", object(["disk_read", "disk_write", "rng"].map(|name| (name, Value::Null)))),
            ("stop_ms", Value::Integer(1000)),
            ("vmm_overhead_mib", Value::Integer(64)),
        ])
    };
    object([
        ("v", text("casemate.spec/1")),
        ("launch_id", text(launch_id)),
        ("tenant", text(TENANT)),
        ("level", text("vm")),
        ("kvm", of("kvm")),
        ("node", text(NODE)),
        ("hostname", text("web-1")),
        (
            "machine",
            object([
                ("vcpus", Value::Integer(1)),
                ("memory_mib", Value::Integer(128)),
                ("cmdline", of("cmdline")),
            ]),
        ),
        ("vmm", of("vmm")),
        ("kernel", of("kernel")),
        ("template", Value::Null),
        ("container", Value::Null),
        (
            "descriptors",
            Value::Array(vec![init, disk("image", Value::Integer(4096), one_block), scratch, log]),
        ),
        ("apps", Value::Array(vec![app(words)])),
        ("sysctls", Value::Array(vec![])),
        ("limits", limits(60_000)),
    ])
}

/// Makes a spec one of a level below vm, for a monitor that no host has.
pub fn as_container(spec: &mut Value, level: &str) {
    for name in ["kernel", "kvm", "machine", "template", "vmm"] {
        set(spec, name, Value::Null);
    }
    set(spec, "level", text(level));
    let digest = format!("sha256:{}", "a".repeat(64));
    let named = |name: &'static str| (name, text(&digest));
    let memory = ("memory_mib", Value::Integer(128));
    let container = object([named("bundle"), named("digest"), memory, named("runtime")]);
    set(spec, "container", container);
    // Permits all; level host wants one.
    let program = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    let seccomp = object([
        ("digest", text(&format!("sha256:{}", encode_hex(&Digest::of(&program).0)))),
        ("program", text(&encode_base64(&program))),
    ]);
    set(spec, "apps.0.seccomp", seccomp);
    let Value::Object(members) = spec else { panic!("no object") };
    for (name, member) in members.iter_mut() {
        if let ("descriptors", Value::Array(items)) = (name.as_str(), member) {
            items.remove(0);
        }
    }
}

/// Gives a spec a network with this one address.
pub fn connect(spec: &mut Value, address: &str, mtu: i64) {
    let number: u8 = address.split(['.', '/']).nth(3).unwrap().parse().unwrap();
    connect_as(spec, number, &[address], "null", mtu);
}

/// Adds a network with a gateway, and a way out as the JSON of `egress` says.
pub fn connect_as(spec: &mut Value, number: u8, addresses: &[&str], egress: &str, mtu: i64) {
    publish(spec, number, addresses, egress, &[], mtu);
}

/// The same, with these ports of the host: address (`/udp` behind it where it is), port, the pod's port.
pub fn publish(
    spec: &mut Value,
    number: u8,
    addresses: &[&str],
    egress: &str,
    ports: &[(&str, u16, u16)],
    mtu: i64,
) {
    let ports = ports.iter().map(|(address, host, pod)| {
        let (address, protocol) = address.split_once('/').unwrap_or((address, "tcp"));
        object([
            ("address", text(address)),
            ("host", Value::Integer((*host).into())),
            ("pod", Value::Integer((*pod).into())),
            ("protocol", text(protocol)),
        ])
    });
    let ports = Value::Array(ports.collect());
    let list = |items: Vec<String>| Value::Array(items.iter().map(|item| text(item)).collect());
    let gateway = |address: &&str| {
        let (ip, _) = address.split_once('/').unwrap();
        let end = ip.rfind(['.', ':']).unwrap();
        format!("{}1", &ip[..=end])
    };
    let none = || Value::Array(vec![]);
    let network = object([
        ("addresses", list(addresses.iter().map(ToString::to_string).collect())),
        ("egress", json::parse(egress.as_bytes(), 65_536).unwrap()),
        ("gateways", list(addresses.iter().map(gateway).collect())),
        ("mac", text(&format!("02:00:00:00:00:{number:02x}"))),
        ("mtu", Value::Integer(mtu)),
        (
            "names",
            object([
                ("hosts", none()),
                ("nameservers", none()),
                ("options", none()),
                ("search", none()),
            ]),
        ),
        ("ports", ports),
        ("rates", object(["receive", "transmit"].map(|name| (name, Value::Null)))),
    ]);
    let Value::Object(members) = spec else { panic!("no object") };
    let tap = object([("access", text("read-write")), ("role", text("net"))]);
    for (name, member) in members.iter_mut() {
        if let ("descriptors", Value::Array(items)) = (name.as_str(), member) {
            items.push(tap.clone());
        }
    }
    members.push(("network".into(), network));
    *spec = Value::object(std::mem::take(members));
}

pub const SCRATCH_SIZE: i64 = 8 << 20;
pub const SCRATCH_SIZE_MAX: i64 = 16 << 20;
pub const LOG_SIZE: i64 = 4 << 20;

/// First block of the scratch image; the rest is a hole.
pub const SCRATCH_BLOCK: [u8; 4096] = [7; 4096];

pub fn scratch_digest() -> String {
    let mut blocks = casemate_ticket::blocks::BlockDigest::new();
    blocks.update(0, &SCRATCH_BLOCK).unwrap();
    blocks.finish(u64::try_from(SCRATCH_SIZE).unwrap()).unwrap().to_string()
}

fn app(words: &[&str]) -> Value {
    let none = || Value::Array(vec![]);
    let process = object([
        ("args", Value::Array(words.iter().map(|word| text(word)).collect())),
        ("env", none()),
        ("cwd", text("/")),
        ("user", text("")),
        ("additional_gids", none()),
        (
            "capabilities",
            object([
                ("ambient", none()),
                ("bounding", none()),
                ("effective", none()),
                ("inheritable", none()),
                ("permitted", none()),
            ]),
        ),
        ("rlimits", none()),
        ("no_new_privileges", Value::Bool(true)),
    ]);
    object([
        ("mounts", Value::Array(vec![])),
        ("health", Value::Null),
        ("after", Value::Null),
        ("image", Value::Integer(0)),
        ("name", text("app")),
        ("process", process),
        ("read_only_root", Value::Bool(false)),
        ("seccomp", Value::Null),
        ("stop_signal", Value::Integer(15)),
    ])
}
