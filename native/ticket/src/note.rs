//! Signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), with Ed25519
//! signatures of type 0x01 only.

use crate::bytes::{decode_base64, decode_hex};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Most bytes of a note: room for witnesses with post-quantum signatures of about 5 kB each.
pub const NOTE_BYTES_MAX: usize = 131_072;
const SIGNATURES_MAX: usize = 64;
const ED25519: u8 = 1;

/// Why a note was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// Not a signed note, or its text is no checkpoint.
    #[error("not a signed checkpoint")]
    Malformed,
    /// No signature line names a trusted key.
    #[error("no signature by a trusted key")]
    KeyUnknown,
    /// A signature by a trusted key does not verify.
    #[error("a signature by a trusted key does not verify")]
    Signature,
}

/// A log's public key: name, id and Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    vkey: String,
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl LogKey {
    /// Reads a vkey: `<name>+<8 hex digits of the key id>+<base64 of type and key>`.
    #[must_use]
    pub fn parse(vkey: &str) -> Option<Self> {
        let mut parts = vkey.splitn(3, '+');
        let (name, id, encoded) = (parts.next()?, parts.next()?, parts.next()?);
        let id: [u8; 4] = decode_hex(id)?.try_into().ok()?;
        let blob = decode_base64(encoded)?;
        let (kind, key) = blob.split_first()?;
        let key: [u8; 32] = key.try_into().ok()?;
        let mut hasher = Sha256::new();
        hasher.update(name.as_bytes());
        hasher.update([b'\n']);
        hasher.update(&blob);
        let valid = *kind == ED25519
            && is_name(name)
            && name.len() <= 255
            && hasher.finalize().starts_with(&id);
        let key = VerifyingKey::from_bytes(&key).ok()?;
        // A key of small order would verify signatures that nobody made.
        (valid && !key.is_weak()).then(|| Self { vkey: vkey.into(), name: name.into(), id, key })
    }

    /// The key's name, which is the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The vkey it was read from.
    #[must_use]
    pub fn as_vkey(&self) -> &str {
        &self.vkey
    }
}

/// A checkpoint whose signature by the key of its origin was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Number of records.
    pub size: u64,
    /// Root of the Merkle tree.
    pub root: [u8; 32],
}

/// Opens a signed checkpoint: at least one signature by a key in `keys` whose name is the
/// checkpoint's origin, and none by a key in `keys` that does not verify. Others are ignored.
///
/// # Errors
/// See [`NoteError`].
pub fn open_checkpoint(note: &str, keys: &[LogKey]) -> Result<Checkpoint, NoteError> {
    let (text, lines) = split(note)?;
    let checkpoint = parse_checkpoint(text)?;
    let mut signed = false;
    for line in lines {
        let (name, blob) = parse_signature(line)?;
        let (id, signature) = blob.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
        let Some(key) = keys.iter().find(|key| key.name == name && key.id == *id) else {
            continue;
        };
        let signature = Signature::from_slice(signature).map_err(|_| NoteError::Signature)?;
        key.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::Signature)?;
        signed |= key.name == checkpoint.origin;
    }
    if signed { Ok(checkpoint) } else { Err(NoteError::KeyUnknown) }
}

