//! The spec (docs/formats.md section 2): the one document that spawn and the VMM configure
//! themselves from. All members but `network` are required, unknown ones refused, every bound checked here, so
//! that what holds a [`Spec`] never checks again.

use crate::app::{self, App, HOST_LIMITS, Rlimit};
use crate::bytes::Digest;
use crate::config;
use crate::container::Container;
use crate::descriptors::{Descriptors, read_disk};
use crate::files::{self, Files};
use crate::host_level;
use crate::host_path;
use crate::json::{self, JsonError, Value};
use crate::mounts;
use crate::network::Network;
use crate::rates::Rates;
use crate::shape::{self, ShapeError, constant, fields, fields_and_one, integer32, wrong};
use crate::sysctls::{self, Sysctl};
use thiserror::Error;

pub use crate::descriptors::{BLOCK_SIZE, VerifiedDisk, VolumeDisk, verified_size};
pub use crate::scratch::Scratch;
pub use crate::shape::{MEMORY_MIB, VCPUS};
pub use crate::vm::{File, KvmClass, Machine, Template, Vm, Vmm};
pub(crate) use crate::vm::{read_kernel, read_kvm, read_machine};

/// Most bytes of a spec.
pub const SPEC_BYTES_MAX: usize = 524_288;

/// Members of a spec that are required.
const MEMBERS: [&str; 16] = [
    "apps",
    "container",
    "descriptors",
    "hostname",
    "kernel",
    "kvm",
    "launch_id",
    "level",
    "limits",
    "machine",
    "node",
    "sysctls",
    "template",
    "tenant",
    "v",
    "vmm",
];

/// Why bytes are no spec.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Not canonical JSON.
    #[error("the spec is not canonical JSON: {0}")]
    Json(#[from] JsonError),
    /// A member missing, unknown or out of bounds.
    #[error("the spec's member {0}")]
    Shape(#[from] ShapeError),
}

/// How strongly a pod is isolated; ordered by strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A process in a mount namespace.
    Host,
    /// An OCI container.
    Container,
    /// A KVM virtual machine.
    Vm,
}

impl Level {
    /// Reads `host`, `container` or `vm`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "host" => Some(Self::Host),
            "container" => Some(Self::Container),
            "vm" => Some(Self::Vm),
            _ => None,
        }
    }

    /// The name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

/// Times, sizes and cgroup limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to READY, milliseconds.
    pub boot_ms: u32,
    /// Bytes of boot log kept.
    pub boot_log_bytes: u32,
    /// CPU time, percent of one CPU.
    pub cpu_quota_percent: u32,
    /// Tasks of the VMM's cgroup.
    pub pids: u32,
    /// Rate limits of the devices.
    pub rates: Rates,
    /// From STOP to kill, milliseconds.
    pub stop_ms: u32,
    /// Memory beside the guest's, MiB.
    pub vmm_overhead_mib: u32,
}

/// What a pod is run by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// A VMM: level vm.
    Vm(Box<Vm>),
    /// A monitor and an OCI runtime: both levels below.
    Container(Container),
}

/// Everything of one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// UUID version 7, also the pod's id.
    pub launch_id: String,
    /// Whose pod it is.
    pub tenant: String,
    /// Isolation level.
    pub level: Level,
    /// Host id it is meant for.
    pub node: String,
    /// Host name inside.
    pub hostname: String,
    /// What it is run by: as the level says.
    pub means: Means,
    /// The tenant's image.
    pub image: VerifiedDisk,
    /// Writable disk.
    pub scratch: Scratch,
    /// Bytes of the pod log.
    pub log_size: u64,
    /// Content of the apps' files, if they have any.
    pub files: Option<Files>,
    /// Disks of its volumes, in the order in which they are among the apps' mounts.
    pub volumes: Vec<VolumeDisk>,
    /// What runs inside.
    pub apps: Vec<App>,
    /// Parameters of the kernel that are the pod's own.
    pub sysctls: Vec<Sysctl>,
    /// Its network, if it has one.
    pub network: Option<Network>,
    /// Limits.
    pub limits: Limits,
    /// The payload of the CONFIG frame (section 7).
    pub guest_config: String,
}

