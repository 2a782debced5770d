//! The vectors of test/vectors/audit/ticket, which the TypeScript tests read too: one valid ticket
//! and each single thing that can be wrong with one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]

use casemate_ticket::bytes::encode_hex;
use casemate_ticket::config::Config;
use casemate_ticket::document::{Context, LaunchDocument, Mode};
use casemate_ticket::json::{self, Value};
use casemate_ticket::spec::{Spec, TemplateSpec};
use casemate_ticket::ticket::{Admitted, TicketError, check};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn vectors() -> Vec<(String, Value)> {
    let directory =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test/vectors/audit/ticket");
    let mut found: Vec<(String, Value)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let value = json::parse(&bytes, 1 << 20).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, value)
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn string<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector.get(name).and_then(Value::as_str).expect(name)
}

fn run(vector: &Value) -> Result<Admitted, TicketError> {
    check(
        string(vector, "ticket"),
        string(vector, "record").as_bytes(),
        string(vector, "spec").as_bytes(),
        &Context::read(vector.get("context").unwrap()).unwrap(),
        string(vector, "now_boottime_ns").parse().unwrap(),
    )
}

fn valid() -> Value {
    vectors().into_iter().find(|(name, _)| name == "valid").unwrap().1
}

#[test]
fn every_vector_is_admitted_or_refused_for_its_reason() {
    let mut codes = BTreeSet::new();
    for (name, vector) in vectors() {
        let expected = vector.get("code").and_then(Value::as_str);
        match (run(&vector), expected) {
            (Ok(admitted), None) => {
                assert_eq!(encode_hex(&admitted.leaf_hash), string(&vector, "leaf_hash"), "{name}");
                assert_eq!(admitted.deadline_ns, 1_025_000_000_000, "{name}");
                assert_eq!(admitted.spec.tenant, "acme", "{name}");
            }
            (Err(error), Some(code)) => {
                assert_eq!(error.code(), code, "{name}: {error}");
                assert_eq!(TicketError::code_named(code), Some(error.code()));
                codes.insert(code.to_owned());
            }
            (result, expected) => panic!("{name}: expected {expected:?}, got {result:?}"),
        }
    }
    // Each reason there is has a vector.
    assert_eq!(codes.len(), 16, "{codes:?}");
}

#[test]
fn every_changed_byte_of_a_ticket_is_refused() {
    let vector = valid();
    let context = Context::read(vector.get("context").unwrap()).unwrap();
    let ticket = string(&vector, "ticket");
    let record = string(&vector, "record").as_bytes();
    let spec = string(&vector, "spec").as_bytes();
    let now = string(&vector, "now_boottime_ns").parse().unwrap();
    for position in (0..ticket.len()).step_by(3) {
        let mut bytes = ticket.as_bytes().to_vec();
        bytes[position] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        assert!(check(&text, record, spec, &context, now).is_err(), "byte {position}");
    }
    // Each check verifies a signature, which takes milliseconds unoptimized: some positions will do.
    for position in (0..record.len()).step_by(13) {
        let mut bytes = record.to_vec();
        bytes[position] ^= 1;
        let error = check(ticket, &bytes, spec, &context, now).unwrap_err();
        assert_eq!(error.code(), "TICKET_NOT_INCLUDED");
    }
    for position in (0..spec.len()).step_by(97) {
        let mut bytes = spec.to_vec();
        bytes[position] ^= 1;
        let error = check(ticket, record, &bytes, &context, now).unwrap_err();
        assert_eq!(error.code(), "TICKET_SPEC_DIGEST");
    }
}

/// Every way to leave a member out of an object somewhere in `value`, or to add one.
fn mutations(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) => {
            let mut found = Vec::new();
            let mut more = members.clone();
            more.push(("zzz".into(), Value::Null));
            found.push(Value::object(more));
            for position in 0..members.len() {
                let mut fewer = members.clone();
                fewer.remove(position);
                found.push(Value::Object(fewer));
                for inner in mutations(&members[position].1) {
                    let mut changed = members.clone();
                    changed[position].1 = inner;
                    found.push(Value::Object(changed));
                }
            }
            found
        }
        Value::Array(items) => (0..items.len())
            .flat_map(|position| {
                mutations(&items[position]).into_iter().map(move |inner| {
                    let mut changed = items.clone();
                    changed[position] = inner;
                    Value::Array(changed)
                })
            })
            .collect(),
        // A value of a type that no member has in its place.
        Value::Null => vec![Value::Integer(-1)],
        Value::Bool(_) => vec![Value::Integer(1), Value::String("true".into())],
        Value::Integer(_) => vec![Value::Integer(-1), Value::String("1".into()), Value::Null],
        Value::String(_) => vec![Value::Integer(-1), Value::String("\0".into()), Value::Null],
    }
}

