//! A host with a spawn of its own: own directories, own user ids, the probe as its VMM.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use casemate_ticket::bytes::{Digest, encode_hex};
use casemate_ticket::json::{self, Value};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::client::{Answer, Client, PATIENCE, read_to_end};
use crate::documents::{self, NODE, object, text};

/// The agent's and the workers' ids in these tests.
pub const AGENT: u32 = 61_000;
pub const WORKER: u32 = 61_001;

static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Host {
    pub directory: PathBuf,
    pub uid_base: u32,
    command: Vec<PathBuf>,
    process: Child,
    stderr: std::thread::JoinHandle<String>,
}

/// Why these tests cannot run here, or which mark the kernel needs for this host's class of KVM.
fn kernel_mark() -> Result<&'static str, String> {
    static MARK: OnceLock<Result<&'static str, String>> = OnceLock::new();
    MARK.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".into());
        }
        let mut reason = String::new();
        for mark in ["casemate-softkvm", "casemate"] {
            let described = Host::start_with(mark, |_| {}).describe();
            match described.get("kvm_reason").and_then(Value::as_str) {
                None => return Ok(mark),
                Some(text) => text.clone_into(&mut reason),
            }
        }
        Err(reason)
    })
    .clone()
}

/// Starts a host, or says why not and returns `None`.
pub fn host() -> Option<Host> {
    host_with("", |_| {})
}

