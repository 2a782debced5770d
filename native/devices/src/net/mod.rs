//! A network card (virtio 1.2, section 5.1): two queues, a tap, and a guard.
//!
//! The device is always there, so that one template serves launches with and without a network. Without
//! one its link is down and what the driver sends anyway is dropped.
//!
//! A frame on its way out is copied once into a buffer here, judged there ([`guard`], [`header`]) and
//! written from there: nothing of it is read from the guest twice. A frame on its way in waits in the
//! tap until the guest has a buffer, then here until it has all that the frame needs and the rate
//! limit gives way. Neither buffer grows.

mod frame;
mod guard;
mod header;
mod link;

use std::os::fd::{AsRawFd, RawFd};

pub use link::Network;

use header::{BUFFERS_OFFSET, HEADER_BYTES};
use link::{Link, Received, Sent};

use crate::chain::Chain;
use crate::counters::Counters;
use crate::device::{CONFIG_BYTES, Context, Queues};
use crate::fault::Fault;
use crate::number::{bump, narrow, widen};
use crate::queue::{Pass, QUEUE_SIZE_MAX, Queue, Used};

/// The largest frame: an IP packet of 65,535 bytes behind an Ethernet header, and one byte over.
pub const FRAME_BYTES_MAX: usize = 65_550;
/// Frames to the guest.
pub const NET_RECEIVE_QUEUE: u16 = 0;
/// Frames from the guest.
pub const NET_TRANSMIT_QUEUE: u16 = 1;

const BUFFER_BYTES: usize = HEADER_BYTES + FRAME_BYTES_MAX;
/// Frames read from the tap in one pass, so that none of them can be endless.
const FRAMES_MAX: usize = 256;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

const FEATURE_MTU: u64 = 1 << 3;
const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_MERGE: u64 = 1 << 15;
const FEATURE_STATUS: u64 = 1 << 16;
const STATUS_LINK_UP: u16 = 1;

/// What a driver reads in a template, where there is nobody to be told apart.
const NO_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NO_MTU: u16 = 1500;

/// Why a frame went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Fields that do not fit each other or the frame.
    Malformed,
    /// A hardware address that is not the guest's.
    Mac,
    /// An address that is not the guest's.
    Address,
    /// Something that a guest here does not speak.
    Protocol,
}

/// What the monitor should watch the tap for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Frames can be read: notify [`NET_RECEIVE_QUEUE`].
    pub receive: bool,
    /// Frames can be written again: notify [`NET_TRANSMIT_QUEUE`].
    pub transmit: bool,
}

/// The network device.
#[derive(Debug)]
pub struct Net {
    link: Option<Box<Link>>,
    /// The link went up or down since the driver was told.
    changed: bool,
    incoming: Box<[u8]>,
    /// Bytes of the frame that waits in `incoming`, header included; 0 for none.
    waiting: usize,
    /// The guest has no buffer left, or not enough for the frame that waits.
    starved: bool,
    outgoing: Box<[u8]>,
    /// The tap takes nothing at the moment.
    clogged: bool,
    /// The first chain of a frame that is being laid into several.
    first: Chain,
    laid: Box<[Used]>,
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Net {
    pub(crate) const QUEUE_SIZES: [u16; 2] = [256, 256];
    pub(crate) const FEATURES: u64 = FEATURE_MTU
        | FEATURE_MAC
        | FEATURE_MERGE
        | FEATURE_STATUS
        | header::FEATURE_CSUM
        | header::FEATURE_GUEST_CSUM
        | header::FEATURE_GUEST_TSO4
        | header::FEATURE_GUEST_TSO6
        | header::FEATURE_HOST_TSO4
        | header::FEATURE_HOST_TSO6;

    /// A card whose link is down.
    #[must_use]
    pub fn new() -> Self {
        Self {
            link: None,
            changed: false,
            incoming: vec![0; BUFFER_BYTES].into_boxed_slice(),
            waiting: 0,
            starved: false,
            outgoing: vec![0; BUFFER_BYTES].into_boxed_slice(),
            clogged: false,
            first: Chain::new(),
            laid: vec![Used::default(); usize::from(QUEUE_SIZE_MAX)].into_boxed_slice(),
        }
    }

    /// Connects a card that never was; false when it was.
    pub fn connect(&mut self, network: Network) -> bool {
        if self.link.is_some() {
            return false;
        }
        self.link = Some(Box::new(Link::new(network)));
        true
    }

    /// The tap, for the monitor to watch.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.up().map(|link| link.tap().as_raw_fd())
    }

