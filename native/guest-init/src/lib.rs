//! guest-init: PID 1 of the virtual machine. It makes a restored machine unlike its siblings, takes
//! one app from the control pipe, runs it in namespaces of its own and reports how it ended.
//!
//! ```text
//!   boot     mounts, control port, HELLO | UNIQUE: reseed, set the clock, execute itself anew
//!   session  UNIQUE_DONE, CONFIG | fork -> child | streams, signals, credit | EXIT
//!   child    root, devices, user, limits, capabilities, seccomp | exec
//!   beside   EXEC | fork -> beside_child: the app's namespaces, user, limits, ... | exec, or errand: our own few lines
//!   health   fork -> health::child: the same | exec, or a connection | HEALTH
//! ```
//!
//! The host is taken for hostile as far as that has a meaning (it owns the machine): garbage on the
//! pipe ends the guest. The image and the app are hostile without qualification: paths of the image
//! are resolved inside the new root only, and the app has no way back to init or its pipe.

pub mod beside;
pub mod beside_child;
pub mod boot;
pub mod cgroup;
pub mod child;
pub mod crowd;
pub mod devices;
#[expect(unsafe_code, reason = "two ioctls of /dev/urandom have no safe wrapper")]
mod entropy_unsafe;
pub mod errand;
pub mod exec;
pub mod failure;
pub mod files;
pub mod grow;
pub mod health;
pub mod link;
pub mod mounts;
pub mod names;
pub mod namespaces;
pub mod netlink;
pub mod network;
pub mod places;
pub mod pod;
pub mod privileges;
#[expect(unsafe_code, reason = "fork, exec and unshare change what the process is")]
pub mod process_unsafe;
pub mod report;
#[expect(unsafe_code, reason = "an ioctl of ext4 has no safe wrapper")]
mod resize_unsafe;
pub mod root;
pub mod running;
pub mod seal;
pub mod session;
pub mod site;
pub mod streams;
pub mod sub_path;
pub mod sysctls;
pub mod terminal;
pub mod users;
pub mod volumes;
