use super::*;
use casemate_ticket::json::parse;

const GOOD: &str = r#"{"models":{"exec":false,"ids":null,"kind":"directory","path":"/srv/models","tenants":["acme"]},"words":{"exec":true,"ids":3000000,"kind":"file","path":"/srv/words","tenants":[]}}"#;

fn of(text: &str) -> std::result::Result<Vec<Entry>, ShapeError> {
    read(&parse(text.as_bytes(), 1 << 20).unwrap())
}

#[test]
fn reads_roots_list() {
    let [models, words] = <[Entry; 2]>::try_from(of(GOOD).unwrap()).unwrap();
    assert_eq!((models.name.as_str(), models.kind), ("models", Kind::Directory));
    assert_eq!((models.path.as_path(), models.exec), (Path::new("/srv/models"), false));
    assert_eq!((models.tenants, models.ids), (vec!["acme".to_owned()], None));
    assert_eq!((words.kind, words.exec, words.ids), (Kind::File, true, Some(3_000_000)));
    assert!(words.tenants.is_empty());
}

#[test]
fn refuses_what_is_none_of_it() {
    for (from, to) in [
        (r#""models""#, r#""../x""#),
        (r#""models""#, r#""-x""#),
        (r#""/srv/models""#, r#""srv""#),
        (r#""/srv/models""#, r#""/srv/../etc""#),
        (r#""/srv/models""#, r#""/""#),
        (r#""directory""#, r#""device""#),
        (r#"["acme"]"#, r#"["ACME"]"#),
        (r#"["acme"]"#, r#""acme""#),
        // The host's own users, and ids beyond the last.
        ("3000000", "0"),
        ("3000000", "1000"),
        ("3000000", "65535"),
        ("3000000", "4294950000"),
        ("3000000", "true"),
        (r#""exec":true,"#, ""),
        (r#""exec":true"#, r#""exec":true,"far":1"#),
    ] {
        assert!(GOOD.contains(from), "{from}");
        assert!(of(&GOOD.replacen(from, to, 1)).is_err(), "{from} {to}");
    }
    assert!(of("[]").is_err());
}
