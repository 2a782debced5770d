//! Saved state as bytes: written by [`crate::MmioTransport::save`], read back as hostile input.
//!
//! Little endian, no padding, no self-description: a version byte, then fixed fields in a fixed
//! order. A state file may come from an older or a broken monitor, so every value is checked again
//! as if the guest had just written it.

use std::fmt;

/// Version of the format of one transport's state.
pub const STATE_VERSION: u8 = 1;

/// Saved state was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The bytes end too early.
    Short,
    /// A version this program does not write.
    Version(u8),
    /// The state of another kind of device than the one it is given to.
    Device(u8),
    /// A field with a value that no device can have.
    Value(&'static str),
    /// A queue that would be refused at `DRIVER_OK`.
    Queue(crate::Fault),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("device state ends too early"),
            Self::Version(version) => {
                write!(f, "device state has version {version}, this program reads {STATE_VERSION}")
            }
            Self::Device(kind) => write!(f, "device state is of another device (kind {kind})"),
            Self::Value(field) => write!(f, "device state has an impossible {field}"),
            Self::Queue(fault) => write!(f, "device state has a queue that is refused: {fault}"),
        }
    }
}

impl std::error::Error for StateError {}

/// A cursor over saved state. Every read is checked; nothing is assumed about what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`StateError::Short`] when there are fewer.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], StateError> {
        let (now, rest) = self.rest.split_at_checked(count).ok_or(StateError::Short)?;
        self.rest = rest;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (now, rest) = self.rest.split_first_chunk().ok_or(StateError::Short)?;
        self.rest = rest;
        Ok(*now)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`StateError::Short`] at the end.
    pub fn u8(&mut self) -> Result<u8, StateError> {
        self.array().map(u8::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// [`StateError::Short`] at the end, [`StateError::Value`] naming `field` for another value.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, StateError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StateError::Value(field)),
        }
    }

    /// The next two bytes.
    ///
    /// # Errors
    /// [`StateError::Short`] at the end.
    pub fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    ///
    /// # Errors
    /// [`StateError::Short`] at the end.
    pub fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    ///
    /// # Errors
    /// [`StateError::Short`] at the end.
    pub fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_refuses_to_read_past_the_end() {
        let mut reader = Reader::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u16(), Err(StateError::Short));
        assert_eq!(reader.bytes(2), Err(StateError::Short));
        assert_eq!(reader.bool("flag"), Err(StateError::Value("flag")));
        assert_eq!(reader.rest(), &[]);
        assert_eq!(reader.u64(), Err(StateError::Short));
    }
}
