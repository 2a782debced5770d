//! Spent tickets: `<run>/spent/<leaf hash>`, created once (`O_EXCL`), holding the deadline.
//!
//! The directory lies in the run directory, which a reboot empties; tickets name their boot, so an
//! emptied directory gives none of them back. A file is removed only after its deadline, when the
//! ticket is worth nothing anyway.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use casemate_ticket::bytes::encode_hex;

use crate::refusal::{Refusal, Result};

/// The directory of spent tickets.
#[derive(Debug)]
pub struct Spent {
    directory: PathBuf,
}

impl Spent {
    /// Makes the directory if needed, for root alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let directory = run_dir.join("spent");
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        Ok(Self { directory })
    }

    /// Spends a ticket: succeeds once for a leaf hash, for ever in this boot.
    ///
    /// # Errors
    /// `TICKET_SPENT` for the second time, `SPAWN_STORAGE` when the file cannot be written: a ticket
    /// that cannot be spent admits nothing.
    pub fn spend(&self, leaf_hash: &[u8; 32], deadline_ns: u64) -> Result<()> {
        let path = self.directory.join(encode_hex(leaf_hash));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o400).open(path);
        let write = |mut file: File| file.write_all(deadline_ns.to_string().as_bytes());
        match file.and_then(write) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Refusal::new(
                "TICKET_SPENT",
                "this ticket has started a pod already; a launch needs a record of its own",
            )),
            Err(error) => Err(Refusal::new(
                "SPAWN_STORAGE",
                format!(
                    "the ticket could not be marked as spent: {error}; make room in the run directory"
                ),
            )),
        }
    }

    /// Removes tickets whose deadline has passed and says how many. A file that says no deadline
    /// (a crash between creating and writing) counts as one that ends as late as any can.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn sweep(&self, now_ns: u64) -> io::Result<usize> {
        let mut removed: usize = 0;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let deadline = fs::read_to_string(&path).ok().and_then(|text| text.parse::<u64>().ok());
            if deadline.is_some_and(|deadline_ns| deadline_ns < now_ns) {
                fs::remove_file(&path)?;
                removed = removed.saturating_add(1);
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::Spent;

    #[test]
    fn spends_once_and_forgets_only_after_the_deadline() {
        let directory = std::env::temp_dir().join(format!("casemate-spent-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let spent = Spent::open(&directory).unwrap();
        let (ticket, other) = ([1; 32], [2; 32]);
        spent.spend(&ticket, 1000).unwrap();
        assert_eq!(spent.spend(&ticket, 1000).unwrap_err().code, "TICKET_SPENT");
        spent.spend(&other, 2000).unwrap();
        assert_eq!(spent.sweep(1000).unwrap(), 0, "the deadline itself still counts");
        assert_eq!(spent.spend(&ticket, 1000).unwrap_err().code, "TICKET_SPENT");
        assert_eq!(spent.sweep(1001).unwrap(), 1);
        let again = Spent::open(&directory).unwrap();
        assert_eq!(
            again.spend(&other, 2000).unwrap_err().code,
            "TICKET_SPENT",
            "also after a restart"
        );
        std::fs::write(directory.join("spent/unfinished"), "").unwrap();
        assert_eq!(again.sweep(u64::MAX).unwrap(), 1, "a file without deadline stays");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
