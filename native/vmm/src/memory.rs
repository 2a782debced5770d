//! The guest's memory: anonymous pages, and for a restored guest the template's data laid over them.
//!
//! One region from address 0 to 3 GiB, and what is more than that in a second one from 4 GiB on: between them are the
//! devices. A template's file has no such hole: its second region follows the first at once. What works with a position
//! in that file instead of a guest address asks [`parts`]; everything else sees two regions that do not touch, so that
//! no buffer can begin in one and end in the other.

use std::fs::File;

use casemate_devices::{HIGH_MEMORY_BASE, LOW_MEMORY_END, Reclaim};
use casemate_ticket::spec::MEMORY_MIB;
use casemate_wire::control::Reason;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::failure::{Failure, failure};
use crate::memory_unsafe::{give_back, overlay};

const MIB: u64 = 1 << 20;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Guest address of its first byte.
    pub address: u64,
    /// Where that byte is in a template's memory file.
    pub offset: u64,
    /// Bytes, never 0.
    pub length: u64,
}

/// What lies at positions `start` to `end` (not included) of a template's memory file: nothing, one part, or two with
/// the hole between them.
pub fn parts(start: u64, end: u64) -> impl Iterator<Item = Part> {
    let low = (start, end.min(LOW_MEMORY_END), 0);
    let high = (start.max(LOW_MEMORY_END), end, HIGH_MEMORY_BASE.saturating_sub(LOW_MEMORY_END));
    [low, high].into_iter().filter_map(|(start, end, hole)| {
        let length = end.checked_sub(start).filter(|length| *length != 0)?;
        Some(Part { address: start.checked_add(hole)?, offset: start, length })
    })
}

/// Bytes of `mib` MiB.
#[must_use]
pub fn bytes(mib: u32) -> u64 {
    u64::from(mib).saturating_mul(MIB)
}

/// Anonymous, unreserved memory of `mib` MiB.
///
/// # Errors
/// `KVM` when the address space is not to be had.
pub fn allocate(mib: u32) -> Result<GuestMemoryMmap, Failure> {
    let refuse = || failure(Reason::Kvm, format_args!("memory of {mib} MiB is outside the limits"));
    if mib == 0 || mib > *MEMORY_MIB.end() {
        return Err(refuse());
    }
    let ranges = parts(0, bytes(mib))
        .map(|part| Some((GuestAddress(part.address), usize::try_from(part.length).ok()?)))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(refuse)?;
    GuestMemoryMmap::from_ranges(&ranges)
        .map_err(|error| failure(Reason::Kvm, format_args!("guest memory: {error}")))
}

/// Guest memory as the balloon sees it: pages that can be given back to the host.
#[derive(Debug)]
pub struct Pages(pub GuestMemoryMmap);

impl Reclaim for Pages {
    fn give_back(&self, address: u64, bytes: u64) -> bool {
        give_back(&self.0, address, bytes)
    }
}

