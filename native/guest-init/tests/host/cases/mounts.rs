//! What is mounted beside the image: where, with which rights, and past which traps of the image.

use std::fs;
use std::os::unix::fs::symlink;

use casemate_wire::payload::{ErrorCode, Exit};

use crate::config::{Config, app};
use crate::machine::{End, Place, run, run_in};

const FINE: End = End::Exit(Exit::Code(0));

fn tmpfs(path: &str, more: &str) -> String {
    format!(r#"{{"exec":true,"kind":"tmpfs","mode":1023,"path":"{path}",{more}}}"#)
}

fn with(what: &[&str], mounts: &[String]) -> Config {
    Config { mounts: format!("[{}]", mounts.join(",")), ..app(what) }
}

/// Options of the mount at `path`, as the app sees them.
fn options(mounts: &[String], path: &str) -> String {
    let (text, end) = run(&with(&["print", "/proc/self/mountinfo"], mounts));
    assert_eq!(end, FINE, "{text}");
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
    line.unwrap_or_else(|| panic!("nothing is mounted on {path}: {text}")).to_owned()
}

pub fn mounts_memory_of_a_size_with_a_mode() {
    let mount = [tmpfs("/x/y", r#""read_only":false,"size":65536"#)];
    let line = options(&mount, "/x/y");
    assert!(line.contains("nosuid,nodev") && line.contains("size=64k"), "{line}");
    assert!(!line.contains("noexec"), "{line}");
    let (said, end) = run(&with(&["fill", "/x/y/file"], &mount));
    assert_eq!((said.as_str(), end), ("65536 error 28", FINE));
    assert_eq!(run(&with(&["mode", "/x/y", "/x"], &mount)), ("1777 755 ".into(), FINE));
    let locked = [tmpfs("/x", r#""read_only":true,"size":65536"#)];
    assert_eq!(run(&with(&["write", "/x/file"], &locked)), ("error 30".into(), FINE));
}

pub fn mounts_shared_memory_of_another_size() {
    let mount = [tmpfs("/dev/shm", r#""read_only":false,"size":8192"#)];
    assert_eq!(run(&with(&["fill", "/dev/shm/file"], &mount)), ("8192 error 28".into(), FINE));
    assert!(options(&mount, "/dev/shm").contains("noexec"));
}

pub fn mounts_in_order_with_what_the_root_lacks() {
    let inner = r#"{"kind":"empty","mode":448,"name":null,"path":"/x/y"}"#.to_owned();
    let mounts = [tmpfs("/x", r#""read_only":false,"size":65536"#), inner];
    for read_only_root in [false, true] {
        let config = Config { read_only_root, ..with(&["write", "/x/y/file"], &mounts) };
        assert_eq!(run(&config), ("written".into(), FINE));
    }
    assert_eq!(run(&with(&["mode", "/x/y"], &mounts)), ("700 ".into(), FINE));
    let place = Place::new();
    let outside = [r#"{"kind":"empty","mode":448,"name":null,"path":"/etc"}"#.to_owned()];
    assert_eq!(run_in(&place, &with(&["list", "/etc"], &outside)), (String::new(), FINE));
}

pub fn keeps_a_place_of_the_image_writable_in_a_read_only_root() {
    let mounts = [r#"{"kind":"image","path":"/etc"}"#.to_owned()];
    for (path, answer) in [("/etc/new", "written"), ("/new", "error 30")] {
        let config = Config { read_only_root: true, ..with(&["write", path], &mounts) };
        assert_eq!(run(&config), (answer.into(), FINE), "{path}");
    }
    let config = Config { read_only_root: true, ..with(&["list", "/etc"], &mounts) };
    assert_eq!(run(&config), ("group passwd".into(), FINE));
}

pub fn follows_no_link_of_the_image_to_a_mount_point() {
    for (link, target) in [("x", "/etc"), ("x", "../.."), ("x", "proc/sys"), ("a", "/")] {
        let place = Place::new();
        symlink(target, place.image(link)).unwrap();
        let path = if link == "a" { "/a/x" } else { "/x" };
        let mounts = [tmpfs(path, r#""read_only":false,"size":65536"#)];
        let (out, end) = run_in(&place, &with(&["list", "/etc"], &mounts));
        let End::Error(ErrorCode::Mount, text) = end else { panic!("{target}: {out}{end:?}") };
        assert!(text.contains(path) && text.contains("a link"), "{text}");
        assert!(!place.image("etc/x").exists());
    }
    let place = Place::new();
    fs::write(place.image("file"), "").unwrap();
    let mounts = [r#"{"kind":"empty","mode":448,"name":null,"path":"/file"}"#.to_owned()];
    let (_, end) = run_in(&place, &with(&["wait"], &mounts));
    assert!(matches!(end, End::Error(ErrorCode::Mount, _)), "{end:?}");
}

pub fn makes_nothing_in_what_is_read_only() {
    let inner = r#"{"kind":"empty","mode":448,"name":null,"path":"/x/y"}"#.to_owned();
    let mounts = [tmpfs("/x", r#""read_only":true,"size":65536"#), inner];
    let (_, end) = run(&with(&["wait"], &mounts));
    let End::Error(ErrorCode::Mount, text) = end else { panic!("{end:?}") };
    assert!(text.contains("/x/y") && text.contains("read-only"), "{text}");
}

pub fn sets_parameters_of_its_own_namespaces() {
    let before = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let mut config = app(&["print", "/proc/sys/kernel/shmmni", "/proc/sys/fs/mqueue/queues_max"]);
    config.sysctls = vec![("kernel.shmmni", "77"), ("fs.mqueue.queues_max", "5")];
    assert_eq!(run(&config), ("77\n5\n".into(), FINE));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), before);
    config.sysctls = vec![("kernel.shmmni", "many")];
    let (_, end) = run(&config);
    let End::Error(ErrorCode::Other, text) = end else { panic!("{end:?}") };
    assert!(text.contains("kernel.shmmni"), "{text}");
}

fn file(path: &str, mode: u32, uid: u32, size: usize) -> String {
    format!(r#"{{"gid":34,"kind":"file","mode":{mode},"path":"{path}","size":{size},"uid":{uid}}}"#)
}

pub fn gives_files_that_nobody_can_write() {
    let mounts = [
        tmpfs("/run", r#""read_only":false,"size":65536"#),
        file("/etc/passwd", 0o444, 0, 5),
        file("/run/secrets/key", 0o400, 33, 3),
        file("/run/secrets/none", 0o400, 0, 0),
    ];
    let mounts = [&mounts[1..2], &mounts[0..1], &mounts[2..]].concat();
    for read_only_root in [false, true] {
        let place = Place::new();
        let config = |what: &[&str]| Config {
            files: b"otherkey".to_vec(),
            capabilities: vec!["DAC_OVERRIDE", "SYS_ADMIN", "FOWNER"],
            read_only_root,
            ..with(what, &mounts)
        };
        let tell = |what: &[&str]| {
            let (out, end) = run_in(&place, &config(what));
            assert_eq!(end, FINE, "{out}");
            out
        };
        let paths = ["/etc/passwd", "/run/secrets/key", "/run/secrets/none"];
        assert_eq!(tell(&[&["print"][..], &paths].concat()), "otherkey");
        assert_eq!(tell(&[&["mode"][..], &paths].concat()), "444 400 400 ");
        assert_eq!(tell(&["owner", "/run/secrets/key"]), "33:34");
        for path in paths {
            assert_eq!(tell(&["write", path]), "error 30", "{path}");
        }
        assert_eq!(tell(&["list", "/run/secrets"]), "key none");
        assert!(!tell(&["list", "/dev"]).contains(".files"));
        let there = fs::read_to_string(place.image("etc/passwd")).unwrap();
        assert!(there.starts_with("root:"), "the image stays as it is");
    }
}

pub fn puts_files_in_place_of_files_alone() {
    for (trap, path) in [("link", "/etc/trap"), ("link", "/trap/passwd"), ("directory", "/etc")] {
        let place = Place::new();
        if trap == "link" {
            symlink("/etc/passwd", place.image("etc/trap")).unwrap();
            symlink("/etc", place.image("trap")).unwrap();
        }
        let config = Config { files: b"x".to_vec(), ..with(&["wait"], &[file(path, 0o444, 0, 1)]) };
        let (out, end) = run_in(&place, &config);
        assert!(matches!(end, End::Error(ErrorCode::Mount, _)), "{path}: {out} {end:?}");
    }
}

pub fn refuses_other_files_than_those_of_its_configuration() {
    for content in [&b""[..], b"a", b"abc"] {
        let config =
            Config { files: content.to_vec(), ..with(&["wait"], &[file("/x", 0o444, 0, 2)]) };
        let (_, end) = run(&config);
        assert!(matches!(end, End::Error(ErrorCode::Config, _)), "{content:?}: {end:?}");
    }
    let (_, end) = run(&Config { files: b"a".to_vec(), ..app(&["wait"]) });
    assert!(matches!(end, End::Error(ErrorCode::Config, _)), "{end:?}");
}
