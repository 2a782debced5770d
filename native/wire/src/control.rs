//! Control messages between VMM and spawn: one per packet, fixed layouts. Spawn is root and reads
//! what a VMM says that may have been taken over, so there is nothing here to parse but numbers and
//! one short text that is shown to people and never interpreted.

use std::fmt;

use crate::bytes::{Cursor, Packet};
use crate::metrics::{METRICS_BYTES, Metrics};
use crate::payload::{Exit, Resized, codes};

/// Longest text of a FAILURE, in bytes.
pub const FAILURE_TEXT_MAX: usize = 256;
/// Bytes of the longest message of a VMM, METRICS. Spawn's buffer is one byte longer, to notice more.
pub const VMM_MESSAGE_MAX: usize = 1 + METRICS_BYTES;
/// Bytes of the longest message of spawn.
pub const SPAWN_MESSAGE_MAX: usize = 9;

codes! {
    /// Why a VMM gave up: FAILURE's reason. Names are stable; records and `inspect` carry them.
    Reason {
        /// The ticket does not hold: signature, inclusion, host, boot, deadline, or the spec's digest.
        Ticket = 1, "TICKET";
        /// A descriptor is not what the spec says: digest, size, access mode or seals.
        Descriptor = 2, "DESCRIPTOR";
        /// KVM refused a call, or is not of the class the spec names.
        Kvm = 3, "KVM";
        /// The kernel is no ELF image this VMM boots, or does not fit the memory.
        KernelLoad = 4, "KERNEL_LOAD";
        /// The template's state does not fit this VMM or its memory.
        TemplateState = 5, "TEMPLATE_STATE";
        /// The guest did not say HELLO in time.
        BootTimeout = 6, "BOOT_TIMEOUT";
        /// The guest sent what is no frame, or not in its turn.
        GuestProtocol = 7, "GUEST_PROTOCOL";
        /// The guest said HELLO and then nothing in time.
        GuestSilent = 8, "GUEST_SILENT";
        /// A block of image or init does not match its Merkle tree.
        Verity = 9, "VERITY";
        /// The guest's processor stopped: triple fault or a state KVM cannot run.
        GuestCrash = 10, "GUEST_CRASH";
        /// The guest's driver broke the rules of a virtio queue.
        DeviceQueue = 11, "DEVICE_QUEUE";
        /// A seccomp filter could not be installed.
        Seccomp = 12, "SECCOMP";
        /// Reading or writing one of the VMM's descriptors failed.
        Io = 13, "IO";
        /// The guest's kernel panicked.
        GuestPanic = 14, "GUEST_PANIC";
        /// The launch document, or a control message of spawn, is not what the VMM accepts.
        LaunchDocument = 15, "LAUNCH_DOCUMENT";
        /// The machine in the spec is not one this VMM makes.
        Machine = 16, "MACHINE";
        /// The guest powered off without EXIT.
        GuestGone = 17, "GUEST_GONE";
        /// The guest could not start the app; the text begins with the code of its ERROR.
        AppStart = 18, "APP_START";
        /// A path of the host cannot be shared safely.
        HostPath = 19, "HOST_PATH";
    }
}

/// A message of the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack: boxes are allocations")]
pub enum FromVmm<'a> {
    /// Filters are installed, the guest is about to run: their digests, as installed.
    Started {
        /// Of the thread that talks to spawn.
        control: [u8; 32],
        /// Of the device thread.
        io: [u8; 32],
        /// Of the vCPU threads.
        vcpu: [u8; 32],
    },
    /// The guest has taken its configuration.
    Ready {
        /// From a template rather than by a cold boot.
        restored: bool,
    },
    /// What the guest reported of the app.
    Exit(Exit),
    /// The VMM gives up and ends.
    Failure {
        /// Why.
        reason: Reason,
        /// A sentence; printable ASCII, at most [`FAILURE_TEXT_MAX`] bytes.
        text: &'a str,
    },
    /// A template is taken; two memfds ride along, state first.
    Template {
        /// Bytes of state.
        state_size: u64,
        /// Bytes of memory.
        memory_size: u64,
    },
    /// The counters, as asked for.
    Metrics(Metrics),
    /// The guest's answer to a RESIZE.
    Resized(Resized),
}

/// A message of spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromSpawn {
    /// Ask the guest to stop the app.
    Stop {
        /// Milliseconds between its stop signal and SIGKILL.
        timeout_ms: u32,
    },
    /// A fresh pod stream rides along; it takes the place of the old one at a frame boundary.
    Stream,
    /// Asks for the counters.
    Metrics,
    /// The file of the scratch disk is longer now: the guest may have the rest of it.
    Resize {
        /// All its bytes.
        bytes: u64,
    },
}

