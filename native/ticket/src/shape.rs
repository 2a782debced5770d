//! Readers that turn a JSON value into a bounded typed one, or name the member that is wrong.

use crate::bytes::{Digest, decode_hex};
use crate::json::Value;
use std::ops::RangeInclusive;
use thiserror::Error;

/// Virtual CPUs of a machine.
pub const VCPUS: RangeInclusive<u32> = 1..=8;
/// Memory of a machine in MiB. `policy/nouns/machine.ts` has the same limits.
pub const MEMORY_MIB: RangeInclusive<u32> = 128..=16_384;

/// A document whose JSON is canonical but whose members are not what its format says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct ShapeError {
    /// The member, as in `machine.vcpus`.
    pub path: String,
    /// What it must be.
    pub problem: String,
}

/// A [`ShapeError`] about `path`.
#[must_use]
pub fn wrong(path: &str, problem: impl Into<String>) -> ShapeError {
    ShapeError { path: path.into(), problem: problem.into() }
}

/// The members of an object that has exactly these, named in canonical (sorted) order.
///
/// # Errors
/// No object, a member missing, or one that is not known.
pub fn fields<'a, const N: usize>(
    value: &'a Value,
    path: &str,
    names: [&str; N],
) -> Result<[&'a Value; N], ShapeError> {
    members(value, path, names, None)
}

/// As [`fields`], and one member more that may be absent; `null` is a value like others.
///
/// # Errors
/// As [`fields`].
pub fn fields_and_one<'a, const N: usize>(
    value: &'a Value,
    path: &str,
    names: [&str; N],
    optional: &str,
) -> Result<([&'a Value; N], Option<&'a Value>), ShapeError> {
    Ok((members(value, path, names, Some(optional))?, value.get(optional)))
}

fn members<'a, const N: usize>(
    value: &'a Value,
    path: &str,
    names: [&str; N],
    optional: Option<&str>,
) -> Result<[&'a Value; N], ShapeError> {
    let Value::Object(members) = value else {
        return Err(wrong(path, "must be an object"));
    };
    let known = |key: &str| names.contains(&key) || optional == Some(key);
    if let Some((key, _)) = members.iter().find(|(key, _)| !known(key)) {
        let shown: String = key.chars().take(64).collect();
        return Err(wrong(path, format!("unknown member {shown:?}")));
    }
    let found: Vec<&Value> = names
        .iter()
        .map(|name| value.get(name).ok_or_else(|| wrong(path, format!("member {name:?} missing"))))
        .collect::<Result<_, _>>()?;
    found.try_into().map_err(|_| wrong(path, "wrong number of members"))
}

/// An integer within `range`.
///
/// # Errors
/// Anything else.
pub fn integer(value: &Value, path: &str, range: RangeInclusive<u64>) -> Result<u64, ShapeError> {
    value.as_u64().filter(|number| range.contains(number)).ok_or_else(|| {
        wrong(path, format!("must be an integer, {} to {}", range.start(), range.end()))
    })
}

/// As [`integer`], for 32-bit results.
///
/// # Errors
/// Anything else.
pub fn integer32(value: &Value, path: &str, range: RangeInclusive<u32>) -> Result<u32, ShapeError> {
    let number = integer(value, path, u64::from(*range.start())..=u64::from(*range.end()))?;
    u32::try_from(number).map_err(|_| wrong(path, "must fit 32 bits"))
}

/// `true` or `false`.
///
/// # Errors
/// Anything else.
pub fn boolean(value: &Value, path: &str) -> Result<bool, ShapeError> {
    match value {
        Value::Bool(answer) => Ok(*answer),
        _ => Err(wrong(path, "must be true or false")),
    }
}

