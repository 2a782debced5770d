//! Booting an ELF `vmlinux` through its PVH entry (Xen `docs/misc/pvh`): 32-bit protected mode, paging off, EBX
//! pointing at the start-info structure. No real mode, no decompression, no firmware.

use std::io::{Read, Seek};

use casemate_wire::control::Reason;
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, ReadVolatile};

use crate::failure::{Failure, failure};
use crate::memory;
use crate::mptable::MPTABLE_ADDRESS;

const GDT_ADDRESS: u64 = 0x500;
const START_INFO_ADDRESS: u64 = 0x6000;
const MEMORY_MAP_ADDRESS: u64 = 0x7000;
const CMDLINE_ADDRESS: u64 = 0x2_0000;
const HIGH_MEMORY_ADDRESS: u64 = 0x10_0000;
const START_MAGIC: u32 = 0x336e_c578;
const MEMORY_TYPE_RAM: u32 = 1;
/// x86's `COMMAND_LINE_SIZE`: the kernel cuts what is longer, silently, so it is refused here.
const CMDLINE_LENGTH_MAX: usize = 2_047;

/// Loads `kernel` and everything it reads at its entry; returns the address of that entry.
///
/// # Errors
/// `KERNEL_LOAD` when the image is no ELF with a PVH note, does not fit, or the command line is too long.
pub fn load(
    memory: &GuestMemoryMmap,
    kernel: &mut (impl Read + ReadVolatile + Seek),
    cmdline: &str,
    memory_bytes: u64,
) -> Result<u64, Failure> {
    let refuse = |text: std::fmt::Arguments<'_>| failure(Reason::KernelLoad, text);
    let loaded = Elf::load(memory, None, kernel, Some(GuestAddress(HIGH_MEMORY_ADDRESS)))
        .map_err(|error| refuse(format_args!("kernel image: {error}")))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(refuse(format_args!("the kernel has no PVH entry (CONFIG_PVH)")));
    };
    if cmdline.len() > CMDLINE_LENGTH_MAX {
        return Err(refuse(format_args!(
            "the command line has more than {CMDLINE_LENGTH_MAX} bytes"
        )));
    }
    write_start_info(memory, cmdline, memory_bytes)
        .map_err(|error| refuse(format_args!("start info: {error}")))?;
    Ok(entry.0)
}

fn write_start_info(
    memory: &GuestMemoryMmap,
    cmdline: &str,
    memory_bytes: u64,
) -> Result<(), vm_memory::GuestMemoryError> {
    let ram = |addr, end: u64| hvm_memmap_table_entry {
        addr,
        size: end.saturating_sub(addr),
        type_: MEMORY_TYPE_RAM,
        reserved: 0,
    };
    // The first part of memory without what lies between the MP table and 1 MiB, then the second one, if there is one.
    let mut map = vec![ram(0, MPTABLE_ADDRESS)];
    map.extend(
        memory::parts(HIGH_MEMORY_ADDRESS, memory_bytes)
            .map(|part| ram(part.address, part.address.saturating_add(part.length))),
    );
    let info = hvm_start_info {
        magic: START_MAGIC,
        version: 1,
        cmdline_paddr: CMDLINE_ADDRESS,
        memmap_paddr: MEMORY_MAP_ADDRESS,
        memmap_entries: u32::try_from(map.len()).unwrap_or(0),
        ..hvm_start_info::default()
    };
    let mut at = MEMORY_MAP_ADDRESS;
    for entry in map {
        memory.write_obj(entry, GuestAddress(at))?;
        at = at.saturating_add(24);
    }
    memory.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE_ADDRESS))?;
    let end = CMDLINE_ADDRESS.saturating_add(u64::try_from(cmdline.len()).unwrap_or(u64::MAX));
    memory.write_obj(0_u8, GuestAddress(end))?;
    memory.write_obj(info, GuestAddress(START_INFO_ADDRESS))?;
    // Null, unused, code, data, task state: what the PVH boot ABI asks for.
    let descriptors: [u64; 5] =
        [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];
    memory.write_obj(descriptors, GuestAddress(GDT_ADDRESS))
}

/// Puts the first processor at `entry` in the state the PVH boot ABI asks for.
///
/// # Errors
/// `KVM` when KVM refuses a register set.
pub fn set_registers(vcpu: &VcpuFd, entry: u64) -> Result<(), Failure> {
    let refuse = |error| failure(Reason::Kvm, format_args!("boot registers: {error}"));
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 11,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { type_: 3, selector: 0x18, ..code };
    let task = kvm_segment {
        limit: 0x67,
        selector: 0x20,
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    let mut special = vcpu.get_sregs().map_err(refuse)?;
    special.cs = code;
    (special.ds, special.es, special.fs) = (data, data, data);
    (special.gs, special.ss) = (data, data);
    special.tr = task;
    special.cr0 = 0x11;
    special.cr4 = 0;
    special.gdt = kvm_dtable { base: GDT_ADDRESS, limit: 39, padding: [0; 3] };
    vcpu.set_sregs(&special).map_err(refuse)?;
    let general =
        kvm_regs { rip: entry, rbx: START_INFO_ADDRESS, rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&general).map_err(refuse)
}
