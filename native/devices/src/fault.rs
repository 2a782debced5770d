//! Why a device stopped believing its driver.

use std::fmt;

/// What the driver did that the device cannot answer. The device sets `NEEDS_RESET`, raises a
/// configuration interrupt, forgets its queues and does not touch guest memory until it is reset
/// (virtio 1.2, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A ring size that is not a power of two up to the queue's maximum.
    QueueSize(u32),
    /// A ring address that is not aligned (16 descriptors, 2 available, 4 used).
    QueueAlignment(u64),
    /// A ring that does not lie inside one region of guest memory.
    QueueOutsideMemory(u64),
    /// The available index is further ahead than the ring is long.
    AvailableJump(u16),
    /// A head or next index outside the descriptor table.
    DescriptorIndex(u16),
    /// A descriptor met twice in one pass: a loop, a head published twice, or two chains that share
    /// a descriptor (CVE-2026-45782 class).
    DescriptorSeenTwice(u16),
    /// An indirect table, which is not offered.
    Indirect(u16),
    /// A descriptor of no bytes.
    EmptyDescriptor(u16),
    /// A buffer that does not lie inside one region of guest memory (CVE-2019-18960 class).
    BufferOutsideMemory(u64),
    /// A device-readable descriptor after a device-writable one.
    ReadableAfterWritable(u16),
    /// More bytes in one chain than the queue takes.
    ChainTooLong,
    /// A chain without the readable or writable part that the queue is for.
    WrongDirection,
    /// Memory given back that does not begin and end with a page.
    NotWholePages(u64),
    /// Guest memory that was checked could not be accessed.
    Memory,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueSize(size) => write!(f, "queue size {size} is not allowed"),
            Self::QueueAlignment(address) => write!(f, "ring address {address:#x} is not aligned"),
            Self::QueueOutsideMemory(address) => {
                write!(f, "the ring at {address:#x} is not inside one region of guest memory")
            }
            Self::AvailableJump(index) => {
                write!(f, "available index {index} is further ahead than the ring is long")
            }
            Self::DescriptorIndex(index) => write!(f, "descriptor {index} is outside the table"),
            Self::DescriptorSeenTwice(index) => write!(f, "descriptor {index} is used twice"),
            Self::Indirect(index) => {
                write!(f, "descriptor {index} is indirect, which was not offered")
            }
            Self::EmptyDescriptor(index) => write!(f, "descriptor {index} has no bytes"),
            Self::BufferOutsideMemory(address) => {
                write!(f, "the buffer at {address:#x} is not inside one region of guest memory")
            }
            Self::ReadableAfterWritable(index) => {
                write!(f, "descriptor {index} is readable and follows a writable one")
            }
            Self::ChainTooLong => f.write_str("a chain has more bytes than the queue takes"),
            Self::WrongDirection => {
                f.write_str("a chain lacks the readable or writable part that the queue is for")
            }
            Self::NotWholePages(address) => {
                write!(f, "the memory reported free at {address:#x} is no whole pages")
            }
            Self::Memory => f.write_str("guest memory could not be accessed"),
        }
    }
}

impl std::error::Error for Fault {}
