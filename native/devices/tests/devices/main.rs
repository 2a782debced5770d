//! Every device, driven through its registers and rings by a driver that means well, and then by
//! one that does not. Only the public interface is used, and the device's answers are read from
//! guest memory, as a guest would.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    reason = "a test may stop at once, and its numbers are its own"
)]

mod attacks;
mod balloon;
mod block;
mod console;
mod guest;
mod model;
mod net;
mod net_frames;
mod random;
mod rate;
mod rng;
mod state;
mod transport;
mod verity;