/// A packet that is no message. Whoever sent it is broken or was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMessage;

impl fmt::Display for NotAMessage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a packet on the control socket has no layout of a control message")
    }
}

impl std::error::Error for NotAMessage {}

impl<'a> FromVmm<'a> {
    /// The packet. Failure's text is cut to its limit; what is not printable ASCII becomes `?`.
    #[must_use]
    pub fn encode(&self) -> Packet<VMM_MESSAGE_MAX> {
        let packet = Packet::new();
        match self {
            Self::Started { control, io, vcpu } => {
                packet.with(&[1]).with(control).with(io).with(vcpu)
            }
            Self::Ready { restored } => packet.with(&[2, u8::from(*restored)]),
            Self::Exit(exit) => packet.with(&[3]).with(exit.encode().as_bytes()),
            Self::Failure { reason, text } => {
                let printable = printable_ascii(text);
                let length = u16::try_from(printable.as_bytes().len()).unwrap_or(0);
                packet
                    .with(&[4])
                    .with(&reason.number().to_le_bytes())
                    .with(&length.to_le_bytes())
                    .with(printable.as_bytes())
            }
            Self::Template { state_size, memory_size } => {
                packet.with(&[5]).with(&state_size.to_le_bytes()).with(&memory_size.to_le_bytes())
            }
            Self::Metrics(metrics) => metrics.put(packet.with(&[6])),
            Self::Resized(resized) => packet.with(&[7]).with(resized.encode().as_bytes()),
        }
    }

    /// Reads one packet, whole.
    ///
    /// # Errors
    /// [`NotAMessage`] for every packet that [`FromVmm::encode`] cannot make.
    pub fn parse(packet: &'a [u8]) -> Result<Self, NotAMessage> {
        Self::read(packet).ok_or(NotAMessage)
    }

    fn read(packet: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(packet);
        match cursor.u8()? {
            1 => {
                let (control, io, vcpu) = (cursor.array()?, cursor.array()?, cursor.array()?);
                cursor.end(Self::Started { control, io, vcpu })
            }
            2 => {
                let restored = match cursor.u8()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                cursor.end(Self::Ready { restored })
            }
            3 => Exit::parse(cursor.rest()).map(Self::Exit),
            4 => {
                let reason = Reason::from_number(cursor.u16()?)?;
                let length = usize::from(cursor.u16()?);
                let text = cursor.rest();
                let right = length == text.len()
                    && length <= FAILURE_TEXT_MAX
                    && text.iter().all(|byte| is_printable(*byte));
                let text = std::str::from_utf8(text).ok()?;
                right.then_some(Self::Failure { reason, text })
            }
            5 => {
                let (state_size, memory_size) = (cursor.u64()?, cursor.u64()?);
                cursor.end(Self::Template { state_size, memory_size })
            }
            6 => {
                let metrics = Metrics::take(&mut cursor)?;
                cursor.end(Self::Metrics(metrics))
            }
            7 => Resized::parse(cursor.rest()).map(Self::Resized),
            _ => None,
        }
    }

    /// Descriptors that must ride along with the message.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Template { .. } => 2,
            _ => 0,
        }
    }
}

impl FromSpawn {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Packet<SPAWN_MESSAGE_MAX> {
        match self {
            Self::Stop { timeout_ms } => Packet::new().with(&[16]).with(&timeout_ms.to_le_bytes()),
            Self::Stream => Packet::new().with(&[17]),
            Self::Metrics => Packet::new().with(&[18]),
            Self::Resize { bytes } => Packet::new().with(&[19]).with(&bytes.to_le_bytes()),
        }
    }

    /// Reads one packet, whole.
    ///
    /// # Errors
    /// [`NotAMessage`] for every packet that [`FromSpawn::encode`] cannot make.
    pub fn parse(packet: &[u8]) -> Result<Self, NotAMessage> {
        let mut cursor = Cursor::new(packet);
        let message = match cursor.u8() {
            Some(16) => cursor.u32().map(|timeout_ms| Self::Stop { timeout_ms }),
            Some(17) => Some(Self::Stream),
            Some(18) => Some(Self::Metrics),
            Some(19) => cursor.u64().map(|bytes| Self::Resize { bytes }),
            _ => None,
        };
        message.and_then(|message| cursor.end(message)).ok_or(NotAMessage)
    }

    /// Descriptors that must ride along with the message.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Stop { .. } | Self::Metrics | Self::Resize { .. } => 0,
            Self::Stream => 1,
        }
    }
}

fn is_printable(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

fn printable_ascii(text: &str) -> Packet<FAILURE_TEXT_MAX> {
    text.bytes().fold(Packet::new(), |packet, byte| {
        packet.with(&[if is_printable(byte) { byte } else { b'?' }])
    })
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
