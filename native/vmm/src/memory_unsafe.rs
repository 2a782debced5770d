//! Guest memory as KVM and the kernel's memory manager see it: the calls that no library makes safe.

use std::os::fd::{AsFd, AsRawFd};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::failure::{Failure, failure};
use crate::memory::Part;
use casemate_wire::control::Reason;

/// Tells KVM where the guest's memory is: one slot for each region.
///
/// # Errors
/// `KVM` when the region cannot be found or KVM refuses it.
pub fn register(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Failure> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: u64::try_from(region.as_ptr().expose_provenance()).map_err(|_| {
                failure(Reason::Kvm, format_args!("guest memory is outside the address space"))
            })?,
        };
        // SAFETY: the mapping belongs to `memory`, which lives as long as the process (the VM is never taken apart).
        unsafe { vm.set_user_memory_region(region) }.map_err(|error| {
            failure(Reason::Kvm, format_args!("set_user_memory_region: {error}"))
        })?;
    }
    Ok(())
}

/// Lays the bytes of `file` that are `part` over the guest memory there, private to this process.
///
/// Only extents that hold data are laid: a private mapping of a memfd's hole would cost its page twice, once in
/// the memfd and once as the copy.
///
/// # Errors
/// `TEMPLATE_STATE` when the range is not inside the guest's memory or the kernel refuses the mapping.
pub fn overlay(memory: &GuestMemoryMmap, file: impl AsFd, part: Part) -> Result<(), Failure> {
    let refuse = |why: std::fmt::Arguments<'_>| failure(Reason::TemplateState, why);
    let length = usize::try_from(part.length)
        .map_err(|_| refuse(format_args!("extent length does not fit")))?;
    let target = memory
        .get_slice(GuestAddress(part.address), length)
        .map_err(|error| refuse(format_args!("extent outside guest memory: {error}")))?;
    let file_offset = libc::off_t::try_from(part.offset)
        .map_err(|_| refuse(format_args!("extent offset does not fit a file offset")))?;
    let target = target.ptr_guard_mut();
    // SAFETY: the target range is inside one mapping that this process owns, checked by `get_slice`; nothing holds a
    // reference into it; MAP_FIXED replaces exactly these pages.
    let mapped = unsafe {
        libc::mmap(
            target.as_ptr().cast(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_fd().as_raw_fd(),
            file_offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        let error = std::io::Error::last_os_error();
        return Err(refuse(format_args!("mmap of a template extent: {error}")));
    }
    Ok(())
}

/// Takes the pages of `bytes` bytes at guest address `address` from the guest; false when the range is not inside one
/// region or the kernel refuses. The next access finds zeros there, or the template's page.
pub fn give_back(memory: &GuestMemoryMmap, address: u64, bytes: u64) -> bool {
    let Ok(length) = usize::try_from(bytes) else { return false };
    let Ok(target) = memory.get_slice(GuestAddress(address), length) else { return false };
    let target = target.ptr_guard_mut();
    // SAFETY: the range is inside one mapping of guest memory, checked by `get_slice`, so nothing of this process's own
    // is in it; nothing holds a reference into guest memory, whose bytes may change at any time anyway.
    unsafe { libc::madvise(target.as_ptr().cast(), length, libc::MADV_DONTNEED) == 0 }
}
