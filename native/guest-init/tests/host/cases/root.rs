//! What the app sees as its file system.

use std::fs;

use casemate_wire::payload::Exit;

use crate::config::app;
use crate::machine::{End, Place, run, run_in};

const FINE: End = End::Exit(Exit::Code(0));

fn tell(what: &[&str]) -> String {
    let (out, end) = run(&app(what));
    assert_eq!(end, FINE, "{out}");
    out
}

pub fn writes_above_an_image_that_stays_as_it_is() {
    let place = Place::new();
    let (out, end) = run_in(&place, &app(&["write", "/etc/passwd"]));
    assert_eq!((out.as_str(), end), ("written", FINE));
    assert!(fs::read_to_string(place.image("etc/passwd")).unwrap().starts_with("root:"));
    let names: Vec<_> =
        fs::read_dir(place.image("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "only bin and etc: {names:?}");
}

pub fn refuses_writes_to_a_read_only_root() {
    for (path, answer) in
        [("/etc/new", "error 30"), ("/tmp/new", "written"), ("/dev/shm/x", "written")]
    {
        let mut config = app(&["write", path]);
        config.read_only_root = true;
        config.cwd = "/made".into();
        assert_eq!(run(&config), (answer.into(), FINE), "{path}");
    }
}

pub fn sees_the_default_devices_and_no_others() {
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(tell(&["list", "/dev"]), expected);
    assert_eq!(tell(&["write", "/dev/null"]), "written");
    assert_eq!(tell(&["list", "/dev/pts"]), "ptmx");
}

pub fn cannot_open_a_node_it_makes() {
    for path in ["/node", "/dev/node", "/dev/shm/node"] {
        let mut config = app(&["node", path]);
        config.capabilities = vec!["MKNOD"];
        assert_eq!(run(&config), ("made error 13".into(), FINE), "{path}");
    }
    assert_eq!(tell(&["node", "/node"]), "refused error 2");
}

pub fn masks_and_protects() {
    assert_eq!(tell(&["print", "/proc/timer_list"]), "");
    assert_eq!(tell(&["list", "/sys/firmware"]), "");
    let mut config = app(&["write", "/proc/sys/kernel/domainname"]);
    config.capabilities = vec!["SYS_ADMIN"];
    assert_eq!(run(&config), ("error 30".into(), FINE));
    // Nor through a working directory that is older than the mount above it.
    config.args = app(&["write", "domainname"]).args;
    config.cwd = "/proc/sys/kernel".into();
    assert_eq!(run(&config), ("error 30".into(), FINE));
    assert_eq!(tell(&["write", "/sys/kernel/profiling"]), "error 30");
}

pub fn sees_no_mount_of_the_machine() {
    let mounts = tell(&["print", "/proc/self/mountinfo"]);
    let points: Vec<&str> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert!(points.contains(&"/") && points.contains(&"/dev/null"), "{mounts}");
    for point in points {
        let known =
            point == "/" || ["/proc", "/sys", "/dev", "/tmp"].iter().any(|p| point.starts_with(p));
        assert!(known, "{mounts}");
    }
}

pub fn keeps_the_image_s_tmp() {
    let place = Place::new();
    fs::create_dir(place.image("tmp")).unwrap();
    fs::write(place.image("tmp/kept"), "").unwrap();
    assert_eq!(run_in(&place, &app(&["list", "/tmp"])), ("kept".into(), FINE));
    fs::remove_dir_all(place.image("tmp")).unwrap();
    std::os::unix::fs::symlink("/etc", place.image("tmp")).unwrap();
    let mut config = app(&["list", "/tmp"]);
    config.read_only_root = true;
    assert_eq!(run_in(&place, &config), ("group passwd".into(), FINE));
}

pub fn gives_a_tmp_where_none_is() {
    let mut config = app(&["write", "/tmp/new"]);
    config.user = "web".into();
    assert_eq!(run(&config), ("written".into(), FINE));
}
