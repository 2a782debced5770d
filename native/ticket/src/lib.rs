//! The launch ticket: what spawn and the VMM check before anything of a tenant runs.
//!
//! One function, [`ticket::check`], is both walls of a launch (docs/formats.md section 3), and
//! [`exec::check`] that of one more process in a pod, [`volume::check`] that of a change of a volume. Everything here is
//! pure: bytes in, a verdict out; no file, no clock and no socket, so each rule can be tested and
//! fuzzed alone. All input is hostile: the ticket, record and spec come from the agent, which the
//! walls exist to distrust.
#![forbid(unsafe_code)]

pub mod app;
pub mod blocks;
pub mod bytes;
pub mod config;
pub mod container;
mod descriptors;
pub mod document;
pub mod errand;
pub mod exec;
pub mod files;
pub mod health;
mod host_level;
pub mod host_path;
pub mod json;
pub mod mounts;
pub mod network;
pub mod note;
pub mod proof;
pub mod published;
pub mod rates;
pub mod scratch;
pub mod shape;
pub mod spec;
pub mod sysctls;
#[cfg(test)]
mod test_log;
pub mod ticket;
pub mod vm;
pub mod volume;
pub mod ways;
