//! When the I/O thread looks at the network card's tap: level-triggered, and only for what the card can do now. A tap
//! that is watched while the guest has no buffer would keep the thread busy; one that is not watched again is
//! CVE-2020-16843.

use std::io;
use std::os::fd::RawFd;

use casemate_devices::{Interest, MmioTransport, NET_RECEIVE_QUEUE, NET_TRANSMIT_QUEUE};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// What epoll was told last.
#[derive(Debug)]
pub struct TapWatch {
    token: u64,
    told: Option<(RawFd, EventSet)>,
}

impl TapWatch {
    /// Nothing is watched; events will carry `token`.
    #[must_use]
    pub fn new(token: u64) -> Self {
        Self { token, told: None }
    }

    /// Tells epoll what the card wants, if that has changed.
    ///
    /// # Errors
    /// What epoll answers.
    pub fn update(&mut self, epoll: &Epoll, card: &MmioTransport) -> io::Result<()> {
        let wanted = card.link_descriptor().zip(card.link_interest().map(events));
        let change = |operation, (tap, events)| {
            epoll.ctl(operation, tap, EpollEvent::new(events, self.token))
        };
        match (self.told, wanted) {
            (None, Some(new)) => change(ControlOperation::Add, new)?,
            (Some(old), Some(new)) if old != new => change(ControlOperation::Modify, new)?,
            // The device keeps a tap that is gone open, so the number is still its own.
            (Some(old), None) => change(ControlOperation::Delete, old)?,
            _ => {}
        }
        self.told = wanted;
        Ok(())
    }
}

fn events(interest: Interest) -> EventSet {
    let mut events = EventSet::empty();
    events.set(EventSet::IN, interest.receive);
    events.set(EventSet::OUT, interest.transmit);
    events
}

/// The tap has frames or room, or is gone.
pub fn ready(card: &mut MmioTransport, flags: EventSet) {
    if flags.intersects(EventSet::ERROR | EventSet::HANG_UP) {
        card.link_lost();
    }
    let Some(interest) = card.link_interest() else { return };
    if interest.receive && flags.contains(EventSet::IN) {
        card.notify(NET_RECEIVE_QUEUE);
    }
    if interest.transmit && flags.contains(EventSet::OUT) {
        card.notify(NET_TRANSMIT_QUEUE);
    }
}
