//! What this host is: its boot, its clock, its kind of KVM, and what only root can ask it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::spec::KvmClass;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::sys_unsafe::{self, kvm_api_version};

/// The KVM interface version since Linux 2.6.22.
const KVM_API_VERSION: i32 = 12;

/// This boot, as the kernel names it.
///
/// # Errors
/// No /proc.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Nanoseconds since boot, suspended time included: the clock of ticket deadlines.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Opens /dev/kvm for one VM.
///
/// # Errors
/// A sentence that says why there is no KVM to use.
pub fn open_kvm() -> Result<OwnedFd, String> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let kvm = rustix::fs::open("/dev/kvm", flags, Mode::empty())
        .map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    match kvm_api_version(kvm.as_fd()) {
        Ok(KVM_API_VERSION) => Ok(kvm),
        Ok(other) => Err(format!("/dev/kvm speaks version {other} of its interface, not 12")),
        Err(error) => Err(format!("/dev/kvm is no KVM: {error}")),
    }
}

/// What the VMM uses of KVM beyond what every version has: name and number of the `KVM_CAP_` in
/// linux/kvm.h.
const CAPABILITIES: [(&str, libc::c_ulong); 16] = [
    ("IRQCHIP", 0),
    ("USER_MEMORY", 3),
    ("SET_TSS_ADDR", 4),
    ("EXT_CPUID", 7),
    ("MP_STATE", 14),
    ("IRQFD", 32),
    ("IOEVENTFD", 36),
    ("SET_IDENTITY_MAP_ADDR", 37),
    ("ADJUST_CLOCK", 39),
    ("VCPU_EVENTS", 41),
    ("DEBUGREGS", 50),
    ("XSAVE", 55),
    ("XCRS", 56),
    ("X86_USER_SPACE_MSR", 188),
    ("X86_MSR_FILTER", 189),
    ("ENFORCE_PV_FEATURE_CPUID", 190),
];

/// What the agent, which may open no device, is told of the host's safety.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safety {
    /// Version of KVM's interface; `None` without a /dev/kvm that opens.
    pub kvm_api: Option<i32>,
    /// Capabilities that the VMM uses and this KVM lacks.
    pub kvm_missing: Vec<&'static str>,
    /// Landlock's ABI; `None` without it.
    pub landlock: Option<i64>,
    /// Whether each jail has the threads of a core to itself.
    pub core_scheduling: bool,
}

/// Asked anew each time: SMT can be switched while spawn runs.
pub fn safety() -> Safety {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let kvm = rustix::fs::open("/dev/kvm", flags, Mode::empty()).ok();
    let lacks = |number| kvm.as_ref().is_some_and(|kvm| !sys_unsafe::kvm_has(kvm.as_fd(), number));
    let missing = CAPABILITIES.iter().filter(|(_, number)| lacks(*number));
    Safety {
        kvm_api: kvm.as_ref().and_then(|kvm| kvm_api_version(kvm.as_fd()).ok()),
        kvm_missing: missing.map(|(name, _)| *name).collect(),
        landlock: sys_unsafe::landlock_abi(),
        core_scheduling: sys_unsafe::core_scheduling(),
    }
}

/// The class of this host's KVM, whether usable or not.
pub fn kvm_class() -> KvmClass {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let parameter =
        |path: &str| fs::read_to_string(format!("/sys/module/{path}")).unwrap_or_default();
    classify(&cpuinfo, parameter)
}

/// Hardware is VMX with EPT or SVM with NPT, and nesting off: with nesting on, a guest reaches the
/// nested-virtualisation code, KVM's most fragile part. Everything else is software.
fn classify(cpuinfo: &str, parameter: impl Fn(&str) -> String) -> KvmClass {
    let has = |flag: &str| {
        let is_flags = |line: &&str| line.starts_with("flags");
        let line = cpuinfo.lines().find(is_flags).unwrap_or_default();
        line.split_whitespace().any(|word| word == flag)
    };
    let on = |path: &str| matches!(parameter(path).trim(), "Y" | "y" | "1");
    let off = |path: &str| matches!(parameter(path).trim(), "N" | "n" | "0");
    let intel = has("vmx") && on("kvm_intel/parameters/ept") && off("kvm_intel/parameters/nested");
    let amd = has("svm") && on("kvm_amd/parameters/npt") && off("kvm_amd/parameters/nested");
    if intel || amd { KvmClass::Hardware } else { KvmClass::Software }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use super::*;

    const VMX: &str = "processor\t: 0\nflags\t\t: fpu vme vmx sse\n";
    const SVM: &str = "flags\t\t: fpu svm\n";

    fn class(cpuinfo: &str, files: &[(&str, &str)]) -> KvmClass {
        classify(cpuinfo, |path| {
            files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, text)| format!("{text}\n"))
                .unwrap_or_default()
        })
    }

    #[test]
    fn asks_for_each_capability_once_and_by_its_number() {
        let numbers: std::collections::BTreeSet<_> =
            CAPABILITIES.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), CAPABILITIES.len());
        // A file that is no KVM has none.
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(CAPABILITIES.iter().all(|(_, number)| !sys_unsafe::kvm_has(null.as_fd(), *number)));
    }

    #[test]
    fn calls_hardware_only_what_has_nested_paging_and_nesting_off() {
        let (ept, nested) = ("kvm_intel/parameters/ept", "kvm_intel/parameters/nested");
        let (npt, amd_nested) = ("kvm_amd/parameters/npt", "kvm_amd/parameters/nested");
        assert_eq!(class(VMX, &[(ept, "Y"), (nested, "N")]), KvmClass::Hardware);
        assert_eq!(class(SVM, &[(npt, "1"), (amd_nested, "0")]), KvmClass::Hardware);
        for (cpuinfo, files) in [
            (VMX, vec![]),
            (VMX, vec![(ept, "N"), (nested, "N")]),
            (VMX, vec![(ept, "Y"), (nested, "Y")]),
            (VMX, vec![(ept, "Y")]),
            (SVM, vec![(ept, "Y"), (nested, "N")]),
            ("flags\t\t: fpu vmxx\n", vec![(ept, "Y"), (nested, "N")]),
            ("model name: vmx\nflags\t\t: fpu\n", vec![(ept, "Y"), (nested, "N")]),
        ] {
            assert_eq!(class(cpuinfo, &files), KvmClass::Software, "{cpuinfo:?} {files:?}");
        }
    }
}
