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

/// The limits of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkRates {
    /// What comes to the pod: frames, and their bytes.
    pub receive: Rate,
    /// What it sends.
    pub transmit: Rate,
}

impl NetworkRates {
    pub(crate) fn read(value: &Value) -> Result<Self, ShapeError> {
        let [receive, transmit] = fields(value, "network.rates", ["receive", "transmit"])?;
        Ok(Self {
            receive: read_rate(receive, "network.rates.receive")?,
            transmit: read_rate(transmit, "network.rates.transmit")?,
        })
    }

    pub(crate) fn to_value(self) -> Value {
        Value::object(vec![
            ("receive".into(), self.receive.to_value()),
            ("transmit".into(), self.transmit.to_value()),
        ])
    }
}

impl Rate {
    fn to_value(self) -> Value {
        if self == Self::default() {
            return Value::Null;
        }
        let bucket = |bucket: Option<Bucket>| bucket.map_or(Value::Null, Bucket::to_value);
        Value::object(vec![
            ("bytes".into(), bucket(self.bytes)),
            ("operations".into(), bucket(self.operations)),
        ])
    }
}

impl Bucket {
    fn to_value(self) -> Value {
        let tokens = |count: u64| Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
        Value::object(vec![
            ("burst".into(), tokens(self.burst)),
            ("capacity".into(), tokens(self.capacity)),
            ("refill".into(), tokens(self.refill)),
        ])
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
