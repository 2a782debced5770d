#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use super::*;
use crate::config::Config;
use crate::proof::leaf_hash;
use crate::test_log::{BOOT, Log, context};

const REQUEST: &[u8] =
    br#"{"app":null,"args":["sh"],"cwd":null,"env":["A=2","B=3"],"terminal":null,"user":null}"#;
const NOW_NS: u64 = 1_000_000_000_000;

fn record() -> String {
    format!(
        r#"{{"clock":{{"boot_id":"{BOOT}"}},"deadline":{{"boottime_ns":"1025000000000"}},"launch_id":"pod-1","node":{{"id":"host-1"}},"request":"{}","tenant":"acme","type":"exec.intent","v":"casemate.audit/1"}}"#,
        Digest::of(REQUEST)
    )
}

fn checked(log: &Log, record: &str, request: &[u8], now_ns: u64) -> Result<Admitted, TicketError> {
    let pod = Pod { launch_id: "pod-1".into(), tenant: "acme".into() };
    let ticket = log.receipt(record);
    check(ticket.as_bytes(), record.as_bytes(), request, &pod, &context(), now_ns)
}

#[test]
fn admits_what_was_recorded_for_this_pod_and_nothing_else() {
    let log = Log::new(1);
    let good = record();
    let admitted = checked(&log, &good, REQUEST, NOW_NS).unwrap();
    assert_eq!(admitted.leaf_hash, leaf_hash(good.as_bytes()));
    assert_eq!(admitted.deadline_ns, 1_025_000_000_000);
    for (from, to, code) in [
        ("exec.intent", "launch.intent", "TICKET_RECORD"),
        ("exec.intent", "exec.ended", "TICKET_RECORD"),
        ("audit/1", "audit/2", "TICKET_RECORD"),
        ("pod-1", "pod-2", "TICKET_POD"),
        ("acme", "evil", "TICKET_POD"),
        ("host-1", "host-2", "TICKET_HOST"),
        ("11111111-", "21111111-", "TICKET_BOOT"),
        ("sha256:", "sha512:", "TICKET_RECORD"),
        ("1025000000000", "999999999999", "TICKET_EXPIRED"),
        ("1025000000000", "1030000000001", "TICKET_TOO_FAR"),
        ("\"v\"", "\"w\"", "TICKET_RECORD"),
        ("{\"clock", "{ \"clock", "TICKET_RECORD"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert_eq!(checked(&log, &bad, REQUEST, NOW_NS).unwrap_err().code(), code, "{to}");
    }
    let other = checked(&log, &good, b"{}", NOW_NS);
    assert_eq!(other.unwrap_err().code(), "TICKET_REQUEST_DIGEST");
    let stranger = checked(&Log::new(2), &good, REQUEST, NOW_NS);
    assert_eq!(stranger.unwrap_err().code(), "TICKET_KEY_UNKNOWN");
}

#[test]
fn reads_canonical_requests_alone() {
    let request = ExecRequest::parse(REQUEST).unwrap();
    assert_eq!((request.args, request.terminal), (vec!["sh".into()], None));
    let terminal =
        br#"{"app":"db","args":["sh"],"cwd":"/","env":[],"terminal":{"columns":80,"rows":24},"user":"web"}"#;
    let request = ExecRequest::parse(terminal).unwrap();
    assert_eq!((request.terminal, request.app.as_deref()), (Some((24, 80)), Some("db")));
    assert_eq!((request.cwd.as_deref(), request.user.as_deref()), (Some("/"), Some("web")));
    for bad in [
        r#"{"app":null,"args":[],"cwd":null,"env":[],"terminal":null,"user":null}"#,
        r#"{"app":null,"args":["sh"],"cwd":"tmp","env":[],"terminal":null,"user":null}"#,
        r#"{"app":null,"args":["sh"],"cwd":null,"env":["=1"],"terminal":null,"user":null}"#,
        r#"{"app":null,"args":["sh"],"cwd":null,"env":[],"terminal":{"columns":65536,"rows":1},"user":null}"#,
        r#"{"app":null,"args":["sh"],"cwd":null,"env":[],"terminal":true,"user":null}"#,
        r#"{"app":null,"args":["sh"],"cwd":null,"env":[],"user":null}"#,
        r#"{"app":null,"args":["sh"],"capabilities":[],"cwd":null,"env":[],"terminal":null,"user":null}"#,
        r#"{"app":null,"args":["s\u0000h"],"cwd":null,"env":[],"terminal":null,"user":null}"#,
    ] {
        assert!(ExecRequest::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn changes_of_the_app_what_it_may_and_nothing_that_confines_it() {
    let config = br#"{"apps":[{"after":null,"health":null,"image":0,"mounts":[],"name":"app","process":{"additional_gids":[7],"args":["x"],"capabilities":{"ambient":[],"bounding":["CAP_CHOWN"],"effective":[],"inheritable":[],"permitted":[]},"cwd":"/data","env":["A=1","AB=1"],"no_new_privileges":true,"rlimits":[],"user":"1"},"read_only_root":true,"seccomp":null,"stop_signal":15}],"hostname":"h","stop_ms":1,"sysctls":[]}"#;
    let app = Config::parse(config).unwrap().apps.remove(0);
    let beside = ExecRequest::parse(REQUEST).unwrap().beside(&app);
    let mut expected = app.clone();
    expected.process.args = vec!["sh".into()];
    expected.process.env = vec!["AB=1".into(), "A=2".into(), "B=3".into()];
    assert_eq!(beside, expected);
    let mut request = ExecRequest::parse(REQUEST).unwrap();
    (request.cwd, request.user) = (Some("/tmp".into()), Some("0".into()));
    let beside = request.beside(&app);
    (expected.process.cwd, expected.process.user) = ("/tmp".into(), "0".into());
    assert_eq!(beside, expected);
}
