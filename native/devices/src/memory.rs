//! Guest memory as the devices see it: copies in, copies out, no references.

use std::sync::atomic::Ordering;

use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};

use crate::fault::Fault;

/// The guest's memory. Every access copies, because the guest changes the bytes meanwhile.
#[derive(Clone, Debug)]
pub struct Memory(GuestMemoryMmap);

impl Memory {
    pub fn new(memory: GuestMemoryMmap) -> Self {
        Self(memory)
    }

    /// Whether all `len` bytes at `address` lie inside one region. Nothing wraps.
    pub fn holds(&self, address: u64, len: u64) -> bool {
        let Some(region) = self.0.find_region(GuestAddress(address)) else { return false };
        let Some(offset) = address.checked_sub(region.start_addr().raw_value()) else {
            return false;
        };
        offset.checked_add(len).is_some_and(|end| end <= region.len())
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.0.read_slice(bytes, GuestAddress(address)).map_err(|_| Fault::Memory)
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write_slice(bytes, GuestAddress(address)).map_err(|_| Fault::Memory)
    }

    /// An aligned little-endian u16, with everything the driver wrote before it.
    pub fn load_u16(&self, address: u64) -> Result<u16, Fault> {
        let raw: u16 =
            self.0.load(GuestAddress(address), Ordering::Acquire).map_err(|_| Fault::Memory)?;
        Ok(u16::from_le(raw))
    }

    /// An aligned little-endian u16, after everything the device wrote before it.
    pub fn store_u16(&self, address: u64, value: u16) -> Result<(), Fault> {
        self.0
            .store(value.to_le(), GuestAddress(address), Ordering::Release)
            .map_err(|_| Fault::Memory)
    }
}