/// As [`host`], with words added to the kernel and the configuration changed.
pub fn host_with(kernel: &str, change: impl FnOnce(&mut Value)) -> Option<Host> {
    match kernel_mark() {
        Ok(mark) => Some(Host::start_with(&format!("{mark} {kernel}"), change)),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// As [`host`], without spawn's filter: for tests of the walls behind it.
pub fn unfiltered_host() -> Option<Host> {
    match kernel_mark() {
        Ok(mark) => Some(Host::start_command(vec![example("spawn_unfiltered")], mark, |_| {})),
        Err(_) => host(),
    }
}

/// As [`host`], started by another program.
pub fn host_by(starter: &[&str]) -> Option<Host> {
    let spawn = [env!("CARGO_BIN_EXE_casemate-spawn")];
    let command = starter.iter().chain(&spawn).map(PathBuf::from).collect();
    match kernel_mark() {
        Ok(mark) => Some(Host::start_command(command, mark, |_| {})),
        Err(_) => host(),
    }
}

/// As [`host`], with `casemate-spawn --keep` around it.
pub fn kept_host() -> Option<Host> {
    kept_host_with("", |_| {})
}

/// As [`host_with`], kept.
pub fn kept_host_with(kernel: &str, change: impl FnOnce(&mut Value)) -> Option<Host> {
    kept(&[], env!("CARGO_BIN_EXE_casemate-spawn").into(), kernel, change)
}

/// As [`kept_host`], of a spawn that crashes where [`Host::crash_at`] says.
pub fn crashing_host() -> Option<Host> {
    kept(&[], example("spawn_crashing"), "", |_| {})
}

/// As [`kept_host`], started by another program.
pub fn kept_host_by(starter: &[&str]) -> Option<Host> {
    kept(starter, env!("CARGO_BIN_EXE_casemate-spawn").into(), "", |_| {})
}

/// As [`host_by`], with a way out as the JSON of `uplink` says.
pub fn host_by_with(starter: &[&str], uplink: &str) -> Option<Host> {
    let spawn = [env!("CARGO_BIN_EXE_casemate-spawn")];
    let command = starter.iter().chain(&spawn).map(PathBuf::from).collect();
    let mark = kernel_mark().map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
    Some(Host::start_command(command, mark, |config| set_uplink(config, uplink)))
}

/// The same, kept.
pub fn kept_host_by_with(starter: &[&str], uplink: &str) -> Option<Host> {
    let spawn = env!("CARGO_BIN_EXE_casemate-spawn").into();
    kept(starter, spawn, "", |config| set_uplink(config, uplink))
}

fn set_uplink(config: &mut Value, uplink: &str) {
    documents::set(config, "uplink", json::parse(uplink.as_bytes(), 4096).unwrap());
}

fn kept(
    starter: &[&str],
    program: PathBuf,
    kernel: &str,
    change: impl FnOnce(&mut Value),
) -> Option<Host> {
    let keeper = [program, "--keep".into()];
    let command = starter.iter().map(PathBuf::from).chain(keeper).collect();
    match kernel_mark() {
        Ok(mark) => Some(Host::start_command(command, &format!("{mark} {kernel}"), change)),
        Err(_) => host(),
    }
}

impl Host {
    pub fn start_with(kernel: &str, change: impl FnOnce(&mut Value)) -> Self {
        let command = vec![env!("CARGO_BIN_EXE_casemate-spawn").into()];
        Self::start_command(command, kernel, change)
    }

    fn start_command(command: Vec<PathBuf>, kernel: &str, change: impl FnOnce(&mut Value)) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let directory = std::env::temp_dir().join(format!("casemate-spawn-{process}-{number}"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let uid_base = 3_000_000 + process % 10_000 * 10_000 + number * 16;
        fs::write(directory.join("vmlinux"), format!("\u{7f}ELF {kernel}")).unwrap();
        fs::write(directory.join("init.img"), [0; 4096]).unwrap();
        fs::write(directory.join("scratch.img"), documents::SCRATCH_BLOCK).unwrap();
        let scratch = OpenOptions::new().write(true).open(directory.join("scratch.img")).unwrap();
        scratch.set_len(u64::try_from(documents::SCRATCH_SIZE).unwrap()).unwrap();
        // Where the workers' user can execute it, wherever the checkout is.
        fs::copy(example("worker_probe"), directory.join("worker")).unwrap();
        let mut config = config(&directory, uid_base);
        change(&mut config);
        let path = directory.join("spawn.json");
        fs::write(&path, json::write(&config)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let (process, stderr) = start_process(&command, &path);
        Self { directory, uid_base, command, process, stderr }
    }

    /// Ends spawn (if it still lives) and starts it again with the same configuration.
    pub fn restart(mut self) -> Self {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let (process, stderr) = start_process(&self.command, &self.directory.join("spawn.json"));
        (self.process, self.stderr) = (process, stderr);
        self
    }

    /// As [`Host::restart`], by another command; `None` is the one before.
    pub fn restart_by(mut self, command: Vec<PathBuf>) -> Self {
        self.command = command;
        self.restart()
    }

    /// The spawn that is kept running.
    pub fn spawn(&self) -> Pid {
        wait_for("a spawn", || self.any_spawn())
    }

    /// The same, if there is one just now.
    pub fn any_spawn(&self) -> Option<Pid> {
        let keeper = self.process.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        let is_spawn = |pid: &&str| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("\0--config\0")
                && !words.contains("\0--keep\0")
                // Of a spawn that was killed it may be a child of the keeper for a moment.
                && !words.contains("\0--starter\0")
        };
        let children = children.unwrap_or_default();
        Pid::from_raw(children.split_whitespace().find(is_spawn)?.parse().unwrap())
    }

    /// Sends a signal to that spawn and waits for its end.
    pub fn end_spawn(&self, signal: Signal) {
        let spawn = self.spawn();
        let end = pidfd_open(spawn, PidfdFlags::empty()).unwrap();
        kill_process(spawn, signal).unwrap();
        ended(&end);
    }

    /// Ends that spawn and does something before there is another.
    pub fn without_spawn(&self, signal: Signal, meanwhile: impl FnOnce()) {
        let keeper = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        let spawn = self.spawn();
        let end = pidfd_open(spawn, PidfdFlags::empty()).unwrap();
        kill_process(keeper, Signal::STOP).unwrap();
        kill_process(spawn, signal).unwrap();
        ended(&end);
        meanwhile();
        kill_process(keeper, Signal::CONT).unwrap();
    }

    /// Has the spawn of [`crashing_host`] kill itself when it comes to a point for that many times.
    pub fn crash_at(&self, point: &str, times: u32) {
        fs::write(self.directory.join("crash-at"), format!("{point} {times}")).unwrap();
    }

    /// What the next spawn is told of a pod.
    pub fn entry(&self, pod: &str) -> PathBuf {
        self.run_dir().join("pods").join(pod)
    }

    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.run_dir()).unwrap()
    }

    pub fn ask(&self, text: &str) -> Answer {
        self.client().ask(text, &[])
    }

    pub fn ask_pod(&self, op: &str, pod: &str) -> Answer {
        self.ask(&format!(r#"{{"op":"{op}","pod":"{pod}"}}"#))
    }

    pub fn describe(&self) -> Value {
        self.ask(r#"{"op":"describe"}"#).value
    }

    /// A spec with a fresh launch id.
    pub fn spec(&self, words: &[&str]) -> (String, Value) {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pod = format!("01936f5e-0000-7000-8000-{number:012x}");
        let spec = documents::spec(&self.describe(), &pod, words);
        (pod, spec)
    }

    /// Image and log.
    pub fn files(&self) -> Vec<OwnedFd> {
        let file = |size: i64, write: bool| -> OwnedFd {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.join(format!("file-{number}"));
            let file = File::create(&path).unwrap();
            file.set_len(u64::try_from(size).unwrap()).unwrap();
            OpenOptions::new().read(true).write(write).mode(0o600).open(path).unwrap().into()
        };
        vec![file(4096, false), file(documents::LOG_SIZE, true)]
    }

    pub fn launch(&self, spec: &Value) -> Answer {
        self.client().ask(&documents::admitted(spec), &self.files())
    }

    /// Launches a pod that must start; returns its id, pid and stream.
    pub fn start(&self, words: &[&str]) -> (String, i32, OwnedFd) {
        let (pod, spec) = self.spec(words);
        let mut answer = self.launch(&spec);
        assert_eq!(answer.code(), "ok", "{}", answer.text());
        let pid = answer.value.get("pid").and_then(Value::as_u64).unwrap();
        (pod, i32::try_from(pid).unwrap(), answer.descriptors.pop().unwrap())
    }

    /// The same, and its app runs: a VMM has said READY, and spawn has heard it.
    pub fn start_app(&self, words: &[&str]) -> (String, i32, OwnedFd) {
        let started = self.start(words);
        wait_for("the app", || (self.ask_pod("pause", &started.0).code() == "ok").then_some(()));
        assert_eq!(self.ask_pod("resume", &started.0).code(), "ok");
        started
    }

    pub fn pods(&self) -> Vec<Value> {
        // Of a spawn that dies meanwhile comes no answer.
        let listed = wait_for("a list", || self.client().try_ask(r#"{"op":"list"}"#));
        match listed.value.get("pods") {
            Some(Value::Array(pods)) => pods.clone(),
            _ => panic!("no list"),
        }
    }

    pub fn pod(&self, pod: &str) -> Option<Value> {
        self.pods().into_iter().find(|entry| entry.get("pod") == Some(&text(pod)))
    }

    /// Waits for the end of a pod; its exit as `how value cause`, and the sentence.
    pub fn exit_of(&self, pod: &str, stream: OwnedFd) -> (String, String) {
        read_to_end(stream);
        let exit = wait_for("the pod's exit", || {
            let exit = self.pod(pod)?.get("exit")?.clone();
            (exit != Value::Null).then_some(exit)
        });
        let word =
            |name: &str| exit.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(Value::Integer(value)) = exit.get("value") else { panic!("no value") };
        (format!("{} {value} {}", word("how"), word("cause")), word("text"))
    }

    /// Runs a pod to its end.
    pub fn end_of(&self, words: &[&str]) -> (String, String) {
        let (pod, _, stream) = self.start(words);
        self.exit_of(&pod, stream)
    }

    /// The pod's directory in a version 1 hierarchy, or in the unified one.
    pub fn cgroup(&self, controller: &str, name: &str) -> PathBuf {
        let digest = Digest::of(self.run_dir().as_os_str().as_encoded_bytes());
        let below = format!("casemate/{}/{name}", encode_hex(&digest.0[..8]));
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let root = if v1.is_dir() { v1 } else { "/sys/fs/cgroup".into() };
        root.join(below)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for spawn's own end; what it wrote.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let status = self.process.wait().unwrap();
        let stderr = std::mem::replace(&mut self.stderr, std::thread::spawn(String::new));
        (status.code(), stderr.join().unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.signal(rustix::process::Signal::TERM);
            self.process.wait().unwrap();
        }
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Waits for the end of a process.
pub fn ended(pidfd: &OwnedFd) {
    let patience = rustix::event::Timespec::try_from(PATIENCE).unwrap();
    let mut watched = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut watched, Some(&patience)), Ok(1), "waited in vain");
}

/// Polls for something that is about to be so.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Spawn inherits a descriptor that survives exec, as whoever starts it may leave one: the jail must
/// close it.
fn leak_a_descriptor() {
    static LEAKED: OnceLock<OwnedFd> = OnceLock::new();
    LEAKED.get_or_init(|| {
        // Above all numbers that the jail fills anyway.
        let leak = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null").unwrap(), 100).unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        leak
    });
}

/// An example, which cargo builds beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(file.exists(), "{} is missing: run `cargo test -p casemate-spawn`", file.display());
    file
}

fn start_process(command: &[PathBuf], path: &Path) -> (Child, std::thread::JoinHandle<String>) {
    leak_a_descriptor();
    let mut process = Command::new(&command[0])
        .args(&command[1..])
        .arg("--config")
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("ready") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "spawn did not start: {said}");
    }
    let stderr = std::thread::spawn(move || {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        rest
    });
    (process, stderr)
}

fn config(directory: &Path, uid_base: u32) -> Value {
    let path = |name: &str| text(directory.join(name).to_str().unwrap());
    let id = |id: u32| Value::Integer(id.into());
    let worker = |word: &str| Value::Array(vec![path("worker"), text(word)]);
    object([
        ("v", text("casemate.spawn/1")),
        ("node", text(NODE)),
        ("log_keys", Value::Array(vec![text(&documents::vkey(&documents::key(7)))])),
        ("allow_software_kvm", Value::Bool(true)),
        ("container", Value::Null),
        ("host_paths", object([])),
        ("levels", object([])),
        ("agent_uid", id(AGENT)),
        ("agent_gid", id(AGENT)),
        ("worker_uid", id(WORKER)),
        ("worker_gid", id(WORKER)),
        ("vm_uid_base", id(uid_base)),
        ("vm_uid_count", id(16)),
        ("run_dir", path("run")),
        ("state_dir", path("state")),
        ("template_dir", path("templates")),
        ("uplink", Value::Null),
        ("vmm", text(example("jail_probe").to_str().unwrap())),
        ("kernel", path("vmlinux")),
        ("init", path("init.img")),
        (
            "init_verity",
            object([
                ("data_blocks", Value::Integer(1)),
                ("root", text(&"b".repeat(64))),
                ("salt", text("")),
            ]),
        ),
        (
            "scratch",
            object([
                ("blocks", text(&documents::scratch_digest())),
                ("path", path("scratch.img")),
                ("size", Value::Integer(documents::SCRATCH_SIZE)),
            ]),
        ),
        (
            "volume",
            object([
                ("blocks", text(&documents::scratch_digest())),
                ("path", path("scratch.img")),
                ("size", Value::Integer(documents::SCRATCH_SIZE)),
            ]),
        ),
        (
            "workers",
            object([
                ("report", worker("report")),
                ("sleeps", worker("sleeps")),
                ("fails", worker("fails")),
                ("fork", worker("fork")),
                ("socket", worker("socket")),
                ("unshare", worker("unshare")),
                ("ptrace", worker("ptrace")),
                ("missing", Value::Array(vec![text("/nowhere/worker")])),
            ]),
        ),
    ])
}
