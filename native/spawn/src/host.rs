//! What this host is: its boot, its clock, its kind of KVM.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::spec::KvmClass;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::sys_unsafe::kvm_api_version;

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
