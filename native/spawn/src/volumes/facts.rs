//! What spawn writes down of a volume: `volume.json` in its folder.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use casemate_ticket::json::{self, Value};
use casemate_ticket::shape::{ShapeError, boolean, constant, fields, integer};
use casemate_ticket::volume;

use super::write_file;
use crate::answers::{number, object, string};

const FILE: &str = "volume.json";
const BYTES_MAX: u64 = 4096;

/// One volume, or snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// Whether a virtual machine could ever write to it: then the host's kernel never mounts it, because its guest may
    /// have made every byte of the file system.
    pub machine: bool,
    /// When it was made, ms since 1970.
    pub made_ms: u64,
}

impl Facts {
    /// Of one that is made now.
    pub fn new(size_bytes: u64) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let made_ms = u64::try_from(since.as_millis()).unwrap_or(0);
        Self { size_bytes, machine: false, made_ms }
    }

    /// Of a copy of it that is made now.
    pub fn copied(&self) -> Self {
        Self { machine: self.machine, ..Self::new(self.size_bytes) }
    }

    /// Of the volume in `folder`; `None` where there is no folder.
    ///
    /// # Errors
    /// A file that is missing there, or not as it was written.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let file = match fs::File::open(folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => {
                return Ok(None);
            }
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        let size_max = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
        let value = json::parse(&bytes, size_max).map_err(io::Error::other)?;
        Self::parse(&value).map(Some).map_err(io::Error::other)
    }

    fn parse(value: &Value) -> Result<Self, ShapeError> {
        let [machine, made_ms, size_bytes, version] =
            fields(value, "volume", ["machine", "made_ms", "size_bytes", "v"])?;
        constant(version, "v", "casemate.volume/1")?;
        Ok(Self {
            size_bytes: volume::size(size_bytes, "size_bytes")?,
            machine: boolean(machine, "machine")?,
            made_ms: integer(made_ms, "made_ms", 0..=1 << 53)?,
        })
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = json::write(&object(vec![
            ("machine", Value::Bool(self.machine)),
            ("made_ms", number(self.made_ms)),
            ("size_bytes", number(self.size_bytes)),
            ("v", string("casemate.volume/1")),
        ]));
        write_file(&folder.join(FILE), &text)
    }
}
