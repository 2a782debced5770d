//! The processor the guest sees: what KVM offers, less what a guest has no use for and what tells of the host.
//!
//! CPU template `casemate-v2`. Taken out: nested virtualisation (vmx, svm and svm's leaf: the shadow and nested
//! paths are where KVM's guest-to-host bugs are, CVE-2021-29657, CVE-2026-53359), performance counters, MONITOR and its
//! like in user mode, power and thermal leaves, SGX, processor trace, AMX, memory encryption, processor serial number,
//! host topology; of KVM's own paravirtual features everything but the clock: the others use hypercalls or shared pages
//! that widen the surface and that a software KVM cannot serve. Put in, because KVM has it and leaves it to the VMM to
//! say so: the local APIC's timer counts to a TSC deadline and never stops. Beside Firecracker's: README.md.

use kvm_bindings::{
    CpuId, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_enable_cap,
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
/// KVM of Linux 6.1 leaves the deadline to the VMM (Documentation/virt/kvm/api.rst), later ones name it. Without it a kernel
/// looks for a timer to calibrate the local APIC by, and this machine has none.
const LEAF_1_ECX_SET: u32 = 1 << 24 // TSC deadline
    | 1 << 31; // hypervisor
const LEAF_1_EDX_CLEAR: u32 = 1 << 18 // serial number
    | 1 << 21 // debug store
    | 1 << 22 // ACPI thermal
    | 1 << 29; // thermal monitor
const LEAF_1_EDX_SEVERAL: u32 = 1 << 28; // "HTT": the count of processors is valid
/// The timer of the local APIC runs in every idle state. Without it Linux on Intel does without timers finer than a tick.
const LEAF_6_EAX: u32 = 1 << 2;
const LEAF_7_EBX_CLEAR: u32 = 1 << 2 // SGX
    | 1 << 25; // processor trace
/// A guest that waits in UMWAIT or TPAUSE puts the physical processor to sleep.
const LEAF_7_ECX_CLEAR: u32 = 1 << 5 // WAITPKG
    | 1 << 30; // SGX's launch control
const LEAF_7_EDX_CLEAR: u32 = 1 << 19 // last branch records
    | 1 << 22 // AMX: BF16
    | 1 << 24 // AMX: tiles
    | 1 << 25; // AMX: INT8
const LEAF_7_1_EAX_CLEAR: u32 = 1 << 17 // FRED, whose registers are not listed in `msr`
    | 1 << 21; // AMX: FP16
const LEAF_7_1_EDX_CLEAR: u32 = 1 << 8; // AMX: complex numbers
/// Tiles' configuration and data. Linux 5.17 to 6.3 offers the one without the other to a process that has not asked
/// for both, and a kernel that enables what it was shown faults. Their 8 KiB are also what a state of 4 KiB has no room
/// for.
const XSTATE_TILES: u32 = 3 << 17;
const XSTATE_FIRST_TILE: u32 = 17;
const XSTATE_LAST_TILE: u32 = 18;
/// XFD: how tiles are enabled on first use.
const LEAF_D_1_EAX_CLEAR: u32 = 1 << 4;
/// Legacy area and header: where the extended states begin.
const XSTATE_BYTES_MIN: u32 = 576;
const XSTATE_FIRST_EXTENDED: u32 = 2;
const EXTENDED_1_ECX_CLEAR: u32 = 1 << 2 // SVM
    | 1 << 10 // IBS
    | 1 << 12 // SKINIT
    | 1 << 23 // core performance counters
    | 1 << 24
    | 1 << 28
    | 1 << 29; // MONITORX
/// Subleaves of the topology leaf: threads of a core, cores of a package, the end.
const TOPOLOGY_LEVELS: u32 = 3;
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
    // Whichever of its subleaves KVM lists: before Linux 6.2 the host's, since then the first.
    table.retain(|entry| !matches!(entry.function, 0xb | 0x1f));
    for index in 0..TOPOLOGY_LEVELS {
        let entry = kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            ..kvm_cpuid_entry2::default()
        };
        table.push(entry).map_err(|error| refuse(format_args!("CPUID: {error:?}")))?;
    }
    table.as_mut_slice().iter_mut().for_each(|entry| normalise(entry, id, vcpus));
    fit_xstate(table.as_mut_slice());
    Ok(table)
}

