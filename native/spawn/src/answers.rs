//! What `describe` and `list` answer, and the documents spawn writes of itself.

use casemate_ticket::bytes::encode_hex;
use casemate_ticket::document::Context;
use casemate_ticket::json::Value;
use casemate_ticket::spec::{File, Vmm};
use casemate_wire::metrics::{DEVICE_COUNTERS, DEVICES, MACHINE_COUNTERS, Metrics};

use crate::clients::Answer;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::host;
use crate::host_paths::Entry;
use crate::machine;
use crate::pod::{Identity, PodExit};

/// A JSON string.
pub fn string(text: &(impl ToString + ?Sized)) -> Value {
    Value::String(text.to_string())
}

/// A JSON integer; beyond 2^53 there is none, and no size of ours is.
pub fn number(value: impl Into<u64>) -> Value {
    Value::Integer(i64::try_from(value.into()).unwrap_or(casemate_ticket::json::INTEGER_MAX))
}

/// A JSON object.
pub fn object(members: Vec<(&str, Value)>) -> Value {
    Value::object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// `vmm` of a spec.
pub fn vmm(vmm: &Vmm) -> Value {
    let filters = object(vec![
        ("control", string(&vmm.filter_control)),
        ("io", string(&vmm.filter_io)),
        ("vcpu", string(&vmm.filter_vcpu)),
    ]);
    object(vec![("digest", string(&vmm.digest)), ("filters", filters)])
}

/// `kernel` of a spec.
pub fn kernel(file: &File) -> Value {
    object(vec![("digest", string(&file.digest)), ("size", number(file.size))])
}

/// `size` and `verity` of the init disk.
pub fn init(config: &Config) -> Vec<(&'static str, Value)> {
    let verity = object(vec![
        ("data_blocks", number(config.init_verity.data_blocks)),
        ("root", string(&encode_hex(&config.init_verity.root))),
        ("salt", string(&encode_hex(&config.init_verity.salt))),
    ]);
    vec![("size", number(config.init_size())), ("verity", verity)]
}

/// `container` of `describe`: null where no containers are started, for the reason in `container_reason`.
fn container(daemon: &Daemon) -> Value {
    let Ok(starter) = &daemon.starter else { return Value::Null };
    let facts = &starter.facts;
    object(vec![
        ("bundle", string(&facts.bundle)),
        ("digest", string(&facts.monitor)),
        ("runtime", string(&facts.runtime)),
        ("version", string(&facts.version)),
    ])
}

/// `host` of `describe`: what the agent judges the host's safety by, beside what everybody may read.
fn safety(daemon: &Daemon) -> Value {
    let found = host::safety();
    let integer = |number: i64| Value::Integer(number);
    let missing = found.kvm_missing.iter().map(string).collect();
    object(vec![
        ("core_scheduling", Value::Bool(found.core_scheduling)),
        ("kvm_api", found.kvm_api.map_or(Value::Null, |api| integer(api.into()))),
        ("kvm_missing", Value::Array(missing)),
        ("landlock", found.landlock.map_or(Value::Null, integer)),
        ("swap_limit", Value::Bool(daemon.cgroups.limits_swap())),
    ])
}

/// What the agent may know of root's list: not where anything is.
fn host_paths(entries: &[Entry]) -> Value {
    let facts = |entry: &Entry| {
        let Entry { name, tenants, ids, exec, .. } = entry;
        let ids = ids.map_or(Value::Null, |ids| Value::Integer(ids.into()));
        let tenants = Value::Array(tenants.iter().map(string).collect());
        let facts = vec![("exec", Value::Bool(*exec)), ("ids", ids), ("tenants", tenants)];
        (name.clone(), object(facts))
    };
    Value::object(entries.iter().map(facts).collect())
}

/// `{"op":"describe"}`.
pub fn describe(daemon: &Daemon) -> Answer {
    let kvm = daemon.open_kvm();
    let context = daemon.context(kvm.as_ref().ok().map(|(class, _)| *class));
    let levels = Context::to_value(&context).get("levels").cloned().unwrap_or(Value::Null);
    let reason = kvm.as_ref().err().map_or(Value::Null, string);
    let scratch = &daemon.assets.scratch_file;
    let scratch = vec![("blocks", string(&scratch.blocks)), ("size", number(scratch.size))];
    Answer::new(vec![
        ("node", string(&daemon.config.node)),
        ("boot_id", string(&daemon.boot_id)),
        ("kvm", context.kvm.map_or(Value::Null, |class| string(class.as_str()))),
        ("kvm_reason", reason),
        ("container_reason", daemon.starter.as_ref().err().map_or(Value::Null, string)),
        ("allow_software_kvm", Value::Bool(daemon.config.allow_software_kvm)),
        ("host", safety(daemon)),
        ("vmm", vmm(&daemon.assets.vmm_digests)),
        ("kernel", kernel(&daemon.assets.kernel_file)),
        ("cmdline", string(&machine::cmdline(daemon.kvm_class))),
        ("container", container(daemon)),
        ("init", object(init(&daemon.config))),
        ("scratch", object(scratch)),
        ("templates", Value::Array(daemon.templates.describe())),
        ("levels", levels),
        ("host_paths", host_paths(&daemon.config.host_paths)),
    ])
}

/// `{"op":"metrics"}`: the counters of the machine and of each device, by name.
pub fn metrics(metrics: &Metrics) -> Answer {
    let named = |names: &[&'static str], numbers: &[u64]| {
        let numbers = numbers.iter().map(|value| number(*value));
        object(names.iter().copied().zip(numbers).collect())
    };
    let devices = metrics.devices.iter().map(|numbers| named(&DEVICE_COUNTERS, numbers));
    Answer::new(vec![
        ("machine", named(&MACHINE_COUNTERS, &metrics.machine)),
        ("devices", object(DEVICES.into_iter().zip(devices).collect())),
    ])
}

/// `{"op":"list"}`: what runs, then what has ended and was not forgotten.
pub fn list(daemon: &Daemon) -> Answer {
    let running = daemon.pods.values().filter_map(|pod| {
        let scratch = pod.scratch.as_ref().map(|scratch| scratch.size.bytes);
        let state = State { paused: pod.paused, scratch, exit: None };
        pod.identity.as_ref().map(|identity| entry(identity, pod.pid, &state))
    });
    let exited = daemon.exited.iter().map(|pod| {
        let state = State { paused: false, scratch: None, exit: Some(&pod.exit) };
        entry(&pod.identity, pod.pid, &state)
    });
    Answer::new(vec![("pods", Value::Array(running.chain(exited).collect()))])
}

/// How a pod is.
struct State<'a> {
    paused: bool,
    /// Bytes of its disk, while it runs.
    scratch: Option<u64>,
    exit: Option<&'a PodExit>,
}

fn entry(identity: &Identity, pid: i32, state: &State<'_>) -> Value {
    let State { paused, scratch, exit } = state;
    object(vec![
        ("pod", string(&identity.pod)),
        ("tenant", string(&identity.tenant)),
        ("spec", string(&identity.spec)),
        ("pid", Value::Integer(pid.into())),
        ("state", string(if exit.is_some() { "exited" } else { "running" })),
        ("paused", Value::Bool(*paused)),
        ("scratch_bytes", scratch.map_or(Value::Null, number)),
        ("exit", exit.map_or(Value::Null, PodExit::to_value)),
    ])
}
