//! Taking a processor's state out of KVM and putting it back.
//!
//! The order matters. CPUID first (what follows is checked against it), then the TSC's frequency; segment registers, which
//! carry the APIC's mode, before the local APIC; the local APIC before the MSRs, since KVM drops a TSC deadline while the
//! APIC's timer is not in deadline mode, and a guest without ticks would then sleep for ever; the deadline after the
//! TSC it is counted in; events and MP state at the end.

use casemate_wire::control::Reason;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::failure::{Failure, failure};
use crate::state::VcpuState;
use crate::xsave_unsafe::set_xsave;

/// `IA32_TSC_DEADLINE`; restored last of the MSRs.
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// Reads the whole state of a processor that is not running.
///
/// # Errors
/// `KVM` naming the call that was refused.
pub fn save(kvm: &Kvm, vcpu: &VcpuFd) -> Result<VcpuState, Failure> {
    let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(|error| refuse("CPUID", error))?;
    Ok(VcpuState {
        cpuid: cpuid.as_slice().to_vec(),
        // A host that does not say leaves the frequency alone on restore too.
        tsc_khz: vcpu.get_tsc_khz().unwrap_or(0),
        mp_state: vcpu.get_mp_state().map_err(|error| refuse("MP state", error))?,
        regs: vcpu.get_regs().map_err(|error| refuse("registers", error))?,
        sregs: vcpu.get_sregs().map_err(|error| refuse("segment registers", error))?,
        xsave: vcpu.get_xsave().map_err(|error| refuse("XSAVE area", error))?,
        xcrs: vcpu.get_xcrs().map_err(|error| refuse("XCRs", error))?,
        lapic: vcpu.get_lapic().map_err(|error| refuse("local APIC", error))?,
        events: vcpu.get_vcpu_events().map_err(|error| refuse("events", error))?,
        debug: vcpu.get_debug_regs().map_err(|error| refuse("debug registers", error))?,
        msrs: save_msrs(kvm, vcpu)?,
    })
}

/// KVM lists MSRs that a given processor may not have, so each is asked for alone and skipped when refused.
fn save_msrs(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, Failure> {
    let list = kvm.get_msr_index_list().map_err(|error| refuse("list of MSRs", error))?;
    let mut indices = list.as_slice().to_vec();
    indices.sort_by_key(|index| *index == MSR_TSC_DEADLINE);
    let mut saved = Vec::new();
    for index in indices {
        let asked = [kvm_msr_entry { index, ..kvm_msr_entry::default() }];
        let mut one = Msrs::from_entries(&asked)
            .map_err(|error| failure(Reason::Kvm, format_args!("MSR list: {error:?}")))?;
        if vcpu.get_msrs(&mut one) == Ok(1) {
            saved.extend_from_slice(one.as_slice());
        }
    }
    Ok(saved)
}

/// Puts `state` into a processor that never ran.
///
/// # Errors
/// `TEMPLATE_STATE` naming what was refused, an MSR by its number.
pub fn restore(vcpu: &VcpuFd, state: &VcpuState) -> Result<(), Failure> {
    let put = |what: &'static str, result: Result<(), kvm_ioctls::Error>| {
        result.map_err(|error| not_restored(format_args!("{what}: {error}")))
    };
    let cpuid = CpuId::from_entries(&state.cpuid)
        .map_err(|error| not_restored(format_args!("CPUID: {error:?}")))?;
    put("CPUID", vcpu.set_cpuid2(&cpuid))?;
    if state.tsc_khz != 0 && vcpu.get_tsc_khz() != Ok(state.tsc_khz) {
        put("TSC frequency", vcpu.set_tsc_khz(state.tsc_khz))?;
    }
    put("segment registers", vcpu.set_sregs(&state.sregs))?;
    put("XCRs", vcpu.set_xcrs(&state.xcrs))?;
    put("XSAVE area", set_xsave(vcpu, &state.xsave))?;
    put("registers", vcpu.set_regs(&state.regs))?;
    put("local APIC", vcpu.set_lapic(&state.lapic))?;
    restore_msrs(vcpu, &state.msrs)?;
    put("events", vcpu.set_vcpu_events(&state.events))?;
    put("MP state", vcpu.set_mp_state(state.mp_state))?;
    put("debug registers", vcpu.set_debug_regs(&state.debug))
}

/// All in one call; KVM stops at the first it refuses and says how many it took.
fn restore_msrs(vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), Failure> {
    let list =
        Msrs::from_entries(msrs).map_err(|error| not_restored(format_args!("MSRs: {error:?}")))?;
    let taken =
        vcpu.set_msrs(&list).map_err(|error| not_restored(format_args!("MSRs: {error}")))?;
    match msrs.get(taken) {
        None => Ok(()),
        Some(refused) => Err(not_restored(format_args!("MSR {:#x} was refused", refused.index))),
    }
}

fn refuse(what: &str, error: kvm_ioctls::Error) -> Failure {
    failure(Reason::Kvm, format_args!("{what}: {error}"))
}

fn not_restored(text: std::fmt::Arguments<'_>) -> Failure {
    failure(Reason::TemplateState, text)
}
