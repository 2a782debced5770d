use std::path::{Path, PathBuf};

use super::limits::Setting;
use super::*;

const HYBRID: &str = "\
31 30 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
35 31 0:30 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
36 31 0:31 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const UNIFIED: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn takes_version_1_where_the_unified_hierarchy_lacks_the_controllers() {
    let expected = |freezer: Option<&str>| Layout::V1 {
        memory: "/sys/fs/cgroup/memory".into(),
        cpu: "/sys/fs/cgroup/cpu".into(),
        pids: "/sys/fs/cgroup/pids".into(),
        freezer: freezer.map(PathBuf::from),
    };
    let found = |text: &str| layout(text, |_| "hugetlb\n".into());
    assert_eq!(found(HYBRID), Some(expected(Some("/sys/fs/cgroup/freezer"))));
    assert_eq!(found(&HYBRID.replace("rw,freezer", "rw,net_cls")), Some(expected(None)));
}

#[test]
fn takes_version_2_only_with_all_three_controllers() {
    let root = PathBuf::from("/sys/fs/cgroup");
    let all = |_: &Path| "cpuset cpu io memory hugetlb pids rdma misc\n".to_owned();
    assert_eq!(layout(UNIFIED, all), Some(Layout::V2(root)));
    assert_eq!(layout(UNIFIED, |_| "cpu memory".into()), None);
    assert_eq!(layout(UNIFIED, |_| "cpuset memory pids".into()), None, "cpuset is not cpu");
    assert_eq!(layout("", |_| String::new()), None);
}

#[test]
fn writes_limits_as_each_version_spells_them() {
    let limits = Limits { memory_bytes: 201_326_592, cpu_percent: 150, pids: 32 };
    let text = |settings: Vec<Setting>| -> Vec<String> {
        settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    };
    assert_eq!(
        text(v1_memory(&limits)),
        [
            "memory.limit_in_bytes=201326592",
            "memory.memsw.limit_in_bytes=201326592",
            "memory.swappiness=0"
        ]
    );
    assert_eq!(text(v1_cpu(&limits)), ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"]);
    assert_eq!(text(v1_pids(&limits)), ["pids.max=32"]);
    assert_eq!(
        text(v2_all(&limits)),
        [
            "memory.max=201326592",
            "memory.swap.max=0",
            "memory.oom.group=1",
            "cpu.max=150000 100000",
            "pids.max=32"
        ]
    );
}

#[test]
fn counts_oom_kills_in_the_text_of_both_versions() {
    assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
    assert_eq!(oom_kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 1\noom_group_kill 1\n"), 1);
    assert_eq!(oom_kills("oom_kill_disable 1\nunder_oom 0\n"), 0);
    assert_eq!(oom_kills(""), 0);
}

/// The OCI runtime makes a container's group with all that is above it, and fails when what it has just made is gone.
#[test]
fn leaves_the_instances_group_to_those_that_are_about_to_come() {
    let root = std::env::temp_dir().join(format!("casemate-groups-{}", std::process::id()));
    let unified = root.join("unified");
    let groups = Cgroups {
        layout: Layout::V2(root.join("limits")),
        below: "casemate/instance".into(),
        others: vec![unified.clone()],
    };
    let instance = unified.join("casemate/instance");
    let group = groups.group("pod");
    for directory in group.directories.iter().chain(&group.others) {
        fs::create_dir_all(directory.join("app")).unwrap();
    }
    group.remove().unwrap();
    assert_eq!(fs::read_dir(&instance).unwrap().count(), 0);
    groups.close();
    assert!(!instance.exists());
    fs::remove_dir_all(root).unwrap();
}

/// A runtime that was ended between stopping its group and letting it go leaves processes that no signal reaches.
#[test]
fn lets_groups_below_go_on_too() {
    let group = std::env::temp_dir().join(format!("casemate-frozen-{}", std::process::id()));
    let inner = group.join("app");
    fs::create_dir_all(&inner).unwrap();
    let states = [group.join("freezer.state"), inner.join("freezer.state")];
    for file in &states {
        fs::write(file, "FROZEN").unwrap();
    }
    Freezer::v1(&group).let_go_on();
    for file in states {
        assert_eq!(fs::read_to_string(file).unwrap(), "THAWED");
    }
    fs::remove_dir_all(group).unwrap();
}
