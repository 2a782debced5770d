#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use super::*;
use crate::proof::leaf_hash;
use crate::test_log::{BOOT, Log, context};

const NOW_NS: u64 = 1_000_000_000_000;

fn record(operation: &str, size_bytes: &str, snapshot: &str) -> String {
    format!(
        r#"{{"clock":{{"boot_id":"{BOOT}"}},"deadline":{{"boottime_ns":"1025000000000"}},"node":{{"id":"host-1"}},"operation":"{operation}","size_bytes":{size_bytes},"snapshot":{snapshot},"tenant":"acme","type":"volume.intent","v":"casemate.audit/1","volume":"data"}}"#,
    )
}

fn checked(log: &Log, record: &str) -> Result<Admitted, TicketError> {
    check(&log.receipt(record), record.as_bytes(), &context(), NOW_NS)
}

#[test]
fn admits_the_order_that_was_recorded_and_nothing_else() {
    let log = Log::new(1);
    let good = record("create", "67108864", "null");
    let admitted = checked(&log, &good).unwrap();
    assert_eq!(admitted.leaf_hash, leaf_hash(good.as_bytes()));
    assert_eq!(admitted.deadline_ns, 1_025_000_000_000);
    let order = Order {
        tenant: "acme".into(),
        volume: "data".into(),
        operation: Operation::Create,
        size_bytes: 64 << 20,
        snapshot: None,
    };
    assert_eq!(admitted.order, order);
    for (from, to, code) in [
        ("volume.intent", "launch.intent", "TICKET_RECORD"),
        ("volume.intent", "exec.intent", "TICKET_RECORD"),
        ("volume.intent", "volume.ended", "TICKET_RECORD"),
        ("audit/1", "audit/2", "TICKET_RECORD"),
        ("\"acme\"", "\"../acme\"", "TICKET_RECORD"),
        ("\"acme\"", "\"\"", "TICKET_RECORD"),
        ("\"data\"", "\"..\"", "TICKET_RECORD"),
        ("\"data\"", "\"a/b\"", "TICKET_RECORD"),
        ("\"data\"", "\"a@b\"", "TICKET_RECORD"),
        ("\"data\"", "\"-data\"", "TICKET_RECORD"),
        ("\"data\"", "\"Data\"", "TICKET_RECORD"),
        ("\"data\"", "\"\"", "TICKET_RECORD"),
        ("\"data\"", "null", "TICKET_RECORD"),
        ("\"create\"", "\"erase\"", "TICKET_RECORD"),
        ("host-1", "host-2", "TICKET_HOST"),
        ("11111111-", "21111111-", "TICKET_BOOT"),
        ("1025000000000", "999999999999", "TICKET_EXPIRED"),
        ("1025000000000", "1030000000001", "TICKET_TOO_FAR"),
        ("{\"clock", "{ \"clock", "TICKET_RECORD"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert_eq!(checked(&log, &bad).unwrap_err().code(), code, "{to}");
    }
    assert_eq!(checked(&Log::new(2), &good).unwrap_err().code(), "TICKET_KEY_UNKNOWN");
    let endless = good.replace("\"data\"", &format!("\"{}\"", "d".repeat(64)));
    assert_eq!(checked(&log, &endless).unwrap_err().code(), "TICKET_RECORD");
}

#[test]
fn each_operation_has_its_members_and_no_others() {
    let log = Log::new(1);
    let mib = "67108864";
    let name = "\"monday\"";
    for (operation, size_bytes, snapshot, good) in [
        ("create", mib, "null", true),
        ("create", "null", "null", false),
        ("create", mib, name, false),
        ("grow", mib, "null", true),
        ("grow", "null", "null", false),
        ("remove", "null", "null", true),
        ("remove", "null", name, true),
        ("remove", mib, "null", false),
        ("snapshot", "null", name, true),
        ("snapshot", "null", "null", false),
        ("restore", "null", name, true),
        ("restore", "null", "null", false),
        ("export", "null", name, true),
        ("export", "null", "null", false),
        ("snapshot", "null", "\"../monday\"", false),
        ("create", "67108863", "null", false),
        ("create", "67108865", "null", false),
        ("create", "0", "null", false),
        ("create", "-67108864", "null", false),
        ("create", "\"67108864\"", "null", false),
        ("create", "274877906944", "null", true),
        ("create", "274878955520", "null", false),
    ] {
        let record = record(operation, size_bytes, snapshot);
        let answer = checked(&log, &record);
        assert_eq!(answer.is_ok(), good, "{operation} {size_bytes} {snapshot}: {answer:?}");
    }
}