/// Splits a note at its last empty line into the text (with its final newline) and signature lines.
fn split(note: &str) -> Result<(&str, Vec<&str>), NoteError> {
    let clean = note.len() <= NOTE_BYTES_MAX
        && note.chars().all(|character| character >= ' ' || character == '\n');
    if !clean {
        return Err(NoteError::Malformed);
    }
    let (before, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
    let text = note.get(..before.len().saturating_add(1)).ok_or(NoteError::Malformed)?;
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let lines: Vec<&str> = signatures.split('\n').collect();
    if lines.len() > SIGNATURES_MAX { Err(NoteError::Malformed) } else { Ok((text, lines)) }
}

fn parse_signature(line: &str) -> Result<(&str, Vec<u8>), NoteError> {
    let rest = line.strip_prefix("\u{2014} ").ok_or(NoteError::Malformed)?;
    let (name, encoded) = rest.split_once(' ').ok_or(NoteError::Malformed)?;
    let blob = decode_base64(encoded).ok_or(NoteError::Malformed)?;
    if is_name(name) && blob.len() > 4 { Ok((name, blob)) } else { Err(NoteError::Malformed) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|character| character.is_whitespace() || character == '+')
}

fn parse_checkpoint(text: &str) -> Result<Checkpoint, NoteError> {
    let body = text.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let mut lines = body.split('\n');
    let (origin, size, root) = match (lines.next(), lines.next(), lines.next()) {
        (Some(origin), Some(size), Some(root)) if !origin.is_empty() => (origin, size, root),
        _ => return Err(NoteError::Malformed),
    };
    let root = decode_base64(root).and_then(|bytes| bytes.try_into().ok());
    match (parse_decimal(size), root) {
        (Some(size), Some(root)) if lines.all(|line| !line.is_empty()) => {
            Ok(Checkpoint { origin: origin.into(), size, root })
        }
        _ => Err(NoteError::Malformed),
    }
}

/// A decimal number in its only spelling: no sign, no leading zero.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (number.to_string() == text).then_some(number)
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
    use super::{LogKey, NoteError, open_checkpoint, parse_decimal};

    // Key, root and signature of Tessera's test log (testdata/log, v1.0.4), 15 leaves.
    const VKEY: &str =
        "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    const CHECKPOINT: &str = "example.com/log/testdata\n15\nrKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=\n\n\u{2014} example.com/log/testdata M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=\n";

    #[test]
    fn opens_a_checkpoint_made_by_other_software() {
        let key = LogKey::parse(VKEY).unwrap();
        let opened = open_checkpoint(CHECKPOINT, &[key]).unwrap();
        assert_eq!((opened.origin.as_str(), opened.size), ("example.com/log/testdata", 15));
    }

    #[test]
    fn refuses_every_changed_byte() {
        let keys = [LogKey::parse(VKEY).unwrap()];
        for position in (0..CHECKPOINT.len()).step_by(3) {
            let mut bytes = CHECKPOINT.as_bytes().to_vec();
            bytes[position] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(open_checkpoint(&text, &keys).is_err(), "byte {position}");
            }
        }
    }

    #[test]
    fn tells_an_unknown_key_from_a_bad_signature() {
        let other =
            LogKey::parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
                .unwrap();
        assert_eq!(open_checkpoint(CHECKPOINT, &[other]), Err(NoteError::KeyUnknown));
        let keys = [LogKey::parse(VKEY).unwrap()];
        let changed = CHECKPOINT.replace("\n15\n", "\n16\n");
        assert_eq!(open_checkpoint(&changed, &keys), Err(NoteError::Signature));
        let unknown_too = format!("{CHECKPOINT}\u{2014} witness.example AAAAAAA=\n");
        assert!(open_checkpoint(&unknown_too, &keys).is_ok());
    }

    #[test]
    fn refuses_keys_of_small_order_and_wrong_ids() {
        assert!(LogKey::parse(&VKEY.replace("33d7b496", "33d7b497")).is_none());
        assert!(LogKey::parse(&VKEY.replace("+Ae", "+Be")).is_none());
        assert!(LogKey::parse("").is_none());
        // The neutral element, with the id it would have.
        let id = "example.com/weak";
        let mut blob = [0u8; 33];
        blob[0] = 1;
        blob[1] = 1;
        let sum = crate::bytes::Digest::of(&[id.as_bytes(), b"\n", &blob].concat());
        let vkey = format!(
            "{id}+{}+{}",
            crate::bytes::encode_hex(&sum.0[..4]),
            crate::bytes::encode_base64(&blob)
        );
        assert!(LogKey::parse(&vkey).is_none());
    }

    #[test]
    fn decimals_have_one_spelling() {
        assert_eq!(parse_decimal("0"), Some(0));
        for bad in ["", "00", "01", "+1", "-0", "1 ", "18446744073709551616"] {
            assert_eq!(parse_decimal(bad), None, "{bad}");
        }
    }
}
