//! The part of a spec that takes the virtual machine's place below level vm (docs/formats.md section 2).

use crate::bytes::Digest;
use crate::json::Value;
use crate::shape::{MEMORY_MIB, ShapeError, digest, fields, integer32, wrong};

/// What runs a pod below level vm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    /// Digest of all of the OCI bundle's configuration that is the same for every pod.
    pub bundle: Digest,
    /// SHA-256 of the monitor, which is what the app is started by inside, too.
    pub digest: Digest,
    /// The app's memory in MiB, of [`MEMORY_MIB`]; the monitor's is beside it.
    pub memory_mib: u32,
    /// SHA-256 of the OCI runtime.
    pub runtime: Digest,
}

impl Container {
    /// Reads the member `container` of a spec in which nothing of a virtual machine may be: `only_vm` are `kvm`,
    /// `machine`, `vmm`, `kernel` and `template`.
    pub(crate) fn read_alone(value: &Value, only_vm: [&Value; 5]) -> Result<Self, ShapeError> {
        let names = ["kvm", "machine", "vmm", "kernel", "template"];
        let is_there = |(_, value): &(&str, &Value)| **value != Value::Null;
        if let Some((name, _)) = names.into_iter().zip(only_vm).find(is_there) {
            return Err(wrong(name, "must be null below level vm"));
        }
        let [bundle, monitor, memory_mib, runtime] =
            fields(value, "container", ["bundle", "digest", "memory_mib", "runtime"])?;
        Ok(Self {
            bundle: digest(bundle, "container.bundle")?,
            digest: digest(monitor, "container.digest")?,
            memory_mib: integer32(memory_mib, "container.memory_mib", MEMORY_MIB)?,
            runtime: digest(runtime, "container.runtime")?,
        })
    }
}
