//! The pod log: a ring of records in one file of fixed size, written by the VMM and read by the
//! agent while it is written. Only arithmetic and layout; the file is behind [`WriteAt`].
//!
//! A pod that writes without end overwrites its own oldest output and costs the host no more than
//! the file. Data is in the file before the header's `written` covers it, so a reader never sees a
//! record that is not whole, unless the writer overtook it, which the reader can tell.

use std::fmt;
use std::io;

use crate::apps::APPS_MAX;
use crate::bytes::Cursor;

/// First bytes of a pod log.
pub const MAGIC: [u8; 8] = *b"casemlog";
/// Version of the layout.
pub const VERSION: u32 = 1;
/// Bytes before the ring.
pub const FILE_HEADER_LEN: u64 = 4096;
/// No record crosses a multiple of this many bytes, so a reader can begin at any of them.
pub const SEGMENT_SIZE: u32 = 65_536;
/// Bytes of a record's header.
pub const RECORD_HEADER_LEN: u32 = 16;
/// Most bytes one record's payload has.
pub const RECORD_PAYLOAD_MAX: u32 = 65_520;
/// Offset of `written` in the file.
pub const WRITTEN_AT: u64 = 24;

/// Where the writer's bytes go.
pub trait WriteAt {
    /// Writes `parts`, one after the other, at `offset` of the file; all of them, or an error.
    ///
    /// # Errors
    /// What the file answers.
    fn write_at(&mut self, offset: u64, parts: [&[u8]; 2]) -> io::Result<()>;
}

/// Who said the bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody: the rest of the segment is unused (0).
    Padding,
    /// The app's standard output (1).
    Stdout,
    /// The app's standard error (2).
    Stderr,
    /// The guest's kernel (3).
    GuestConsole,
    /// The VMM itself (4).
    VmmNote,
}

impl Source {
    const fn number(self) -> u8 {
        match self {
            Self::Padding => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::GuestConsole => 3,
            Self::VmmNote => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Padding),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::GuestConsole),
            4 => Some(Self::VmmNote),
            _ => None,
        }
    }
}

/// A file size that holds no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSize(pub u64);

impl fmt::Display for BadSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "a pod log of {} bytes has no room for {FILE_HEADER_LEN} bytes and two segments of {SEGMENT_SIZE}",
            self.0
        )
    }
}

impl std::error::Error for BadSize {}

/// The shape of a log file: its capacity, a whole number of segments and at least two of them, so
/// that one can be read while another is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    capacity: u64,
}

impl Shape {
    /// The shape of a file of `size` bytes: as many whole segments as fit after the header.
    ///
    /// # Errors
    /// [`BadSize`] when fewer than two segments fit.
    pub fn of_file(size: u64) -> Result<Self, BadSize> {
        let ring = size.checked_sub(FILE_HEADER_LEN).ok_or(BadSize(size))?;
        let tail = ring.checked_rem(u64::from(SEGMENT_SIZE)).unwrap_or(0);
        Self::of_capacity(ring.saturating_sub(tail)).ok_or(BadSize(size))
    }

    fn of_capacity(capacity: u64) -> Option<Self> {
        let segment = u64::from(SEGMENT_SIZE);
        let right = capacity.is_multiple_of(segment) && capacity.checked_div(segment)? >= 2;
        right.then_some(Self { capacity })
    }

    /// Bytes the ring holds.
    #[must_use]
    pub const fn capacity(self) -> u64 {
        self.capacity
    }

    /// Where the logical offset `logical` lies in the file.
    #[must_use]
    pub fn position(self, logical: u64) -> u64 {
        logical.checked_rem(self.capacity).unwrap_or(0).saturating_add(FILE_HEADER_LEN)
    }

    /// Bytes from `logical` to the end of its segment.
    #[must_use]
    pub fn room(logical: u64) -> u32 {
        let used = logical.checked_rem(u64::from(SEGMENT_SIZE)).unwrap_or(0);
        SEGMENT_SIZE.saturating_sub(u32::try_from(used).unwrap_or(0))
    }

    /// The oldest logical offset a reader may begin at when the header says `written`.
    #[must_use]
    pub fn oldest(self, written: u64) -> u64 {
        let segment = u64::from(SEGMENT_SIZE);
        let spared = self.capacity.saturating_sub(segment);
        written.saturating_sub(spared).checked_next_multiple_of(segment).unwrap_or(written)
    }

    /// Whether what was read from `logical` on is still whole, by the `written` read afterwards.
    #[must_use]
    pub fn intact(self, logical: u64, written: u64) -> bool {
        let spared = self.capacity.saturating_sub(u64::from(SEGMENT_SIZE));
        logical.checked_add(spared).is_some_and(|end| end >= written)
    }