/// What a template build boots: no tenant, no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Shape of the machine.
    pub machine: Machine,
    /// The VMM.
    pub vmm: Vmm,
    /// The guest kernel.
    pub kernel: File,
    /// Disk with guest-init.
    pub init: VerifiedDisk,
    /// Limits.
    pub limits: Limits,
}

impl Spec {
    /// Reads the canonical bytes of a `casemate.spec/1`.
    ///
    /// # Errors
    /// Bytes that are not canonical, members that are missing, unknown or out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        let value = json::parse(bytes, SPEC_BYTES_MAX)?;
        let spec = Self::read(&value)?;
        host_level::check(&spec)?;
        Ok(spec)
    }

    fn read(value: &Value) -> Result<Self, ShapeError> {
        let (
            [
                apps,
                container,
                descriptors,
                hostname,
                kernel,
                kvm,
                launch_id,
                level,
                limits,
                machine,
                node,
                sysctls,
                template,
                tenant,
                version,
                vmm,
            ],
            network,
        ) = fields_and_one(value, "spec", MEMBERS, "network")?;
        constant(version, "v", "casemate.spec/1")?;
        let level = read_level(level, "level")?;
        let Descriptors { init, image, scratch, log_size, volumes, net, files } =
            Descriptors::read(descriptors, level == Level::Vm)?;
        let means = Means::read(init, [kvm, machine, vmm, kernel, template], container)?;
        let guest_config = config::write([apps, hostname, limits, sysctls], network);
        let (apps, network) = (read_apps(apps, level)?, network.map(Network::read).transpose()?);
        check_descriptors((&apps, &volumes, files.as_ref()), (network.is_some(), net))?;
        Ok(Self {
            launch_id: shape::uuid(launch_id, "launch_id", Some(b'7'))?.into(),
            tenant: shape::word(tenant, "tenant", 63, shape::is_tenant_character)?.into(),
            level,
            node: shape::word(node, "node", 64, shape::is_node_character)?.into(),
            hostname: shape::word(hostname, "hostname", 63, shape::is_hostname_character)?.into(),
            means,
            image,
            scratch,
            log_size,
            files,
            volumes,
            apps,
            sysctls: sysctls::read(sysctls)?,
            network,
            limits: read_limits(limits)?,
            guest_config,
        })
    }
}

impl Means {
    fn read(
        init: Option<VerifiedDisk>,
        only_vm: [&Value; 5],
        container: &Value,
    ) -> Result<Self, ShapeError> {
        Ok(match init {
            Some(init) => Self::Vm(Box::new(Vm::read(init, only_vm, container)?)),
            None => Self::Container(Container::read_alone(container, only_vm)?),
        })
    }
}

impl Spec {
    /// Class of KVM it is meant for; none below level vm.
    #[must_use]
    pub const fn kvm(&self) -> Option<KvmClass> {
        match &self.means {
            Means::Vm(vm) => Some(vm.kvm),
            Means::Container(_) => None,
        }
    }

    /// Stands for the seccomp programs of its apps: the digest of an only one, zeros where it has
    /// none; of several the digest of all of these, in order.
    #[must_use]
    pub fn seccomp_digest(&self) -> Digest {
        let none = Digest([0; 32]);
        let digests =
            self.apps.iter().map(|app| app.seccomp.as_ref().map_or(none, |one| one.digest));
        match digests.collect::<Vec<_>>().as_slice() {
            [digest] => *digest,
            all => Digest::of(&all.iter().flat_map(|digest| digest.0).collect::<Vec<_>>()),
        }
    }
}