    fn up(&self) -> Option<&Link> {
        self.link.as_deref().filter(|link| !link.lost)
    }

    /// Whether the link's state differs from what the driver was told.
    pub(crate) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The tap is of no use any more.
    pub(crate) fn lose(&mut self) {
        if let Some(link) = self.link.as_deref_mut().filter(|link| !link.lost) {
            link.lost = true;
            self.changed = true;
        }
    }

    /// What to watch the tap for, with these queues; `None` when not at all.
    pub(crate) fn interest(&self, queues: &Queues) -> Option<Interest> {
        self.up()?;
        let active = |index: usize| queues.get(index).is_some_and(Option::is_some);
        Some(Interest {
            receive: active(RECEIVE) && !self.starved && self.waiting == 0,
            transmit: active(TRANSMIT) && self.clogged,
        })
    }

    /// `struct virtio_net_config`: mac, status, pairs of queues, mtu.
    pub(crate) fn config(&self) -> [u8; CONFIG_BYTES] {
        let (mac, mtu) =
            self.link.as_ref().map_or((NO_MAC, NO_MTU), |link| (link.guard.mac(), link.mtu));
        let status = if self.up().is_some() { STATUS_LINK_UP } else { 0 };
        let fields = [mac.as_slice(), &status.to_le_bytes(), &[0, 0], &mtu.to_le_bytes()];
        let mut config = [0; CONFIG_BYTES];
        for (to, from) in config.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        config
    }

    pub(crate) fn reset(&mut self) {
        self.waiting = 0;
        self.starved = false;
        self.clogged = false;
    }

    pub(crate) fn process(
        &mut self,
        index: usize,
        queues: &mut Queues,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Some(queue) = queues.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        match index {
            RECEIVE => self.receive(queue, context),
            TRANSMIT => self.transmit(queue, context),
            _ => Ok(()),
        }
    }

    /// Takes frames from the tap as long as the guest has buffers. When it has none the tap is not read:
    /// frames wait there, and the guest's next notification comes here (CVE-2020-16843 was a card that
    /// nothing woke when both were full).
    fn receive(&mut self, queue: &mut Queue, context: &mut Context<'_>) -> Result<(), Fault> {
        let mut pass = queue.pass(context.memory)?;
        self.starved = false;
        for _ in 0..FRAMES_MAX {
            if pass.is_over() {
                self.starved = true;
                return Ok(());
            }
            if self.waiting == 0 && !self.read(context) {
                return Ok(());
            }
            if self.waiting == 0 {
                continue;
            }
            let bytes = widen(self.waiting.saturating_sub(HEADER_BYTES));
            let Some(link) = self.link.as_deref_mut() else { return Ok(()) };
            if let Err(ready) = link.receive.ready(bytes, context.now) {
                context.held = Some(ready);
                return Ok(());
            }
            match self.lay(queue, &mut pass, context)? {
                Laid::Whole => {}
                Laid::NotYet => {
                    self.starved = true;
                    return Ok(());
                }
                // The pass has met descriptors that stay in the ring.
                Laid::Never => {
                    bump(&mut context.counters.dropped_receive);
                    self.waiting = 0;
                    return Ok(());
                }
            }
            if let Some(link) = self.link.as_deref_mut() {
                link.receive.spend(bytes);
            }
            self.waiting = 0;
            bump(&mut context.counters.chains);
            context.counters.bytes_in = context.counters.bytes_in.saturating_add(bytes);
        }
        Ok(())
    }

    /// Reads a frame into `incoming`; false when there is none. One that the driver would not understand
    /// is not kept.
    fn read(&mut self, context: &mut Context<'_>) -> bool {
        let Some(link) = self.link.as_deref().filter(|link| !link.lost) else { return false };
        match link.read(&mut self.incoming) {
            Received::Frame(count) => {
                let header = self.incoming.first_chunk().copied();
                let good = count > HEADER_BYTES
                    && header.is_some_and(|header| header::understood(header, context.features));
                if good {
                    self.waiting = count.min(BUFFER_BYTES);
                } else {
                    bump(&mut context.counters.dropped_receive);
                }
                true
            }
            Received::Nothing => false,
            Received::Lost => {
                self.lose();
                false
            }
        }
    }

