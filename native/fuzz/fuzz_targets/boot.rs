//! What a machine is booted from: a kernel image of any bytes, and what KVM says of the processor.
//!
//! An image is loaded whole or refused, and what the guest is told of its machine is there afterwards, whatever the
//! image has laid over it. A CPUID entry is changed in the same way however often, and never shows what is hidden.
#![no_main]

use std::io::Cursor;

use casemate_vmm::{cpuid, pvh};
use kvm_bindings::kvm_cpuid_entry2;
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY_BYTES: usize = 4 << 20;
const CMDLINE: &str = "console=ttyS0";
const CMDLINE_ADDRESS: u64 = 0x2_0000;
const START_INFO_ADDRESS: u64 = 0x6000;
const START_MAGIC: u32 = 0x336e_c578;
const ELF_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => kernel(rest),
        1 | 2 => kernel(&elf(rest)),
        _ => processor(rest),
    }
});

/// The input, taken from the front; zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn number(&mut self, width: usize) -> u64 {
        let mut raw = [0; 8];
        let (now, rest) = self.0.split_at(width.min(self.0.len()));
        raw[..now.len()].copy_from_slice(now);
        self.0 = rest;
        u64::from_le_bytes(raw)
    }

    /// Mostly something small; sometimes all 64 bits, or near their end.
    fn size(&mut self) -> u64 {
        match self.number(1) % 8 {
            0 => self.number(8),
            1 => u64::MAX - self.number(1),
            2 => MEMORY_BYTES as u64 - self.number(2),
            _ => self.number(2),
        }
    }
}

/// A PVH note whose entry is 1 MiB.
const NOTE: [u8; 20] = *b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\x10\0";

/// A good header, program headers of the input's choice, and what they mostly point to: a good note and the rest of
/// the input.
fn elf(data: &[u8]) -> Vec<u8> {
    let mut input = Input(data);
    let count = input.number(1) % 8;
    let mut image = vec![0; ELF_HEADER_BYTES];
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    image[24..32].copy_from_slice(&(0x10_0000 + input.number(2)).to_le_bytes());
    image[32..40].copy_from_slice(&(ELF_HEADER_BYTES as u64).to_le_bytes());
    image[54..56].copy_from_slice(&(PROGRAM_HEADER_BYTES as u16).to_le_bytes());
    image[56..58].copy_from_slice(&(count as u16).to_le_bytes());
    let content = ELF_HEADER_BYTES as u64 + count * PROGRAM_HEADER_BYTES as u64;
    for _ in 0..count {
        let kind = [1_u32, 4, 1, 6][input.number(1) as usize % 4];
        let offset = if input.number(1) % 4 == 0 { input.size() } else { content };
        let (address, in_file, in_memory) = (input.size(), input.size(), input.size());
        image.extend(kind.to_le_bytes());
        image.extend([0; 4]);
        for word in [offset, address, address, in_file, in_memory, 0] {
            image.extend(word.to_le_bytes());
        }
    }
    image.extend(NOTE);
    image.extend(input.0);
    image
}

fn kernel(image: &[u8]) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).expect("memory");
    if pvh::load(&memory, &mut Cursor::new(image), CMDLINE, MEMORY_BYTES as u64).is_err() {
        return;
    }
    let magic: u32 = memory.read_obj(GuestAddress(START_INFO_ADDRESS)).expect("inside memory");
    assert_eq!(magic, START_MAGIC);
    let mut words = [0xff; CMDLINE.len() + 1];
    memory.read_slice(&mut words, GuestAddress(CMDLINE_ADDRESS)).expect("inside memory");
    assert_eq!(words.split_last(), Some((&0, CMDLINE.as_bytes())));
}

fn processor(data: &[u8]) {
    let mut input = Input(data);
    let vcpus = (input.number(1) % 8 + 1) as u8;
    let id = input.number(1) as u8 % vcpus;
    let base = [0_u32, 0x4000_0000, 0x8000_0000, 0xc000_0000][input.number(1) as usize % 4];
    let offered = kvm_cpuid_entry2 {
        function: base + input.number(1) as u32 % 0x40,
        index: input.number(1) as u32,
        eax: input.number(4) as u32,
        ebx: input.number(4) as u32,
        ecx: input.number(4) as u32,
        edx: input.number(4) as u32,
        ..kvm_cpuid_entry2::default()
    };
    let mut shown = offered;
    cpuid::normalise(&mut shown, id, vcpus);
    let mut again = shown;
    cpuid::normalise(&mut again, id, vcpus);
    assert_eq!(again, shown);
    assert_eq!((shown.function, shown.index), (offered.function, offered.index));
    let registers = [shown.eax, shown.ebx, shown.ecx, shown.edx];
    match shown.function {
        1 => {
            assert_eq!(shown.ecx & 1 << 5, 0, "vmx");
            assert_eq!(shown.ecx >> 31, 1, "hypervisor");
            assert_eq!(shown.ebx >> 16, u32::from(id) << 8 | u32::from(vcpus));
        }
        0x8000_0001 => assert_eq!(shown.ecx & 1 << 2, 0, "svm"),
        // Counters, SGX, trace, SVM, instruction sampling.
        0xa | 0x12 | 0x14 | 0x8000_000a | 0x8000_001b => assert_eq!(registers, [0; 4]),
        0x4000_0001 => assert_eq!((shown.eax & !0x0100_0009, shown.edx), (0, 0)),
        _ => {}
    }
}
