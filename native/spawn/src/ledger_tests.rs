use std::os::unix::fs::symlink;
use std::path::Path;

use casemate_ticket::bytes::Digest;

use super::*;

const BOOT: &str = "01936f5e-0000-4000-8000-000000000000";
const POD: &str = "01936f5e-0000-7000-8000-000000000001";

fn place(name: &str) -> PathBuf {
    let directory =
        std::env::temp_dir().join(format!("casemate-ledger-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    directory
}

fn entry() -> Entry {
    let digest = Digest([7; 32]);
    Entry {
        identity: Identity { pod: POD.into(), tenant: "acme".into(), spec: digest },
        level: Level::Vm,
        shape: (1, 128),
        vmm: Vmm { digest, filter_control: digest, filter_io: digest, filter_vcpu: digest },
        pid: 42,
        uid: 2_000_000,
        way: Some(way()),
        scratch: DiskSize { bytes: 8192, bytes_max: 16_384 },
        volumes: vec!["data".into()],
        launched: true,
        heard: vec![vec![1, 2, 3]],
        killed: Some(Killed::StopTimeout),
        boot_until: None,
        stop_until: Instant::now().checked_add(Duration::from_secs(100)),
        exit: None,
    }
}

fn way() -> Way {
    let network = r#"{"addresses":["10.88.0.2/24"],"egress":{"internet":true,"rules":[]},"gateways":["10.88.0.1"],"mac":"02:00:0a:58:00:02","mtu":1500,"names":{"hosts":[],"nameservers":[],"options":[],"search":[]},"ports":[],"rates":{"receive":null,"transmit":null}}"#;
    let text = format!(r#"{{"bridge":"cmb0","network":{network},"port":"cmt0"}}"#);
    Way::read(&json::parse(text.as_bytes(), 4096).unwrap(), "way").unwrap()
}

fn only(ledger: &Ledger) -> Option<Entry> {
    let mut entries = ledger.read().unwrap();
    assert!(entries.len() < 2);
    entries.pop()
}

#[test]
fn reads_what_it_wrote() {
    let directory = place("reads");
    let ledger = Ledger::open(&directory, BOOT).unwrap();
    ledger.write(&entry()).unwrap();
    let read = only(&ledger).unwrap();
    assert_eq!(ledger.text(&Entry { stop_until: None, ..read.clone() }), {
        ledger.text(&Entry { stop_until: None, ..entry() })
    });
    let left = read.stop_until.unwrap().saturating_duration_since(Instant::now());
    assert!(left <= Duration::from_secs(100) && left > Duration::from_secs(10), "{left:?}");
    let exit = PodExit::not_taken_over("a reason");
    ledger.write(&Entry { exit: Some(exit.clone()), ..entry() }).unwrap();
    assert_eq!(only(&ledger).unwrap().exit, Some(exit));
    ledger.remove(POD);
    assert!(only(&ledger).is_none());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_time_that_has_passed_is_due_at_once() {
    let directory = place("past");
    let ledger = Ledger::open(&directory, BOOT).unwrap();
    let past = Instant::now().checked_sub(Duration::from_millis(1));
    ledger.write(&Entry { boot_until: past, ..entry() }).unwrap();
    assert!(only(&ledger).unwrap().boot_until.unwrap() <= Instant::now());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_entry_of_another_boot_is_none() {
    let directory = place("boot");
    Ledger::open(&directory, "01936f5e-0000-4000-8000-00000000000f")
        .unwrap()
        .write(&entry())
        .unwrap();
    let ledger = Ledger::open(&directory, BOOT).unwrap();
    assert!(only(&ledger).is_none());
    assert_eq!(fs::read_dir(&ledger.directory).unwrap().count(), 0, "and is removed");
    fs::remove_dir_all(&directory).unwrap();
}

fn writes(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn refuses_what_is_cut_altered_or_not_root_s_alone() {
    let directory = place("refuses");
    let ledger = Ledger::open(&directory, BOOT).unwrap();
    let good = ledger.text(&entry());
    let path = ledger.directory.join(POD);
    let mut bad: Vec<String> =
        [0, 1, good.len() / 2, good.len() - 1].map(|cut| good[..cut].into()).into();
    for (from, to) in [
        ("casemate.pod/1", "casemate.pod/2"),
        ("\"pid\":42", "\"pid\":0"),
        ("\"pid\":42", "\"pid\":4294967295"),
        ("\"uid\":2000000", "\"uid\":0"),
        ("\"launched\":true", "\"launched\":1"),
        ("stop-timeout", "whim"),
        ("\"heard\":[\"010203\"]", "\"heard\":[\"zz\"]"),
        ("\"heard\":[\"010203\"]", "\"heard\":[\"01\",\"01\",\"01\",\"01\",\"01\"]"),
        ("acme", "../etc"),
        ("000000000001", "000000000002"),
        ("{\"boot_id\"", "{\"a\":1,\"boot_id\""),
        ("{\"boot_id\"", "{ \"boot_id\""),
    ] {
        let altered = good.replace(from, to);
        assert_ne!(altered, good, "{from}");
        bad.push(altered);
    }
    bad.push(format!("{good}{}", " ".repeat(20_000)));
    for text in bad {
        writes(&path, &text);
        assert!(only(&ledger).is_none(), "{text}");
        assert!(!path.exists(), "it is removed: {text}");
    }
    writes(&path, &good);
    assert!(only(&ledger).is_some());
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(only(&ledger).is_none(), "others may read it");
    let elsewhere = directory.join("elsewhere");
    writes(&elsewhere, &good);
    symlink(&elsewhere, &path).unwrap();
    assert!(only(&ledger).is_none(), "a link");
    fs::hard_link(&elsewhere, &path).unwrap();
    assert!(only(&ledger).is_none(), "of two names");
    writes(&ledger.directory.join("no-pod"), &good);
    assert!(only(&ledger).is_none(), "of another name");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_was_being_written_is_removed() {
    let directory = place("unfinished");
    let ledger = Ledger::open(&directory, BOOT).unwrap();
    ledger.write(&entry()).unwrap();
    writes(&ledger.directory.join(format!("{POD}.new")), "{");
    assert!(only(&ledger).is_some());
    assert_eq!(fs::read_dir(&ledger.directory).unwrap().count(), 1);
    fs::remove_dir_all(&directory).unwrap();
}