impl TemplateSpec {
    /// Reads the canonical bytes of a `casemate.template-spec/1`.
    ///
    /// # Errors
    /// As for [`Spec::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        let value = json::parse(bytes, SPEC_BYTES_MAX)?;
        let [descriptors, kernel, limits, machine, version, vmm] = fields(
            &value,
            "template spec",
            ["descriptors", "kernel", "limits", "machine", "v", "vmm"],
        )?;
        constant(version, "v", "casemate.template-spec/1")?;
        let init = match descriptors {
            Value::Array(items) if items.len() == 1 => items.first(),
            _ => None,
        };
        let init = init.ok_or_else(|| wrong("descriptors", "must be init alone"))?;
        Ok(Self {
            machine: read_machine(machine)?,
            vmm: Vmm::read(vmm)?,
            kernel: read_kernel(kernel)?,
            init: read_disk(init, "init")?,
            limits: read_limits(limits)?,
        })
    }
}

fn read_apps(value: &Value, level: Level) -> Result<Vec<App>, ShapeError> {
    let apps = app::read_all(value)?;
    let is_host_limit = |limit: &Rlimit| HOST_LIMITS.contains(&limit.resource);
    for app in &apps {
        if level != Level::Vm && app.process.rlimits.iter().any(is_host_limit) {
            let text = "has a limit that is the host's below level vm";
            return Err(wrong("apps.process.rlimits", text));
        }
        if level == Level::Vm && host_path::of(&app.mounts).next().is_some() {
            return Err(wrong("apps.mounts", "have a path of the host, which no machine sees"));
        }
        if app.seccomp.as_ref().is_some_and(|one| Digest::of(&one.program) != one.digest) {
            return Err(wrong("apps.seccomp.digest", "is not the digest of the program"));
        }
    }
    Ok(apps)
}

/// Descriptors are there for what needs them, and for nothing else.
fn check_descriptors(
    (apps, disks, files): (&[App], &[VolumeDisk], Option<&Files>),
    (has_network, has_net): (bool, bool),
) -> Result<(), ShapeError> {
    files::check(files, apps)?;
    let wanted = mounts::of_all(apps).into_iter().map(|volume| volume.read_only);
    if !wanted.eq(disks.iter().map(|disk| disk.read_only)) {
        return Err(wrong("apps.mounts", "have other volumes than the descriptors"));
    }
    if has_network != has_net {
        return Err(wrong("network", "goes with a descriptor net, and only with it"));
    }
    Ok(())
}

pub(crate) fn read_level(value: &Value, path: &str) -> Result<Level, ShapeError> {
    value
        .as_str()
        .and_then(Level::parse)
        .ok_or_else(|| wrong(path, "must be host, container or vm"))
}

fn read_limits(value: &Value) -> Result<Limits, ShapeError> {
    let [boot_log_bytes, boot_ms, cpu_quota_percent, pids, rates, stop_ms, vmm_overhead_mib] =
        fields(
            value,
            "limits",
            [
                "boot_log_bytes",
                "boot_ms",
                "cpu_quota_percent",
                "pids",
                "rates",
                "stop_ms",
                "vmm_overhead_mib",
            ],
        )?;
    Ok(Limits {
        boot_ms: integer32(boot_ms, "limits.boot_ms", 1..=600_000)?,
        boot_log_bytes: integer32(boot_log_bytes, "limits.boot_log_bytes", 0..=1_048_576)?,
        cpu_quota_percent: integer32(cpu_quota_percent, "limits.cpu_quota_percent", 1..=1600)?,
        pids: integer32(pids, "limits.pids", 1..=4096)?,
        rates: Rates::read(rates)?,
        stop_ms: integer32(stop_ms, "limits.stop_ms", config::STOP_MS)?,
        vmm_overhead_mib: integer32(vmm_overhead_mib, "limits.vmm_overhead_mib", 1..=1024)?,
    })
}
