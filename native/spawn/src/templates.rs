//! Templates: booted once by spawn itself, kept in sealed memfds and on disk, copied for each tenant.
//!
//! A template is built from spawn's own files and command line, by a VMM in the same jail as any
//! other, without a ticket because nothing of a tenant is in it. Its digests are computed here, from
//! what arrived, not taken from the VMM.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::document::{LaunchDocument, Mode};
use casemate_ticket::json::{self, Value};
use casemate_ticket::rates::Rates;
use casemate_ticket::spec::{KvmClass, Level, Limits, Template as Wanted};

use crate::answers::{self, number, object, string};
use crate::clients::Answer;
use crate::daemon::{Daemon, log};
use crate::launch::{Plan, no_resources};
use crate::machine::{CATALOGUE, cmdline};
use crate::pod::PodExit;
use crate::refusal::{Refusal, Result};
use crate::sparse;
use crate::template::{STATE_BYTES_MAX, Shape, Template, memory_bytes};

/// Most bytes of data in tenants' copies, together. The least recently used go first; a VM that was
/// started from one keeps it for as long as it runs.
const COPIES_BYTES_MAX: u64 = 1 << 30;
/// A boot under software KVM takes tens of seconds, on a busy host minutes.
const BUILD_MS: u32 = 600_000;

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

#[derive(Debug)]
struct Build {
    clients: Vec<u64>,
    /// What it is built of, as the store wants it.
    source: Value,
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
        self.ready.iter().map(|(shape, template)| template.describe(*shape)).collect()
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
            let (memory, data_bytes) = sparse::copy("casemate-memory", file, size)?;
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

/// `kept`: it was there before anybody asked this time.
fn found(template: Value, kept: bool) -> Answer {
    Answer::new(vec![("kept", Value::Bool(kept)), ("template", template)])
}

impl Daemon {
    /// `template`: found, or answered when it is built. Several who ask for one shape share one build.
    pub(crate) fn template(&mut self, client: u64, shape: Shape) -> Result<Option<Answer>> {
        if let Some(template) = self.templates.ready.get(&shape) {
            return Ok(Some(found(template.describe(shape), true)));
        }
        if !CATALOGUE.contains(&shape) {
            let message = "templates are built for 1 CPU and 128 MiB, or 2 CPUs and 256 MiB; other machines boot cold";
            return Err(Refusal::new("TEMPLATE_SHAPE", message));
        }
        if let Some(build) = self.templates.builds.get_mut(&shape) {
            build.clients.push(client);
            return Ok(None);
        }
        let (class, kvm) = self.kvm_for_templates()?;
        let limits = build_limits(shape);
        let spec = self.template_spec(shape, class, &limits);
        let source = object(vec![
            ("boot_id", string(&self.boot_id)),
            ("kvm", string(class.as_str())),
            ("spec", spec.clone()),
        ]);
        if let Some(template) = self.load_template(shape, &source) {
            let answer = found(template.describe(shape), true);
            self.templates.ready.insert(shape, template);
            return Ok(Some(answer));
        }
        let document = LaunchDocument {
            context: self.context(Some(class)),
            mode: Mode::Template,
            record: String::new(),
            spec: json::write(&spec),
            ticket: String::new(),
        };
        let kernel = self.assets.kernel().map_err(no_resources)?;
        let init = self.assets.init().map_err(no_resources)?;
        let plan = Plan {
            level: Level::Vm,
            way: None,
            network: None,
            identity: None,
            shape,
            vmm: self.assets.vmm_digests.clone(),
            limits,
            file_bytes_max: memory_bytes(shape).max(STATE_BYTES_MAX),
            name: format!("template-{}-{}", shape.0, shape.1),
            document: document.write(),
            descriptors: vec![Some(kvm), Some(kernel), Some(init), None, None, None, None, None],
            scratch: None,
            volumes: vec![],
        };
        self.start_pod(plan, None)?;
        let build = Build { clients: vec![client], source, refused: None };
        self.templates.builds.insert(shape, build);
        Ok(None)
    }

