//! Loop devices of volumes: one for each, whichever of the pod's apps have it. Two of one file would be two file systems
//! that know nothing of each other.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::loop_unsafe;

/// Those that were made, by the volume's name; each is there for as long as this is.
#[derive(Debug, Default)]
pub struct Loops(RefCell<Vec<(String, File, String)>>);

impl Loops {
    /// The path of the one for the volume `name`, whose disk is `disk`.
    ///
    /// # Errors
    /// As [`loop_unsafe::attach`].
    pub fn of(&self, name: &str, disk: &File, read_only: bool) -> io::Result<String> {
        let mut made = self.0.borrow_mut();
        if let Some((_, _, path)) = made.iter().find(|(known, ..)| known == name) {
            return Ok(path.clone());
        }
        let (device, path) = loop_unsafe::attach(disk.as_fd(), read_only)?;
        made.push((name.to_owned(), device, path.clone()));
        Ok(path)
    }
}
