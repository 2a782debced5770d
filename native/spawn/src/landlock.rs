//! The Landlock rule set of a jail: nothing may be opened, connected, bound or signalled.
//!
//! One exception has to be made: execve(2) opens its file, so the VMM's own binary may be read and
//! executed. Inside the jail no path leads to it, and the VMM's filter has no execve.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys_unsafe::{self, LandlockRules};

/// `LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE`.
const EXECUTE_AND_READ: u64 = 1 | 1 << 2;
/// Bind and connect of TCP.
const NET_ALL: u64 = 0b11;
/// Abstract unix sockets and signals.
const SCOPE_ALL: u64 = 0b11;

/// Everything that the given ABI can deny, and how many bytes of the attribute it knows
/// (linux/landlock.h; ABI 1: Linux 5.13, 2: 5.19, 3: 6.2, 4: 6.7, 5: 6.10, 6: 6.12).
fn rules(abi: i64) -> (LandlockRules, usize) {
    let fs_bits = match abi {
        ..=1 => 13,
        2 => 14,
        3 | 4 => 15,
        5.. => 16,
    };
    let handled_fs = (1_u64 << fs_bits).wrapping_sub(1);
    let handled_net = if abi >= 4 { NET_ALL } else { 0 };
    let scoped = if abi >= 6 { SCOPE_ALL } else { 0 };
    let size = match abi {
        ..=3 => 8,
        4 | 5 => 16,
        6.. => 24,
    };
    (LandlockRules { handled_fs, handled_net, scoped }, size)
}

/// Makes the rule set, or `None` where the kernel has no Landlock.
///
/// # Errors
/// What the kernel says; a kernel that has Landlock must take the rules of its own ABI.
pub fn deny_all(executable: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let Some(abi) = sys_unsafe::landlock_abi() else { return Ok(None) };
    let (rules, size) = rules(abi);
    let ruleset = sys_unsafe::landlock_ruleset(&rules, size)?;
    sys_unsafe::landlock_allow(ruleset.as_fd(), executable, EXECUTE_AND_READ)?;
    Ok(Some(ruleset))
}

#[cfg(test)]
mod tests {
    use super::rules;

    #[test]
    fn denies_all_that_each_abi_knows_and_nothing_it_does_not() {
        let seen: Vec<(u64, u64, u64, usize)> = (1..=8)
            .map(|abi| {
                let (rules, size) = rules(abi);
                (rules.handled_fs, rules.handled_net, rules.scoped, size)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0x1fff, 0, 0, 8),
                (0x3fff, 0, 0, 8),
                (0x7fff, 0, 0, 8),
                (0x7fff, 3, 0, 16),
                (0xffff, 3, 0, 16),
                (0xffff, 3, 3, 24),
                (0xffff, 3, 3, 24),
                (0xffff, 3, 3, 24),
            ]
        );
    }
}
