//! The systemd unit (native/up/systemd/casemate-spawn.service), as far as it can be tried without systemd.

use std::path::Path;

use rustix::process::Signal;

use crate::host::{host_by, kept_host_by};

/// The capabilities that the unit leaves, as setpriv names them.
fn capabilities() -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../up/systemd/casemate-spawn.service");
    let text = std::fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    line.split(' ').map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase()).collect()
}

/// A pod that ends, one that is killed, a worker, and an end of spawn that takes a pod with it.
#[test]
fn spawn_does_its_work_with_the_capabilities_of_its_unit() {
    let kept: Vec<String> = capabilities().iter().map(|name| format!("+{name}")).collect();
    let set = format!("--bounding-set=-all,{}", kept.join(","));
    let starter = ["/usr/bin/setpriv", &set, "--inh-caps=-all", "--no-new-privs", "--"];
    let Some(host) = host_by(&starter) else { return };
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let count = u64::from_str_radix(effective, 16).unwrap().count_ones();
    assert_eq!(usize::try_from(count).unwrap(), kept.len());
    assert_eq!(host.end_of(&["exit", "3"]).0, "code 3 APP_EXIT");
    assert_eq!(host.end_of(&["seccomp"]).0, "vmm 31 VMM_SECCOMP");
    let (_, mut networked) = host.spec(&["exit", "3"]);
    crate::documents::connect(&mut networked, "10.88.0.2/24", 1500);
    let answer = host.launch(&networked);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let (pod, _, stream) = host.start(&["serve"]);
    assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED");
    assert!(crate::workers::report_of(&host).contains("CapEff 0000000000000000"));
    let (_, _, stream) = host.start(&["serve"]);
    host.signal(Signal::TERM);
    crate::client::read_to_end(stream);
    assert_eq!(host.finish().0, Some(0));
}

/// What is left of the capabilities is also enough to tell how the child of another ended.
#[test]
fn spawn_takes_pods_over_with_the_capabilities_of_its_unit() {
    let kept: Vec<String> = capabilities().iter().map(|name| format!("+{name}")).collect();
    let set = format!("--bounding-set=-all,{}", kept.join(","));
    let starter = ["/usr/bin/setpriv", &set, "--inh-caps=-all", "--no-new-privs", "--"];
    let Some(host) = kept_host_by(&starter) else { return };
    let (pod, _, stream) = host.start(&["listens"]);
    assert_eq!(crate::client::read_exactly(&stream, 5), b"hello");
    host.end_spawn(Signal::KILL);
    rustix::io::write(&stream, b"q").unwrap();
    assert_eq!(host.exit_of(&pod, stream).0, "vmm 7 VMM_EXIT");
}
