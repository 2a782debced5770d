//! Named volumes: what spawn does for a record with its receipt, once, and for nothing else.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use casemate_ticket::json::{self, Value};
use rustix::process::Signal;

use crate::client::Answer;
use crate::documents::{NODE, TENANT, boottime_ns, key, object, set, text, ticket};
use crate::host::{Host, host, kept_host};

const MIB: i64 = 1 << 20;
const SIZE: i64 = 64 * MIB;

/// The volume.intent of an operation.
fn intent(operation: &str, size: Option<i64>, snapshot: Option<&str>) -> Value {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    // Each a record of its own.
    let until = boottime_ns() + 20_000_000_000;
    object([
        ("v", text("casemate.audit/1")),
        ("type", text("volume.intent")),
        ("tenant", text(TENANT)),
        ("volume", text("data")),
        ("operation", text(operation)),
        ("size_bytes", size.map_or(Value::Null, Value::Integer)),
        ("snapshot", snapshot.map_or(Value::Null, text)),
        ("clock", object([("boot_id", text(boot_id.trim()))])),
        ("node", object([("id", text(NODE))])),
        ("deadline", object([("boottime_ns", text(&until.to_string()))])),
    ])
}

fn request(record: &str, signed_by: u8) -> String {
    let ticket = ticket(record.as_bytes(), &key(signed_by));
    json::write(&object([
        ("op", text("volume")),
        ("ticket", text(&ticket)),
        ("record", text(record)),
    ]))
}

fn order(host: &Host, intent: &Value) -> Answer {
    host.ask(&request(&json::write(intent), 7))
}

fn create(host: &Host, size: i64) -> String {
    order(host, &intent("create", Some(size), None)).code().to_owned()
}

fn with_snapshot(host: &Host, operation: &str, snapshot: &str) -> Answer {
    order(host, &intent(operation, None, Some(snapshot)))
}

