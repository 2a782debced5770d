//! Templates: booted once by spawn itself, kept in sealed memfds, copied for each tenant.
//!
//! A template is built from spawn's own files and command line, by a VMM in the same jail as any
//! other, without a ticket because nothing of a tenant is in it. Its digests are computed here, from
//! what arrived, not taken from the VMM.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::document::{LaunchDocument, Mode};
use casemate_ticket::json::{self, Value};
use casemate_ticket::spec::{File, Limits, Template as Wanted};

use crate::answers::{self, number, object, string};
use crate::clients::Answer;
use crate::daemon::{Daemon, log};
use crate::launch::{Plan, no_resources};
use crate::machine::{CATALOGUE, cmdline};
use crate::pod::PodExit;
use crate::refusal::{Refusal, Result};
use crate::sparse::{self, SEALED};

/// Virtual CPUs and MiB of memory.
type Shape = (u32, u32);

/// Most bytes of state.
const STATE_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of data in tenants' copies, together. The least recently used go first; a VM that was
/// started from one keeps it for as long as it runs.
const COPIES_BYTES_MAX: u64 = 1 << 30;
/// A boot under software KVM takes tens of seconds, on a busy host minutes.
const BUILD_MS: u32 = 600_000;

/// What a builder sent.
#[derive(Debug)]
pub struct Taken {
    state: OwnedFd,
    memory: OwnedFd,
    state_size: u64,
    memory_size: u64,
}

impl Taken {
    /// Of the two descriptors of a TEMPLATE message.
    pub fn new(descriptors: Vec<OwnedFd>, state_size: u64, memory_size: u64) -> Option<Self> {
        let [state, memory] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
        Some(Self { state, memory, state_size, memory_size })
    }
}

/// A template.
#[derive(Debug)]
struct Template {
    state: OwnedFd,
    memory: OwnedFd,
    digests: Wanted,
}

/// A tenant's own copy of a template's memory.
#[derive(Debug)]
struct Copy {
    tenant: String,
    shape: Shape,
    memory: OwnedFd,
    data_bytes: u64,
}

/// All templates, builds under way, and copies, the least recently used first.
#[derive(Debug, Default)]
pub struct Templates {
    ready: BTreeMap<Shape, Template>,
    builds: BTreeMap<Shape, Build>,
    copies: Vec<Copy>,
}

#[derive(Debug, Default)]
struct Build {
    clients: Vec<u64>,
    /// Why what the VMM sent was not taken.
    refused: Option<String>,
}

impl Templates {
    /// The template of this shape, if it is the one that is wanted.
    pub fn find(&self, shape: Shape, wanted: &Wanted) -> Option<()> {
        self.ready.get(&shape).filter(|template| template.digests == *wanted).map(|_| ())
    }

    /// `templates` of `describe`.
    pub fn describe(&self) -> Vec<Value> {
        self.ready.iter().map(|(shape, template)| describe(*shape, template)).collect()
    }

    /// Descriptors of state and memory for one launch. The memory is a copy that this tenant shares
    /// with no other: pages of a file that two tenants' VMs map could tell one what the other reads.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn open(
        &mut self,
        shape: Shape,
        wanted: &Wanted,
        tenant: &str,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        let template = self.ready.get(&shape).filter(|template| template.digests == *wanted);
        let template = template.ok_or(io::ErrorKind::NotFound)?;
        let state = sparse::reopen_read_only(template.state.as_fd())?;
        let is_it = |copy: &Copy| copy.tenant == tenant && copy.shape == shape;
        let copy = if let Some(position) = self.copies.iter().position(is_it) {
            self.copies.remove(position)
        } else {
            let (size, file) = (template.digests.memory.size, template.memory.as_fd());
            let (memory, data_bytes) = sparse::copy("template-memory", file, size)?;
            Copy { tenant: tenant.to_owned(), shape, memory, data_bytes }
        };
        let memory = sparse::reopen_read_only(copy.memory.as_fd());
        self.copies.push(copy);
        self.evict();
        Ok((state, memory?))
    }

    fn evict(&mut self) {
        let total = |copies: &[Copy]| {
            copies.iter().fold(0_u64, |sum, copy| sum.saturating_add(copy.data_bytes))
        };
        while self.copies.len() > 1 && total(&self.copies) > COPIES_BYTES_MAX {
            self.copies.remove(0);
        }
    }
}

fn describe((vcpus, memory_mib): Shape, template: &Template) -> Value {
    let Wanted { memory, state } = &template.digests;
    object(vec![
        ("vcpus", number(vcpus)),
        ("memory_mib", number(memory_mib)),
        ("memory", string(&memory.digest)),
        ("memory_size", number(memory.size)),
        ("state", string(&state.digest)),
        ("state_size", number(state.size)),
    ])
}

