use super::{Egress, Names};
use crate::json::{self, write};

fn egress(rules: &str) -> Option<Egress> {
    let text = format!(r#"{{"internet":false,"rules":[{rules}]}}"#);
    Egress::read(&json::parse(text.as_bytes(), 65_536).unwrap()).ok().flatten()
}

fn rule(cidr: &str, ports: &str, protocol: &str) -> String {
    format!(r#"{{"cidr":"{cidr}","ports":{ports},"protocol":{protocol}}}"#)
}

#[test]
fn reads_rules_and_writes_what_it_read() {
    let one = rule("192.0.2.0/24", r#"{"from":443,"to":444}"#, r#""tcp""#);
    let two = rule("2001:db8::/32", "null", "null");
    let text = format!(r#"{{"internet":true,"rules":[{one},{two}]}}"#);
    let value = json::parse(text.as_bytes(), 4096).unwrap();
    let read = Egress::read(&value).unwrap().unwrap();
    assert_eq!(write(&read.to_value()), text);
    assert_eq!(Egress::read(&json::parse(b"null", 16).unwrap()).unwrap(), None);
}

#[test]
fn refuses_rules_that_could_be_read_in_two_ways() {
    for cidr in [
        "192.0.2.1/24",
        "192.0.2.0/33",
        "192.0.2.0",
        "192.0.2.0/024",
        "2001:DB8::/32",
        "2001:db8::1/64",
        "::ffff:192.0.2.0/120",
        "192.0.2.0/24; accept",
        "",
    ] {
        assert_eq!(egress(&rule(cidr, "null", "null")), None, "{cidr}");
    }
    for (ports, protocol) in [
        (r#"{"from":443,"to":443}"#, "null"),
        (r#"{"from":0,"to":443}"#, r#""tcp""#),
        (r#"{"from":444,"to":443}"#, r#""tcp""#),
        (r#"{"from":1,"to":65536}"#, r#""udp""#),
        ("null", r#""icmp""#),
    ] {
        assert_eq!(egress(&rule("192.0.2.0/24", ports, protocol)), None, "{ports} {protocol}");
    }
    assert_eq!(egress(""), None, "nothing at all is null");
    let rules = vec![rule("0.0.0.0/0", "null", "null"); 65].join(",");
    assert_eq!(egress(&rules), None);
    assert!(egress(&rule("0.0.0.0/0", "null", "null")).is_some());
}

fn names(hosts: &str, nameservers: &str, options: &str, search: &str) -> Option<Names> {
    let text = format!(
        r#"{{"hosts":[{hosts}],"nameservers":[{nameservers}],"options":[{options}],"search":[{search}]}}"#
    );
    let value = json::parse(text.as_bytes(), 65_536).unwrap();
    let read = Names::read(&value).ok()?;
    assert_eq!(write(&read.to_value()), text);
    Some(read)
}

#[test]
fn names_are_of_one_line_each() {
    let host = r#"{"address":"10.0.0.5","name":"db.internal"}"#;
    let read = names(host, r#""10.0.0.2","fd00::53""#, r#""ndots:2""#, r#""example.com""#).unwrap();
    assert_eq!(read.hosts.first().unwrap().1, "db.internal");
    assert_eq!(names("", "", "", ""), Some(Names::default()));
    for bad in ["a\\nb", "a b", "", "a..b", ".", "a.", "#"] {
        let quoted = format!("\"{bad}\"");
        assert_eq!(names("", "", "", &quoted), None, "{bad}");
        assert_eq!(names("", &quoted, "", ""), None, "{bad}");
        let host = format!(r#"{{"address":"10.0.0.5","name":{quoted}}}"#);
        assert_eq!(names(&host, "", "", ""), None, "{bad}");
    }
    for bad in ["ndots:2\\n", "a b", "#", ""] {
        assert_eq!(names("", "", &format!("\"{bad}\""), ""), None, "{bad}");
    }
    assert_eq!(names("", r#""10.0.0.2","10.0.0.3","10.0.0.4","10.0.0.5""#, "", ""), None);
}