    /// The first bytes of the file, up to and with `written`; the rest of the header is zero.
    #[must_use]
    pub fn file_header(self, written: u64) -> [u8; 32] {
        let mut out = [0; 32];
        let parts = [
            MAGIC.as_slice(),
            &VERSION.to_le_bytes(),
            &SEGMENT_SIZE.to_le_bytes(),
            &self.capacity.to_le_bytes(),
            &written.to_le_bytes(),
        ];
        for (slot, byte) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        out
    }

    /// Reads the first bytes of a file: its shape and `written`.
    #[must_use]
    pub fn parse_file_header(bytes: &[u8; 32]) -> Option<(Self, u64)> {
        let mut cursor = Cursor::new(bytes);
        (cursor.array()? == MAGIC).then_some(())?;
        (cursor.u32()? == VERSION && cursor.u32()? == SEGMENT_SIZE).then_some(())?;
        let shape = Self::of_capacity(cursor.u64()?)?;
        let written = cursor.u64()?;
        cursor.end((shape, written))
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of payload that follow.
    pub length: u32,
    /// Who said them.
    pub source: Source,
    /// The place of the app whose output it is, in the spec; 0 for everything else.
    pub app: u8,
    /// When the VMM had them, in nanoseconds since 1970.
    pub time_ns: u64,
}

impl RecordHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; 16] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.time_ns.to_le_bytes();
        let source = self.source.number();
        [l0, l1, l2, l3, source, self.app, 0, 0, t0, t1, t2, t3, t4, t5, t6, t7]
    }

    /// Reads the header at the logical offset `logical`: its record must end in the same segment.
    #[must_use]
    pub fn parse(bytes: [u8; 16], logical: u64) -> Option<Self> {
        let mut cursor = Cursor::new(&bytes);
        let length = cursor.u32()?;
        let source = Source::from_number(cursor.u8()?)?;
        let app = cursor.u8().filter(|app| usize::from(*app) < APPS_MAX)?;
        (cursor.array()? == [0_u8; 2]).then_some(())?;
        let time_ns = cursor.u64()?;
        let fits = length.checked_add(RECORD_HEADER_LEN)? <= Shape::room(logical);
        fits.then_some(Self { length, source, app, time_ns })
    }
}

/// Writes a pod log from its beginning. One per file.
#[derive(Debug)]
pub struct Writer<W> {
    file: W,
    shape: Shape,
    written: u64,
}

impl<W: WriteAt> Writer<W> {
    /// Formats `file`, which holds zeros, and begins at logical offset 0.
    ///
    /// # Errors
    /// What the file answers.
    pub fn format(mut file: W, shape: Shape) -> io::Result<Self> {
        file.write_at(0, [&shape.file_header(0), &[]])?;
        Ok(Self { file, shape, written: 0 })
    }

    /// Logical bytes written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Appends `payload`, in several records where it crosses a segment, and then raises `written`
    /// once for each record: a reader may be behind by one record, never by part of one.
    ///
    /// # Errors
    /// What the file answers; a record that failed is not covered by `written`.
    pub fn append(&mut self, source: Source, time_ns: u64, payload: &[u8]) -> io::Result<()> {
        self.append_of(0, source, time_ns, payload)
    }

    /// The same for what the app at that place wrote.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn append_of(
        &mut self,
        app: u8,
        source: Source,
        time_ns: u64,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut left = payload;
        while !left.is_empty() {
            let room = Shape::room(self.written);
            let usable = room.saturating_sub(RECORD_HEADER_LEN);
            if usable == 0 {
                self.finish_segment(room, time_ns)?;
                continue;
            }
            let (part, rest) = left.split_at(left.len().min(usize::try_from(usable).unwrap_or(0)));
            let length = u32::try_from(part.len()).unwrap_or(usable);
            self.put(RecordHeader { length, source, app, time_ns }, part)?;
            left = rest;
        }
        Ok(())
    }

    /// The segment has no room for a payload: a header without one if it fits, and on to the next.
    fn finish_segment(&mut self, room: u32, time_ns: u64) -> io::Result<()> {
        if room < RECORD_HEADER_LEN {
            return self.raise(u64::from(room));
        }
        let length = room.saturating_sub(RECORD_HEADER_LEN);
        self.put(RecordHeader { length, source: Source::Padding, app: 0, time_ns }, &[])
    }

    fn put(&mut self, header: RecordHeader, payload: &[u8]) -> io::Result<()> {
        let position = self.shape.position(self.written);
        self.file.write_at(position, [&header.encode(), payload])?;
        self.raise(u64::from(header.length).saturating_add(u64::from(RECORD_HEADER_LEN)))
    }

    fn raise(&mut self, bytes: u64) -> io::Result<()> {
        let written = self.written.saturating_add(bytes);
        self.file.write_at(WRITTEN_AT, [&written.to_le_bytes(), &[]])?;
        self.written = written;
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_ring_tests.rs"]
mod tests;
