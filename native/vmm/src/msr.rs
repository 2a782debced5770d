//! Model-specific registers: refused unless listed, and what is refused is counted.
//!
//! KVM emulates hundreds of MSRs, each a piece of kernel code that a guest reaches from its ring 0. The list below is
//! what a 64-bit Linux needs with the processor that `cpuid` shows it; everything else leaves KVM at once, comes here
//! as an exit, and becomes a general protection fault in the guest, as on a processor that lacks the register.
//! What mitigates speculation stays: without `SPEC_CTRL` and its like a guest could not protect itself.
//!
//! One kind is beyond the filter (Linux, Documentation/virt/kvm/api.rst, `KVM_X86_SET_MSR_FILTER`): registers 0x800 to
//! 0x8ff of an x2APIC. They are the same local APIC that every guest reaches through its page in memory anyway.

use casemate_wire::control::Reason;
use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, Msrs, kvm_enable_cap, kvm_msr_entry};
use kvm_ioctls::{
    MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd,
};

use crate::failure::{Failure, failure};

/// What a guest may do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Both,
}

/// `count` registers from `first` on.
#[derive(Clone, Copy, Debug)]
struct Allow {
    first: u32,
    count: u32,
    access: Access,
    /// Why the guest needs it.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people and by the tests"))]
    why: &'static str,
}

const fn both(first: u32, count: u32, why: &'static str) -> Allow {
    Allow { first, count, access: Access::Both, why }
}

const fn read(first: u32, count: u32, why: &'static str) -> Allow {
    Allow { first, count, access: Access::Read, why }
}

const fn write(first: u32, count: u32, why: &'static str) -> Allow {
    Allow { first, count, access: Access::Write, why }
}

/// In ascending order, without overlaps.
const LIST: &[Allow] = &[
    both(0x10, 1, "TSC"),
    both(0x11, 2, "kvmclock's first numbers: wall clock, system time"),
    both(0x1b, 1, "APIC base"),
    both(0x3b, 1, "TSC_ADJUST"),
    both(0x48, 1, "SPEC_CTRL: IBRS, STIBP, SSBD"),
    write(0x49, 1, "PRED_CMD: IBPB"),
    both(
        0x8b,
        1,
        "microcode's revision: written 0 and read by the kernel's check of bad revisions",
    ),
    read(0xfe, 1, "MTRRcap"),
    read(0x10a, 1, "ARCH_CAPABILITIES: which mitigations are not needed"),
    write(0x10b, 1, "FLUSH_CMD: L1 data cache flush"),
    both(0x122, 1, "TSX_CTRL: TSX off against TAA"),
    both(0x174, 3, "SYSENTER of 32-bit programs"),
    both(0x179, 3, "machine checks: capabilities, status, control"),
    both(0x1a0, 1, "MISC_ENABLE: string instructions, execute disable"),
    both(0x1d9, 1, "DEBUGCTL: branch single-stepping for debuggers"),
    both(0x200, 16, "variable MTRRs"),
    both(0x250, 1, "fixed MTRR of 64 KiB"),
    both(0x258, 2, "fixed MTRRs of 16 KiB"),
    both(0x268, 8, "fixed MTRRs of 4 KiB"),
    both(0x277, 1, "PAT"),
    both(0x280, 32, "machine check banks: corrected-error thresholds"),
    both(0x2ff, 1, "default MTRR"),
    both(0x400, 128, "machine check banks"),
    both(0x6a0, 1, "control-flow enforcement in user mode, where KVM shows it"),
    both(0x6a2, 1, "control-flow enforcement in the kernel"),
    both(0x6a4, 5, "shadow stack pointers"),
    both(0x6e0, 1, "TSC_DEADLINE"),
    both(0xda0, 1, "XSS"),
    both(0x4b56_4d00, 2, "kvmclock: wall clock, system time"),
    both(0xc000_0080, 5, "EFER, STAR, LSTAR, CSTAR, SFMASK"),
    both(0xc000_0100, 4, "FS, GS and kernel GS base, TSC_AUX"),
    read(0xc001_0010, 1, "AMD SYSCFG: read before MTRRs are trusted"),
    both(0xc001_0015, 1, "AMD HWCR"),
    read(0xc001_001a, 1, "AMD TOP_MEM"),
    read(0xc001_001d, 1, "AMD TOP_MEM2"),
    both(0xc001_011f, 1, "AMD VIRT_SPEC_CTRL: SSBD"),
    read(0xc001_0140, 2, "AMD OSVW: which errata are worked around"),
    both(0xc001_1029, 1, "AMD DE_CFG: LFENCE that serialises"),
];

