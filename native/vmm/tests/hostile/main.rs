//! Guests that attack from ring 0: bare-metal programs (`guest/`), booted by the VMM as it is, with its ticket, its
//! descriptors and its filters, in both builds: with debug assertions and overflow checks, and as it is shipped.
//!
//! Whatever a guest tries, its VMM goes on answering or ends with the cause named; it needs no more memory, and no file
//! is changed but scratch, within its size ([`host::run`] checks that for every attack). What a guest saw it tells
//! through its serial port, and the counters say that the attack was one.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]

mod attack;
#[expect(unsafe_code, reason = "descriptors between fork and exec")]
mod child_unsafe;
#[allow(dead_code, reason = "shared with the tests of spawn, which need all of it")]
#[path = "../../../spawn/tests/spawn/documents.rs"]
mod documents;
mod files;
mod guest;
mod host;

mod block;
mod bus;
mod console;
mod control;
mod network;
mod processor;
mod registers;
mod rings;
