//! The multiprocessor table (Intel MP specification 1.4): how a kernel without ACPI learns of its processors and of
//! the I/O APIC. It stands at the start of the last kibibyte below 640 KiB, where the specification says to look.

use casemate_wire::control::Reason;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::failure::{Failure, failure};

/// Guest address of the floating pointer; the memory map given to the kernel ends RAM here.
pub const MPTABLE_ADDRESS: u64 = 0x9_fc00;

const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
const POINTER_LENGTH: u64 = 16;
const ISA_INTERRUPTS: u8 = 16;
const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTERNAL: u8 = 3;

/// Writes the table for `vcpus` processors (1 to 8).
///
/// # Errors
/// `KERNEL_LOAD` when guest memory has no room for it.
pub fn write(memory: &GuestMemoryMmap, vcpus: u8) -> Result<(), Failure> {
    let refuse = |error| failure(Reason::KernelLoad, format_args!("MP table: {error}"));
    let table_address = MPTABLE_ADDRESS.saturating_add(POINTER_LENGTH);
    memory
        .write_slice(&floating_pointer(table_address), GuestAddress(MPTABLE_ADDRESS))
        .map_err(refuse)?;
    memory.write_slice(&table(vcpus), GuestAddress(table_address)).map_err(refuse)
}

fn floating_pointer(table_address: u64) -> Vec<u8> {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend(u32::try_from(table_address).unwrap_or_default().to_le_bytes());
    // Length in 16-byte units, specification revision 1.4, checksum, five feature bytes: a table is present.
    pointer.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut pointer, 10);
    pointer
}

fn table(vcpus: u8) -> Vec<u8> {
    let io_apic_id = vcpus;
    let mut entries = Vec::new();
    let mut count: u16 = 0;
    let mut push = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count = count.saturating_add(1);
    };
    for id in 0..vcpus {
        push(&processor(id));
    }
    push(&[ENTRY_BUS, 0, b'I', b'S', b'A', b' ', b' ', b' ']);
    let [a, b, c, d] = IO_APIC.to_le_bytes();
    push(&[ENTRY_IO_APIC, io_apic_id, 0x11, 1, a, b, c, d]);
    for line in 0..ISA_INTERRUPTS {
        push(&[ENTRY_INTERRUPT, 0, 0, 0, 0, line, io_apic_id, line]);
    }
    push(&[ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTERNAL, 0, 0, 0, 0, 0, 0]);
    push(&[ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, 0, 0, 0, 0xff, 1]);
    let mut table = b"PCMP".to_vec();
    let length = u16::try_from(entries.len()).unwrap_or(u16::MAX).saturating_add(44);
    table.extend(length.to_le_bytes());
    table.extend([4, 0]);
    table.extend(b"CASEMATE000000000000");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    set_checksum(&mut table, 7);
    table
}

/// One processor: enabled, the first one the bootstrap processor; family 6, with APIC and FPU.
fn processor(id: u8) -> Vec<u8> {
    let flags = if id == 0 { 3 } else { 1 };
    let mut entry = vec![ENTRY_PROCESSOR, id, 0x14, flags];
    entry.extend(0x600_u32.to_le_bytes());
    entry.extend(0x201_u32.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

/// Sets the byte at `at` so that all bytes add up to zero.
fn set_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(byte) = bytes.get_mut(at) {
        *byte = byte.wrapping_sub(sum);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn pointer_and_table_add_up_to_zero_and_say_their_own_length() {
        for vcpus in 1..=8 {
            let table = table(vcpus);
            let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum, 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            assert_eq!(
                usize::from(u16::from_le_bytes([table[34], table[35]])),
                usize::from(vcpus) + 1 + 1 + 16 + 2
            );
            assert!(table.len() < 1024 - 16, "the table leaves its kibibyte");
        }
        let pointer = floating_pointer(0x9_fc10);
        assert_eq!(pointer.len(), 16);
        assert_eq!(pointer.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