    /// Lays the frame that waits into as many of the guest's buffers as it needs, and gives them back
    /// together, or none of them.
    fn lay(
        &mut self,
        queue: &mut Queue,
        pass: &mut Pass,
        context: &mut Context<'_>,
    ) -> Result<Laid, Fault> {
        let merge = context.features & FEATURE_MERGE != 0;
        let mut rest = self.incoming.get(..self.waiting).ok_or(Fault::Memory)?;
        let mut count = 0_u16;
        while !rest.is_empty() {
            if count != 0 && !merge {
                return Ok(Laid::Never);
            }
            if !queue.take_ahead(count, pass, context.memory, context.chain)? {
                let hopeless = queue.all_met(pass);
                return Ok(if hopeless { Laid::Never } else { Laid::NotYet });
            }
            if context.chain.readable_len() != 0 || context.chain.writable_len() == 0 {
                return Err(Fault::WrongDirection);
            }
            let room = narrow(context.chain.writable_len().into()).min(rest.len());
            let (now, later) = rest.split_at_checked(room).ok_or(Fault::Memory)?;
            context.chain.write(context.memory, 0, now)?;
            let used = self.laid.get_mut(usize::from(count)).ok_or(Fault::Memory)?;
            *used = context.chain.used(u32::try_from(room).unwrap_or(0));
            if count == 0 {
                std::mem::swap(context.chain, &mut self.first);
            }
            count = count.saturating_add(1);
            rest = later;
        }
        // The number of buffers is known now. A first buffer without room for it is the driver's error.
        self.first.write(context.memory, BUFFERS_OFFSET, &count.to_le_bytes())?;
        let laid = self.laid.get(..usize::from(count)).ok_or(Fault::Memory)?;
        queue.complete_all(context.memory, laid)?;
        Ok(Laid::Whole)
    }

    /// Judges and sends what is in the queue, in its order, as far as rate limit and tap let it.
    fn transmit(&mut self, queue: &mut Queue, context: &mut Context<'_>) -> Result<(), Fault> {
        let mut pass = queue.pass(context.memory)?;
        self.clogged = false;
        while queue.take(&mut pass, context.memory, context.chain)? {
            if context.chain.writable_len() != 0 {
                return Err(Fault::WrongDirection);
            }
            let len = narrow(context.chain.readable_len().into());
            let bytes = widen(len.clamp(HEADER_BYTES, BUFFER_BYTES).saturating_sub(HEADER_BYTES));
            if let Some(link) = self.link.as_deref_mut().filter(|link| !link.lost) {
                if let Err(ready) = link.transmit.ready(bytes, context.now) {
                    context.held = Some(ready);
                    return Ok(());
                }
                match send(link, &mut self.outgoing, len, context)? {
                    Sent::Done => {
                        context.counters.bytes_out =
                            context.counters.bytes_out.saturating_add(bytes);
                    }
                    Sent::Full => {
                        self.clogged = true;
                        return Ok(());
                    }
                    Sent::Refused => {}
                }
                link.transmit.spend(bytes);
            } else {
                bump(&mut context.counters.io_errors);
            }
            queue.complete(context.memory, context.chain, 0)?;
            bump(&mut context.counters.chains);
        }
        Ok(())
    }
}

/// How laying a frame into buffers ended.
enum Laid {
    Whole,
    /// More buffers may come.
    NotYet,
    /// All the buffers that the driver can have do not hold it.
    Never,
}

/// Copies a chain of `len` bytes, judges it and sends it; what is dropped counts as refused.
fn send(
    link: &Link,
    buffer: &mut [u8],
    len: usize,
    context: &mut Context<'_>,
) -> Result<Sent, Fault> {
    let copy = buffer.get_mut(..len).filter(|copy| copy.len() > HEADER_BYTES);
    let Some(copy) = copy else {
        count(context.counters, Dropped::Malformed);
        return Ok(Sent::Refused);
    };
    context.chain.read(context.memory, 0, copy)?;
    let (head, frame) = copy.split_first_chunk_mut::<HEADER_BYTES>().ok_or(Fault::Memory)?;
    let judged = link
        .guard
        .judge(frame)
        .and_then(|()| header::to_host(*head, frame, context.features, link.mtu));
    match judged {
        Ok(header) => *head = header,
        Err(dropped) => {
            count(context.counters, dropped);
            return Ok(Sent::Refused);
        }
    }
    let sent = link.write(copy);
    if matches!(sent, Sent::Refused) {
        bump(&mut context.counters.io_errors);
    }
    Ok(sent)
}

fn count(counters: &mut Counters, dropped: Dropped) {
    bump(match dropped {
        Dropped::Malformed => &mut counters.dropped_malformed,
        Dropped::Mac => &mut counters.dropped_mac,
        Dropped::Address => &mut counters.dropped_address,
        Dropped::Protocol => &mut counters.dropped_protocol,
    });
}
