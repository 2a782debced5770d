#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use super::*;
use crate::json;

fn read(probe: &str, more: &str) -> Result<Option<Check>, ShapeError> {
    let times = r#""retries":3,"start_interval_ms":5000,"start_period_ms":0,"timeout_ms":30000"#;
    let times = if more.is_empty() { times } else { more };
    let text = format!(r#"{{"interval_ms":30000,"probe":{probe},{times}}}"#);
    Check::read(&json::parse(text.as_bytes(), 65_536).unwrap())
}

#[test]
fn reads_each_kind_of_question() {
    assert_eq!(Check::read(&Value::Null), Ok(None));
    let exec = read(r#"{"args":["true","x"],"kind":"exec"}"#, "").unwrap().unwrap();
    assert_eq!(exec.probe, Probe::Exec(vec!["true".into(), "x".into()]));
    assert_eq!((exec.interval_ms, exec.timeout_ms, exec.retries), (30_000, 30_000, 3));
    let tcp = read(r#"{"kind":"tcp","port":65535}"#, "").unwrap().unwrap();
    assert_eq!(tcp.probe, Probe::Tcp(65_535));
    let http = read(r#"{"kind":"http","path":"/a?b=c","port":80}"#, "").unwrap().unwrap();
    assert_eq!(http.probe, Probe::Http(80, "/a?b=c".into()));
}

#[test]
fn refuses_questions_that_are_none() {
    for probe in [
        "null",
        r#"{"kind":"icmp"}"#,
        r#"{"args":[],"kind":"exec"}"#,
        r#"{"args":["true"],"kind":"exec","port":1}"#,
        r#"{"kind":"tcp","port":0}"#,
        r#"{"kind":"tcp","port":65536}"#,
        r#"{"kind":"http","port":80}"#,
        r#"{"kind":"http","path":"a","port":80}"#,
        r#"{"kind":"http","path":"/a b","port":80}"#,
        r#"{"kind":"http","path":"/a\r\nHost: b","port":80}"#,
        r#"{"kind":"http","path":"/ä","port":80}"#,
    ] {
        assert!(read(probe, "").is_err(), "{probe}");
    }
}

#[test]
fn refuses_times_out_of_bounds() {
    let tcp = r#"{"kind":"tcp","port":80}"#;
    for times in [
        r#""retries":0,"start_interval_ms":5000,"start_period_ms":0,"timeout_ms":1000"#,
        r#""retries":101,"start_interval_ms":5000,"start_period_ms":0,"timeout_ms":1000"#,
        r#""retries":1,"start_interval_ms":999,"start_period_ms":0,"timeout_ms":1000"#,
        r#""retries":1,"start_interval_ms":5000,"start_period_ms":3600001,"timeout_ms":1000"#,
        r#""retries":1,"start_interval_ms":5000,"start_period_ms":0,"timeout_ms":0"#,
        r#""retries":1,"start_interval_ms":5000,"start_period_ms":0"#,
    ] {
        assert!(read(tcp, times).is_err(), "{times}");
    }
}
