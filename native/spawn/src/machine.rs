//! Machines spawn knows: the kernel's command line for each class of KVM, and the template catalogue.

use casemate_ticket::spec::KvmClass;

/// Shapes a template may have: virtual CPUs, MiB of memory.
pub const CATALOGUE: [(u32, u32); 2] = [(1, 128), (2, 256)];

/// For every kernel. The random generator is not to trust the CPU's instructions alone: after a
/// restore the host's entropy is what makes one guest different from the next.
const COMMON: &str = "console=ttyS0 reboot=t panic=-1 random.trust_cpu=off quiet \
    root=/dev/vda ro rootfstype=erofs init=/init";

/// For a software KVM, whose emulator lacks instructions and state that the host's CPUID shows:
/// AVX among them, because it saves no upper register halves at a task switch. Without ERMS and FSRM the kernel
/// clears and copies eight bytes a step, not one, and each step is interpreted. Its guests read the host's own TSC, which
/// no restore sets back: with that for a clock a guest sleeps through the age of its template, and wakes to all timers at
/// once. kvmclock goes on from where the template stood.
const SOFTWARE: &str = "mitigations=off noxsave \
    clearcpuid=erms,fsrm,cx16,popcnt,fsgsbase,invpcid,pcid,smap,smep,umip,rdrand,rdseed,rdtscp \
    no_timer_check lpj=4000000 clocksource=kvm-clock \
    GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX_Fast_Unaligned_Load";

/// The command line of every VM of a host with this class. The VMM adds what names its devices.
pub fn cmdline(class: KvmClass) -> String {
    match class {
        KvmClass::Hardware => COMMON.to_owned(),
        KvmClass::Software => format!("{COMMON} {SOFTWARE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_one_line_of_words() {
        let software = cmdline(KvmClass::Software);
        assert!(!software.contains("  ") && software.is_ascii() && software.len() < 1024);
        assert!(software.ends_with("-AVX_Fast_Unaligned_Load"));
        assert!(cmdline(KvmClass::Hardware).ends_with("init=/init"));
        assert!(!cmdline(KvmClass::Hardware).contains("mitigations=off"));
    }
}