/// `IA32_MISC_ENABLE` and its bit for fast string instructions.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;

/// Registers that one range of the filter may span: KVM takes bitmaps of up to 0x600 bytes.
const SPAN_MAX: u32 = 0x600 * 8;

/// One range of the filter: a bit for each register that may be read, or written.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    base: u32,
    count: u32,
    bitmap: Vec<u8>,
}

/// The ranges for one kind of access: registers that are near each other share one.
fn ranges(access: Access) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for allow in LIST.iter().filter(|allow| [access, Access::Both].contains(&allow.access)) {
        for index in (allow.first..).zip(0..allow.count).map(|(index, _)| index) {
            let fits = |range: &&mut Range| index.wrapping_sub(range.base) < SPAN_MAX;
            match ranges.last_mut().filter(fits) {
                Some(range) => range.permit(index),
                None => {
                    ranges.push(Range { base: index, count: 1, bitmap: vec![1] });
                }
            }
        }
    }
    ranges
}

impl Range {
    fn permit(&mut self, index: u32) {
        let offset = index.wrapping_sub(self.base);
        self.count = offset.saturating_add(1);
        let byte = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        self.bitmap.resize(byte.saturating_add(1), 0);
        if let Some(bits) = self.bitmap.get_mut(byte) {
            *bits |= 1 << (offset % 8);
        }
    }

    fn as_filter(&self, flags: MsrFilterRangeFlags) -> MsrFilterRange<'_> {
        MsrFilterRange { flags, base: self.base, msr_count: self.count, bitmap: &self.bitmap }
    }
}

/// Refuses every register that is not listed, and has the refused accesses come out as exits.
///
/// # Errors
/// `KVM` on a kernel that cannot filter them (before Linux 5.10).
pub fn deny_by_default(vm: &VmFd) -> Result<(), Failure> {
    let refuse = |what: &str, error: kvm_ioctls::Error| {
        failure(Reason::Kvm, format_args!("{what}: {error}; Linux 5.10 is the first that can"))
    };
    let mut exits = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..kvm_enable_cap::default() };
    exits.args[0] = u64::from(MsrExitReason::Filter.bits());
    vm.enable_cap(&exits).map_err(|error| refuse("exits of refused MSRs", error))?;
    let (readable, writable) = (ranges(Access::Read), ranges(Access::Write));
    let filter: Vec<_> = readable
        .iter()
        .map(|range| range.as_filter(MsrFilterRangeFlags::READ))
        .chain(writable.iter().map(|range| range.as_filter(MsrFilterRangeFlags::WRITE)))
        .collect();
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &filter)
        .map_err(|error| refuse("filter of MSRs", error))
}

/// Whether a guest can have changed the register or seen it: all others are as KVM makes them.
pub fn is_listed(index: u32) -> bool {
    LIST.iter().any(|allow| index.wrapping_sub(allow.first) < allow.count)
}

/// Has a processor that was just made say what every firmware says: string instructions are fast. KVM begins with the
/// bit clear, and Linux then does without `rep movsb` on Intel (`early_init_intel`).
///
/// # Errors
/// `KVM` when the register is refused.
pub fn switch_on_fast_strings(vcpu: &VcpuFd) -> Result<(), Failure> {
    let refuse = || failure(Reason::Kvm, format_args!("MSR {MISC_ENABLE:#x} was refused"));
    let asked = [kvm_msr_entry { index: MISC_ENABLE, ..kvm_msr_entry::default() }];
    let mut one = Msrs::from_entries(&asked).map_err(|_| refuse())?;
    if vcpu.get_msrs(&mut one) != Ok(1) {
        return Err(refuse());
    }
    one.as_mut_slice().iter_mut().for_each(|entry| entry.data |= FAST_STRINGS);
    if vcpu.set_msrs(&one) == Ok(1) { Ok(()) } else { Err(refuse()) }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]
#[path = "msr_tests.rs"]
mod tests;
