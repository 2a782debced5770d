//! The guest's memory: anonymous pages from address 0, and for a restored guest the template's data laid over them.

use std::fs::File;

use casemate_wire::control::Reason;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::failure::{Failure, failure};
use crate::memory_unsafe::overlay;

/// Guest memory ends below the device windows at `0xd000_0000`; one region, no hole to get wrong.
pub const MEMORY_MIB_MAX: u32 = 3_072;

const MIB: usize = 1 << 20;

/// Anonymous, unreserved memory of `mib` MiB at guest address 0.
///
/// # Errors
/// `KVM` when the address space is not to be had.
pub fn allocate(mib: u32) -> Result<GuestMemoryMmap, Failure> {
    let refuse = || failure(Reason::Kvm, format_args!("memory of {mib} MiB is outside the limits"));
    if mib == 0 || mib > MEMORY_MIB_MAX {
        return Err(refuse());
    }
    let bytes =
        usize::try_from(mib).ok().and_then(|mib| mib.checked_mul(MIB)).ok_or_else(refuse)?;
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)])
        .map_err(|error| failure(Reason::Kvm, format_args!("guest memory: {error}")))
}

/// Lays every data extent of the template's memory over `memory`.
///
/// # Errors
/// `TEMPLATE_STATE` when the file's extents cannot be read or do not fit.
pub fn lay_template(memory: &GuestMemoryMmap, template: &File) -> Result<(), Failure> {
    let mut position = 0;
    while let Some((start, end)) = next_extent(template, position)? {
        let length = end
            .checked_sub(start)
            .and_then(|length| usize::try_from(length).ok())
            .ok_or_else(|| failure(Reason::TemplateState, format_args!("extent of no length")))?;
        overlay(memory, template, start, length)?;
        position = end;
    }
    Ok(())
}

/// The next range of `file` at or after `from` that holds data, or `None`.
fn next_extent(file: &File, from: u64) -> Result<Option<(u64, u64)>, Failure> {
    let refuse =
        |error: Errno| failure(Reason::TemplateState, format_args!("template extents: {error}"));
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let end = seek(file, SeekFrom::Hole(start)).map_err(refuse)?;
    Ok(Some((start, end)))
}