/// Lays every data extent of the template's memory over `memory`.
///
/// # Errors
/// `TEMPLATE_STATE` when the file's extents cannot be read or do not fit.
pub fn lay_template(memory: &GuestMemoryMmap, template: &File) -> Result<(), Failure> {
    let mut position = 0;
    while let Some((start, end)) = next_extent(template, position)? {
        if end <= start {
            return Err(failure(Reason::TemplateState, format_args!("extent of no length")));
        }
        parts(start, end).try_for_each(|part| overlay(memory, template, part))?;
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
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

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
    fn pages_that_are_given_back_are_gone_until_they_are_touched_again() {
        let template = template();
        let memory = allocate(SIZE_MIB).unwrap();
        lay_template(&memory, &template).unwrap();
        for page in 0..PAGES {
            memory.write_obj(9_u8, GuestAddress(page * PAGE)).unwrap();
        }
        let host = Pages(memory.clone());
        // All of the template's first MiB but a page at each end, and a MiB that it does not have.
        assert!(host.give_back(PAGE, (1 << 20) - 2 * PAGE));
        assert!(host.give_back(1 << 20, 1 << 20));
        let gone = 2 * 256 - 2;
        assert_eq!(pages(&memory), (PAGES - gone, PAGES - gone));
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([at(0), at(PAGE), at((1 << 20) - PAGE)], [9, 7, 9], "the template's again");
        assert_eq!([at(1 << 20), at((2 << 20) - PAGE), at(2 << 20)], [0, 0, 9]);
        memory.write_obj(3_u8, GuestAddress(PAGE)).unwrap();
        assert_eq!(at(PAGE), 3);
    }

    #[test]
    fn nothing_outside_of_guest_memory_is_given_back() {
        let memory = allocate(4_096).unwrap();
        let host = Pages(memory.clone());
        memory.write_obj(1_u8, GuestAddress(3 * GIB - PAGE)).unwrap();
        memory.write_obj(1_u8, GuestAddress(4 * GIB)).unwrap();
        for (address, bytes) in [
            (3 * GIB - PAGE, 2 * PAGE),
            (3 * GIB - PAGE, GIB + 2 * PAGE),
            (4 * GIB - PAGE, 2 * PAGE),
            (3 * GIB, PAGE),
            (5 * GIB, PAGE),
            (u64::MAX - PAGE + 1, PAGE),
            (0, u64::MAX - PAGE + 1),
        ] {
            assert!(!host.give_back(address, bytes), "{bytes:#x} at {address:#x}");
        }
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([at(3 * GIB - PAGE), at(4 * GIB)], [1, 1], "and what was inside is untouched");
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

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_beyond_three_gib_goes_on_behind_the_devices() {
        let part = |address, offset, length| Part { address, offset, length };
        let all = |start, end| parts(start, end).collect::<Vec<_>>();
        assert_eq!(all(0, 128 << 20), [part(0, 0, 128 << 20)]);
        assert_eq!(all(0, 3 * GIB), [part(0, 0, 3 * GIB)]);
        assert_eq!(all(0, 3 * GIB + 1), [part(0, 0, 3 * GIB), part(4 * GIB, 3 * GIB, 1)]);
        assert_eq!(
            all(3 * GIB - 2, 3 * GIB + 1),
            [part(3 * GIB - 2, 3 * GIB - 2, 2), part(4 * GIB, 3 * GIB, 1)]
        );
        assert_eq!(all(5 * GIB, 6 * GIB), [part(6 * GIB, 5 * GIB, GIB)]);
        assert_eq!(all(7, 7), []);
        assert_eq!(all(u64::MAX - 1, u64::MAX), [], "beyond the last address there is");
        for (mib, ends) in [(3_072, vec![3 * GIB]), (16_384, vec![3 * GIB, 17 * GIB])] {
            let memory = allocate(mib).unwrap();
            let found = memory.iter().map(|region| region.last_addr().0 + 1).collect::<Vec<_>>();
            assert_eq!(found, ends, "{mib} MiB");
        }
    }

    /// What a device checks a buffer against, with the hole that a real machine has.
    #[test]
    fn nothing_begins_before_the_hole_and_ends_behind_it() {
        let memory = allocate(4_096).unwrap();
        let slice = |address, length: u64| {
            memory.get_slice(GuestAddress(address), usize::try_from(length).unwrap()).is_ok()
        };
        assert!(slice(3 * GIB - 8, 8) && slice(4 * GIB, 8) && slice(5 * GIB - 8, 8));
        for (address, length) in
            [(3 * GIB - 8, GIB + 16), (3 * GIB - 8, 9), (4 * GIB - 1, 2), (5 * GIB - 8, 9)]
        {
            assert!(!slice(address, length), "{length} at {address:#x}");
        }
        let mut bytes = [0; 16];
        assert!(memory.read_slice(&mut bytes, GuestAddress(3 * GIB - 8)).is_err());
    }

    #[test]
    fn an_extent_over_the_hole_is_laid_on_both_sides_of_it() {
        let template = File::from(memfd_create("casemate-memory", MemfdFlags::CLOEXEC).unwrap());
        template.set_len(bytes(3_200)).unwrap();
        template.write_all_at(&vec![7; 1 << 20], 3 * GIB - (1 << 20)).unwrap();
        template.write_all_at(&vec![8; 1 << 20], 3 * GIB).unwrap();
        let memory = allocate(3_200).unwrap();
        lay_template(&memory, &template).unwrap();
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).ok();
        assert_eq!([at(3 * GIB - (1 << 20) - 1), at(3 * GIB - (1 << 20))], [Some(0), Some(7)]);
        assert_eq!([at(3 * GIB - 1), at(3 * GIB), at(4 * GIB - 1)], [Some(7), None, None]);
        assert_eq!([at(4 * GIB), at(4 * GIB + (1 << 20))], [Some(8), Some(0)]);
    }

    #[test]
    fn refuses_memory_outside_the_limits_and_extents_outside_the_memory() {
        assert!(allocate(0).is_err());
        assert!(allocate(*MEMORY_MIB.end() + 1).is_err());
        let template = template();
        let small = allocate(2).unwrap();
        assert!(
            lay_template(&small, &template).is_err(),
            "its second extent begins behind the end"
        );
    }
}
