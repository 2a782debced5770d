//! What a guest is told before its app starts: the content of its files, then its configuration.

use casemate_wire::frame::{HEADER_LEN, HostKind};

use super::Talk;
use crate::failure::Failure;

/// Bytes of files in one frame: the most that a payload has.
const PIECE_BYTES: usize = 65_536;

/// Both of them.
#[derive(Debug, Default)]
pub struct Told {
    /// Canonical JSON, the payload of CONFIG.
    pub config: String,
    /// The files, one behind the other.
    pub files: Vec<u8>,
}

impl Told {
    /// Bytes of the frames of the files.
    pub(super) fn backlog(&self) -> usize {
        let pieces = self.files.len().div_ceil(PIECE_BYTES);
        self.files.len().saturating_add(pieces.saturating_mul(HEADER_LEN))
    }
}

impl Talk {
    /// Tells the guest all of it. Both are kept, not freed: what is large would have to be unmapped, which a running I/O
    /// thread may not do. Of the files nothing is left.
    pub(super) fn tell(&mut self) -> Result<(), Failure> {
        let mut told = std::mem::take(&mut self.told);
        let mut pieces = told.files.chunks(PIECE_BYTES);
        let sent = pieces
            .try_for_each(|piece| self.send(HostKind::Files, piece))
            .and_then(|()| self.send(HostKind::Config, told.config.as_bytes()));
        told.files.fill(0);
        self.told = told;
        sent
    }
}