/// What is listed, as `volume snapshot size used pod`.
fn listed(host: &Host, tenant: &str) -> Vec<String> {
    let answer = host.ask(&format!(r#"{{"op":"volumes","tenant":"{tenant}"}}"#));
    let Some(Value::Array(volumes)) = answer.value.get("volumes") else {
        panic!("{}", answer.text())
    };
    let word = |volume: &Value, name: &str| json::write(volume.get(name).unwrap());
    let names = ["volume", "snapshot", "size_bytes", "used_bytes", "pod"];
    let line = |volume| names.map(|name| word(volume, name)).join(" ");
    volumes.iter().map(line).collect()
}

fn disk(host: &Host, folder: &str) -> PathBuf {
    host.directory.join("state/volumes").join(TENANT).join(folder).join("data")
}

#[test]
fn a_volume_is_made_grown_and_destroyed_by_records() {
    let Some(host) = host() else { return };
    assert_eq!(create(&host, SIZE), "ok");
    let facts = fs::metadata(disk(&host, "data")).unwrap();
    assert_eq!((facts.mode() & 0o777, facts.uid(), facts.len()), (0o600, 0, 64 << 20));
    assert_eq!(listed(&host, TENANT), [format!(r#""data" null {SIZE} 4096 null"#)]);
    assert_eq!(listed(&host, "other"), Vec::<String>::new());
    assert_eq!(create(&host, 2 * SIZE), "VOLUME_EXISTS");
    assert_eq!(order(&host, &intent("grow", Some(2 * SIZE), None)).code(), "ok");
    assert_eq!(order(&host, &intent("grow", Some(SIZE), None)).code(), "VOLUME_SHRINK");
    assert_eq!(fs::metadata(disk(&host, "data")).unwrap().len(), 128 << 20);
    assert_eq!(order(&host, &intent("remove", None, None)).code(), "ok");
    assert_eq!(order(&host, &intent("remove", None, None)).code(), "VOLUME_UNKNOWN");
    assert_eq!(order(&host, &intent("grow", Some(SIZE), None)).code(), "VOLUME_UNKNOWN");
    assert!(!disk(&host, "data").exists());
    // More than the host's disk has, now and for ever.
    let huge = order(&host, &intent("create", Some(256 << 30), None));
    assert_eq!(huge.code(), "HOST_FULL", "{}", huge.text());
    assert!(listed(&host, TENANT).is_empty());
}

/// What a stolen agent can try: it has records of its own making, and every receipt it ever got.
#[test]
fn nothing_is_done_without_a_record_of_it_or_twice_for_one() {
    let Some(host) = host() else { return };
    let good = json::write(&intent("create", Some(SIZE), None));
    let forged = |from: &str, to: &str| {
        let other = good.replace(from, to);
        assert_ne!(other, good);
        // The receipt is of another record.
        let ticket = ticket(good.as_bytes(), &key(7));
        let members = [("op", text("volume")), ("ticket", text(&ticket)), ("record", text(&other))];
        host.ask(&json::write(&object(members))).code().to_owned()
    };
    assert_eq!(forged("\"data\"", "\"data2\""), "TICKET_NOT_INCLUDED");
    assert_eq!(forged("67108864", "68157440"), "TICKET_NOT_INCLUDED");
    assert_eq!(host.ask(&request(&good, 8)).code(), "TICKET_KEY_UNKNOWN");
    assert_eq!(host.ask(r#"{"op":"volume","record":"","ticket":""}"#).code(), "TICKET_MISSING");
    for (path, value, code) in [
        ("type", text("launch.intent"), "TICKET_RECORD"),
        ("tenant", text("../other"), "TICKET_RECORD"),
        ("volume", text("../data"), "TICKET_RECORD"),
        ("node.id", text("elsewhere"), "TICKET_HOST"),
        ("deadline.boottime_ns", text("1"), "TICKET_EXPIRED"),
    ] {
        let mut bad = intent("create", Some(SIZE), None);
        set(&mut bad, path, value);
        assert_eq!(order(&host, &bad).code(), code, "{path}");
    }
    assert!(listed(&host, TENANT).is_empty());
    assert_eq!(host.ask(&request(&good, 7)).code(), "ok");
    let removal = json::write(&intent("remove", None, None));
    assert_eq!(host.ask(&request(&removal, 7)).code(), "ok");
    assert_eq!(host.ask(&request(&good, 7)).code(), "TICKET_SPENT");
    assert_eq!(create(&host, SIZE), "ok");
    assert_eq!(host.ask(&request(&removal, 7)).code(), "TICKET_SPENT");
    let host = host.restart();
    assert_eq!(host.ask(&request(&removal, 7)).code(), "TICKET_SPENT");
    assert_eq!(listed(&host, TENANT).len(), 1, "and it is still there under the next spawn");
}

#[test]
fn a_snapshot_is_a_copy_and_a_volume_can_be_it_again() {
    let Some(host) = host() else { return };
    assert_eq!(create(&host, SIZE), "ok");
    let write = |folder: &str, bytes: &[u8], at: u64| {
        let file = File::options().write(true).open(disk(&host, folder)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    };
    let read = |folder: &str, at: u64| {
        let mut bytes = [0; 6];
        File::open(disk(&host, folder)).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    // More than is copied in one piece.
    for at in (0..16).map(|piece| piece << 20) {
        write("data", &vec![5; 1 << 20], at);
    }
    write("data", b"monday", 60 << 20);
    assert_eq!(with_snapshot(&host, "snapshot", "one").code(), "ok");
    assert_eq!(with_snapshot(&host, "snapshot", "one").code(), "VOLUME_EXISTS");
    write("data", b"friday", 60 << 20);
    assert_eq!(read("data@one", 60 << 20), *b"monday");
    let blocks = |folder: &str| fs::metadata(disk(&host, folder)).unwrap().blocks();
    // Give or take blocks in which a file system keeps where a file's are.
    assert!(blocks("data@one").abs_diff(blocks("data")) < 256, "holes stay holes");
    assert_eq!(order(&host, &intent("grow", Some(2 * SIZE), None)).code(), "ok");
    assert_eq!(with_snapshot(&host, "restore", "two").code(), "VOLUME_UNKNOWN");
    assert_eq!(with_snapshot(&host, "restore", "one").code(), "ok");
    assert_eq!((read("data", 60 << 20), read("data", 15 << 20)), (*b"monday", [5; 6]));
    assert_eq!(fs::metadata(disk(&host, "data")).unwrap().len(), 64 << 20, "and its size");
    let mut exported = with_snapshot(&host, "export", "one");
    assert_eq!(exported.code(), "ok", "{}", exported.text());
    let file = File::from(exported.descriptors.pop().unwrap());
    assert_eq!(file.metadata().unwrap().len(), 64 << 20);
    assert!(file.write_at(b"x", 0).is_err(), "it can be read, and no more");
    assert_eq!(order(&host, &intent("remove", None, None)).code(), "VOLUME_HAS_SNAPSHOTS");
    assert_eq!(with_snapshot(&host, "remove", "one").code(), "ok");
    assert_eq!(order(&host, &intent("remove", None, None)).code(), "ok");
    assert!(listed(&host, TENANT).is_empty());
}

/// Spawn may die at any moment of a copy: then there is none, and the volume is what it was.
#[test]
fn a_copy_that_was_cut_off_leaves_nothing_behind() {
    let Some(host) = kept_host() else { return };
    assert_eq!(create(&host, SIZE), "ok");
    let folder = disk(&host, "data").parent().unwrap().parent().unwrap().to_owned();
    let half = folder.join(".new-data@half");
    host.without_spawn(Signal::KILL, || {
        fs::create_dir(&half).unwrap();
        fs::write(half.join("data"), "half of it").unwrap();
    });
    assert_eq!(listed(&host, TENANT).len(), 1);
    assert!(!half.exists());
    assert_eq!(with_snapshot(&host, "snapshot", "half").code(), "ok");
}