#[test]
fn a_spec_with_any_member_missing_added_or_of_another_type_is_refused() {
    let vector = valid();
    let spec = json::parse(string(&vector, "spec").as_bytes(), 1 << 20).unwrap();
    assert!(Spec::parse(json::write(&spec).as_bytes()).is_ok());
    let mutated = mutations(&spec);
    assert!(mutated.len() > 250);
    for changed in mutated {
        // Null is a valid template, and a valid absence of a seccomp program.
        let optional = [changed.get("template"), changed.get("app").and_then(|a| a.get("seccomp"))];
        if !optional.contains(&Some(&Value::Null)) {
            let text = json::write(&changed);
            assert!(Spec::parse(text.as_bytes()).is_err(), "accepted {text}");
        }
    }
}

#[test]
fn the_launch_document_reads_what_it_writes() {
    let vector = valid();
    let document = LaunchDocument {
        context: Context::read(vector.get("context").unwrap()).unwrap(),
        mode: Mode::Launch,
        record: string(&vector, "record").into(),
        spec: string(&vector, "spec").into(),
        ticket: string(&vector, "ticket").into(),
    };
    let text = document.write();
    assert_eq!(LaunchDocument::parse(text.as_bytes()), Ok(document.clone()));
    let template = text.replace("\"mode\":\"launch\"", "\"mode\":\"template\"");
    assert!(LaunchDocument::parse(template.as_bytes()).is_err());
    assert!(LaunchDocument::parse(format!("{text}\n").as_bytes()).is_err());
    let context = document.context;
    assert_eq!(Context::read(&context.to_value()), Ok(context));
}

#[test]
fn a_template_spec_has_init_alone() {
    let vector = valid();
    let spec = json::parse(string(&vector, "spec").as_bytes(), 1 << 20).unwrap();
    let part = |name: &str| (name.to_owned(), spec.get(name).unwrap().clone());
    let Some(Value::Array(descriptors)) = spec.get("descriptors") else { unreachable!() };
    let build = |count: usize| {
        json::write(&Value::object(vec![
            ("descriptors".into(), Value::Array(descriptors[..count].to_vec())),
            part("kernel"),
            part("limits"),
            part("machine"),
            ("v".into(), Value::String("casemate.template-spec/1".into())),
            part("vmm"),
        ]))
    };
    let parsed = TemplateSpec::parse(build(1).as_bytes()).unwrap();
    assert_eq!((parsed.machine.vcpus, parsed.init.data_blocks), (1, 300));
    assert!(TemplateSpec::parse(build(0).as_bytes()).is_err());
    assert!(TemplateSpec::parse(build(2).as_bytes()).is_err());
    assert!(TemplateSpec::parse(string(&vector, "spec").as_bytes()).is_err());
}

#[test]
fn the_guest_gets_the_app_and_nothing_else() {
    let vector = valid();
    let spec = Spec::parse(string(&vector, "spec").as_bytes()).unwrap();
    let config = Config::parse(spec.guest_config.as_bytes()).unwrap();
    assert_eq!((&config.apps, config.network), (&spec.apps, None));
    assert_eq!(config.hostname, "web-1");
    let app = &config.apps[0];
    assert_eq!(app.process.capabilities.bounding, 1);
    assert_eq!(app.process.rlimits[1].hard, u64::MAX);
    assert!(!spec.guest_config.contains("acme"));
}

/// The valid spec with these members changed or added.
fn spec_with(changes: &[(&str, &str)]) -> Vec<u8> {
    let vector = valid();
    let spec = json::parse(string(&vector, "spec").as_bytes(), 1 << 20).unwrap();
    let Value::Object(mut members) = spec else { unreachable!() };
    for (name, text) in changes {
        members.retain(|(key, _)| key != name);
        members.push(((*name).into(), json::parse(text.as_bytes(), 1 << 20).unwrap()));
    }
    json::write(&Value::object(members)).into_bytes()
}

#[test]
fn a_network_and_a_tap_come_together() {
    let network = r#"{"addresses":["10.88.0.2/24"],"egress":null,"gateways":["10.88.0.1"],"mac":"02:0a:58:00:00:02","mtu":1500,"names":{"hosts":[],"nameservers":[],"options":[],"search":[]},"ports":[],"rates":{"receive":null,"transmit":null}}"#;
    let vector = valid();
    let spec = json::parse(string(&vector, "spec").as_bytes(), 1 << 20).unwrap();
    let four = json::write(spec.get("descriptors").unwrap());
    let tap = r#"{"access":"read-write","role":"net"}"#;
    let with = |taps: &str| four.replace("}]", &format!("}}{taps}]"));
    let five = with(&format!(",{tap}"));

    let parsed = Spec::parse(&spec_with(&[("descriptors", &five), ("network", network)])).unwrap();
    let config = Config::parse(parsed.guest_config.as_bytes()).unwrap();
    assert_eq!(config.network, parsed.network);
    assert_eq!(parsed.network.unwrap().addresses.len(), 1);

    for changes in [
        vec![("descriptors", five.as_str())],
        vec![("network", network)],
        vec![("descriptors", &five), ("network", "null")],
        vec![("descriptors", &with(&format!(",{tap},{tap}"))), ("network", network)],
        vec![
            ("descriptors", &with(",{\"access\":\"read\",\"role\":\"net\"}")),
            ("network", network),
        ],
    ] {
        assert!(Spec::parse(&spec_with(&changes)).is_err(), "accepted {changes:?}");
    }
}