fn found(shape: Shape, template: &Template) -> Answer {
    Answer::new(vec![("template", describe(shape, template))])
}

impl Daemon {
    /// `template`: found, or answered when it is built. Several who ask for one shape share one build.
    pub(crate) fn template(&mut self, client: u64, shape: Shape) -> Result<Option<Answer>> {
        if let Some(template) = self.templates.ready.get(&shape) {
            return Ok(Some(found(shape, template)));
        }
        if !CATALOGUE.contains(&shape) {
            let message = "templates are built for 1 CPU and 128 MiB, or 2 CPUs and 256 MiB; other machines boot cold";
            return Err(Refusal::new("TEMPLATE_SHAPE", message));
        }
        if let Some(build) = self.templates.builds.get_mut(&shape) {
            build.clients.push(client);
            return Ok(None);
        }
        let plan = self.plan_build(shape)?;
        self.start_vm(plan, None)?;
        self.templates.builds.insert(shape, Build { clients: vec![client], refused: None });
        Ok(None)
    }

    fn plan_build(&mut self, shape: Shape) -> Result<Plan> {
        self.check_room()?;
        let (class, kvm) =
            self.open_kvm().map_err(|reason| Refusal::new("KVM_UNAVAILABLE", reason))?;
        if class == casemate_ticket::spec::KvmClass::Software && !self.config.allow_software_kvm {
            let message = "software KVM is no security boundary and allow_software_kvm is not set";
            return Err(Refusal::new("SOFTWARE_KVM_NOT_ALLOWED", message));
        }
        let (vcpus, memory_mib) = shape;
        // The template's memory is written beside the guest's, and belongs to this cgroup.
        let overhead = memory_mib.saturating_add(64);
        let limits = Limits {
            boot_ms: BUILD_MS,
            boot_log_bytes: 65_536,
            cpu_quota_percent: vcpus.saturating_mul(100).saturating_add(100),
            pids: 64,
            stop_ms: 0,
            vmm_overhead_mib: overhead,
        };
        let machine = object(vec![
            ("vcpus", number(vcpus)),
            ("memory_mib", number(memory_mib)),
            ("cmdline", string(&cmdline(class))),
        ]);
        let mut init = answers::init(&self.config);
        init.extend([("role", string("init")), ("access", string("read"))]);
        let spec = object(vec![
            ("v", string("casemate.template-spec/1")),
            ("machine", machine),
            ("vmm", answers::vmm(&self.assets.vmm_digests)),
            ("kernel", answers::kernel(&self.assets.kernel_file)),
            ("descriptors", Value::Array(vec![object(init)])),
            ("limits", limits_value(&limits)),
        ]);
        let document = LaunchDocument {
            context: self.context(Some(class)),
            mode: Mode::Template,
            record: String::new(),
            spec: json::write(&spec),
            ticket: String::new(),
        };
        let kernel = self.assets.kernel().map_err(no_resources)?;
        let init = self.assets.init().map_err(no_resources)?;
        Ok(Plan {
            identity: None,
            shape,
            vmm: self.assets.vmm_digests.clone(),
            limits,
            file_bytes_max: memory_bytes(shape).max(STATE_BYTES_MAX),
            name: format!("template-{vcpus}-{memory_mib}"),
            document: document.write(),
            descriptors: vec![Some(kvm), Some(kernel), Some(init), None, None, None, None, None],
        })
    }

    /// Takes the memfds a builder sent: judged while it still lives, so that a wrong one ends it.
    pub(crate) fn take_template(&mut self, pod: u64) {
        let Some(pod) = self.pods.get_mut(&pod) else { return };
        let Some(taken) = pod.template.take() else { return };
        let shape = pod.shape;
        let result = judge(taken, shape);
        let Some(build) = self.templates.builds.get_mut(&shape) else { return };
        match result {
            Ok(template) => {
                self.templates.ready.insert(shape, template);
            }
            Err(problem) => build.refused = Some(problem),
        }
    }

    /// A builder has ended: answers everybody who waits.
    pub(crate) fn finish_build(
        &mut self,
        shape: Shape,
        jail_failure: Option<String>,
        exit: &PodExit,
    ) {
        let Some(build) = self.templates.builds.remove(&shape) else { return };
        let failed = || {
            let reason = jail_failure.or(build.refused).unwrap_or_else(|| exit.sentence());
            log(&format!("template {}x{} MiB was not built: {reason}", shape.0, shape.1));
            Refusal::new("TEMPLATE_FAILED", format!("the template could not be built: {reason}"))
        };
        let refusal = if self.templates.ready.contains_key(&shape) { None } else { Some(failed()) };
        for client in build.clients {
            let answer = match (&refusal, self.templates.ready.get(&shape)) {
                (None, Some(template)) => Ok(found(shape, template)),
                (Some(refusal), _) => Err(refusal.clone()),
                (None, None) => continue,
            };
            self.answer(client, answer);
        }
    }
}