    fn kvm_for_templates(&mut self) -> Result<(KvmClass, OwnedFd)> {
        self.check_room()?;
        let (class, kvm) =
            self.open_kvm().map_err(|reason| Refusal::new("KVM_UNAVAILABLE", reason))?;
        if class == KvmClass::Software && !self.config.allow_software_kvm {
            let message = "software KVM is no security boundary and allow_software_kvm is not set";
            return Err(Refusal::new("SOFTWARE_KVM_NOT_ALLOWED", message));
        }
        Ok((class, kvm))
    }

    /// What the VMM is told to boot: spawn's own files and command line, nothing of a tenant.
    fn template_spec(&self, (vcpus, memory_mib): Shape, class: KvmClass, limits: &Limits) -> Value {
        let machine = object(vec![
            ("vcpus", number(vcpus)),
            ("memory_mib", number(memory_mib)),
            ("cmdline", string(&cmdline(class))),
        ]);
        let mut init = answers::init(&self.config);
        init.extend([("role", string("init")), ("access", string("read"))]);
        object(vec![
            ("v", string("casemate.template-spec/1")),
            ("machine", machine),
            ("vmm", answers::vmm(&self.assets.vmm_digests)),
            ("kernel", answers::kernel(&self.assets.kernel_file)),
            ("descriptors", Value::Array(vec![object(init)])),
            ("limits", limits_value(limits)),
        ])
    }

    /// What an earlier spawn kept. What is there and cannot be used is removed, and built again.
    fn load_template(&self, shape: Shape, source: &Value) -> Option<Template> {
        let store = &self.template_store;
        match store.load(source, shape) {
            Ok(template) => Some(template),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log(&format!("a template that was kept is built again: {error}"));
                store.remove(source);
                None
            }
        }
    }

    /// Takes the memfds a builder sent: judged while it still lives, so that a wrong one ends it.
    pub(crate) fn take_template(&mut self, pod: u64) {
        let Some(pod) = self.pods.get_mut(&pod) else { return };
        let Some(taken) = pod.template.take() else { return };
        let shape = pod.shape;
        let result = Template::judge(taken, shape);
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
        let template = match self.templates.ready.get(&shape) {
            Some(template) => {
                if let Err(error) = self.template_store.keep(&build.source, shape, template) {
                    log(&format!("a template could not be kept for the next start: {error}"));
                }
                Ok(template.describe(shape))
            }
            None => Err(failed()),
        };
        for client in build.clients {
            self.answer(client, template.clone().map(|template| found(template, false)));
        }
    }
}

/// For a machine that boots kernel and init, and then writes its memory beside the guest's, in its own cgroup.
fn build_limits((vcpus, memory_mib): Shape) -> Limits {
    Limits {
        boot_ms: BUILD_MS,
        boot_log_bytes: 65_536,
        cpu_quota_percent: vcpus.saturating_mul(100).saturating_add(100),
        pids: 64,
        // Our kernel and our init alone.
        rates: Rates::default(),
        stop_ms: 0,
        vmm_overhead_mib: memory_mib.saturating_add(64),
    }
}

fn limits_value(limits: &Limits) -> Value {
    object(vec![
        ("boot_ms", number(limits.boot_ms)),
        ("boot_log_bytes", number(limits.boot_log_bytes)),
        ("cpu_quota_percent", number(limits.cpu_quota_percent)),
        ("pids", number(limits.pids)),
        ("rates", no_rates()),
        ("stop_ms", number(limits.stop_ms)),
        ("vmm_overhead_mib", number(limits.vmm_overhead_mib)),
    ])
}

fn no_rates() -> Value {
    object(["disk_read", "disk_write", "rng"].map(|name| (name, Value::Null)).into())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_tenant_one_copy_of_its_own() {
        use std::os::unix::fs::MetadataExt;
        let size = 128 << 20;
        let template = crate::template::samples::template(b"state");
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
