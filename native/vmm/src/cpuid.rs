//! The processor the guest sees: what KVM offers, less what a guest has no use for and what tells of the host.
//!
//! CPU template `casemate-v1`. Taken out: nested virtualisation (vmx, svm and svm's leaf: the shadow and nested
//! paths are where KVM's guest-to-host bugs are, CVE-2021-29657, CVE-2026-53359), performance counters, MONITOR,
//! power and thermal leaves, processor serial number, host topology; of KVM's own paravirtual features everything but the clock: the others
//! use hypercalls or shared pages that widen the surface and that a software KVM cannot serve.

use kvm_bindings::{
    CpuId, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
    kvm_enable_cap,
};
use kvm_ioctls::{Kvm, VcpuFd};

use casemate_wire::control::Reason;

use crate::failure::{Failure, failure};

const LEAF_1_ECX_CLEAR: u32 = 1 << 2 // DTES64
    | 1 << 3 // MONITOR
    | 1 << 4 // DS-CPL
    | 1 << 5 // VMX
    | 1 << 6 // SMX
    | 1 << 7 // EIST
    | 1 << 8 // TM2
    | 1 << 15; // PDCM
const LEAF_1_ECX_SET: u32 = 1 << 31; // hypervisor
const LEAF_1_EDX_CLEAR: u32 = 1 << 18 // serial number
    | 1 << 21 // debug store
    | 1 << 22 // ACPI thermal
    | 1 << 29; // thermal monitor
const EXTENDED_1_ECX_CLEAR: u32 = 1 << 2 // SVM
    | 1 << 10 // IBS
    | 1 << 12 // SKINIT
    | 1 << 23 // core performance counters
    | 1 << 24
    | 1 << 28;
/// KVM clock, old and new, and "its TSC is stable": bits 0, 3 and 24 of leaf `0x4000_0001`.
const KVM_FEATURES: u32 = 1 | 1 << 3 | 1 << 24;

/// The CPUID table for processor `id` of `vcpus`.
///
/// # Errors
/// `KVM` when KVM does not say what it supports.
pub fn template(kvm: &Kvm, id: u8, vcpus: u8) -> Result<CpuId, Failure> {
    let refuse = |text: std::fmt::Arguments<'_>| failure(Reason::Kvm, text);
    let mut table = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| refuse(format_args!("supported CPUID: {error}")))?;
    table.as_mut_slice().iter_mut().for_each(|entry| normalise(entry, id, vcpus));
    Ok(table)
}

/// Has KVM serve no hypercall and no register of a paravirtual feature that the table does not show: left to itself it
/// serves them all.
///
/// # Errors
/// `KVM` on a kernel that cannot (before Linux 5.10).
pub fn enforce(vcpu: &VcpuFd) -> Result<(), Failure> {
    let mut shown_only =
        kvm_enable_cap { cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID, ..kvm_enable_cap::default() };
    shown_only.args[0] = 1;
    vcpu.enable_cap(&shown_only).map_err(|error| {
        let text = format_args!("features of KVM only as shown: {error}; needs Linux 5.10");
        failure(Reason::Kvm, text)
    })
}

/// Makes an entry of KVM's table one of processor `id` of `vcpus`. Done twice it is as done once.
pub fn normalise(entry: &mut kvm_cpuid_entry2, id: u8, vcpus: u8) {
    match entry.function {
        0x1 => {
            entry.ecx = entry.ecx & !LEAF_1_ECX_CLEAR | LEAF_1_ECX_SET;
            entry.edx &= !LEAF_1_EDX_CLEAR;
            entry.ebx = u32::from(id) << 24 | u32::from(vcpus) << 16 | entry.ebx & 0xffff;
        }
        // One package, one thread a core: the guest's topology, not the host's.
        0x4 => entry.eax &= 0x3fff,
        0xb | 0x1f => {
            let (shift, count, kind) = match entry.index {
                0 => (0, 1, 1),
                1 => (8, u32::from(vcpus), 2),
                _ => (0, 0, 0),
            };
            entry.eax = shift;
            entry.ebx = count;
            entry.ecx = entry.index & 0xff | kind << 8;
            entry.edx = u32::from(id);
        }
        // Monitor, thermal and power, performance counters, processor trace, SGX, SVM, IBS.
        0x3 | 0x5 | 0x6 | 0xa | 0x12 | 0x14 | 0x8000_000a | 0x8000_001b => clear(entry),
        0x8000_0001 => entry.ecx &= !EXTENDED_1_ECX_CLEAR,
        0x8000_0008 => entry.ecx = u32::from(vcpus.saturating_sub(1)),
        0x8000_001e => {
            entry.eax = u32::from(id);
            entry.ebx = u32::from(id);
            entry.ecx = 0;
        }
        0x4000_0001 => {
            entry.eax &= KVM_FEATURES;
            entry.edx = 0;
        }
        _ => {}
    }
}

fn clear(entry: &mut kvm_cpuid_entry2) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_nested_virtualisation_and_counters_whatever_kvm_offers() {
        let offered = |function| kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..kvm_cpuid_entry2::default()
        };
        let seen = |function| {
            let mut entry = offered(function);
            normalise(&mut entry, 1, 2);
            entry
        };
        assert_eq!(seen(1).ecx & (1 << 5), 0, "vmx");
        assert_eq!(seen(1).ebx >> 16, 1 << 8 | 2, "APIC id and processor count");
        assert_eq!(seen(0x8000_0001).ecx & (1 << 2), 0, "svm");
        assert_eq!(seen(0x8000_000a).ebx, 0, "svm leaf");
        assert_eq!(seen(0xa).eax, 0, "performance counters");
        assert_eq!(seen(0x4000_0001).eax, KVM_FEATURES);
    }
}
