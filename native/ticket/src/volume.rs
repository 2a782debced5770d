//! Named volumes: their names and sizes, and the order by which spawn makes, changes, reads out or destroys one: a
//! volume.intent record with its receipt (docs/formats.md section 3). The record is the whole order, so there is no
//! request that could differ from it.

use crate::document::Context;
use crate::json::Value;
use crate::shape::{ShapeError, integer, is_tenant_character, word, wrong};
use crate::ticket::{Head, TicketError, check_inclusion, member, read_record, string};

/// Volumes are whole mebibytes.
pub const SIZE_UNIT: u64 = 1 << 20;
/// Fewest bytes: those of the empty file system that each begins as.
pub const SIZE_MIN: u64 = 64 << 20;
/// Most bytes: what the empty file system has group descriptors reserved for (`scripts/setup/disks.mjs`).
pub const SIZE_MAX: u64 = 256 << 30;
/// Most characters of a name.
const NAME_MAX: usize = 63;

/// What is to be done with a volume, or with a snapshot of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make it, empty.
    Create,
    /// Destroy it, or one snapshot.
    Remove,
    /// Make it larger.
    Grow,
    /// Copy it under a name of the copy's own.
    Snapshot,
    /// Have a snapshot's bytes in place of its own.
    Restore,
    /// Give a snapshot's bytes to whoever asks: they never change again, as a volume's would.
    Export,
}

impl Operation {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "create" => Self::Create,
            "remove" => Self::Remove,
            "grow" => Self::Grow,
            "snapshot" => Self::Snapshot,
            "restore" => Self::Restore,
            "export" => Self::Export,
            _ => return None,
        })
    }

    /// Whether it has a size, and what it has of a snapshot: `None` for may have.
    const fn shape(self) -> (bool, Option<bool>) {
        match self {
            Self::Create | Self::Grow => (true, Some(false)),
            Self::Snapshot | Self::Restore | Self::Export => (false, Some(true)),
            Self::Remove => (false, None),
        }
    }
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whose volume.
    pub tenant: String,
    /// Its name, of the tenant's alone.
    pub volume: String,
    /// What to do.
    pub operation: Operation,
    /// Bytes that it is to have, of those operations that say so; 0 of others.
    pub size_bytes: u64,
    /// Which snapshot of it.
    pub snapshot: Option<String>,
}

/// An order that may be carried out, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What to do.
    pub order: Order,
    /// Leaf hash of the record: the name under which it is spent.
    pub leaf_hash: [u8; 32],
    /// `CLOCK_BOOTTIME` after which it is worth nothing, nanoseconds.
    pub deadline_ns: u64,
}

/// The name of a volume or of a snapshot: 1 to 63 of a-z, 0-9 and -, not beginning with -.
///
/// # Errors
/// Anything else.
pub fn name<'a>(value: &'a Value, path: &str) -> Result<&'a str, ShapeError> {
    let name = word(value, path, NAME_MAX, is_tenant_character)?;
    if name.starts_with('-') { Err(wrong(path, "must not begin with -")) } else { Ok(name) }
}

/// Bytes of a volume.
///
/// # Errors
/// Too few, too many, or no whole number of mebibytes.
pub fn size(value: &Value, path: &str) -> Result<u64, ShapeError> {
    let size = integer(value, path, SIZE_MIN..=SIZE_MAX)?;
    if size.is_multiple_of(SIZE_UNIT) {
        return Ok(size);
    }
    Err(wrong(path, "must be a multiple of 1048576"))
}

impl Order {
    fn read(value: &Value, tenant: &str) -> Result<Self, TicketError> {
        let wrong = |name: &'static str| move |_: ShapeError| TicketError::Record(name);
        let of = |name| member(value, &[name]).unwrap_or(&Value::Null);
        let operation = Operation::parse(string(value, &["operation"], "operation")?)
            .ok_or(TicketError::Record("operation"))?;
        let (has_size, has_snapshot) = operation.shape();
        let (size_of, snapshot) = (of("size_bytes"), of("snapshot"));
        if has_size == (*size_of == Value::Null) {
            return Err(TicketError::Record("size_bytes"));
        }
        if has_snapshot.is_some_and(|has| has == (*snapshot == Value::Null)) {
            return Err(TicketError::Record("snapshot"));
        }
        let tenant = Value::String(tenant.into());
        let tenant = word(&tenant, "tenant", NAME_MAX, is_tenant_character);
        Ok(Self {
            tenant: tenant.map_err(wrong("tenant"))?.into(),
            volume: name(of("volume"), "volume").map_err(wrong("volume"))?.into(),
            operation,
            size_bytes: match size_of {
                Value::Null => 0,
                bytes => size(bytes, "size_bytes").map_err(wrong("size_bytes"))?,
            },
            snapshot: match snapshot {
                Value::Null => None,
                text => Some(name(text, "snapshot").map_err(wrong("snapshot"))?.into()),
            },
        })
    }
}

/// Checks the receipt of a volume.intent, and reads its order.
///
/// # Errors
/// The first rule that does not hold: those of a launch, and a record that is no order.
pub fn check(
    ticket: &str,
    record: &[u8],
    context: &Context,
    now_boottime_ns: u64,
) -> Result<Admitted, TicketError> {
    let leaf_hash = check_inclusion(ticket, record, context)?;
    let value = read_record(record)?;
    let head = Head::read(&value, "volume.intent")?;
    let deadline_ns = head.check_place_and_time(context, now_boottime_ns)?;
    let order = Order::read(&value, &head.tenant)?;
    Ok(Admitted { order, leaf_hash, deadline_ns })
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
