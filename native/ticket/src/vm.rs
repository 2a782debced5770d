//! The part of a spec that only a virtual machine has: its machine, and the exact files that it is made of.

use crate::bytes::Digest;
use crate::descriptors::VerifiedDisk;
use crate::json::Value;
use crate::shape::{
    self, MEMORY_MIB, ShapeError, VCPUS, digest, fields, integer, integer32, wrong,
};

const MIB: u64 = 1 << 20;

/// What kind of KVM a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmClass {
    /// VMX or SVM with nested paging.
    Hardware,
    /// Emulated: no security boundary of the CPU's.
    Software,
}

impl KvmClass {
    /// Reads `hardware` or `software`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hardware" => Some(Self::Hardware),
            "software" => Some(Self::Software),
            _ => None,
        }
    }

    /// The name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
        }
    }
}

/// Shape of the virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Of [`VCPUS`].
    pub vcpus: u32,
    /// Guest memory in MiB: even, of [`MEMORY_MIB`].
    pub memory_mib: u32,
    /// Kernel command line, printable ASCII.
    pub cmdline: String,
}

/// The VMM and the seccomp programs it must install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmm {
    /// SHA-256 of the binary.
    pub digest: Digest,
    /// Filter of the control thread.
    pub filter_control: Digest,
    /// Filter of the I/O thread.
    pub filter_io: Digest,
    /// Filter of the vCPU threads.
    pub filter_vcpu: Digest,
}

/// A file that is read and hashed whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Snapshot to restore from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Block digest of the memory file; its size is the machine's memory.
    pub memory: File,
    /// SHA-256 and size of the state file.
    pub state: File,
}

/// What only a virtual machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// KVM class it is meant for.
    pub kvm: KvmClass,
    /// Shape of the machine.
    pub machine: Machine,
    /// The VMM.
    pub vmm: Vmm,
    /// The guest kernel.
    pub kernel: File,
    /// Snapshot to restore, or none for a cold boot.
    pub template: Option<Template>,
    /// Disk with guest-init.
    pub init: VerifiedDisk,
}

impl Vm {
    /// Reads `kvm`, `machine`, `vmm`, `kernel` and `template`, beside which there is no `container`.
    pub(crate) fn read(
        init: VerifiedDisk,
        [kvm, machine, vmm, kernel, template]: [&Value; 5],
        container: &Value,
    ) -> Result<Self, ShapeError> {
        if *container != Value::Null {
            return Err(wrong("container", "must be null at level vm"));
        }
        let machine = read_machine(machine)?;
        Ok(Self {
            kvm: read_kvm(kvm, "kvm")?,
            vmm: Vmm::read(vmm)?,
            kernel: read_kernel(kernel)?,
            template: read_template(template, &machine)?,
            machine,
            init,
        })
    }
}

pub(crate) fn read_kvm(value: &Value, path: &str) -> Result<KvmClass, ShapeError> {
    value
        .as_str()
        .and_then(KvmClass::parse)
        .ok_or_else(|| wrong(path, "must be hardware or software"))
}

pub(crate) fn read_machine(value: &Value) -> Result<Machine, ShapeError> {
    let [cmdline, memory_mib, vcpus] =
        fields(value, "machine", ["cmdline", "memory_mib", "vcpus"])?;
    let memory_mib = integer32(memory_mib, "machine.memory_mib", MEMORY_MIB)?;
    if !memory_mib.is_multiple_of(2) {
        return Err(wrong("machine.memory_mib", "must be even"));
    }
    Ok(Machine {
        vcpus: integer32(vcpus, "machine.vcpus", VCPUS)?,
        memory_mib,
        // The kernel's COMMAND_LINE_SIZE is 2048 with its final NUL.
        cmdline: shape::word(cmdline, "machine.cmdline", 2047, shape::is_printable)?.into(),
    })
}

impl Vmm {
    /// Reads the member `vmm`, of a spec or of what spawn writes down of a pod.
    ///
    /// # Errors
    /// What is not as docs/formats.md says.
    pub fn read(value: &Value) -> Result<Self, ShapeError> {
        let [binary, filters] = fields(value, "vmm", ["digest", "filters"])?;
        let [control, io, vcpu] = fields(filters, "vmm.filters", ["control", "io", "vcpu"])?;
        Ok(Self {
            digest: digest(binary, "vmm.digest")?,
            filter_control: digest(control, "vmm.filters.control")?,
            filter_io: digest(io, "vmm.filters.io")?,
            filter_vcpu: digest(vcpu, "vmm.filters.vcpu")?,
        })
    }
}

pub(crate) fn read_kernel(value: &Value) -> Result<File, ShapeError> {
    let [sum, size] = fields(value, "kernel", ["digest", "size"])?;
    Ok(File {
        digest: digest(sum, "kernel.digest")?,
        size: integer(size, "kernel.size", 1..=256 * MIB)?,
    })
}

fn read_template(value: &Value, machine: &Machine) -> Result<Option<Template>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    let [memory, memory_size, state, state_size] =
        fields(value, "template", ["memory", "memory_size", "state", "state_size"])?;
    let memory_bytes = u64::from(machine.memory_mib).saturating_mul(MIB);
    Ok(Some(Template {
        memory: File {
            digest: digest(memory, "template.memory")?,
            size: integer(memory_size, "template.memory_size", memory_bytes..=memory_bytes)?,
        },
        state: File {
            digest: digest(state, "template.state")?,
            size: integer(state_size, "template.state_size", 1..=16 * MIB)?,
        },
    }))
}