/// The size of all extended states, after some were taken out.
fn fit_xstate(table: &mut [kvm_cpuid_entry2]) {
    let state = |entry: &&kvm_cpuid_entry2| {
        // Those that a user may save; the others have bit 0 of ECX and no offset.
        entry.function == 0xd && entry.index >= XSTATE_FIRST_EXTENDED && entry.ecx & 1 == 0
    };
    let ends = table.iter().filter(state).map(|entry| entry.eax.saturating_add(entry.ebx));
    let size = ends.fold(XSTATE_BYTES_MIN, u32::max);
    let whole = |entry: &&mut kvm_cpuid_entry2| entry.function == 0xd && entry.index == 0;
    if let Some(entry) = table.iter_mut().find(whole).filter(|entry| entry.ecx != 0) {
        entry.ecx = size;
    }
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
            entry.edx &= !(LEAF_1_EDX_CLEAR | LEAF_1_EDX_SEVERAL);
            if vcpus > 1 {
                entry.edx |= LEAF_1_EDX_SEVERAL;
            }
            entry.ebx = u32::from(id) << 24 | u32::from(vcpus) << 16 | entry.ebx & 0xffff;
        }
        0x4 => share_caches(entry, vcpus, u32::from(vcpus.saturating_sub(1)) << 26),
        0x6 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (LEAF_6_EAX, 0, 0, 0),
        0x7 => hide_features(entry),
        0xb | 0x1f => number(entry, id, vcpus),
        0xd => hide_tiles(entry),
        // Serial number, MONITOR, counters, SGX, processor trace, last branches, AMX; SVM, IBS, encryption, counters.
        0x3
        | 0x5
        | 0xa
        | 0x12
        | 0x14
        | 0x1c..=0x1e
        | 0x8000_000a
        | 0x8000_001b
        | 0x8000_001f
        | 0x8000_0022 => clear(entry),
        0x8000_0001 => entry.ecx &= !EXTENDED_1_ECX_CLEAR,
        0x8000_0008 => entry.ecx = u32::from(vcpus.saturating_sub(1)),
        0x8000_001d => share_caches(entry, vcpus, 0),
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

