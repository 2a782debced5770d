//! The control queues' conversation (virtio 1.2, section 5.3.6.2): ready, add, ready, name, open.
//!
//! What is to be said is a set of flags, not a queue, so a driver that repeats itself gets nothing
//! more. `struct virtio_console_control` is le32 id, le16 event, le16 value.

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

/// What the device says. In the order it says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Add,
    Name,
    Open,
}

/// The conversation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The driver knows of the device; the port is or will be announced.
    device_ready: bool,
    /// The driver knows of the port; its name is or will be told.
    port_ready: bool,
    /// A process in the guest has the port open.
    guest_open: bool,
    say_add: bool,
    say_name: bool,
    say_open: bool,
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
    pub fn guest_open(&self) -> bool {
        self.guest_open
    }

    /// Takes a message of the driver's; false when it is not one that can come now.
    pub fn receive(&mut self, message: [u8; MESSAGE_BYTES]) -> bool {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let event = u16::from_le_bytes([e0, e1]);
        let value = u16::from_le_bytes([v0, v1]);
        match (event, value) {
            // The id has no meaning here (Linux sends 0xffff_ffff).
            (DEVICE_READY, 1) if !self.device_ready => {
                self.device_ready = true;
                self.say_add = true;
            }
            (PORT_READY, 1) if id == PORT && self.device_ready && !self.port_ready => {
                self.port_ready = true;
                self.say_name = true;
                self.say_open = true;
            }
            (PORT_OPEN, 0 | 1) if id == PORT && self.port_ready => self.guest_open = value == 1,
            _ => return false,
        }
        true
    }

    /// The next thing to say.
    pub fn outgoing(&self) -> Option<Say> {
        match (self.say_add, self.say_name, self.say_open) {
            (true, _, _) => Some(Say::Add),
            (_, true, _) => Some(Say::Name),
            (_, _, true) => Some(Say::Open),
            (false, false, false) => None,
        }
    }

    /// It was said.
    pub fn sent(&mut self, said: Say) {
        match said {
            Say::Add => self.say_add = false,
            Say::Name => self.say_name = false,
            Say::Open => self.say_open = false,
        }
    }

    pub fn save(&self, out: &mut Vec<u8>) {
        let flags = [
            self.device_ready,
            self.port_ready,
            self.guest_open,
            self.say_add,
            self.say_name,
            self.say_open,
        ];
        out.extend(flags.map(u8::from));
    }

    pub fn restore(state: &mut Reader<'_>) -> Result<Self, StateError> {
        let control = Self {
            device_ready: state.bool("console device_ready")?,
            port_ready: state.bool("console port_ready")?,
            guest_open: state.bool("console guest_open")?,
            say_add: state.bool("console say_add")?,
            say_name: state.bool("console say_name")?,
            say_open: state.bool("console say_open")?,
        };
        let ordered = (control.device_ready || !(control.port_ready || control.say_add))
            && (control.port_ready
                || !(control.guest_open || control.say_name || control.say_open));
        if ordered { Ok(control) } else { Err(StateError::Value("console conversation")) }
    }
}
