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
use crate::report::Report;

const MIB: u64 = 1 << 20;

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
    let memory_size = u64::from(memory_mib).saturating_mul(MIB);
    let memory_file = memfd("casemate-memory")?;
    copy_data(&machine.memory, memory_size, &memory_file)?;
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
fn copy_data(memory: &GuestMemoryMmap, size: u64, file: &File) -> Result<(), Failure> {
    ftruncate(file, size).map_err(|error| refuse("memory", error))?;
    let mut block = [0; BLOCK_SIZE];
    let step = u64::try_from(BLOCK_SIZE).unwrap_or(1);
    let mut position = 0;
    while position < size {
        memory
            .read_slice(&mut block, GuestAddress(position))
            .map_err(|error| refuse("memory", error))?;
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(&block, position).map_err(|error| refuse("memory", error))?;
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
