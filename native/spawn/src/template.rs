//! One template: what it is made of, and how what a builder sent or a disk held becomes one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::json::Value;
use casemate_ticket::spec::{File, Template as Digests};

use crate::answers::{number, object, string};
use crate::sparse::{self, SEALED};

/// Virtual CPUs and MiB of memory.
pub type Shape = (u32, u32);

/// Most bytes of state.
pub const STATE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a machine's memory.
pub fn memory_bytes((_, memory_mib): Shape) -> u64 {
    u64::from(memory_mib).saturating_mul(1 << 20)
}

/// State and memory that nobody has looked at.
#[derive(Debug)]
pub struct Taken {
    state: OwnedFd,
    memory: OwnedFd,
    state_size: u64,
    memory_size: u64,
}

impl Taken {
    /// Of the two descriptors of a TEMPLATE message, and the sizes it names.
    pub fn new(descriptors: Vec<OwnedFd>, state_size: u64, memory_size: u64) -> Option<Self> {
        let [state, memory] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
        Some(Self { state, memory, state_size, memory_size })
    }
}

/// A template: two sealed memfds, and the digests of what is in them.
#[derive(Debug)]
pub struct Template {
    /// The VMM's state file.
    pub state: OwnedFd,
    /// The guest's memory, only what is not zero.
    pub memory: OwnedFd,
    /// Computed here, from what is in them.
    pub digests: Digests,
}

impl Template {
    /// Takes what arrived if it is sealed and of the shape.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn judge(taken: Taken, shape: Shape) -> Result<Self, String> {
        let Taken { state, memory, state_size, memory_size } = taken;
        if memory_size != memory_bytes(shape) || state_size == 0 || state_size > STATE_BYTES_MAX {
            return Err(format!("{state_size} bytes of state and {memory_size} of memory came"));
        }
        check_sealed("state", state.as_fd(), state_size)?;
        check_sealed("memory", memory.as_fd(), memory_size)?;
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let digests = Digests {
            state: File {
                digest: sparse::digest(state.as_fd(), state_size).map_err(unreadable)?,
                size: state_size,
            },
            memory: File {
                digest: sparse::block_digest(memory.as_fd(), memory_size).map_err(unreadable)?,
                size: memory_size,
            },
        };
        Ok(Self { state, memory, digests })
    }

    /// An entry of `templates` of `describe`.
    pub fn describe(&self, (vcpus, memory_mib): Shape) -> Value {
        let Digests { memory, state } = &self.digests;
        object(vec![
            ("vcpus", number(vcpus)),
            ("memory_mib", number(memory_mib)),
            ("memory", string(&memory.digest)),
            ("memory_size", number(memory.size)),
            ("state", string(&state.digest)),
            ("state_size", number(state.size)),
        ])
    }
}

/// Only a memfd has seals; sealed, its bytes stay what their digest says.
fn check_sealed(role: &str, file: BorrowedFd<'_>, size: u64) -> Result<(), String> {
    let seals = rustix::fs::fcntl_get_seals(file);
    if !seals.is_ok_and(|seals| seals.contains(SEALED)) {
        return Err(format!("its {role} is no sealed memfd"));
    }
    match rustix::fs::fstat(file) {
        Ok(facts) if u64::try_from(facts.st_size) == Ok(size) => Ok(()),
        _ => Err(format!("its {role} has another size than was said")),
    }
}

/// What tests make templates of.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
pub mod samples {
    use super::*;

    pub fn taken(state: &[u8], memory: OwnedFd, memory_size: u64) -> Taken {
        let size = u64::try_from(state.len()).unwrap();
        let state = sparse::sealed_memfd("state", state).unwrap();
        Taken { state, memory, state_size: size, memory_size }
    }

    pub fn memory(size: u64) -> OwnedFd {
        let one = sparse::sealed_memfd("seed", &[1; 4096]).unwrap();
        // Copying with a larger size than the data keeps the rest a hole.
        sparse::copy("memory", one.as_fd(), size).unwrap().0
    }

    /// Of (1, 128 MiB), with `state` in it.
    pub fn template(state: &[u8]) -> Template {
        Template::judge(taken(state, memory(128 << 20), 128 << 20), (1, 128)).unwrap()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use super::samples::{memory, taken, template};
    use super::*;

    #[test]
    fn takes_a_sealed_template_of_its_shape_and_nothing_else() {
        let size = 128 << 20;
        let good = template(b"state");
        assert_eq!(good.digests.state.digest, casemate_ticket::bytes::Digest::of(b"state"));
        let judge = |state, memory, shape| Template::judge(taken(state, memory, size), shape);
        assert!(judge(b"state", memory(size), (2, 256)).is_err());
        assert!(judge(b"", memory(size), (1, 128)).is_err());
        assert!(judge(b"state", memory(4096), (1, 128)).is_err(), "shorter than it says");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(judge(b"state", file.into(), (1, 128)).is_err(), "no memfd");
    }
}
