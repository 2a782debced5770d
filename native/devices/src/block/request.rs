//! One block request: a 16-byte header, data, and a status byte as the last writable one.

use super::{
    BUFFER_BYTES, Backend, Block, BlockKind, CLEAR_SECTORS_MAX, ID_BYTES, REQUEST_BYTES_MAX,
    SECTOR_BYTES, VerityError,
};
use crate::device::Context;
use crate::fault::Fault;
use crate::number::{bump, narrow, widen};
use crate::queue::Queue;

const HEADER_BYTES: u32 = 16;
const CLEAR_BYTES: u32 = 16;
const FLAG_UNMAP: u32 = 1;

const STATUS_OK: u8 = 0;
const STATUS_IO_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// What a request asks for (virtio 1.2, section 5.2.6), with its first sector.
#[derive(Clone, Copy, Debug)]
enum Request {
    Read(u64),
    Write(u64),
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Unknown,
}

impl Request {
    fn parse(header: [u8; 16]) -> Self {
        let [k0, k1, k2, k3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            0 => Self::Read(sector),
            1 => Self::Write(sector),
            4 => Self::Flush,
            8 => Self::GetId,
            11 => Self::Discard,
            13 => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }
}

/// A request whose lengths are possible, copied from the guest once: what is paid for is what is
/// done.
struct Asked {
    request: Request,
    /// Data bytes that the device may write, without the status.
    data_in: u32,
    /// Data bytes after the header.
    data_out: u32,
}

impl Asked {
    fn read(data_in: u32, context: &Context<'_>) -> Result<Self, Refused> {
        let data_out = context.chain.readable_len().checked_sub(HEADER_BYTES).ok_or(Refused::Io)?;
        let mut header = [0; 16];
        context.chain.read(context.memory, 0, &mut header)?;
        let request = Request::parse(header);
        let (in_max, out_max) = match request {
            Request::Read(_) => (REQUEST_BYTES_MAX, 0),
            Request::Write(_) => (0, REQUEST_BYTES_MAX),
            Request::GetId => (u32::MAX, 0),
            Request::Discard | Request::WriteZeroes => (0, CLEAR_BYTES),
            Request::Flush | Request::Unknown => (u32::MAX, u32::MAX),
        };
        if data_in > in_max || data_out > out_max {
            return Err(Refused::Io);
        }
        Ok(Self { request, data_in, data_out })
    }
}

/// Why a request failed, short of a fault of the driver's.
enum Refused {
    Io,
    Unsupported,
    Fault(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<std::io::Error> for Refused {
    fn from(_: std::io::Error) -> Self {
        Self::Io
    }
}

/// The byte position of a range of sectors that lies inside the disk. Nothing wraps.
fn position(sector: u64, len: u64, sectors: u64) -> Result<u64, Refused> {
    let start = sector.checked_mul(SECTOR_BYTES).ok_or(Refused::Io)?;
    let end = start.checked_add(len).ok_or(Refused::Io)?;
    let capacity = sectors.checked_mul(SECTOR_BYTES).ok_or(Refused::Io)?;
    if end > capacity || !len.is_multiple_of(SECTOR_BYTES) {
        return Err(Refused::Io);
    }
    Ok(start)
}

impl Block {
    /// Answers what is in the queue.
    pub(crate) fn process(
        &mut self,
        queue: &mut Queue,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut pass = queue.pass(context.memory)?;
        while queue.take(&mut pass, context.memory, context.chain)? {
            // Without a place for the status the driver could never learn the outcome.
            let status_offset =
                context.chain.writable_len().checked_sub(1).ok_or(Fault::WrongDirection)?;
            let asked = Asked::read(status_offset, context);
            if let Err(ready) = self.admit(&asked, context.now) {
                context.held = Some(ready);
                break;
            }
            let answer = asked.and_then(|asked| self.answer(&asked, context));
            let (status, written) = match answer {
                Ok(written) => (STATUS_OK, written.saturating_add(1)),
                Err(Refused::Io) => {
                    bump(&mut context.counters.io_errors);
                    (STATUS_IO_ERROR, 1)
                }
                Err(Refused::Unsupported) => {
                    bump(&mut context.counters.unsupported);
                    (STATUS_UNSUPPORTED, 1)
                }
                Err(Refused::Fault(fault)) => return Err(fault),
            };
            context.chain.write(context.memory, status_offset, &[status])?;
            queue.complete(context.memory, context.chain, written)?;
            bump(&mut context.counters.chains);
        }
        Ok(())
    }

    /// Takes a request out of the buckets of its direction. What is refused costs an operation too.
    fn admit(&mut self, asked: &Result<Asked, Refused>, now: u64) -> Result<(), u64> {
        let Ok(Asked { request, data_in, data_out }) = asked else {
            return self.rates.read.admit(0, now);
        };
        match request {
            Request::Read(_) => self.rates.read.admit(u64::from(*data_in), now),
            Request::Write(_) => self.rates.write.admit(u64::from(*data_out), now),
            Request::Flush | Request::Discard | Request::WriteZeroes => {
                self.rates.write.admit(0, now)
            }
            Request::GetId | Request::Unknown => self.rates.read.admit(0, now),
        }
    }

    /// Does one request. Gives the number of data bytes written into the chain.
    fn answer(&mut self, asked: &Asked, context: &mut Context<'_>) -> Result<u32, Refused> {
        let Asked { request, data_in, data_out } = *asked;
        match request {
            Request::Read(sector) => self.read(sector, data_in, context),
            Request::Write(sector) => self.write(sector, data_out, context),
            Request::Flush => self.flush(),
            Request::GetId => self.get_id(data_in, context),
            Request::Discard => self.clear(data_out, true, context),
            Request::WriteZeroes => self.clear(data_out, false, context),
            Request::Unknown => Err(Refused::Unsupported),
        }
    }

    fn read(&mut self, sector: u64, len: u32, context: &mut Context<'_>) -> Result<u32, Refused> {
        let start = position(sector, u64::from(len), self.backend.sectors())?;
        let mut done = 0_u32;
        while let Some(left) = len.checked_sub(done).filter(|left| *left > 0) {
            let at = start.saturating_add(u64::from(done));
            let wanted = narrow(u64::from(left)).min(BUFFER_BYTES);
            let bytes = match &mut self.backend {
                Backend::Absent => return Err(Refused::Io),
                Backend::Scratch(scratch) => {
                    let bytes = self.buffer.get_mut(..wanted).ok_or(Refused::Io)?;
                    scratch.read(at, bytes)?;
                    &*bytes
                }
                Backend::Verified(verified) => match verified.read(at, wanted, &mut self.buffer) {
                    Ok(bytes) => bytes,
                    Err(VerityError::Mismatch(block)) => {
                        bump(&mut context.counters.verity_failures);
                        self.unverified = self.unverified.or(Some(block));
                        return Err(Refused::Io);
                    }
                    Err(_) => return Err(Refused::Io),
                },
            };
            context.chain.write(context.memory, done, bytes)?;
            let count = u32::try_from(bytes.len()).unwrap_or(left);
            done = done.saturating_add(count);
            context.counters.bytes_in = context.counters.bytes_in.saturating_add(count.into());
        }
        Ok(done)
    }

    fn write(&mut self, sector: u64, len: u32, context: &mut Context<'_>) -> Result<u32, Refused> {
        let start = position(sector, u64::from(len), self.backend.sectors())?;
        // The kind of backend decides, whatever features the driver says it knows.
        let Backend::Scratch(scratch) = &mut self.backend else { return Err(Refused::Io) };
        let mut done = 0_u32;
        while let Some(left) = len.checked_sub(done).filter(|left| *left > 0) {
            let wanted = narrow(u64::from(left)).min(BUFFER_BYTES);
            let bytes = self.buffer.get_mut(..wanted).ok_or(Refused::Io)?;
            let offset = HEADER_BYTES.checked_add(done).ok_or(Refused::Io)?;
            context.chain.read(context.memory, offset, bytes)?;
            scratch.write(start.saturating_add(u64::from(done)), bytes)?;
            done = done.saturating_add(u32::try_from(wanted).unwrap_or(left));
            context.counters.bytes_out = context.counters.bytes_out.saturating_add(widen(wanted));
        }
        Ok(0)
    }

    fn flush(&mut self) -> Result<u32, Refused> {
        match &mut self.backend {
            Backend::Scratch(scratch) => scratch.flush()?,
            // Nothing is written to an image, so nothing is left to flush.
            Backend::Absent | Backend::Verified(_) => {}
        }
        Ok(0)
    }

    fn get_id(&self, data_in: u32, context: &mut Context<'_>) -> Result<u32, Refused> {
        let len = narrow(u64::from(data_in)).min(ID_BYTES);
        let id = self.id.get(..len).ok_or(Refused::Io)?;
        context.chain.write(context.memory, 0, id)?;
        Ok(u32::try_from(len).unwrap_or(0))
    }

    /// Discard and write-zeroes, one segment a request: both leave zeros, and give the space back
    /// even without the unmap flag, which only asks for it: scratch is never provisioned in advance.
    fn clear(
        &mut self,
        len: u32,
        discard: bool,
        context: &mut Context<'_>,
    ) -> Result<u32, Refused> {
        if self.kind != BlockKind::Scratch {
            return Err(Refused::Unsupported);
        }
        if len != CLEAR_BYTES {
            return Err(Refused::Io);
        }
        let mut raw = [0; 16];
        context.chain.read(context.memory, HEADER_BYTES, &mut raw)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = raw;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        // Unknown flags, and unmap where it means nothing (virtio 1.2, section 5.2.6.2).
        if flags & !FLAG_UNMAP != 0 || (discard && flags != 0) {
            return Err(Refused::Unsupported);
        }
        if count > CLEAR_SECTORS_MAX {
            return Err(Refused::Io);
        }
        let bytes = u64::from(count).saturating_mul(SECTOR_BYTES);
        let start = position(sector, bytes, self.backend.sectors())?;
        let Backend::Scratch(scratch) = &mut self.backend else { return Err(Refused::Io) };
        if bytes > 0 {
            scratch.clear(start, bytes)?;
        }
        Ok(0)
    }
}
