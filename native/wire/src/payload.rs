//! Payloads of the frames whose content is fixed. A parser answers `None` for every length and
//! value but the right ones; the caller then ends the conversation.

use crate::bytes::{Cursor, Packet};

/// Bytes of entropy a guest gets after a restore.
pub const ENTROPY_LEN: usize = 64;
/// Longest text of an `ERROR`, in bytes.
pub const ERROR_TEXT_MAX: usize = 1024;

/// `UNIQUE`: what makes a restored guest unlike its siblings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Unique {
    /// Fresh random bytes from the host's kernel, for the guest's pool.
    pub entropy: [u8; ENTROPY_LEN],
    /// The host's wall clock, in nanoseconds since 1970.
    pub wall_clock_ns: u64,
    /// Never used for another machine.
    pub nonce: [u8; 16],
}

impl std::fmt::Debug for Unique {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The entropy is a secret of the guest: it must not reach a log by way of `{:?}`.
        write!(out, "Unique {{ wall_clock_ns: {}, .. }}", self.wall_clock_ns)
    }
}

impl Unique {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<88> {
        Packet::new().with(&self.entropy).with(&self.wall_clock_ns.to_le_bytes()).with(&self.nonce)
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let value =
            Self { entropy: cursor.array()?, wall_clock_ns: cursor.u64()?, nonce: cursor.array()? };
        cursor.end(value)
    }
}

/// The app's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output (1).
    Stdout,
    /// Standard error (2).
    Stderr,
}

impl Stream {
    /// The number in frames and in the pod log.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// The stream of a number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// `CREDIT` of the host: leave to send so many more bytes of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputCredit {
    /// The stream that may go on.
    pub stream: Stream,
    /// Bytes, on top of what was granted before.
    pub bytes: u32,
}

impl OutputCredit {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<5> {
        Packet::new().with(&[self.stream.number()]).with(&self.bytes.to_le_bytes())
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let value = Self { stream: Stream::from_number(cursor.u8()?)?, bytes: cursor.u32()? };
        cursor.end(value)
    }
}

macro_rules! number_payload {
    ($(#[$doc:meta])* $name:ident, $(#[$field_doc:meta])* $field:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $(#[$field_doc])*
            pub $field: u32,
        }

        impl $name {
            /// The payload's bytes.
            #[must_use]
            pub fn encode(&self) -> Packet<4> {
                Packet::new().with(&self.$field.to_le_bytes())
            }

            /// Reads a payload.
            #[must_use]
            pub fn parse(payload: &[u8]) -> Option<Self> {
                let mut cursor = Cursor::new(payload);
                let value = Self { $field: cursor.u32()? };
                cursor.end(value)
            }
        }
    };
}

number_payload! {
    /// `SIGNAL`: a signal for the app.
    Signal,
    /// As in signal(7); the guest refuses numbers it does not have.
    number
}

number_payload! {
    /// `STOP`: the app's stop signal now, SIGKILL after the time.
    Stop,
    /// Milliseconds between the two.
    timeout_ms
}

number_payload! {
    /// `STARTED`: the app runs.
    Started,
    /// Its process id as guest-init sees it.
    pid
}

number_payload! {
    /// `CREDIT` of the guest: leave to send more standard input.
    InputCredit,
    /// Bytes, on top of what was granted before.
    bytes
}

/// `WINDOW`: the size of a session's terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Size {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<4> {
        Packet::new().with(&self.rows.to_le_bytes()).with(&self.columns.to_le_bytes())
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let value = Self { rows: cursor.u16()?, columns: cursor.u16()? };
        cursor.end(value)
    }
}

/// `ADMIT`: what a process beside the app is asked for with. Two lengths, then the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admit<'a> {
    /// Receipt of the record: a tlog-proof.
    pub ticket: &'a [u8],
    /// The exec.intent.
    pub record: &'a [u8],
    /// Payload of the `EXEC` that it admits.
    pub request: &'a [u8],
}

impl<'a> Admit<'a> {
    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let ticket_len = usize::try_from(cursor.u32()?).ok()?;
        let record_len = usize::try_from(cursor.u32()?).ok()?;
        let (ticket, rest) = cursor.rest().split_at_checked(ticket_len)?;
        let (record, request) = rest.split_at_checked(record_len)?;
        Some(Self { ticket, record, request })
    }
}

/// `HELLO`: init waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`crate::frame::PROTOCOL_VERSION`] of the guest.
    pub version: u32,
}

