//! Taking a template: the machine stands still at "init waits for its configuration", and its state and memory go
//! into two sealed memfds that spawn keeps. Nothing of any tenant is in them: no image, no scratch, no app.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use casemate_ticket::blocks::BLOCK_SIZE;
use casemate_wire::control::{FromVmm, Reason};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::failure::{Failure, failure};
use crate::machine::Machine;
use crate::memory::{self, Part};
use crate::report::Report;

/// Saves the standing machine and hands it to spawn.
///
/// # Errors
/// `KVM` when a state cannot be read, `IO` when a memfd cannot be made, written or sent.
pub fn take(machine: &Machine, memory_mib: u32, report: &Report) -> Result<(), Failure> {
    // What rang while the processors were stopped is served first, so that no request is in flight.
    machine.board.slots().for_each(|mut device| device.resume());
    let state = machine.save(memory_mib)?.encode();
    let state_file = memfd("casemate-state")?;
    state_file.write_all_at(&state, 0).map_err(|error| refuse("state", error))?;
    seal(&state_file)?;
    let memory_size = memory::bytes(memory_mib);
    let memory_file = memfd("casemate-memory")?;
    ftruncate(&memory_file, memory_size).map_err(|error| refuse("memory", error))?;
    memory::parts(0, memory_size)
        .try_for_each(|part| copy_data(&machine.memory, part, &memory_file))?;
    seal(&memory_file)?;
    let state_size = u64::try_from(state.len()).unwrap_or(u64::MAX);
    send(report, &FromVmm::Template { state_size, memory_size }, &state_file, &memory_file)
}

fn refuse(what: &str, error: impl std::fmt::Display) -> Failure {
    failure(Reason::Io, format_args!("template {what}: {error}"))
}

fn memfd(name: &str) -> Result<File, Failure> {
    memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING))
        .map(File::from)
        .map_err(|error| refuse("memfd", error))
}

fn seal(file: &File) -> Result<(), Failure> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(file, seals).map_err(|error| refuse("seal", error))
}

/// Writes every block that is not all zero; the rest stays a hole.
fn copy_data(memory: &GuestMemoryMmap, part: Part, file: &File) -> Result<(), Failure> {
    let mut block = [0; BLOCK_SIZE];
    let step = u64::try_from(BLOCK_SIZE).unwrap_or(1);
    let mut position = 0;
    while position < part.length {
        let address = GuestAddress(part.address.saturating_add(position));
        memory.read_slice(&mut block, address).map_err(|error| refuse("memory", error))?;
        if block.iter().any(|byte| *byte != 0) {
            let offset = part.offset.saturating_add(position);
            file.write_all_at(&block, offset).map_err(|error| refuse("memory", error))?;
        }
        position = position.saturating_add(step);
    }
    Ok(())
}

fn send(
    report: &Report,
    message: &FromVmm<'_>,
    state: &File,
    memory: &File,
) -> Result<(), Failure> {
    let descriptors = [state.as_fd(), memory.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(refuse("message", "has no room for two descriptors"));
    }
    let packet = message.encode();
    sendmsg(
        report.socket(),
        &[IoSlice::new(packet.as_bytes())],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .map_err(|error| refuse("message", error))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_behind_the_hole_follows_at_once_in_the_file_and_comes_back_to_its_place() {
        let memory = memory::allocate(3_074).unwrap();
        let places = [3 * GIB - MIB + 5, 3 * GIB - 1, 4 * GIB, 4 * GIB + MIB - 1];
        for (value, address) in (1_u8..).zip(places) {
            memory.write_obj(value, GuestAddress(address)).unwrap();
        }
        let file = memfd("casemate-memory").unwrap();
        ftruncate(&file, memory::bytes(3_074)).unwrap();
        memory::parts(3 * GIB - MIB, 3 * GIB + MIB)
            .try_for_each(|part| copy_data(&memory, part, &file))
            .unwrap();
        let mut byte = [0];
        for (value, offset) in
            (1_u8..).zip([3 * GIB - MIB + 5, 3 * GIB - 1, 3 * GIB, 3 * GIB + MIB - 1])
        {
            file.read_exact_at(&mut byte, offset).unwrap();
            assert_eq!(byte, [value], "{offset:#x}");
        }
        let again = memory::allocate(3_074).unwrap();
        memory::lay_template(&again, &file).unwrap();
        for (value, address) in (1_u8..).zip(places) {
            assert_eq!(again.read_obj::<u8>(GuestAddress(address)).unwrap(), value);
        }
    }
}