/// One package, one thread a core: the guest's topology, not the host's.
fn number(entry: &mut kvm_cpuid_entry2, id: u8, vcpus: u8) {
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

/// Caches of the third level are everybody's, the others a processor's own. `cores` are leaf 4's bits above.
fn share_caches(entry: &mut kvm_cpuid_entry2, vcpus: u8, cores: u32) {
    let kind = entry.eax & 0x1f;
    if kind == 0 {
        return clear(entry); // no cache: the end of the list
    }
    let level = entry.eax >> 5 & 7;
    let others = if level == 3 { u32::from(vcpus.saturating_sub(1)) } else { 0 };
    entry.eax = entry.eax & 0x3fff | others << 14 | cores;
}

fn hide_features(entry: &mut kvm_cpuid_entry2) {
    match entry.index {
        0 => {
            entry.ebx &= !LEAF_7_EBX_CLEAR;
            entry.ecx &= !LEAF_7_ECX_CLEAR;
            entry.edx &= !LEAF_7_EDX_CLEAR;
        }
        1 => {
            entry.eax &= !LEAF_7_1_EAX_CLEAR;
            entry.edx &= !LEAF_7_1_EDX_CLEAR;
        }
        _ => {}
    }
}

fn hide_tiles(entry: &mut kvm_cpuid_entry2) {
    match entry.index {
        0 => entry.eax &= !XSTATE_TILES,
        1 => entry.eax &= !LEAF_D_1_EAX_CLEAR,
        XSTATE_FIRST_TILE..=XSTATE_LAST_TILE => clear(entry),
        _ => {}
    }
}

fn clear(entry: &mut kvm_cpuid_entry2) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn offered(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..kvm_cpuid_entry2::default()
        }
    }

    fn seen(function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut entry = offered(function, index);
        normalise(&mut entry, 1, 2);
        entry
    }

    #[test]
    fn hides_nested_virtualisation_and_counters_whatever_kvm_offers() {
        assert_eq!(seen(1, 0).ecx & (1 << 5), 0, "vmx");
        assert_eq!(seen(1, 0).ebx >> 16, 1 << 8 | 2, "APIC id and processor count");
        assert_eq!(seen(0x8000_0001, 0).ecx & (1 << 2), 0, "svm");
        assert_eq!(seen(0x8000_000a, 0).ebx, 0, "svm leaf");
        assert_eq!(seen(0xa, 0).eax, 0, "performance counters");
        assert_eq!(seen(0x8000_0022, 0).eax, 0, "AMD's newer performance counters");
        assert_eq!(seen(0x8000_001f, 0).eax, 0, "memory encryption");
        assert_eq!(seen(0x4000_0001, 0).eax, KVM_FEATURES);
    }

    #[test]
    fn names_the_apic_timer_that_kvm_has_and_does_not_name() {
        let mut silent = kvm_cpuid_entry2 { function: 1, ..kvm_cpuid_entry2::default() };
        normalise(&mut silent, 0, 1);
        assert_eq!((silent.ecx, silent.edx), (1 << 24 | 1 << 31, 0), "TSC deadline; hypervisor");
        let mut silent = kvm_cpuid_entry2 { function: 6, ..kvm_cpuid_entry2::default() };
        normalise(&mut silent, 0, 1);
        assert_eq!(silent.eax, 1 << 2, "runs in every idle state");
        let power = seen(6, 0);
        assert_eq!((power.eax, power.ebx, power.ecx, power.edx), (1 << 2, 0, 0, 0), "only that");
    }

    #[test]
    fn shows_no_half_of_a_feature_whose_registers_or_states_are_kept_back() {
        let (features, more) = (seen(7, 0), seen(7, 1));
        assert_eq!(features.ebx & (1 << 2 | 1 << 25), 0, "SGX, processor trace");
        assert_eq!(features.ecx & (1 << 5 | 1 << 30), 0, "WAITPKG, SGX's launch control");
        assert_eq!(features.edx & (1 << 19 | 1 << 22 | 1 << 24 | 1 << 25), 0, "LBR, AMX");
        assert_ne!(features.edx & (1 << 26 | 1 << 29), 0, "SPEC_CTRL, ARCH_CAPABILITIES stay");
        assert_eq!((more.eax & (1 << 17 | 1 << 21), more.edx & 1 << 8), (0, 0), "FRED, AMX");
        for (function, index) in [(0xd, 17), (0xd, 18), (0x1d, 0), (0x1d, 1), (0x1e, 0)] {
            assert_eq!(seen(function, index).eax, 0, "{function:x}.{index}");
        }
        assert_eq!(seen(0xd, 1).eax & 1 << 4, 0, "XFD");

        // As Linux 6.1 offers it on a processor with AMX to a process that has not asked for it.
        let state = |index, eax, ebx, ecx| kvm_cpuid_entry2 {
            function: 0xd,
            index,
            eax,
            ebx,
            ecx,
            ..kvm_cpuid_entry2::default()
        };
        let mut table = [
            state(0, 0x2_02e7, 2816, 2816),
            state(1, 0x1f, 2568, 0x1800),
            state(2, 256, 576, 0),
            state(9, 8, 2688, 0),
            state(11, 16, 0, 1),
            state(17, 64, 2752, 2),
        ];
        for entry in &mut table {
            normalise(entry, 0, 1);
        }
        fit_xstate(&mut table);
        assert_eq!((table[0].eax, table[0].ecx), (0x2e7, 2696), "up to protection keys");
        assert_eq!(table[1].eax, 0xf);
    }

    #[test]
    fn shows_the_guests_topology_and_not_the_hosts() {
        assert_eq!(seen(1, 0).edx & 1 << 28, 1 << 28, "several processors");
        let mut alone = offered(1, 0);
        normalise(&mut alone, 0, 1);
        assert_eq!(alone.edx & 1 << 28, 0, "one");
        for (index, wanted) in [(0, (0, 1, 0x100, 1)), (1, (8, 2, 0x201, 1)), (2, (0, 0, 2, 1))] {
            let level = seen(0xb, index);
            assert_eq!((level.eax, level.ebx, level.ecx, level.edx), wanted);
        }
        // Unified caches that KVM says eight processors of the host share.
        for (function, cores) in [(4, 1 << 26), (0x8000_001d, 0)] {
            let shared = |level: u32| {
                let eax = 7 << 14 | level << 5 | 3;
                let mut entry = kvm_cpuid_entry2 { function, eax, ..kvm_cpuid_entry2::default() };
                normalise(&mut entry, 0, 2);
                entry.eax
            };
            assert_eq!(shared(2), 2 << 5 | 3 | cores, "its own");
            assert_eq!(shared(3), 1 << 14 | 3 << 5 | 3 | cores, "everybody's");
        }
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: /dev/kvm cannot be opened");
            return;
        };
        let table = template(&kvm, 3, 4).unwrap();
        let levels = table.as_slice().iter().filter(|entry| entry.function == 0xb);
        let levels: Vec<_> = levels.map(|entry| (entry.index, entry.ebx, entry.edx)).collect();
        assert_eq!(levels, [(0, 1, 3), (1, 4, 3), (2, 0, 3)]);
    }
}
