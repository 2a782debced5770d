//! The control queues' conversation (virtio 1.2, section 5.3.6.2): ready, add, ready, name, open.
//!
//! What is to be said is a set of flags, not a queue, so a driver that repeats itself gets nothing
//! more. A message is le32 id, le16 event, le16 value.

use super::CONSOLE_PORT_NAME;
use crate::state::{Reader, StateError};

/// Bytes of a message without a name.
pub const MESSAGE_BYTES: usize = 8;
const NAMED_BYTES: usize = MESSAGE_BYTES + CONSOLE_PORT_NAME.len();
/// The one port.
const PORT: u32 = 1;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// What the device says, in the order it says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Add,
    Name,
    Open,
}

/// How far the conversation is. Each step is taken once, until a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// Nothing was heard of the driver.
    #[default]
    Silent,
    /// The driver knows of the device; the port is or will be announced.
    DeviceReady,
    /// The driver knows of the port; its name is or will be told.
    PortReady,
    /// As before, and a process in the guest has the port open.
    Open,
}

/// The conversation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    step: Step,
    /// Bits of [`Say`]: what the driver has not been told yet.
    unsaid: u8,
}

/// A message, ready to be copied.
#[derive(Debug)]
pub struct Outgoing {
    bytes: [u8; NAMED_BYTES],
    len: usize,
}

impl Outgoing {
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

impl Say {
    const ALL: [Self; 3] = [Self::Add, Self::Name, Self::Open];

    fn bit(self) -> u8 {
        match self {
            Self::Add => 1,
            Self::Name => 2,
            Self::Open => 4,
        }
    }

    pub fn encode(self) -> Outgoing {
        let (event, value, name) = match self {
            Self::Add => (PORT_ADD, 0_u16, ""),
            Self::Name => (PORT_NAME, 0, CONSOLE_PORT_NAME),
            Self::Open => (PORT_OPEN, 1, ""),
        };
        let head = PORT.to_le_bytes().into_iter().chain(event.to_le_bytes());
        let all = head.chain(value.to_le_bytes()).chain(name.bytes());
        let mut bytes = [0; NAMED_BYTES];
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        Outgoing { bytes, len: MESSAGE_BYTES.saturating_add(name.len()) }
    }
}

impl Control {
    pub fn guest_open(self) -> bool {
        self.step == Step::Open
    }

    /// Takes a message of the driver's; false when it is not one that can come now.
    pub fn receive(&mut self, message: [u8; MESSAGE_BYTES]) -> bool {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let event = u16::from_le_bytes([e0, e1]);
        let value = u16::from_le_bytes([v0, v1]);
        match (self.step, event, value) {
            // The id has no meaning here (Linux sends 0xffff_ffff).
            (Step::Silent, DEVICE_READY, 1) => {
                self.step = Step::DeviceReady;
                self.unsaid |= Say::Add.bit();
            }
            (Step::DeviceReady, PORT_READY, 1) if id == PORT => {
                self.step = Step::PortReady;
                self.unsaid |= Say::Name.bit() | Say::Open.bit();
            }
            (Step::PortReady | Step::Open, PORT_OPEN, 1) if id == PORT => self.step = Step::Open,
            (Step::PortReady | Step::Open, PORT_OPEN, 0) if id == PORT => {
                self.step = Step::PortReady;
            }
            _ => return false,
        }
        true
    }

    /// The next thing to say.
    pub fn outgoing(self) -> Option<Say> {
        Say::ALL.into_iter().find(|say| self.unsaid & say.bit() != 0)
    }

    /// It was said.
    pub fn sent(&mut self, said: Say) {
        self.unsaid &= !said.bit();
    }

    pub fn save(self, out: &mut Vec<u8>) {
        let step = match self.step {
            Step::Silent => 0,
            Step::DeviceReady => 1,
            Step::PortReady => 2,
            Step::Open => 3,
        };
        out.extend_from_slice(&[step, self.unsaid]);
    }

    pub fn restore(state: &mut Reader<'_>) -> Result<Self, StateError> {
        let (step, possible) = match state.u8()? {
            0 => (Step::Silent, 0),
            1 => (Step::DeviceReady, Say::Add.bit()),
            2 => (Step::PortReady, 7),
            3 => (Step::Open, 7),
            _ => return Err(StateError::Value("console step")),
        };
        let unsaid = state.u8()?;
        if unsaid & !possible != 0 {
            return Err(StateError::Value("console message"));
        }
        Ok(Self { step, unsaid })
    }
}
