//! Verified reads: the format against roots that cryptsetup's veritysetup computed, and every class
//! of altered byte.

use std::fs::File;
use std::os::unix::fs::FileExt;

use casemate_devices::{Backend, Block, BlockKind, Device, VERITY_BLOCK_BYTES, Verified, Verity};
use sha2::{Digest, Sha256};

use crate::block::{DATA, IO_ERROR, OK, READ, request};
use crate::guest::{Guest, WRITE, file_of};

const BLOCK: usize = VERITY_BLOCK_BYTES;

/// What the vectors below were made of: block i is filled with 7 i + 1.
fn data(blocks: u64) -> Vec<u8> {
    (0..blocks).flat_map(|index| [(index * 7 + 1) as u8; BLOCK]).collect()
}

fn hash(salt: &[u8], block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

/// Data with its tree behind it, and the root; written independently of the reader.
fn with_tree(mut data: Vec<u8>, salt: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut levels: Vec<Vec<u8>> = vec![];
    let mut below = data.clone();
    while below.len() > BLOCK {
        let mut level: Vec<u8> = below.chunks(BLOCK).flat_map(|block| hash(salt, block)).collect();
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        levels.push(level.clone());
        below = level;
    }
    let root = hash(salt, &below);
    for level in levels.iter().rev() {
        data.extend(level);
    }
    (data, root)
}

/// A disk of `blocks` blocks.
pub fn verified(blocks: u64, salt: &[u8]) -> Verified {
    let (bytes, root) = with_tree(data(blocks), salt);
    let verity = Verity { data_blocks: blocks, root, salt: salt.to_vec() };
    Verified::new(file_of(&bytes), bytes.len() as u64, verity).unwrap()
}

fn disk(file: &File, verity: Verity) -> Guest {
    let size = file.metadata().unwrap().len();
    let verified = Verified::new(file.try_clone().unwrap(), size, verity).unwrap();
    let block = Block::new(BlockKind::Image, Backend::Verified(verified), "image").unwrap();
    Guest::running(Device::Block(block))
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

const VECTOR_SALT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// `veritysetup format --no-superblock --hash=sha256` (cryptsetup 2.6.1) of [`data`].
const VECTORS: [(u64, &str, &str); 6] = [
    (1, VECTOR_SALT, "2afefe355d044aa3335587ff471454b45dd8959242c104b87a43eaf140f4688d"),
    (2, VECTOR_SALT, "4758b3b01376bf384259957d96f83a674f3ce2cdda990dbdbce5f0b0f85c1e61"),
    (128, VECTOR_SALT, "7e75117203c4a8a1310fa9137581a7933021a981911177ece2c06cfafee7cfda"),
    (129, VECTOR_SALT, "a0fe3c564f2955a2902e6b398689fa626a1b75aa97aa0038c34fbe951dffd3cf"),
    (300, VECTOR_SALT, "1e4000412fecffcac34e0c2a4aba260be3b3b241fa9862e3d637a6610ab056e6"),
    (3, "", "3691a033ebd0cd4b4cc9e693317af885ceb0f35c04f843fc8d828de28bd1e936"),
];

#[test]
fn reads_what_veritysetup_made() {
    for (blocks, salt, root) in VECTORS {
        let salt = hex(salt);
        let (bytes, ours) = with_tree(data(blocks), &salt);
        assert_eq!(ours.to_vec(), hex(root), "{blocks} blocks");
        let root = hex(root).try_into().unwrap();
        let file = file_of(&bytes);
        let mut guest = disk(&file, Verity { data_blocks: blocks, root, salt });
        assert_eq!(guest.config(0), (blocks * 8).to_le_bytes(), "the tree is not on the disk");
        for block in [0, blocks / 2, blocks - 1] {
            assert_eq!(request(&mut guest, READ, block * 8, &[(DATA, 4096, WRITE)]), OK);
            assert_eq!(guest.bytes(DATA, BLOCK), [(block * 7 + 1) as u8; BLOCK]);
        }
        let beyond = request(&mut guest, READ, blocks * 8, &[(DATA, 4096, WRITE)]);
        assert_eq!(beyond, IO_ERROR);
        assert_eq!(guest.transport.take_verity_failure(), None);
    }
}

/// Three levels: 16,385 blocks of zeros, root by veritysetup.
#[test]
fn reads_a_tree_of_three_levels() {
    let salt = hex(VECTOR_SALT);
    let root = hex("1bb8d209d233acfae054e75a34b8a15019e78e295f05e093f58a2a8ae61f9ca2");
    let leaf = hash(&salt, &[0; BLOCK]).repeat(128);
    let node = |digests: &[[u8; 32]]| {
        let mut node = digests.concat();
        node.resize(BLOCK, 0);
        node
    };
    let last_leaf = node(&[hash(&salt, &[0; BLOCK])]);
    let middle = node(&[hash(&salt, &leaf); 128]);
    let last_middle = node(&[hash(&salt, &last_leaf)]);
    let top = node(&[hash(&salt, &middle), hash(&salt, &last_middle)]);
    let file = file_of(&[]);
    let mut at = 16_385 * BLOCK as u64;
    for block in [top, middle, last_middle] {
        file.write_all_at(&block, at).unwrap();
        at += BLOCK as u64;
    }
    for _ in 0..128 {
        file.write_all_at(&leaf, at).unwrap();
        at += BLOCK as u64;
    }
    file.write_all_at(&last_leaf, at).unwrap();
    let verity = Verity { data_blocks: 16_385, root: root.try_into().unwrap(), salt };
    let mut guest = disk(&file, verity);
    for block in [0, 127, 128, 8000, 16_383, 16_384] {
        assert_eq!(request(&mut guest, READ, block * 8, &[(DATA, 4096, WRITE)]), OK, "{block}");
    }
    file.write_all_at(&[1], 16_384 * BLOCK as u64).unwrap();
    assert_eq!(request(&mut guest, READ, 16_384 * 8, &[(DATA, 4096, WRITE)]), IO_ERROR);
    assert_eq!(guest.transport.take_verity_failure(), Some(16_384));
}

#[test]
fn reads_any_range_of_sectors() {
    let (bytes, root) = with_tree(data(300), b"s");
    let file = file_of(&bytes);
    let mut guest = disk(&file, Verity { data_blocks: 300, root, salt: b"s".to_vec() });
    for (sector, sectors) in [(0, 1), (7, 2), (1, 7), (9, 200), (2400 - 300, 300), (128, 2000)] {
        let len = sectors * 512;
        guest.write(DATA, &vec![0; 0x10_0000]);
        assert_eq!(request(&mut guest, READ, sector, &[(DATA, len, WRITE)]), OK);
        let from = sector as usize * 512;
        assert!(guest.bytes(DATA, len as usize) == bytes[from..from + len as usize]);
        assert_eq!(guest.bytes(DATA + u64::from(len), 512), vec![0; 512]);
    }
}

/// Alters one byte before anything was read, reads `block`, and gives the outcome.
fn read_altered(blocks: u64, at: usize, block: u64) -> (u8, Option<u64>, Vec<u8>) {
    let (bytes, root) = with_tree(data(blocks), b"s");
    let file = file_of(&bytes);
    let mut guest = disk(&file, Verity { data_blocks: blocks, root, salt: b"s".to_vec() });
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let status = request(&mut guest, READ, block * 8, &[(DATA, 4096, WRITE)]);
    assert_eq!(guest.transport.counters().verity_failures, u64::from(status != OK));
    assert!(!guest.failed(), "the guest is told of an I/O error, the monitor of the cause");
    (status, guest.transport.take_verity_failure(), guest.bytes(DATA, BLOCK))
}

#[test]
fn an_altered_byte_is_never_given_to_the_guest() {
    // 300 blocks: data, then one top node, then three leaf nodes.
    let (top, leaf) = (300 * BLOCK, 301 * BLOCK);
    for (at, block) in [
        (5 * BLOCK, 5),                 // data, first byte
        (6 * BLOCK - 1, 5),             // data, last byte
        (299 * BLOCK + 7, 299),         // the last data block
        (leaf, 0),                      // the digest itself
        (leaf + 31, 77),                // another digest of the same node
        (leaf + 2 * BLOCK + 4095, 299), // what pads a node
        (top, 0),
        (top + 64, 17),
        (top + 4095, 299),
    ] {
        let (status, failure, bytes) = read_altered(300, at, block);
        assert_eq!((status, failure), (IO_ERROR, Some(block)), "byte {at}");
        assert_eq!(bytes, vec![0; BLOCK]);
    }
    assert_eq!(read_altered(1, 17, 0).0, IO_ERROR);
    // A node that is not on the way to the block does not matter.
    assert_eq!(read_altered(300, leaf + BLOCK, 0).0, OK);
}

#[test]
fn the_wrong_root_or_salt_reads_nothing() {
    let (bytes, mut root) = with_tree(data(2), b"s");
    let file = file_of(&bytes);
    let mut guest = disk(&file, Verity { data_blocks: 2, root, salt: b"t".to_vec() });
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), IO_ERROR);
    root[31] ^= 1;
    let mut guest = disk(&file, Verity { data_blocks: 2, root, salt: b"s".to_vec() });
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), IO_ERROR);
}

