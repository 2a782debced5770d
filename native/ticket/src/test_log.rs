//! A log of one record, for tests of its receipts.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails may panic")]

use ed25519_dalek::{Signer as _, SigningKey};

use crate::bytes::{Digest, encode_base64};
use crate::document::Context;
use crate::note::LogKey;
use crate::proof::leaf_hash;

const ORIGIN: &str = "casemate.example/log";
/// Of the host that [`context`] is of.
pub const BOOT: &str = "11111111-2222-3333-4444-555555555555";

/// A host that trusts the log of `Log::new(1)`.
pub fn context() -> Context {
    Context {
        node: "host-1".into(),
        boot_id: BOOT.into(),
        kvm: None,
        allow_software_kvm: false,
        levels: vec![],
        log_keys: vec![Log::new(1).key()],
    }
}

/// A log with one key.
pub struct Log(SigningKey);

impl Log {
    pub fn new(byte: u8) -> Self {
        Self(SigningKey::from_bytes(&[byte; 32]))
    }

    fn blob(&self) -> Vec<u8> {
        [&[1_u8][..], self.0.verifying_key().as_bytes()].concat()
    }

    fn id(&self) -> [u8; 4] {
        let digest = Digest::of(&[ORIGIN.as_bytes(), b"\n", &self.blob()].concat());
        *digest.0.first_chunk().unwrap()
    }

    pub fn key(&self) -> LogKey {
        let id = crate::bytes::encode_hex(&self.id());
        LogKey::parse(&format!("{ORIGIN}+{id}+{}", encode_base64(&self.blob()))).unwrap()
    }

    /// The receipt of a log that has this one record.
    pub fn receipt(&self, record: &str) -> String {
        let leaf = leaf_hash(record.as_bytes());
        let text = format!("{ORIGIN}\n1\n{}\n", encode_base64(&leaf));
        let signature = self.0.sign(text.as_bytes()).to_bytes();
        let line = encode_base64(&[&self.id()[..], &signature].concat());
        format!("c2sp.org/tlog-proof@v1\nindex 0\n\n{text}\n\u{2014} {ORIGIN} {line}\n")
    }
}
