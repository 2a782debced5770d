//! What crosses the borders between guest, VMM and spawn, as bytes: `docs/formats.md`, sections 6 to 8.
//!
//! Every reader here is fed by somebody hostile: the guest by its host, the VMM by its guest, spawn
//! by a VMM that may have been taken over. So a length is checked before it is believed, nothing
//! grows with what the other side says, and a value that is not exactly right is an error, never a
//! guess. The crate does no I/O, has no dependencies and no `unsafe`.
#![forbid(unsafe_code)]

pub mod apps;
mod bytes;
pub mod control;
pub mod credit;
pub mod frame;
pub mod health;
pub mod log_ring;
pub mod metrics;
pub mod order;
pub mod payload;
pub mod sessions;

pub use bytes::Packet;
