//! The list as data, and a guest in ring 0 that tries what is not on it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use casemate_devices::Serial;
use kvm_ioctls::Kvm;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::board::{Board, PowerOff};
use crate::machine::event;
use crate::vcpu::{Ended, run};
use crate::{memory, memory_unsafe};

fn permits(ranges: &[Range], index: u32) -> bool {
    // As KVM looks: the first range that covers it decides.
    ranges.iter().find(|range| index.wrapping_sub(range.base) < range.count).is_some_and(|range| {
        let offset = index - range.base;
        range.bitmap[usize::try_from(offset / 8).unwrap()] >> (offset % 8) & 1 == 1
    })
}

#[test]
fn filters_by_the_list_and_fits_what_kvm_takes() {
    let (readable, writable) = (ranges(Access::Read), ranges(Access::Write));
    assert!(
        readable.len() + writable.len()
            <= usize::try_from(kvm_bindings::KVM_MSR_FILTER_MAX_RANGES).unwrap()
    );
    let listed = |index: u32, access: Access| {
        LIST.iter().any(|allow| {
            index.wrapping_sub(allow.first) < allow.count
                && [access, Access::Both].contains(&allow.access)
        })
    };
    let spans = [
        0..0x2000_u32,
        0x4b56_4c00..0x4b56_4f00,
        0xc000_0000..0xc000_1000,
        0xc001_0000..0xc001_2000,
    ];
    for index in spans.into_iter().flatten().chain([u32::MAX, 0x4000_0000]) {
        assert_eq!(permits(&readable, index), listed(index, Access::Read), "read {index:#x}");
        assert_eq!(permits(&writable, index), listed(index, Access::Write), "write {index:#x}");
    }
}

#[test]
fn lists_in_order_with_a_reason_and_never_the_x2apic() {
    for pair in LIST.windows(2) {
        assert!(pair[0].first + pair[0].count <= pair[1].first, "{:#x}", pair[1].first);
    }
    for allow in LIST {
        assert!(!allow.why.is_empty() && allow.count > 0);
        assert!(!(0x800..0x900).contains(&allow.first), "KVM does not filter these");
    }
}

#[test]
fn keeps_what_mitigates_and_refuses_what_tells_of_the_host() {
    let (readable, writable) = (ranges(Access::Read), ranges(Access::Write));
    for index in [0x48, 0x6e0, 0x4b56_4d01, 0xc000_0080] {
        assert!(permits(&readable, index) && permits(&writable, index), "{index:#x}");
    }
    assert!(permits(&writable, 0x49) && !permits(&readable, 0x49), "PRED_CMD is only written");
    assert!(permits(&readable, 0x10a) && !permits(&writable, 0x10a), "capabilities are only read");
    // Performance counters, RAPL energy, thermal sensors, last branches, VMX capabilities, Hyper-V's, SVM's.
    for index in
        [0xc1, 0x186, 0x38f, 0x611, 0x19c, 0x1c9, 0x480, 0x4000_0000, 0xc001_0114, 0xc001_0117]
    {
        assert!(!permits(&readable, index) && !permits(&writable, index), "{index:#x}");
    }
}

const CODE: u64 = 0x1000;
const FAULT_HANDLER: u64 = 0x2000;
const FAULTS: u64 = 0x3000;
/// Real mode's vector of general protection faults: offset, then segment.
const VECTOR_13: u64 = 13 * 4;
const RDMSR: [u8; 2] = [0x0f, 0x32];
const WRMSR: [u8; 2] = [0x0f, 0x30];

/// Counts the fault at `FAULTS` and goes on behind the instruction, which has two bytes:
/// push bp; mov bp,sp; add word [bp+2],2; pop bp; inc word [FAULTS]; iret
const HANDLER: [u8; 14] =
    [0x55, 0x89, 0xe5, 0x83, 0x46, 0x02, 0x02, 0x5d, 0xff, 0x06, 0x00, 0x30, 0xcf, 0x90];
/// The keyboard controller's reset line: mov al,0xfe; out 0x64,al
const RESET: [u8; 4] = [0xb0, 0xfe, 0xe6, 0x64];

/// One try after the other: mov ecx,index; xor eax,eax; xor edx,edx; the instruction.
fn attack(tries: &[(u32, [u8; 2])]) -> Vec<u8> {
    let each = tries.iter().flat_map(|(index, instruction)| {
        let load = [[0x66, 0xb9].as_slice(), &index.to_le_bytes()].concat();
        [load.as_slice(), &[0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2], instruction].concat()
    });
    each.chain(RESET).collect()
}

/// Runs the tries in real mode, ring 0; how often they faulted, and the board that heard of them.
fn faults(kvm: &Kvm, tries: &[(u32, [u8; 2])]) -> (u16, Arc<Board>) {
    let memory = memory::allocate(1).unwrap();
    let vm = kvm.create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    deny_by_default(&vm).unwrap();
    memory_unsafe::register(&vm, &memory).unwrap();
    memory.write_slice(&attack(tries), GuestAddress(CODE)).unwrap();
    memory.write_slice(&HANDLER, GuestAddress(FAULT_HANDLER)).unwrap();
    memory.write_obj(u32::try_from(FAULT_HANDLER).unwrap(), GuestAddress(VECTOR_13)).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    let mut special = vcpu.get_sregs().unwrap();
    for segment in [&mut special.cs, &mut special.ds, &mut special.ss] {
        (segment.base, segment.selector) = (0, 0);
    }
    vcpu.set_sregs(&special).unwrap();
    let mut registers = vcpu.get_regs().unwrap();
    (registers.rip, registers.rsp, registers.rflags) = (CODE, 0x8000, 2);
    vcpu.set_regs(&registers).unwrap();
    let board = Arc::new(Board::new(Vec::new(), Serial::new(0), event().unwrap()));
    let ended = run(&mut vcpu, &board, &AtomicBool::new(false));
    assert_eq!(ended, Ended::Off(PowerOff::Reset), "it came to its end");
    (memory.read_obj(GuestAddress(FAULTS)).unwrap(), board)
}

#[test]
fn a_guest_reaches_what_is_listed_and_nothing_else() {
    let Ok(kvm) = Kvm::new() else {
        eprintln!("skipped: /dev/kvm cannot be opened");
        return;
    };
    // TSC, APIC base, PAT, EFER.
    let listed = [(0x10, RDMSR), (0x1b, RDMSR), (0x277, RDMSR), (0xc000_0080, RDMSR)];
    let (count, board) = faults(&kvm, &listed);
    assert_eq!((count, board.refused_msrs().0), (0, 0));
    // KVM emulates all of these: feature control, platform info, features, microcode's update, its own steal time,
    // Hyper-V's guest id; and a register that may be read is not therefore written.
    let refused = [
        (0x3a, RDMSR),
        (0xce, RDMSR),
        (0x140, WRMSR),
        (0x79, WRMSR),
        (0x4b56_4d03, WRMSR),
        (0x4000_0000, WRMSR),
        (0xfe, WRMSR),
        (0xc001_001a, WRMSR),
    ];
    let (count, board) = faults(&kvm, &refused);
    assert_eq!(count, 8, "each is a general protection fault in the guest");
    assert_eq!(board.refused_msrs(), (8, 0xc001_001a), "and an exit that was counted");
}
