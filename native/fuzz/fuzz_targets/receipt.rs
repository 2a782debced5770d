//! Tickets, records, specs and launch documents, as a stolen agent could make them.
//!
//! Besides not crashing, each reader must be exact: what it accepts is what its writer makes of the
//! result. The signing key is known here, so that the fuzzer gets behind the signature: record and
//! spec are then the only walls left.
#![no_main]

use std::sync::LazyLock;

use casemate_ticket::bytes::{Digest, decode_base64, encode_base64, encode_hex};
use casemate_ticket::config::Config;
use casemate_ticket::document::{Context, LaunchDocument};
use casemate_ticket::errand::{Errand, Request};
use casemate_ticket::exec;
use casemate_ticket::json::{self, Value};
use casemate_ticket::note::{LogKey, open_checkpoint};
use casemate_ticket::proof::{self, leaf_hash};
use casemate_ticket::spec::{Spec, TemplateSpec};
use casemate_ticket::ticket::check;
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;

/// The valid ticket of the shared vectors: its key is 32 bytes of 1.
const VALID: &[u8] = include_bytes!("../../../test/vectors/audit/ticket/valid.jcs");
const ORIGIN: &str = "casemate.example/log";

struct Host {
    ticket: String,
    record: Value,
    spec: String,
    context: Context,
    now_ns: u64,
    key: SigningKey,
    id: [u8; 4],
}

static HOST: LazyLock<Host> = LazyLock::new(|| {
    let vector = json::parse(VALID, 1 << 20).expect("the vector is canonical");
    let text = |name: &str| vector.get(name).and_then(Value::as_str).expect("a string").to_owned();
    let key = SigningKey::from_bytes(&[1; 32]);
    let blob = [&[1u8][..], key.verifying_key().as_bytes()].concat();
    let [a, b, c, d, ..] = Digest::of(&[ORIGIN.as_bytes(), b"\n", &blob].concat()).0;
    Host {
        ticket: text("ticket"),
        record: json::parse(text("record").as_bytes(), 1 << 16).expect("the record is canonical"),
        spec: text("spec"),
        context: Context::read(vector.get("context").expect("a context")).expect("a context"),
        now_ns: text("now_boottime_ns").parse().expect("a number"),
        key,
        id: [a, b, c, d],
    }
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 6 {
        0 => canonical(rest),
        1 => ticket_text(rest),
        2 => logged(rest, HOST.spec.as_bytes()),
        3 => spec(rest),
        4 => document(rest),
        _ => encodings(rest),
    }
});

fn canonical(bytes: &[u8]) {
    if let Ok(value) = json::parse(bytes, 1 << 16) {
        assert_eq!(json::write(&value).as_bytes(), bytes);
    }
}

/// Any text in place of the ticket: admitted only with what the log really signed.
fn ticket_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = LogKey::parse(text);
    let record = json::write(&HOST.record);
    if check(text, record.as_bytes(), HOST.spec.as_bytes(), &HOST.context, HOST.now_ns).is_ok() {
        let (ours, theirs) = (proof::parse(&HOST.ticket), proof::parse(text));
        let (ours, theirs) = (ours.expect("parses"), theirs.expect("parses"));
        assert_eq!((ours.index, &ours.hashes), (theirs.index, &theirs.hashes));
        let keys = &HOST.context.log_keys;
        assert_eq!(
            open_checkpoint(ours.checkpoint, keys),
            open_checkpoint(theirs.checkpoint, keys)
        );
    }
}

/// A record of any bytes that the log did sign, with the spec it would be for.
fn logged(record: &[u8], spec: &[u8]) {
    let leaf = leaf_hash(record);
    let text = format!("{ORIGIN}\n1\n{}\n", encode_base64(&leaf));
    let signature = HOST.key.sign(text.as_bytes()).to_bytes();
    let line = encode_base64(&[&HOST.id[..], &signature].concat());
    let ticket = format!("c2sp.org/tlog-proof@v1\nindex 0\n\n{text}\n\u{2014} {ORIGIN} {line}\n");
    if let Ok(admitted) = check(&ticket, record, spec, &HOST.context, HOST.now_ns) {
        assert_eq!(admitted.leaf_hash, leaf);
        assert!(admitted.deadline_ns >= HOST.now_ns);
        assert_eq!(admitted.spec.node, HOST.context.node);
    }
    let pod = exec::Pod { launch_id: "pod".into(), tenant: "acme".into() };
    let admitted = exec::check(ticket.as_bytes(), record, spec, &pod, &HOST.context, HOST.now_ns);
    if let Ok(admitted) = admitted {
        assert_eq!(admitted.leaf_hash, leaf);
        let text = String::from_utf8_lossy(record);
        assert!(text.contains("exec.intent") && text.contains(&Digest::of(spec).to_string()));
    }
}

/// A spec of any bytes, recorded as it is.
fn spec(bytes: &[u8]) {
    if let Ok(parsed) = Spec::parse(bytes) {
        let config =
            Config::parse(parsed.guest_config.as_bytes()).expect("the apps of a good spec");
        let Spec { apps, hostname, limits, network, sysctls, .. } = parsed;
        assert_eq!(config, Config { apps, hostname, network, stop_ms: limits.stop_ms, sysctls });
    }
    let _ = TemplateSpec::parse(bytes);
    let Value::Object(mut members) = HOST.record.clone() else { return };
    for (name, value) in &mut members {
        if name == "spec" {
            let size = i64::try_from(bytes.len()).expect("fits");
            *value = Value::object(vec![
                ("digest".into(), Value::String(Digest::of(bytes).to_string())),
                ("size".into(), Value::Integer(size)),
            ]);
        }
    }
    logged(json::write(&Value::Object(members)).as_bytes(), bytes);
}

fn document(bytes: &[u8]) {
    if let Ok(document) = LaunchDocument::parse(bytes) {
        assert_eq!(document.write().as_bytes(), bytes);
    }
    let _ = Config::parse(bytes);
    match Request::parse(bytes) {
        Ok(Request::Program(request)) => {
            assert!(!request.args.is_empty());
            assert!(request.cwd.is_none_or(|cwd| cwd.starts_with('/')));
        }
        Ok(Request::Errand(request)) => match request.errand {
            Errand::CopyIn { path, .. } | Errand::CopyOut { path } => {
                assert!(path.starts_with('/'))
            }
            Errand::Processes => {}
        },
        Err(_) => {}
    }
}

fn encodings(bytes: &[u8]) {
    assert_eq!(decode_base64(&encode_base64(bytes)).as_deref(), Some(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(decoded) = decode_base64(text) {
            assert_eq!(encode_base64(&decoded), text);
        }
        if let Some(decoded) = casemate_ticket::bytes::decode_hex(text) {
            assert_eq!(encode_hex(&decoded), text);
        }
    }
}
