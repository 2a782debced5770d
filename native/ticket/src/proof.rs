//! Inclusion proofs (c2sp.org/tlog-proof, RFC 6962 section 2.1.1).

use crate::bytes::decode_base64;
use crate::note::{NOTE_BYTES_MAX, parse_decimal};
use sha2::{Digest as _, Sha256};

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";
/// A tree of 2^63 leaves has paths of 63 hashes.
const HASHES_MAX: usize = 63;

/// A parsed `.tlog-proof`; nothing in it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof<'a> {
    /// Index of the record.
    pub index: u64,
    /// Audit path, from the leaf's sibling up.
    pub hashes: Vec<[u8; 32]>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: &'a str,
}

/// Reads a tlog-proof without an `extra` line.
#[must_use]
pub fn parse(text: &str) -> Option<Proof<'_>> {
    if text.len() > NOTE_BYTES_MAX {
        return None;
    }
    let (head, checkpoint) = text.strip_prefix(HEADER)?.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let index = parse_decimal(lines.next()?.strip_prefix("index ")?)?;
    let hashes: Vec<[u8; 32]> =
        lines.map(|line| decode_base64(line)?.try_into().ok()).collect::<Option<_>>()?;
    (hashes.len() <= HASHES_MAX).then_some(Proof { index, hashes, checkpoint })
}

/// Hash of a leaf: SHA-256(0x00 || record).
#[must_use]
pub fn leaf_hash(record: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([0u8]);
    hasher.update(record);
    hasher.finalize().into()
}

/// Hash of a node: SHA-256(0x01 || left || right).
#[must_use]
pub fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([1u8]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// Whether `proof` shows that `leaf` is in the tree of `size` leaves under `root`.
///
/// Follows RFC 9162 section 2.1.3.2.
#[must_use]
pub fn is_included(proof: &Proof<'_>, leaf: [u8; 32], size: u64, root: &[u8; 32]) -> bool {
    if proof.index >= size {
        return false;
    }
    let mut position = proof.index;
    let mut last = size.saturating_sub(1);
    let mut hash = leaf;
    for sibling in &proof.hashes {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
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
    use super::{Proof, is_included, leaf_hash, node_hash, parse};

    /// The definitions of RFC 6962 section 2.1, recursive and slow.
    fn tree(leaves: &[[u8; 32]]) -> [u8; 32] {
        if let [leaf] = leaves {
            return *leaf;
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        node_hash(&tree(left), &tree(right))
    }

    fn path(index: usize, leaves: &[[u8; 32]]) -> Vec<[u8; 32]> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let half = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(half);
        let (mut hashes, sibling) = if index < half {
            (path(index, left), tree(right))
        } else {
            (path(index - half, right), tree(left))
        };
        hashes.push(sibling);
        hashes
    }

    #[test]
    fn verifies_every_leaf_of_every_small_tree_and_nothing_else() {
        let leaves: Vec<[u8; 32]> = (0u32..40).map(|n| leaf_hash(&n.to_le_bytes())).collect();
        for size in 1..=leaves.len() {
            let root = tree(&leaves[..size]);
            for index in 0..size {
                let hashes = path(index, &leaves[..size]);
                let mut proof = Proof { index: index as u64, hashes, checkpoint: "" };
                assert!(is_included(&proof, leaves[index], size as u64, &root));
                for other in 0..size {
                    let wrong = other != index;
                    proof.index = other as u64;
                    assert!(!(wrong && is_included(&proof, leaves[index], size as u64, &root)));
                }
                proof.index = index as u64;
                assert!(!is_included(&proof, leaf_hash(b"x"), size as u64, &root));
                proof.hashes.push([0; 32]);
                assert!(!is_included(&proof, leaves[index], size as u64, &root));
                proof.hashes.truncate(proof.hashes.len().saturating_sub(2));
                assert!(size == 1 || !is_included(&proof, leaves[index], size as u64, &root));
            }
        }
    }

    #[test]
    fn parses_one_form_only() {
        let hash = "A".repeat(43) + "=";
        let good = format!("c2sp.org/tlog-proof@v1\nindex 7\n{hash}\n\nnote");
        let proof = parse(&good).unwrap();
        assert_eq!((proof.index, proof.hashes.len(), proof.checkpoint), (7, 1, "note"));
        assert_eq!(parse("c2sp.org/tlog-proof@v1\nindex 0\n\nnote").unwrap().hashes.len(), 0);
        for bad in [
            String::new(),
            good.replace("@v1", "@v2"),
            good.replace("index 7", "index 07"),
            good.replace("index 7", "extra AA==\nindex 7"),
            good.replace("\n\n", "\n"),
            good.replace("A=", "B="),
            good.replace('\n', "\r\n"),
            format!("c2sp.org/tlog-proof@v1\nindex 7\n{}\nnote", format!("{hash}\n").repeat(64)),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }
}
