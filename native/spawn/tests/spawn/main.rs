//! Spawn as it runs, with `jail-probe` in place of the VMM: what the jail lets a VMM do, what a bad
//! request or a bad ticket gets, and what is told of each end.
//!
//! Needs root (namespaces, cgroups, user ids) and a /dev/kvm that can be opened; says so and passes
//! over the tests where one is missing.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]

mod client;
mod documents;
#[path = "../../../vmm/tests/hostile/guest.rs"]
mod guest;
mod host;
mod wire;

mod crashes;
mod filter;
mod hostile;
mod jail;
mod keeper;
mod life;
mod network;
mod requests;
mod resize;
mod starter;
mod systemd;
mod takeover;
mod templates;
mod tickets;
mod unit;
mod volumes;
mod ways;
mod workers;
