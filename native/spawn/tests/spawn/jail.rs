//! Each promise of the jail, seen from inside (the probe) and from outside (/proc).

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::json::{self, Value};

use crate::documents::text;
use crate::host::{Host, host, unfiltered_host};

/// What the probe reports (without spawn's filter, which would stop some of its tries before the jail does), by name, as JSON text.
fn report(host: &Host) -> BTreeMap<String, String> {
    let (pod, spec) = host.spec(&["report"]);
    let files = host.files();
    let log = files[1].try_clone().unwrap();
    let mut answer = host.client().ask(&crate::documents::admitted(&spec), &files);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let (exit, _) = host.exit_of(&pod, answer.descriptors.pop().unwrap());
    assert_eq!(exit, "code 0 APP_EXIT");
    let mut bytes = vec![0; 65_536];
    let count = rustix::io::pread(log.as_fd(), &mut bytes, 0).unwrap();
    bytes.truncate(count);
    let length = bytes.iter().position(|byte| *byte == 0).unwrap();
    match json::parse(&bytes[..length], 65_536).unwrap() {
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, json::write(&value))).collect()
        }
        _ => panic!("no report"),
    }
}

fn expect(report: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(report[*name], *value, "{name}");
    }
}

#[test]
fn the_vmm_is_nobody_and_sees_nothing() {
    let Some(host) = unfiltered_host() else { return };
    let report = report(&host);
    let uid = host.uid_base.to_string();
    let three = format!("[{uid},{uid},{uid}]");
    expect(
        &report,
        &[
            ("uids", &three),
            ("gids", &three),
            ("groups", "0"),
            ("pid", "1"),
            ("has_parent", "false"),
            ("argv", r#"["casemate-vmm"]"#),
            ("environment", "0"),
            ("interfaces", r#"["lo"]"#),
            ("cwd", r#""/""#),
            ("root_inodes", "1"),
            ("root_inodes_free", "0"),
            ("root_inert", "true"),
            ("stat_proc", r#""ENOENT""#),
            ("stat_above", r#""ENOENT""#),
            // No template (9, 10), and nothing above 13: neither the jail's channel nor the binary.
            ("descriptors", "[0,1,2,3,4,5,6,7,8,11,12,13]"),
        ],
    );
}

#[test]
fn the_vmm_has_no_capability_and_cannot_get_one() {
    let Some(host) = unfiltered_host() else { return };
    expect(
        &report(&host),
        &[
            ("cap_effective", "0"),
            ("cap_permitted", "0"),
            ("cap_inheritable", "0"),
            ("cap_bounding", "0"),
            // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE and all four locks.
            ("secure_bits", "239"),
            ("no_new_privs", "true"),
            // Root does not even exist in its user namespace.
            ("setuid_root", r#""EINVAL""#),
            ("setgroups", r#""EPERM""#),
            ("set_hostname", r#""EPERM""#),
            ("chroot", r#""EPERM""#),
            ("mount", r#""EPERM""#),
            ("user_namespace", r#""ENOSPC""#),
        ],
    );
}

#[test]
fn the_vmm_reaches_no_file_no_network_and_no_process() {
    let Some(host) = unfiltered_host() else { return };
    expect(
        &report(&host),
        &[
            ("open_root", r#""EACCES""#),
            ("create_file", r#""EROFS""#),
            ("bind_tcp", r#""EACCES""#),
            ("connect_tcp", r#""EACCES""#),
            ("signal_all", r#""ESRCH""#),
            ("trace_other", r#""ESRCH""#),
            ("exec", r#""ENOENT""#),
        ],
    );
}

#[test]
fn the_vmm_shares_no_core_where_the_kernel_schedules_cores() {
    let Some(host) = unfiltered_host() else { return };
    let described = host.describe();
    let schedules = json::write(described.get("host").unwrap().get("core_scheduling").unwrap());
    // False on both sides on a machine without SMT: then the step has done no harm.
    expect(&report(&host), &[("core_cookie", &schedules)]);
}

#[test]
fn the_vmm_has_resource_limits() {
    let Some(host) = unfiltered_host() else { return };
    let scratch = crate::documents::SCRATCH_SIZE_MAX;
    expect(
        &report(&host),
        &[
            ("rlimit_nofile", "[256,256]"),
            ("rlimit_fsize", &format!("[{scratch},{scratch}]")),
            ("rlimit_core", "[0,0]"),
            ("rlimit_memlock", "[0,0]"),
            ("rlimit_nproc", "[32,32]"),
        ],
    );
}

#[test]
fn the_vmm_has_a_scratch_disk_that_nobody_else_can_reach() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let Some(host) = host() else { return };
    let disk_of = |(_, pid, stream): &(String, i32, OwnedFd)| {
        assert_eq!(crate::client::read_exactly(stream, 5), b"hello", "past its runtime's start");
        fs::File::open(format!("/proc/{pid}/fd/12")).unwrap()
    };
    let (one, two) = (host.start(&["serve"]), host.start(&["serve"]));
    let (one, two) = (disk_of(&one), disk_of(&two));
    let facts = one.metadata().unwrap();
    assert_eq!(facts.len(), u64::try_from(crate::documents::SCRATCH_SIZE).unwrap());
    assert_eq!((facts.nlink(), facts.uid(), facts.mode() & 0o777), (0, 0, 0o600));
    assert!(facts.blocks() <= 16, "holes stay holes");
    assert_ne!(facts.ino(), two.metadata().unwrap().ino(), "a disk of its own");
    let mut block = [0; 4096];
    one.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(block, crate::documents::SCRATCH_BLOCK);
}

fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn the_host_sees_the_same_jail() {
    let Some(host) = host() else { return };
    let (_, pid, stream) = host.start(&["serve"]);
    assert_eq!(crate::client::read_exactly(&stream, 5), b"hello", "past its runtime's start");
    let status = status(pid);
    let uid = host.uid_base;
    assert_eq!(status["Uid"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
    assert_eq!(status["Gid"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
    assert_eq!(status["Groups"], "");
    assert_eq!(status["NSpid"], format!("{pid}\t1"));
    assert_eq!(status["NSsid"].rsplit('\t').next(), Some("1"), "a session of its own");
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["SigBlk"], "0000000000000000");
    assert_eq!(status["SigIgn"], "0000000000001000", "SIGPIPE, which Rust's runtime ignores");
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{name}");
    }
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    assert_eq!(
        read("uid_map").split_whitespace().collect::<Vec<_>>().join(" "),
        format!("{uid} {uid} 1")
    );
    assert_eq!(
        read("gid_map").split_whitespace().collect::<Vec<_>>().join(" "),
        format!("{uid} {uid} 1")
    );
    assert_eq!(read("setgroups"), "deny\n");
    assert_eq!(read("environ"), "");
    assert_eq!(read("mountinfo").lines().count(), 1, "one mount: {}", read("mountinfo"));
}

#[test]
fn the_vmm_lives_in_a_cgroup_with_the_limits_of_its_spec() {
    let Some(host) = host() else { return };
    let (pod, pid, stream) = host.start(&["serve"]);
    let is_v1 = host.cgroup("memory", &pod).join("memory.limit_in_bytes").exists();
    let read = |controller: &str, v1: &str, v2: &str| {
        let file = host.cgroup(controller, &pod).join(if is_v1 { v1 } else { v2 });
        fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
            .trim()
            .to_owned()
    };
    let memory = (128 + 64) * 1024 * 1024;
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), memory.to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "32");
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("150000"), "{quota}");
    for controller in ["memory", "cpu", "pids"] {
        assert_eq!(
            read(controller, "cgroup.procs", "cgroup.procs"),
            pid.to_string(),
            "{controller}"
        );
    }
    host.ask_pod("kill", &pod);
    host.exit_of(&pod, stream);
    for controller in ["memory", "cpu", "pids"] {
        assert!(!host.cgroup(controller, &pod).exists(), "{controller} group is removed");
    }
}

#[test]
fn no_two_vms_share_a_user_id_or_a_namespace() {
    let Some(host) = host() else { return };
    let pods: Vec<(String, i32, OwnedFd)> = (0..4).map(|_| host.start(&["serve"])).collect();
    let mut seen = std::collections::BTreeSet::new();
    for (_, pid, _) in &pods {
        assert!(seen.insert(status(*pid)["Uid"].clone()), "uid");
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            assert!(seen.insert(link.display().to_string()), "{name}");
        }
    }
    assert_eq!(
        host.pods().iter().filter(|pod| pod.get("state") == Some(&text("running"))).count(),
        4
    );
}

#[test]
fn a_host_without_free_user_ids_refuses() {
    let Some(host) = crate::host::host_with("", |config| {
        crate::documents::set(config, "vm_uid_count", Value::Integer(1));
    }) else {
        return;
    };
    let (pod, _, stream) = host.start(&["serve"]);
    let (_, spec) = host.spec(&["serve"]);
    assert_eq!(host.launch(&spec).code(), "HOST_FULL");
    host.ask_pod("kill", &pod);
    host.exit_of(&pod, stream);
    host.start(&["serve"]);
}
