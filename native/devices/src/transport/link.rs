//! What the monitor does with a network card besides its queues.

use std::os::fd::RawFd;

use super::MmioTransport;
use crate::block::AttachError;
use crate::device::Device;
use crate::net::{Interest, Network};

impl MmioTransport {
    /// Connects a network card that has no network, and tells the driver that its link is up.
    ///
    /// # Errors
    /// [`AttachError`] when the device is no network card or has a network.
    pub fn connect(&mut self, network: Network) -> Result<(), AttachError> {
        let Device::Net(net) = &mut self.device else { return Err(AttachError::NotNet) };
        if !net.connect(network) {
            return Err(AttachError::Attached);
        }
        self.config_changed();
        Ok(())
    }

    pub(super) fn tell_link_change(&mut self) {
        if let Device::Net(net) = &mut self.device
            && net.take_change()
        {
            self.config_changed();
        }
    }

    /// The tap of a card whose link is up.
    #[must_use]
    pub fn link_descriptor(&self) -> Option<RawFd> {
        match &self.device {
            Device::Net(net) => net.descriptor(),
            Device::Block(_) | Device::Console(_) | Device::Rng(_) | Device::Balloon(_) => None,
        }
    }

    /// What to watch the tap for; `None` when there is none to watch any more. It changes with calls of
    /// [`Self::notify`] and [`Self::advance`], and when the driver resets the card.
    #[must_use]
    pub fn link_interest(&self) -> Option<Interest> {
        match &self.device {
            Device::Net(net) => net.interest(&self.queues),
            Device::Block(_) | Device::Console(_) | Device::Rng(_) | Device::Balloon(_) => None,
        }
    }

    /// The tap reported an error: the card's link is down from now on.
    pub fn link_lost(&mut self) {
        if let Device::Net(net) = &mut self.device {
            net.lose();
        }
        self.tell_link_change();
    }
}
