//! What our own code does beside the app: copying in and out, and the list of processes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use casemate_wire::frame::{GuestKind, HostKind};
use casemate_wire::payload::{ErrorCode, Exit, Started};

use super::beside::{is_under_the_same, line};
use super::refusals::without;
use crate::config::app;
use crate::machine::{End, Machine, Place};

const DONE: End = End::Exit(Exit::Code(0));
const FAILED: End = End::Exit(Exit::Code(1));
const RUN: u16 = 9;

/// An app that runs, and its root as the host sees it.
fn waiting(place: &Place) -> (Machine, PathBuf) {
    let mut config = app(&["wait"]);
    config.capabilities = vec!["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"];
    let mut machine = Machine::start(&place.0, None);
    machine.configure(&config);
    let (_, started) = machine.hear().expect("init answers");
    let pid = Started::parse(&started).expect("the app runs").pid;
    (machine, PathBuf::from(format!("/proc/{pid}/root")))
}

fn run(machine: &mut Machine, errand: &str, user: &str, input: &[u8]) -> (String, String, End) {
    machine.exec(RUN, &format!(r#"{{"app":null,"errand":{errand},"user":{user}}}"#));
    // The window of input opens with STARTED.
    started(machine);
    for piece in input.chunks(16_384) {
        machine.say_to(RUN, HostKind::Stdin, piece);
    }
    machine.say_to(RUN, HostKind::StdinEof, &[]);
    machine.listen_to(RUN)
}

/// Its process id.
fn started(machine: &mut Machine) -> u32 {
    loop {
        let (_, kind, payload) = machine.hear_any().expect("init answers");
        if kind == GuestKind::Started {
            return Started::parse(&payload).expect("an errand has begun").pid;
        }
    }
}

fn out(machine: &mut Machine, path: &str, user: &str) -> (String, String, End) {
    run(machine, &format!(r#"{{"kind":"copy-out","path":"{path}"}}"#), user, &[])
}

fn put(machine: &mut Machine, path: &str, place: &str, archive: &[u8]) -> (String, End) {
    put_as(machine, path, (place, false, "null"), archive)
}

fn put_as(
    machine: &mut Machine,
    path: &str,
    (place, owners, user): (&str, bool, &str),
    archive: &[u8],
) -> (String, End) {
    let errand =
        format!(r#"{{"kind":"copy-in","owners":{owners},"path":"{path}","place":"{place}"}}"#);
    let (said, complained, end) = run(machine, &errand, user, archive);
    assert_eq!(said, "");
    (complained, end)
}

/// An archive as GNU tar writes it, of files with their own names as content: `d/` is a directory, `l>t` a link,
/// `h=t` a hard link, `/x` and `../x` are what they are.
fn archive(entries: &[&str]) -> Vec<u8> {
    let block = |name: &str, target: &str, kind: u8, size: usize| {
        let mut head = vec![0_u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        let numbers = format!("0004711\x000000033\x000000034\x00{size:011o}\x0000000000143\x00");
        head[100..148].copy_from_slice(numbers.as_bytes());
        head[148..156].fill(b' ');
        head[156] = kind;
        head[157..157 + target.len()].copy_from_slice(target.as_bytes());
        head[257..265].copy_from_slice(b"ustar  \0");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        head
    };
    let mut all = Vec::new();
    for entry in entries {
        if let Some((name, target)) = entry.split_once('>') {
            all.extend(block(name, target, b'2', 0));
        } else if let Some((name, target)) = entry.split_once('=') {
            all.extend(block(name, target, b'1', 0));
        } else if let Some(name) = entry.strip_suffix('|') {
            all.extend(block(name, "", b'6', 0));
        } else if entry.ends_with('/') {
            all.extend(block(entry, "", b'5', 0));
        } else {
            all.extend(block(entry, "", b'0', entry.len()));
            all.extend(entry.as_bytes());
            all.resize(all.len().next_multiple_of(512), 0);
        }
    }
    all.resize(all.len() + 1024, 0);
    all
}

/// Names in an archive, by the headers that the errand writes.
fn names(archive: &str) -> Vec<String> {
    let bytes = archive.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while bytes[at] != 0 {
        let text = |from: usize, to: usize| {
            let field = &bytes[at + from..at + to];
            String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap()).into_owned()
        };
        let size = usize::from_str_radix(&text(124, 135), 8).unwrap();
        found.push(format!("{}{}", text(0, 100), text(157, 257)));
        at += 512 + size.next_multiple_of(512);
    }
    found.sort();
    found
}

pub fn copies_out_what_is_there_and_follows_no_link_below() {
    let place = Place::new();
    fs::create_dir_all(place.image("data/sub")).unwrap();
    fs::write(place.image("data/sub/file"), "content").unwrap();
    fs::write(place.image("data/secret"), "for root").unwrap();
    fs::set_permissions(place.image("data/secret"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("/etc/passwd", place.image("data/link")).unwrap();
    symlink("/data", place.image("way")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.image("data/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let (mut machine, _) = waiting(&place);
    let (archive, complained, end) = out(&mut machine, "/way", "null");
    assert_eq!(complained, "left out: \"way/pipe\" is neither a file, a directory nor a link\n");
    assert_eq!(end, DONE);
    let all = ["way", "way/link/etc/passwd", "way/secret", "way/sub", "way/sub/file"];
    assert_eq!(names(&archive), all);
    assert!(archive.contains("content") && !archive.contains("root:x:0"));
    let (archive, complained, end) = out(&mut machine, "/data/.", "\"web\"");
    assert!(complained.contains("cannot open \"./secret\": Permission denied"), "{complained}");
    assert_eq!(end, FAILED);
    assert!(archive.contains("content") && !archive.contains("for root"));
    let (archive, complained, end) = out(&mut machine, "/nothing", "null");
    assert_eq!((archive.as_str(), end), ("", FAILED));
    assert!(complained.contains("cannot open \"/nothing\""), "{complained}");
    let (_, complained, _) = out(&mut machine, "/data/pipe", "null");
    assert!(complained.contains("neither a file nor a directory"), "{complained}");
}

/// What it is itself, by its own words: an errand that copies its own status out.
pub fn is_under_all_that_a_program_would_be_under() {
    let place = Place::new();
    let mut config = app(&["wait"]);
    config.user = "web".into();
    config.capabilities = vec!["CHOWN", "KILL"];
    config.rlimits = vec![("RLIMIT_NOFILE", 100, 200)];
    config.seccomp = Some(vec![[6, 0, 0, 0, 0, 0, 0xff, 0x7f]]);
    let mut machine = Machine::start(&place.0, None);
    machine.configure(&config);
    machine.hear_started();
    let both = |machine: &mut Machine, file: &str| {
        ["1", "self"].map(|of| {
            let (text, complained, end) = out(machine, &format!("/proc/{of}/{file}"), "null");
            assert_eq!((complained.as_str(), end), ("", DONE));
            text
        })
    };
    let [of_app, own] = both(&mut machine, "status");
    // The app is a Rust program, and ignores SIGPIPE.
    let of_app = of_app.replace(line(&of_app, "SigIgn:"), line(&own, "SigIgn:"));
    is_under_the_same(&own, &of_app);
    assert_eq!(line(&own, "CapEff:"), "CapEff:\t0000000000000000");
    assert_eq!(line(&own, "Seccomp:"), "Seccomp:\t2");
    let body = |text: &str| text.get(512..).unwrap().to_owned();
    for file in ["limits", "cgroup", "mountinfo"] {
        let [of_app, own] = both(&mut machine, file);
        assert_eq!(body(&own), body(&of_app), "{file}");
    }
    let (_, complained, end) = out(&mut machine, "/proc/1/environ", "\"0\"");
    assert_eq!(end, FAILED);
    // Root by number has no more than the app's own sets.
    assert!(complained.contains("cannot open"), "{complained}");
}

/// Its memory is a copy of init's, since nothing was executed.
pub fn copies_nothing_out_of_proc_that_says_more_than_what_it_is_under() {
    let place = Place::new();
    for (link, target) in
        [("status", "/proc/self/maps"), ("way", "/proc/self"), ("limits", "way/limits")]
    {
        symlink(target, place.image(link)).unwrap();
    }
    let (mut machine, _) = waiting(&place);
    for path in [
        "/proc/self/maps",
        "/proc/self/environ",
        "/proc/self/exe",
        "/proc/self/root/etc",
        "/proc/self/map_files",
        "/proc/self/fd/0",
        "/proc/thread-self/smaps",
        "/proc/self",
        "/proc",
        "/proc/self/task/.",
        "/proc/cpuinfo",
        "/status",
        "/limits",
        "/way/auxv",
    ] {
        let (archive, complained, end) = out(&mut machine, path, "null");
        assert_eq!((archive.as_str(), end), ("", FAILED), "{path}: {complained}");
    }
    let (_, complained, _) = out(&mut machine, "/proc/self/maps", "null");
    let refused = "\"/proc/self/maps\" is the kernel's: read it with exec\n";
    assert_eq!(complained, refused);
    for path in ["/proc/self/status", "/way/limits", "/proc/thread-self/cgroup"] {
        let (_, complained, end) = out(&mut machine, path, "null");
        assert_eq!((complained.as_str(), end), ("", DONE), "{path}");
    }
}

pub fn has_no_descriptor_but_its_streams_also_under_a_program_that_has_no_close_range() {
    for seccomp in [None, Some(without(libc::SYS_close_range))] {
        let place = Place::new();
        let mut config = app(&["wait"]);
        config.seccomp = seccomp;
        let mut machine = Machine::start(&place.0, None);
        machine.configure(&config);
        machine.hear_started();
        let errand = r#"{"kind":"copy-in","owners":false,"path":"/tmp","place":"inside"}"#;
        machine.exec(RUN, &format!(r#"{{"app":null,"errand":{errand},"user":null}}"#));
        let pid = started(&mut machine);
        // It reads its input once it has its directory.
        let open = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        while open() < 5 {
            std::thread::yield_now();
        }
        assert_eq!(open(), 5, "three streams, the directory, and its input once more");
        machine.say_to(RUN, HostKind::Stdin, &archive(&[]));
        machine.say_to(RUN, HostKind::StdinEof, &[]);
        assert_eq!(machine.listen_to(RUN), (String::new(), String::new(), DONE));
    }
}

pub fn writes_what_an_archive_has_and_nothing_through_a_link() {
    let place = Place::new();
    fs::create_dir_all(place.image("in")).unwrap();
    symlink("/etc", place.image("in/away")).unwrap();
    symlink("/etc/group", place.image("in/file")).unwrap();
    let (mut machine, root) = waiting(&place);
    let good = archive(&["a", "d/", "d/e/f", "d/l>../a", "h=d/e/f", "file"]);
    assert_eq!(put(&mut machine, "/in", "inside", &good), (String::new(), DONE));
    let written = |path: &str| fs::read_to_string(root.join("in").join(path)).unwrap();
    assert_eq!(
        (written("a"), written("d/e/f"), written("h")),
        ("a".into(), "d/e/f".into(), "d/e/f".into())
    );
    let stat = |path: &str| fs::symlink_metadata(root.join("in").join(path)).unwrap();
    assert_eq!((stat("a").mode() & 0o7777, stat("a").uid(), stat("a").mtime()), (0o711, 0, 99));
    assert_eq!((stat("d").mode() & 0o7777, stat("d").mtime()), (0o711, 99));
    assert!(stat("d/l").is_symlink());
    assert!(
        stat("file").is_file()
            && !fs::read_to_string(root.join("etc/group")).unwrap().contains("file")
    );
    for (entries, complaint) in [
        (vec!["away/passwd"], "cannot enter \"away\""),
        (vec!["../etc/passwd"], "leads out of it"),
        (vec!["/etc/passwd"], "is absolute"),
        (vec!["new>/etc", "new/passwd"], "cannot enter \"new\""),
        (vec!["x=../etc/passwd"], "leads out of it"),
        (vec!["x=away/passwd"], "cannot enter \"away\""),
        (vec!["d"], "cannot make \"d\""),
    ] {
        let (complained, end) = put(&mut machine, "/in", "inside", &archive(&entries));
        assert!(complained.contains(complaint), "{entries:?}: {complained}");
        assert_eq!(end, FAILED);
    }
    assert!(!fs::read_to_string(root.join("etc/passwd")).unwrap().contains("away"));
    let (complained, end) = put(&mut machine, "/in", "inside", &archive(&["p|", "q"]));
    assert_eq!((complained.as_str(), end), ("left out: \"p\" is a device or a FIFO\n", FAILED));
    assert_eq!(written("q"), "q");
    let (complained, end) = put(&mut machine, "/in", "inside", &good[..1000]);
    assert_eq!((complained.as_str(), end), ("the archive ends within an entry\n", FAILED));
}

pub fn names_one_thing_as_it_was_asked_to() {
    let place = Place::new();
    fs::create_dir_all(place.image("in/there")).unwrap();
    let (mut machine, root) = waiting(&place);
    let one = archive(&["d/", "d/f"]);
    for path in ["/in/there", "/in/other", "/in/there/"] {
        assert_eq!(put(&mut machine, path, "named", &one), (String::new(), DONE), "{path}");
    }
    for path in ["there/d/f", "other/f"] {
        assert_eq!(fs::read_to_string(root.join("in").join(path)).unwrap(), "d/f");
    }
    for (path, place, entries, complaint) in [
        ("/in/third", "named", vec!["d/", "e"], "the archive has several things"),
        ("/in/fourth/", "named", vec!["d"], "cannot enter"),
        ("/in/no/third", "named", vec!["d"], "cannot enter \"/in/no\""),
        ("/in/fourth", "inside", vec!["d"], "cannot enter"),
    ] {
        let (complained, end) = put(&mut machine, path, place, &archive(&entries));
        assert!(complained.contains(complaint), "{path}: {complained}");
        assert_eq!(end, FAILED);
    }
}

pub fn keeps_the_owners_of_an_archive_for_root_alone() {
    let place = Place::new();
    fs::create_dir_all(place.image("in")).unwrap();
    fs::set_permissions(place.image("in"), PermissionsExt::from_mode(0o777)).unwrap();
    let (mut machine, root) = waiting(&place);
    let put = |machine: &mut Machine, name: &str, how| {
        put_as(machine, "/in", how, &archive(&[&format!("{name}/"), &format!("{name}/f")]))
    };
    for (name, how, owner, mode) in [
        ("kept", ("inside", true, "null"), (27, 28), 0o4711),
        ("own", ("inside", false, "null"), (0, 0), 0o711),
        ("webs", ("inside", true, "\"web\""), (33, 34), 0o711),
    ] {
        assert_eq!(put(&mut machine, name, how), (String::new(), DONE));
        for path in [name.to_owned(), format!("{name}/f")] {
            let stat = fs::metadata(root.join("in").join(path)).unwrap();
            assert_eq!((stat.uid(), stat.gid()), owner, "{name}");
            assert_eq!(stat.mode() & 0o7777, mode, "{name}");
        }
    }
    fs::set_permissions(root.join("in"), PermissionsExt::from_mode(0o755)).unwrap();
    let (complained, end) = put(&mut machine, "more", ("inside", false, "\"web\""));
    assert_eq!(
        (complained.as_str(), end),
        ("cannot make \"more\": Permission denied (os error 13)\n", FAILED)
    );
}

pub fn lists_the_processes_of_the_pod() {
    let place = Place::new();
    let (mut machine, _) = waiting(&place);
    machine.exec(
        1,
        r#"{"app":null,"args":["/bin/app","app","wait"],"cwd":null,"env":[],"terminal":null,"user":"web"}"#,
    );
    while machine.hear_any().expect("init answers").1 != GuestKind::Started {}
    let (list, complained, end) = run(&mut machine, r#"{"kind":"processes"}"#, "\"web\"", &[]);
    assert_eq!((complained.as_str(), end), ("", DONE));
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    for (line, user) in lines.iter().zip(["root", "web"]) {
        assert!(line.contains(r#""command":"/bin/app app wait""#), "{line}");
        assert!(line.contains(&format!(r#""user":"{user}""#)), "{line}");
    }
    machine.exec(RUN, r#"{"app":null,"errand":{"kind":"everything"},"user":null}"#);
    let (_, _, end) = machine.listen_to(RUN);
    let End::Error(code, text) = end else { panic!("{end:?}") };
    assert_eq!(code, ErrorCode::Config);
    assert!(text.contains("must be copy-in, copy-out or processes"), "{text}");
}
