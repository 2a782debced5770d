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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use rustix::fs::{MemfdFlags, memfd_create};
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    const PAGE: u64 = 4096;
    const SIZE_MIB: u32 = 32;
    const PAGES: u64 = 32 * (1 << 20) / PAGE;

    /// Data in the first and third MiB, holes elsewhere, as a booted guest leaves its memory.
    fn template() -> File {
        let file = File::from(memfd_create("casemate-memory", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(u64::from(SIZE_MIB) << 20).unwrap();
        for start in [0, 2 << 20] {
            file.write_all_at(&vec![7; 1 << 20], start).unwrap();
        }
        file
    }

    /// Pages of `memory` that are there, and how many of them are this process's own: bits 63 and 61 of
    /// /proc/self/pagemap (Linux, Documentation/admin-guide/mm/pagemap.rst).
    fn pages(memory: &GuestMemoryMmap) -> (u64, u64) {
        let start = memory.get_host_address(GuestAddress(0)).unwrap().addr();
        let start = u64::try_from(start).unwrap() / PAGE;
        let mut entries = vec![0; usize::try_from(PAGES * 8).unwrap()];
        let file = File::open("/proc/self/pagemap").unwrap();
        file.read_exact_at(&mut entries, start * 8).unwrap();
        let entries =
            entries.chunks_exact(8).map(|entry| u64::from_le_bytes(entry.try_into().unwrap()));
        entries.filter(|entry| entry >> 63 == 1).fold((0, 0), |(present, own), entry| {
            (present + 1, own + u64::from(entry >> 61 & 1 == 0))
        })
    }

    #[test]
    fn a_restored_guest_that_touches_all_its_memory_has_it_once() {
        let template = template();
        let blocks = template.metadata().unwrap().blocks();
        let memory = allocate(SIZE_MIB).unwrap();
        lay_template(&memory, &template).unwrap();
        assert_eq!(pages(&memory), (0, 0), "nothing is read before the guest wants it");
        for page in 0..PAGES {
            memory.write_obj(9_u8, GuestAddress(page * PAGE + 5)).unwrap();
        }
        assert_eq!(pages(&memory), (PAGES, PAGES), "its own, charged to whoever touched them");
        // A page of a hole that is mapped from the file would be there and in the guest.
        assert_eq!(template.metadata().unwrap().blocks(), blocks, "the template did not grow");
        let mut bytes = [0; 6];
        memory.read_slice(&mut bytes, GuestAddress(2 << 20)).unwrap();
        assert_eq!(bytes, [7, 7, 7, 7, 7, 9], "the template's data and what was written since");
        memory.read_slice(&mut bytes, GuestAddress(1 << 20)).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0, 0, 9], "zero where it has none");
    }

    #[test]
    fn many_guests_of_one_template_share_what_they_only_read() {
        let template = template();
        let guests: Vec<_> = (0..200)
            .map(|_| {
                let memory = allocate(SIZE_MIB).unwrap();
                lay_template(&memory, &template).unwrap();
                memory
            })
            .collect();
        for (number, memory) in (0..200_u8).zip(&guests) {
            let found: u8 = memory.read_obj(GuestAddress(2 << 20)).unwrap();
            assert_eq!(found, 7);
            memory.write_obj(number, GuestAddress(0)).unwrap();
        }
        for (number, memory) in (0..200_u8).zip(&guests) {
            assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), number, "its own");
            assert_eq!(pages(memory).1, 1, "the page it wrote");
        }
    }

    #[test]
    fn refuses_memory_outside_the_limits_and_extents_outside_the_memory() {
        assert!(allocate(0).is_err());
        assert!(allocate(MEMORY_MIB_MAX + 1).is_err());
        let template = template();
        let small = allocate(2).unwrap();
        assert!(
            lay_template(&small, &template).is_err(),
            "its second extent begins behind the end"
        );
    }
}
