//! Taking a processor's state out of KVM and putting it back.
//!
//! The order matters, and is Firecracker's (README.md has both side by side). Out: the MP state first, since asking for it
//! has KVM take events that are pending; the events last, since the other questions may change them. Back: CPUID first
//! (what follows is checked against it), then the TSC's frequency; segment registers, which carry the APIC's mode, before
//! the local APIC; the local APIC before the MSRs, since KVM drops a TSC deadline while the APIC's timer is not in
//! deadline mode, and a guest without ticks would then sleep for ever; the deadline after the TSC it is counted in;
//! events last, since setting registers clears pending exceptions.

use casemate_wire::control::Reason;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::failure::{Failure, failure};
use crate::msr::is_listed;
use crate::state::VcpuState;
use crate::xsave_unsafe::set_xsave;

const MSR_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`; restored last of the MSRs.
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// Reads the whole state of a processor that is not running.
///
/// # Errors
/// `KVM` naming the call that was refused.
pub fn save(kvm: &Kvm, vcpu: &VcpuFd) -> Result<VcpuState, Failure> {
    let mp_state = vcpu.get_mp_state().map_err(|error| refuse("MP state", error))?;
    let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(|error| refuse("CPUID", error))?;
    Ok(VcpuState {
        // What KVM does not fill of the room it is given stays zero.
        cpuid: cpuid
            .as_slice()
            .iter()
            .copied()
            .filter(|entry| entry.function | entry.eax != 0)
            .collect(),
        // A host that does not say leaves the frequency alone on restore too.
        tsc_khz: vcpu.get_tsc_khz().unwrap_or(0),
        mp_state,
        regs: vcpu.get_regs().map_err(|error| refuse("registers", error))?,
        sregs: vcpu.get_sregs().map_err(|error| refuse("segment registers", error))?,
        xsave: vcpu.get_xsave().map_err(|error| refuse("XSAVE area", error))?,
        xcrs: vcpu.get_xcrs().map_err(|error| refuse("XCRs", error))?,
        debug: vcpu.get_debug_regs().map_err(|error| refuse("debug registers", error))?,
        lapic: vcpu.get_lapic().map_err(|error| refuse("local APIC", error))?,
        msrs: save_msrs(kvm, vcpu)?,
        events: vcpu.get_vcpu_events().map_err(|error| refuse("events", error))?,
    })
}

/// Those a guest can have changed. KVM lists many more, Hyper-V's among them, for which it makes a context of its own as
/// soon as one is set; and some that a given processor may not have, so each is asked for alone and skipped when refused.
fn save_msrs(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, Failure> {
    let list = kvm.get_msr_index_list().map_err(|error| refuse("list of MSRs", error))?;
    let mut saved = Vec::new();
    for index in list.as_slice().iter().copied().filter(|index| is_listed(*index)) {
        let asked = [kvm_msr_entry { index, ..kvm_msr_entry::default() }];
        let mut one = Msrs::from_entries(&asked)
            .map_err(|error| failure(Reason::Kvm, format_args!("MSR list: {error:?}")))?;
        if vcpu.get_msrs(&mut one) == Ok(1) {
            saved.extend_from_slice(one.as_slice());
        }
    }
    order(&mut saved);
    Ok(saved)
}

/// The deadline last. One that is over has become 0 where KVM already counts the interrupt as under way, and Firecracker
/// has seen such an interrupt get lost: then the deadline is now, and at worst the guest has one interrupt too many.
fn order(msrs: &mut [kvm_msr_entry]) {
    let now = msrs.iter().find(|entry| entry.index == MSR_TSC).map_or(0, |entry| entry.data);
    msrs.iter_mut()
        .filter(|entry| entry.index == MSR_TSC_DEADLINE && entry.data == 0)
        .for_each(|entry| entry.data = now);
    msrs.sort_by_key(|entry| entry.index == MSR_TSC_DEADLINE);
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
    put("MP state", vcpu.set_mp_state(state.mp_state))?;
    put("registers", vcpu.set_regs(&state.regs))?;
    put("segment registers", vcpu.set_sregs(&state.sregs))?;
    put("XSAVE area", set_xsave(vcpu, &state.xsave))?;
    put("XCRs", vcpu.set_xcrs(&state.xcrs))?;
    put("debug registers", vcpu.set_debug_regs(&state.debug))?;
    put("local APIC", vcpu.set_lapic(&state.lapic))?;
    restore_msrs(vcpu, &state.msrs)?;
    put("events", vcpu.set_vcpu_events(&state.events))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cpuid;
    use crate::msr::switch_on_fast_strings;

    const fn msr(index: u32, data: u64) -> kvm_msr_entry {
        kvm_msr_entry { index, data, reserved: 0 }
    }

    fn ordered(mut msrs: Vec<kvm_msr_entry>) -> Vec<(u32, u64)> {
        order(&mut msrs);
        msrs.iter().map(|entry| (entry.index, entry.data)).collect()
    }

    #[test]
    fn a_processor_comes_back_as_it_was_with_no_register_that_its_guest_cannot_reach() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: /dev/kvm cannot be opened");
            return;
        };
        let processor = || {
            let vm = kvm.create_vm().unwrap();
            vm.create_irq_chip().unwrap();
            vm.create_vcpu(0).unwrap()
        };
        let first = processor();
        first.set_cpuid2(&cpuid::template(&kvm, 0, 1).unwrap()).unwrap();
        switch_on_fast_strings(&first).unwrap();
        let saved = save(&kvm, &first).unwrap();
        let value = |state: &VcpuState, index| {
            state.msrs.iter().find(|entry| entry.index == index).map(|entry| entry.data)
        };
        assert_eq!(value(&saved, 0x1a0).unwrap() & 1, 1, "fast strings");
        assert_eq!(saved.msrs.last().map(|entry| entry.index), Some(MSR_TSC_DEADLINE));
        assert_eq!(saved.msrs.iter().find(|entry| !is_listed(entry.index)), None);
        assert_eq!(saved.cpuid.iter().filter(|entry| entry.function == 0).count(), 1);

        let second = processor();
        restore(&second, &saved).unwrap();
        let again = save(&kvm, &second).unwrap();
        assert_eq!(again.cpuid, saved.cpuid);
        // Time goes on, and both APICs' timers are off.
        let still = |entry: &&kvm_msr_entry| ![MSR_TSC, MSR_TSC_DEADLINE].contains(&entry.index);
        for entry in saved.msrs.iter().filter(still) {
            assert_eq!(value(&again, entry.index), Some(entry.data), "{:#x}", entry.index);
        }
        assert_eq!((again.regs, again.mp_state), (saved.regs, saved.mp_state));
    }

    #[test]
    fn counts_a_deadline_in_the_tsc_that_is_set_before_it() {
        let (deadline, tsc, efer) = (msr(0x6e0, 900), msr(0x10, 700), msr(0xc000_0080, 1));
        let wanted = [(0x10, 700), (0xc000_0080, 1), (0x6e0, 900)];
        assert_eq!(ordered(vec![deadline, tsc, efer]), wanted);
    }

    #[test]
    fn loses_no_interrupt_whose_deadline_is_over() {
        assert_eq!(ordered(vec![msr(0x6e0, 0), msr(0x10, 700)]), [(0x10, 700), (0x6e0, 700)]);
        assert_eq!(ordered(vec![msr(0x6e0, 0)]), [(0x6e0, 0)], "no TSC, no now");
    }
}