fn memory_bytes((_, memory_mib): Shape) -> u64 {
    u64::from(memory_mib).saturating_mul(1 << 20)
}

fn limits_value(limits: &Limits) -> Value {
    object(vec![
        ("boot_ms", number(limits.boot_ms)),
        ("boot_log_bytes", number(limits.boot_log_bytes)),
        ("cpu_quota_percent", number(limits.cpu_quota_percent)),
        ("pids", number(limits.pids)),
        ("stop_ms", number(limits.stop_ms)),
        ("vmm_overhead_mib", number(limits.vmm_overhead_mib)),
    ])
}

fn judge(taken: Taken, shape: Shape) -> std::result::Result<Template, String> {
    let Taken { state, memory, state_size, memory_size } = taken;
    if memory_size != memory_bytes(shape) || state_size == 0 || state_size > STATE_BYTES_MAX {
        return Err(format!(
            "the VMM sent {state_size} bytes of state and {memory_size} of memory"
        ));
    }
    check_sealed("state", state.as_fd(), state_size)?;
    check_sealed("memory", memory.as_fd(), memory_size)?;
    let unreadable = |error: io::Error| format!("the template cannot be read: {error}");
    let digests = Wanted {
        state: File {
            digest: sparse::digest(state.as_fd(), state_size).map_err(unreadable)?,
            size: state_size,
        },
        memory: File {
            digest: sparse::block_digest(memory.as_fd(), memory_size).map_err(unreadable)?,
            size: memory_size,
        },
    };
    Ok(Template { state, memory, digests })
}

/// Only a memfd has seals; sealed, its bytes stay what their digest says.
fn check_sealed(role: &str, file: BorrowedFd<'_>, size: u64) -> std::result::Result<(), String> {
    let seals = rustix::fs::fcntl_get_seals(file);
    if !seals.is_ok_and(|seals| seals.contains(SEALED)) {
        return Err(format!("the VMM's {role} is no sealed memfd"));
    }
    match rustix::fs::fstat(file) {
        Ok(facts) if u64::try_from(facts.st_size) == Ok(size) => Ok(()),
        _ => Err(format!("the VMM's {role} has another size than it said")),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::*;

    fn taken(state: &[u8], memory: OwnedFd, memory_size: u64) -> Taken {
        let size = u64::try_from(state.len()).unwrap();
        let state = sparse::sealed_memfd("state", state).unwrap();
        Taken { state, memory, state_size: size, memory_size }
    }

    fn memory(size: u64) -> OwnedFd {
        let one = sparse::sealed_memfd("seed", &[1; 4096]).unwrap();
        // Copying with a larger size than the data keeps the rest a hole.
        sparse::copy("memory", one.as_fd(), size).unwrap().0
    }

    #[test]
    fn takes_a_sealed_template_of_its_shape_and_nothing_else() {
        let size = 128 << 20;
        let good = judge(taken(b"state", memory(size), size), (1, 128)).unwrap();
        assert_eq!(good.digests.state.digest, casemate_ticket::bytes::Digest::of(b"state"));
        assert!(judge(taken(b"state", memory(size), size), (2, 256)).is_err());
        assert!(judge(taken(b"", memory(size), size), (1, 128)).is_err());
        assert!(
            judge(taken(b"state", memory(4096), size), (1, 128)).is_err(),
            "shorter than it says"
        );
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(judge(taken(b"state", file.into(), size), (1, 128)).is_err(), "no memfd");
    }

    #[test]
    fn gives_each_tenant_one_copy_of_its_own() {
        use std::os::unix::fs::MetadataExt;
        let size = 128 << 20;
        let template = judge(taken(b"state", memory(size), size), (1, 128)).unwrap();
        let wanted = template.digests;
        let mut templates = Templates::default();
        templates.ready.insert((1, 128), template);
        let mut inode = |tenant: &str| {
            let (_, memory) = templates.open((1, 128), &wanted, tenant).unwrap();
            assert_eq!(sparse::block_digest(memory.as_fd(), size).unwrap(), wanted.memory.digest);
            std::fs::File::from(memory).metadata().unwrap().ino()
        };
        let (a, b) = (inode("a"), inode("b"));
        assert_ne!(a, b);
        assert_eq!((inode("a"), inode("b")), (a, b));
        let other = Wanted { state: wanted.memory, ..wanted };
        assert!(templates.open((1, 128), &other, "a").is_err());
        assert!(templates.open((2, 256), &wanted, "a").is_err());
    }
}
