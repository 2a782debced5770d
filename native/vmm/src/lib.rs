//! `casemate-vmm`: the virtual machine monitor. One process per VM, started by spawn in a jail, on descriptors alone.
//!
//! ```text
//!   start filter -> launch document -> ticket (second wall) -> descriptors against the spec
//!     -> KVM_CREATE_VM -> boot or restore -> threads -> one filter a thread -> STARTED -> first KVM_RUN
//! ```
//!
//! `casemate-vmm --digests` prints the digests of its seccomp filters, which a spec must name; `--filters` prints their
//! rules.

pub mod agent_stream;
mod board;
#[expect(
    unsafe_code,
    reason = "reads a clock that only the C library finds without opening a file"
)]
mod clock_unsafe;
pub mod control;
pub mod cpuid;
pub mod descriptors;
#[expect(unsafe_code, reason = "ends the process without running anything of it")]
mod exit_unsafe;
pub mod failure;
#[expect(unsafe_code, reason = "takes inherited descriptors by number")]
mod fds_unsafe;
pub mod gate;
pub mod guest;
mod io;
pub mod launch;
mod machine;
mod mailbox;
mod memory;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod memory_kvm_tests;
#[expect(unsafe_code, reason = "maps guest memory and registers it with KVM")]
mod memory_unsafe;
mod mptable;
mod msr;
pub mod pvh;
pub mod report;
pub mod run;
pub mod seccomp;
pub mod state;
#[expect(unsafe_code, reason = "asks the kernel about a tap")]
mod tap_unsafe;
mod tap_watch;
mod template;
mod timer;
mod vcpu;
mod vcpu_state;
#[expect(unsafe_code, reason = "KVM_SET_XSAVE")]
mod xsave_unsafe;
