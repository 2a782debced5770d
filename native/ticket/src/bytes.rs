//! Hexadecimal, base64 and digests, each in exactly one accepted spelling.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{self, Read};

/// A SHA-256 digest; its text is `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads `sha256:<64 lower-case hex digits>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode_hex(text.strip_prefix("sha256:")?)?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// SHA-256 of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// SHA-256 of all that is left to read, a piece at a time.
    ///
    /// # Errors
    /// What reading answers.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut piece = [0; 16 << 10];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(Self(hasher.finalize().into())),
                Ok(count) => hasher.update(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", encode_hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads lower-case hexadecimal of even length; anything else is `None`.
#[must_use]
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some((nibble(*high)? << 4) | nibble(*low)?)).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding (RFC 4648 section 4).
#[must_use]
pub fn encode_base64(bytes: &[u8]) -> String {
    let symbol = |value: u32| {
        usize::try_from(value & 63)
            .ok()
            .and_then(|at| BASE64.get(at))
            .map_or('=', |b| char::from(*b))
    };
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0u8; 3];
        for (to, from) in group.iter_mut().zip(chunk) {
            *to = *from;
        }
        let [a, b, c] = group.map(u32::from);
        let word = (a << 16) | (b << 8) | c;
        out.push(symbol(word >> 18));
        out.push(symbol(word >> 12));
        out.push(if chunk.len() > 1 { symbol(word >> 6) } else { '=' });
        out.push(if chunk.len() > 2 { symbol(word) } else { '=' });
    }
    out
}

/// Reads standard base64 with padding. Unused bits must be zero: one value, one spelling.
#[must_use]
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    for (position, group) in groups.iter().enumerate() {
        let last = position.checked_add(1)? == groups.len();
        let padded = if last { padding } else { 0 };
        let mut word = 0u32;
        for (place, byte) in group.iter().enumerate() {
            let value = if place >= 4usize.checked_sub(padded)? { 0 } else { sextet(*byte)? };
            word = (word << 6) | value;
        }
        let [_, a, b, c] = word.to_be_bytes();
        out.extend_from_slice([a, b, c].get(..3usize.checked_sub(padded)?)?);
    }
    (encode_base64(&out) == text).then_some(out)
}

fn sextet(byte: u8) -> Option<u32> {
    BASE64.iter().position(|symbol| *symbol == byte).and_then(|at| u32::try_from(at).ok())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::{Digest, decode_base64, decode_hex, encode_base64, encode_hex};

    #[test]
    fn base64_agrees_with_rfc_4648_section_10() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode_base64(plain.as_bytes()), encoded);
            assert_eq!(decode_base64(encoded).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        for bad in
            ["Zg", "Zg=", "Zh==", "Zm9=", "====", "Z===", "Zg==Zg==", "Zm 9v", "Zm9v\n", "Zm-_"]
        {
            assert_eq!(decode_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn hex_is_lower_case_and_even() {
        assert_eq!(encode_hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(decode_hex("001fff"), Some(vec![0, 0x1f, 0xff]));
        for bad in ["0", "0G", "FF", "0x", " 0"] {
            assert_eq!(decode_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn digests_read_what_they_print() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::parse(text), Some(digest));
        for bad in ["", "sha256:", "sha256:00", &text.to_uppercase(), &format!("{text}0")] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