/// A string of at most `bytes_max` bytes of UTF-8 without NUL (these end up as C strings).
///
/// # Errors
/// Anything else.
pub fn text<'a>(value: &'a Value, path: &str, bytes_max: usize) -> Result<&'a str, ShapeError> {
    value.as_str().filter(|text| text.len() <= bytes_max && !text.contains('\0')).ok_or_else(|| {
        wrong(path, format!("must be a string of at most {bytes_max} bytes, no NUL"))
    })
}

/// A non-empty string of at most `bytes_max` characters that all satisfy `allowed`.
///
/// # Errors
/// Anything else.
pub fn word<'a>(
    value: &'a Value,
    path: &str,
    bytes_max: usize,
    allowed: fn(char) -> bool,
) -> Result<&'a str, ShapeError> {
    let word = text(value, path, bytes_max)?;
    if word.is_empty() || !word.chars().all(allowed) {
        return Err(wrong(path, "is empty or has a character that is not allowed"));
    }
    Ok(word)
}

/// An array of at most `count_max` items, each read by `read`.
///
/// # Errors
/// No array, too many items, or what `read` refuses.
pub fn list<'a, T>(
    value: &'a Value,
    path: &str,
    count_max: usize,
    mut read: impl FnMut(&'a Value, &str) -> Result<T, ShapeError>,
) -> Result<Vec<T>, ShapeError> {
    let Value::Array(items) = value else {
        return Err(wrong(path, "must be an array"));
    };
    if items.len() > count_max {
        return Err(wrong(path, format!("has more than {count_max} items")));
    }
    items
        .iter()
        .enumerate()
        .map(|(position, item)| read(item, &format!("{path}[{position}]")))
        .collect()
}

/// A digest, `sha256:` and 64 hexadecimal digits.
///
/// # Errors
/// Anything else.
pub fn digest(value: &Value, path: &str) -> Result<Digest, ShapeError> {
    value
        .as_str()
        .and_then(Digest::parse)
        .ok_or_else(|| wrong(path, "must be sha256: and 64 lower-case hexadecimal digits"))
}

/// Bytes in hexadecimal, at most `bytes_max` of them.
///
/// # Errors
/// Anything else.
pub fn hex(value: &Value, path: &str, bytes_max: usize) -> Result<Vec<u8>, ShapeError> {
    value
        .as_str()
        .and_then(decode_hex)
        .filter(|bytes| bytes.len() <= bytes_max)
        .ok_or_else(|| wrong(path, format!("must be lower-case hex of at most {bytes_max} bytes")))
}

/// The string `expected`, as for a version.
///
/// # Errors
/// Anything else.
pub fn constant(value: &Value, path: &str, expected: &str) -> Result<(), ShapeError> {
    if value.as_str() == Some(expected) {
        Ok(())
    } else {
        Err(wrong(path, format!("must be {expected:?}")))
    }
}

/// A lower-case UUID; `version` is its version digit when one is demanded.
///
/// # Errors
/// Anything else.
pub fn uuid<'a>(value: &'a Value, path: &str, version: Option<u8>) -> Result<&'a str, ShapeError> {
    let text = text(value, path, 36)?;
    let shaped = text.len() == 36
        && text.bytes().enumerate().all(|(position, byte)| match position {
            8 | 13 | 18 | 23 => byte == b'-',
            14 if version.is_some() => Some(byte) == version,
            19 if version.is_some() => matches!(byte, b'8' | b'9' | b'a' | b'b'),
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
    if shaped { Ok(text) } else { Err(wrong(path, "must be a lower-case UUID")) }
}

/// Characters of a tenant's name.
#[must_use]
pub fn is_tenant_character(character: char) -> bool {
    matches!(character, 'a'..='z' | '0'..='9' | '-')
}

/// Characters of a host id.
#[must_use]
pub fn is_node_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')
}

/// Characters of a host name inside the guest.
#[must_use]
pub fn is_hostname_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.')
}

/// Printable ASCII.
#[must_use]
pub fn is_printable(character: char) -> bool {
    matches!(character, ' '..='~')
}