/// Each read is verified again: the file is not ours.
#[test]
fn data_that_was_good_once_is_not_believed_again() {
    let (bytes, root) = with_tree(data(300), b"s");
    let file = file_of(&bytes);
    let mut guest = disk(&file, Verity { data_blocks: 300, root, salt: b"s".to_vec() });
    assert_eq!(request(&mut guest, READ, 8, &[(DATA, 4096, WRITE)]), OK);
    file.write_all_at(&[0xff], 4096).unwrap();
    assert_eq!(request(&mut guest, READ, 8, &[(DATA, 4096, WRITE)]), IO_ERROR);
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), OK);
    // Only the first failure is kept for the report, and it is taken once.
    file.write_all_at(&[0xff], 0).unwrap();
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), IO_ERROR);
    assert_eq!(guest.transport.take_verity_failure(), Some(1));
    assert_eq!(guest.transport.take_verity_failure(), None);
    assert_eq!(guest.transport.counters().verity_failures, 2);
}

/// Verified nodes are kept in private memory: altering the file's tree later changes nothing for
/// data they cover, and fails where a node must be read.
#[test]
fn verified_nodes_are_kept() {
    let (bytes, root) = with_tree(data(300), b"s");
    let file = file_of(&bytes);
    let mut guest = disk(&file, Verity { data_blocks: 300, root, salt: b"s".to_vec() });
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), OK);
    let tree = 300 * BLOCK as u64;
    file.write_all_at(&vec![0; 4 * BLOCK], tree).unwrap();
    assert_eq!(request(&mut guest, READ, 127 * 8, &[(DATA, 4096, WRITE)]), OK);
    assert_eq!(request(&mut guest, READ, 128 * 8, &[(DATA, 4096, WRITE)]), IO_ERROR);
    assert_eq!(guest.transport.take_verity_failure(), Some(128));
}

