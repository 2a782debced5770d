//! Rate limits of a launch's devices (docs/formats.md section 2): token buckets.

use crate::json::Value;
use crate::shape::{ShapeError, fields, integer};

/// Most tokens of a bucket, and most that come back in a second.
const TOKENS_MAX: u64 = 1 << 50;

/// One token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The most it holds, and what it starts with; at least 1.
    pub capacity: u64,
    /// Given once on top.
    pub burst: u64,
    /// What comes back in a second; at least 1.
    pub refill: u64,
}

/// One direction of one device; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub operations: Option<Bucket>,
    /// Bytes of data.
    pub bytes: Option<Bucket>,
}

/// The limits of a machine's devices; each disk has them for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Reads of a disk.
    pub disk_read: Rate,
    /// Writes, flushes and discards of a disk.
    pub disk_write: Rate,
    /// Entropy.
    pub rng: Rate,
}

impl Rates {
    /// Reads `limits.rates`.
    ///
    /// # Errors
    /// A member missing, unknown or out of bounds.
    pub fn read(value: &Value) -> Result<Self, ShapeError> {
        let [disk_read, disk_write, rng] =
            fields(value, "limits.rates", ["disk_read", "disk_write", "rng"])?;
        Ok(Self {
            disk_read: read_rate(disk_read, "limits.rates.disk_read")?,
            disk_write: read_rate(disk_write, "limits.rates.disk_write")?,
            rng: read_rate(rng, "limits.rates.rng")?,
        })
    }
}

pub(crate) fn read_rate(value: &Value, path: &str) -> Result<Rate, ShapeError> {
    if *value == Value::Null {
        return Ok(Rate::default());
    }
    let [bytes, operations] = fields(value, path, ["bytes", "operations"])?;
    Ok(Rate {
        operations: read_bucket(operations, &format!("{path}.operations"))?,
        bytes: read_bucket(bytes, &format!("{path}.bytes"))?,
    })
}

fn read_bucket(value: &Value, path: &str) -> Result<Option<Bucket>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    let [burst, capacity, refill] = fields(value, path, ["burst", "capacity", "refill"])?;
    Ok(Some(Bucket {
        capacity: integer(capacity, &format!("{path}.capacity"), 1..=TOKENS_MAX)?,
        burst: integer(burst, &format!("{path}.burst"), 0..=TOKENS_MAX)?,
        refill: integer(refill, &format!("{path}.refill"), 1..=TOKENS_MAX)?,
    }))
}
