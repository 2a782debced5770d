//! Who keeps a spawn running: its end, and many pods at once.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, test_kill_process};

use crate::client::read_to_end;
use crate::host::{Host, ended, kept_host};

fn leaves_nothing(host: &Host, pod: &str, pid: i32) {
    assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err(), "it is reaped");
    assert!(!host.cgroup("memory", pod).exists());
}

#[test]
fn its_end_is_the_end_of_all_pods_on_record() {
    let Some(host) = kept_host() else { return };
    let (first, first_pid, first_stream) = host.start(&["deaf"]);
    host.end_spawn(Signal::TERM);
    let (second, second_pid, second_stream) = host.start(&["serve"]);
    host.signal(Signal::TERM);
    read_to_end(first_stream);
    read_to_end(second_stream);
    let entries = [host.entry(&first), host.entry(&second)];
    let keeper =
        pidfd_open(Pid::from_raw(host.pid().try_into().unwrap()).unwrap(), PidfdFlags::empty());
    ended(&keeper.unwrap());
    for (pod, pid) in [(&first, first_pid), (&second, second_pid)] {
        leaves_nothing(&host, pod, pid);
    }
    for entry in entries {
        let text = std::fs::read_to_string(entry).unwrap();
        assert!(text.contains("SPAWN_STOPPED"), "{text}");
    }
    assert_eq!(host.finish().0, Some(0));
}

#[test]
fn when_it_is_killed_spawn_ends_the_pods() {
    let Some(host) = kept_host() else { return };
    let (pod, pid, stream) = host.start(&["deaf"]);
    let vmm = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let spawn = pidfd_open(host.spawn(), PidfdFlags::empty()).unwrap();
    host.signal(Signal::KILL);
    read_to_end(stream);
    ended(&vmm);
    ended(&spawn);
    assert!(std::fs::read_to_string(host.entry(&pod)).unwrap().contains("SPAWN_STOPPED"));
    assert!(!host.cgroup("memory", &pod).exists());
}

#[test]
fn root_alone_can_speak_to_it() {
    use std::os::unix::fs::MetadataExt;
    let Some(host) = kept_host() else { return };
    let facts = std::fs::metadata(host.run_dir().join("keeper.sock")).unwrap();
    assert_eq!((facts.uid(), facts.mode() & 0o077), (0, 0));
    let entries = host.run_dir().join("pods");
    let (_, _, _stream) = host.start(&["deaf"]);
    for place in
        [entries.clone(), std::fs::read_dir(entries).unwrap().next().unwrap().unwrap().path()]
    {
        let facts = std::fs::metadata(&place).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o077), (0, 0), "{}", place.display());
    }
}

#[test]
fn two_of_them_do_not_share_a_run_directory() {
    let Some(host) = kept_host() else { return };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_casemate-spawn"))
        .args(["--keep", "--config"])
        .arg(host.directory.join("spawn.json"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (pod, _, stream) = host.start(&["exit", "0"]);
    assert_eq!(host.exit_of(&pod, stream).0, "code 0 APP_EXIT", "the first serves on");
}
