//! What the monitor does with a disk besides its queue.

use super::MmioTransport;
use crate::block::{AttachError, Backend, ScratchError};
use crate::device::Device;

impl MmioTransport {
    /// Gives a disk that has none its backend, and tells the driver that the capacity changed.
    ///
    /// # Errors
    /// [`AttachError`] when the device is no disk, has a backend, or is of another kind.
    pub fn attach(&mut self, backend: Backend) -> Result<(), AttachError> {
        let Device::Block(block) = &mut self.device else { return Err(AttachError::NotBlock) };
        block.attach(backend)?;
        self.config_changed();
        Ok(())
    }

    /// Gives a scratch disk more bytes, and tells the driver that the capacity changed.
    ///
    /// # Errors
    /// [`ScratchError::Size`] when there are fewer than before or more than it may have, or the device
    /// is no scratch disk.
    pub fn grow(&mut self, bytes: u64) -> Result<(), ScratchError> {
        let Device::Block(block) = &mut self.device else { return Err(ScratchError::Size(bytes)) };
        block.grow(bytes)?;
        self.config_changed();
        Ok(())
    }

    /// The first data block since the last call that did not match its root. The monitor ends the
    /// guest for it; the guest saw an I/O error.
    pub fn take_verity_failure(&mut self) -> Option<u64> {
        match &mut self.device {
            Device::Block(block) => block.take_verity_failure(),
            Device::Console(_) | Device::Rng(_) | Device::Net(_) | Device::Balloon(_) => None,
        }
    }
}
