//! Copies of volumes, a piece at a time: spawn has one thread, and others to serve.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::{Facts, Name, Volumes};
use crate::clients::Answer;
use crate::daemon::Daemon;
use crate::refusal::Result;
use crate::sparse;

/// Bytes that are copied before others get their turn.
const PIECE_BYTES: u64 = 4 << 20;
/// Copies at a time.
pub(super) const COPIES_MAX: usize = 4;

/// A copy under way.
#[derive(Debug)]
pub struct Copying {
    /// Who waits for it.
    pub(super) client: u64,
    pub(super) tenant: String,
    pub(super) volume: String,
    /// What the copy becomes; `None`: the volume itself, in place of what it is.
    pub(super) into: Option<String>,
    pub(super) from: OwnedFd,
    /// Held until the copy is whole.
    pub(super) _volume_lock: Option<OwnedFd>,
    pub(super) facts: Facts,
    pub(super) to: File,
    pub(super) position: u64,
}

impl Copying {
    pub(super) fn name(&self) -> Name<'_> {
        Name { tenant: &self.tenant, volume: &self.volume, snapshot: self.into.as_deref() }
    }

    /// Bytes that are not copied yet.
    pub(super) const fn left_bytes(&self) -> u64 {
        self.facts.size_bytes.saturating_sub(self.position)
    }

    /// One piece; true when it was the last, and the copy has its place.
    fn go_on(&mut self, volumes: &Volumes) -> std::io::Result<bool> {
        let size = self.facts.size_bytes;
        let (from, to) = (self.from.as_fd(), self.to.as_fd());
        self.position = sparse::copy_some(from, self.position..size, to, PIECE_BYTES)?;
        if self.position < size {
            // A little at a time as well: all of it at the end would hold everybody up.
            self.to.sync_data()?;
            return Ok(false);
        }
        self.to.set_len(size)?;
        volumes.finish(&self.name(), &self.to, self.facts.copied(), self.into.is_none())?;
        Ok(true)
    }
}

impl Daemon {
    /// A piece of each copy.
    pub(crate) fn copy_volumes(&mut self) {
        let mut over: Vec<(u64, Result<Answer>)> = Vec::new();
        let volumes = &self.volumes;
        self.copying.retain_mut(|copy| match copy.go_on(volumes) {
            Ok(false) => true,
            Ok(true) => {
                over.push((copy.client, Ok(Answer::new(vec![]))));
                false
            }
            Err(error) => {
                volumes.give_up(&copy.name());
                over.push((copy.client, Err(super::storage(error))));
                false
            }
        });
        for (client, answer) in over {
            self.answer(client, answer);
        }
    }
}