/// More leaf nodes than the cache has places: what is evicted is read and verified again.
#[test]
fn more_nodes_than_the_cache_holds() {
    let blocks = 128 * 140;
    let salt = b"s";
    let digest = hash(salt, &[0; BLOCK]);
    let leaf = digest.repeat(128);
    let mut middle = hash(salt, &leaf).repeat(140);
    middle.resize(2 * BLOCK, 0);
    let mut top = [hash(salt, &middle[..BLOCK]), hash(salt, &middle[BLOCK..])].concat();
    top.resize(BLOCK, 0);
    let root = hash(salt, &top);
    let file = file_of(&[]);
    let mut tree = top;
    tree.extend(middle);
    tree.extend(leaf.repeat(140));
    file.write_all_at(&tree, blocks * BLOCK as u64).unwrap();
    let mut guest = disk(&file, Verity { data_blocks: blocks, root, salt: salt.to_vec() });
    for _ in 0..2 {
        for node in 0..140 {
            let sector = node * 128 * 8;
            assert_eq!(request(&mut guest, READ, sector, &[(DATA, 4096, WRITE)]), OK);
        }
    }
    assert_eq!(guest.transport.counters().verity_failures, 0);
}

#[test]
fn a_file_that_became_shorter_does_not_verify() {
    let (bytes, root) = with_tree(data(2), b"s");
    let file = file_of(&bytes);
    let mut guest = disk(&file, Verity { data_blocks: 2, root, salt: b"s".to_vec() });
    file.set_len(100).unwrap();
    assert_eq!(request(&mut guest, READ, 0, &[(DATA, 4096, WRITE)]), IO_ERROR);
    assert_eq!(guest.transport.take_verity_failure(), Some(0));
}

#[test]
fn numbers_that_do_not_belong_together_are_refused() {
    let (bytes, root) = with_tree(data(129), b"s");
    let size = bytes.len() as u64;
    let make = |size: u64, data_blocks: u64, salt: usize| {
        Verified::new(file_of(&bytes), size, Verity { data_blocks, root, salt: vec![0; salt] })
    };
    assert!(make(size, 129, 256).is_ok());
    for (size, blocks, salt) in [
        (size, 129, 257),
        (size, 128, 1),
        (size, 130, 1),
        (size, 0, 1),
        (size, u64::MAX, 1),
        (size, u64::MAX / 4096, 1),
        (size + 4096, 129, 1),
        (size - 1, 129, 1),
        (0, 0, 1),
    ] {
        assert!(make(size, blocks, salt).is_err(), "{blocks} blocks in {size} bytes");
    }
    // The file is shorter or longer than the size that was promised.
    let (other, _) = with_tree(data(128), b"s");
    let verity = Verity { data_blocks: 129, root, salt: vec![] };
    assert!(Verified::new(file_of(&other), size, verity).is_err());
}
