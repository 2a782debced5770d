//! casemate-container: one pod of level container, in the place that a VMM has at level vm.
//!
//! It gets the same kind of descriptors as a VMM, checks the ticket once more, and says to spawn, to the agent and to the
//! pod's log what a VMM says, with the same code. Below it is an OCI runtime, which makes the container from a bundle that
//! is written here; the last steps inside, from the user to the seccomp program, are those of the init of virtual machines.
//!
//! ```text
//!   monitor  control socket, pod stream, log, gate  <- casemate_vmm's half of the conversation; without a privilege
//!      | socket pair
//!   session  its apps: streams, signals, stop, EXIT <- guest_init's half; root, with what a runtime needs
//!      | runtime: `run`; fork for processes beside the app
//!   inside   user, limits, capabilities, seccomp    <- guest_init's child, process 1 of each container
//! ```
//!
//! It reads nothing of the image and nothing the app writes but to count it and to keep the end
//! of what a health check says: what it parses are the launch document, as
//! root, and the frames of the agent, as a user that nobody else is, under a list of system calls that opens, starts and
//! reaches nothing.

mod below;
pub mod bundle;
mod filter;
pub mod gather;
mod groups;
#[expect(unsafe_code, reason = "descriptors at fixed numbers in a child")]
mod hand_unsafe;
mod host_paths;
#[expect(unsafe_code, reason = "a user namespace to map ids by, and mounts that are mapped")]
mod idmap_unsafe;
pub mod inside;
#[expect(unsafe_code, reason = "resource limits by number")]
mod limits_unsafe;
#[expect(unsafe_code, reason = "requests about loop devices that no library offers")]
mod loop_unsafe;
mod loops;
pub mod monitor;
#[expect(unsafe_code, reason = "flags of a mount, which the library has no call for")]
mod mount_unsafe;
mod network;
mod privileges;
mod root;
mod runtime;
mod session;