impl Hello {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<8> {
        Packet::new().with(&self.version.to_le_bytes()).with(&[0; 4])
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let value = Self { version: cursor.u32()? };
        (cursor.u32()? == 0).then_some(())?;
        cursor.end(value)
    }
}

/// `RESIZE`: the scratch disk has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// All bytes of the disk.
    pub bytes: u64,
}

impl Resize {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<8> {
        Packet::new().with(&self.bytes.to_le_bytes())
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let value = Self { bytes: cursor.u64()? };
        cursor.end(value)
    }
}

/// `RESIZED`: what came of it. Also the content of the VMM's RESIZED to spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// 0 when the file system takes up the whole disk, else the guest's errno.
    pub errno: u32,
    /// As RESIZE had it.
    pub bytes: u64,
}

impl Resized {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<12> {
        Packet::new().with(&self.errno.to_le_bytes()).with(&self.bytes.to_le_bytes())
    }

    /// Reads a payload; Linux has no errno beyond 4095.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let value = Self { errno: cursor.u32()?, bytes: cursor.u64()? };
        (value.errno < 4096).then_some(())?;
        cursor.end(value)
    }
}

/// How an app ended. Also the content of the VMM's EXIT to spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(u8),
    /// This signal killed it, 1 to 64.
    Signal(u8),
    /// The guest's memory limit killed it, with this signal.
    Oom(u8),
}

impl Exit {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet<5> {
        let (how, value) = match *self {
            Self::Code(code) => (0_u8, code),
            Self::Signal(signal) => (1, signal),
            Self::Oom(signal) => (2, signal),
        };
        Packet::new().with(&[how]).with(&i32::from(value).to_le_bytes())
    }

    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let how = cursor.u8()?;
        let value = u8::try_from(cursor.i32()?).ok()?;
        let exit = match how {
            0 => Self::Code(value),
            1 if (1..=64).contains(&value) => Self::Signal(value),
            2 if (1..=64).contains(&value) => Self::Oom(value),
            _ => return None,
        };
        cursor.end(exit)
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The stable name, as records and API answers carry it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value of a number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use codes;

codes! {
    /// Why the guest could not start the app: the code of `ERROR`.
    ErrorCode {
        /// The program is not in the image, or not on the PATH.
        NotFound = 1, "APP_NOT_FOUND";
        /// The program is there and the kernel does not execute it.
        NotExecutable = 2, "APP_NOT_EXECUTABLE";
        /// The user or group does not exist in the image, or has no valid number.
        User = 3, "APP_USER";
        /// The working directory cannot be made or entered.
        Cwd = 4, "APP_CWD";
        /// A disk did not appear, or a file system could not be mounted.
        Mount = 5, "APP_MOUNT";
        /// The kernel refused the seccomp program.
        Seccomp = 6, "APP_SECCOMP";
        /// The configuration is not what guest-init accepts.
        Config = 7, "APP_CONFIG";
        /// Anything else that went wrong before the app ran.
        Other = 8, "APP_START";
        /// The network card could not be made what the configuration says.
        Network = 9, "APP_NETWORK";
        /// There are as many sessions as a pod may have, or one of that number is still ending.
        Busy = 10, "EXEC_BUSY";
        /// Ticket, record and request of a session do not admit it.
        Refused = 11, "EXEC_REFUSED";
        /// The OCI runtime did not make the container. Its words are about the host.
        Runtime = 12, "APP_RUNTIME";
    }
}

/// `ERROR`: the app could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartError<'a> {
    /// Which step failed.
    pub code: ErrorCode,
    /// A sentence for people; printable, at most [`ERROR_TEXT_MAX`] bytes.
    pub text: &'a str,
}

impl<'a> StartError<'a> {
    /// The payload's bytes. The text is cut at a character that fits; what is not printable
    /// becomes `?`, so that a file name of the image cannot forge a line of somebody's terminal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.code.number().to_le_bytes().to_vec();
        for character in self.text.chars().map(|c| if c.is_control() { '?' } else { c }) {
            if out.len().saturating_add(character.len_utf8()) > ERROR_TEXT_MAX.saturating_add(2) {
                break;
            }
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out
    }

    /// Reads a payload: a known code, and text without control characters.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let code = ErrorCode::from_number(cursor.u16()?)?;
        let text = std::str::from_utf8(cursor.rest()).ok()?;
        let printable = text.len() <= ERROR_TEXT_MAX && !text.chars().any(char::is_control);
        printable.then_some(Self { code, text })
    }
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
