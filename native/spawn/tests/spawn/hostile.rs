//! A guest that attacks, in a VMM as it is shipped, in the jail and the cgroup that spawn makes for it. What there is to
//! attack is tried one by one in native/vmm/tests/hostile; here a few of the worst are, against all walls at once.

use std::path::PathBuf;

use casemate_ticket::json::Value;
use rustix::process::Signal;

use crate::documents::{set, text};
use crate::guest;
use crate::host::{Host, host_with, kept_host_with, wait_for};

/// In the image, before the words of its attack (guest/machine.c, `built_in`).
const MARK: &[u8] = b"@attack: ";
/// Memory of the guest, and what its VMM may have beside it (the spec's limits are 64 MiB).
const PEAK_BYTES_MAX: u64 = (128 + 16) << 20;

/// The VMM that set-up builds.
fn shipped_vmm() -> Option<PathBuf> {
    let spawn = PathBuf::from(env!("CARGO_BIN_EXE_casemate-spawn"));
    let vmm = spawn.parent().unwrap().parent().unwrap().join("release/casemate-vmm");
    if vmm.exists() {
        return Some(vmm);
    }
    eprintln!("skipped: {} is missing: run npm run setup", vmm.display());
    None
}

/// A host whose kernel is the guest with these words in it.
fn host_of(words: &str) -> Option<Host> {
    let change = attacked(words)?;
    host_with("", change)
}

/// Puts that guest, and the VMM, in the place of the probe.
fn attacked(words: &str) -> Option<impl FnOnce(&mut Value)> {
    let vmm = shipped_vmm()?;
    let words = format!("{words} ");
    Some(move |config: &mut Value| {
        let kernel = config.get("kernel").and_then(Value::as_str).unwrap().to_owned();
        let mut image = guest::image().to_vec();
        let at = image.windows(MARK.len()).position(|found| found == MARK).unwrap() + MARK.len();
        image[at..at + words.len()].copy_from_slice(words.as_bytes());
        // What says for which class of KVM it is.
        image.extend(std::fs::read(&kernel).unwrap());
        std::fs::write(&kernel, image).unwrap();
        set(config, "vmm", text(vmm.to_str().unwrap()));
    })
}

/// The most memory that the pod's cgroup had at once.
fn peak(host: &Host, pod: &str) -> u64 {
    let group = host.cgroup("memory", pod);
    ["memory.max_usage_in_bytes", "memory.peak"]
        .iter()
        .find_map(|name| std::fs::read_to_string(group.join(name)).ok()?.trim().parse().ok())
        .unwrap()
}

/// Waits for the bell of a queue that no device has (guest/machine.c, finish).
fn finish(host: &Host, pod: &str) {
    wait_for("the end of the attack", || {
        let metrics = host.ask_pod("metrics", pod).value;
        let init = metrics.get("devices")?.get("init")?;
        init.get("ignored_notifications").and_then(Value::as_u64).filter(|count| *count > 0)
    });
}

/// Runs an attack that its VMM survives, looks at what it cost, and stops it.
fn survives(words: &str) {
    let Some(host) = host_of(words) else { return };
    let (pod, _, stream) = host.start(&["app"]);
    finish(&host, &pod);
    assert!(peak(&host, &pod) < PEAK_BYTES_MAX, "{words}");
    let stop = format!(r#"{{"op":"stop","pod":"{pod}","timeout_ms":60000}}"#);
    assert_eq!(host.ask(&stop).code(), "ok");
    let (cause, sentence) = host.exit_of(&pod, stream);
    assert_eq!(cause, "failure 17 GUEST_GONE", "{words}: {sentence}");
}

#[test]
fn a_vmm_in_its_jail_outlives_what_its_guest_tries() {
    for words in
        ["frozen", "storm 4000", "greedy", "flood 20000", "msr 0 2000", "touch", "beyond 2"]
    {
        survives(words);
    }
}

/// Machines with guests of a few instructions.
const MANY: usize = 20;

#[test]
fn twenty_machines_outlive_their_spawn() {
    let Some(change) = attacked("status") else { return };
    let more = |config: &mut Value| {
        change(config);
        set(config, "vm_uid_count", Value::Integer(32));
    };
    let Some(host) = kept_host_with("", more) else { return };
    let pods: Vec<_> = (0..MANY).map(|_| host.start(&["app"])).collect();
    for (pod, _, _) in &pods {
        finish(&host, pod);
    }
    let counted = |pod: &str| {
        let metrics = host.ask_pod("metrics", pod).value;
        let exits = metrics.get("machine").unwrap().get("exits_mmio");
        exits.and_then(Value::as_u64).unwrap()
    };
    let before: Vec<u64> = pods.iter().map(|(pod, _, _)| counted(pod)).collect();
    for signal in [Signal::KILL, Signal::TERM] {
        host.end_spawn(signal);
        let listed = host.pods();
        assert_eq!(listed.len(), MANY);
        for ((pod, pid, _), before) in pods.iter().zip(&before) {
            let entry = host.pod(pod).unwrap();
            assert_eq!(entry.get("state"), Some(&text("running")));
            assert_eq!(entry.get("pid"), Some(&Value::Integer((*pid).into())));
            assert!(counted(pod) >= *before, "the same machine counts on");
        }
    }
    for (pod, _, stream) in pods {
        assert_eq!(host.ask_pod("kill", &pod).code(), "ok");
        assert_eq!(host.exit_of(&pod, stream).0, "vmm 9 KILLED");
    }
}

#[test]
fn a_vmm_in_its_jail_ends_with_the_cause_of_its_guests_end() {
    for (words, cause, part) in [
        ("twice 0", "failure 11 DEVICE_QUEUE", "descriptor 0 is used twice"),
        ("buffer fffffffffffffff8 10", "failure 11 DEVICE_QUEUE", "not inside one region"),
        ("frame ff 0", "failure 7 GUEST_PROTOCOL", "kind 255 does not exist"),
        ("reset fe", "failure 17 GUEST_GONE", "reset or powered off"),
    ] {
        let Some(host) = host_of(words) else { return };
        let (pod, _, stream) = host.start(&["app"]);
        let (found, sentence) = host.exit_of(&pod, stream);
        assert_eq!(found, cause, "{words}: {sentence}");
        assert!(sentence.contains(part), "{words}: {sentence}");
    }
}
