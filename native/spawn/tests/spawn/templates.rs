//! Templates: built once, shared by those who ask, copied for each tenant.

use casemate_ticket::bytes::Digest;
use casemate_ticket::json::Value;

use crate::documents::{set, text};
use crate::host::{host, host_with};

const ONE: &str = r#"{"memory_mib":128,"op":"template","vcpus":1}"#;

#[test]
fn builds_a_template_once_and_restores_from_it() {
    let Some(host) = host() else { return };
    let (mut a, mut b) = (host.client(), host.client());
    a.send(&crate::client::framed(ONE), &[]).unwrap();
    b.send(&crate::client::framed(ONE), &[]).unwrap();
    let (a, b) = (a.receive().unwrap(), b.receive().unwrap());
    assert_eq!(a.code(), "ok", "{}", a.text());
    assert_eq!(a.text(), b.text());
    let template = a.value.get("template").unwrap().clone();
    assert_eq!(template.get("state"), Some(&text(&Digest::of(b"state").to_string())));
    assert_eq!(template.get("memory_size"), Some(&Value::Integer(128 << 20)));
    assert_eq!(host.describe().get("templates"), Some(&Value::Array(vec![template.clone()])));
    assert_eq!(host.pods(), [], "a builder is no pod");
    assert_eq!(a.value.get("kept"), Some(&Value::Bool(false)));
    let again = host.ask(ONE);
    assert_eq!(again.value.get("kept"), Some(&Value::Bool(true)));
    assert_eq!(again.value.get("template"), Some(&template), "found");
    let (pod, mut spec) = host.spec(&["exit", "0"]);
    let Value::Object(members) = template else { panic!("no object") };
    let wanted = members.into_iter().filter(|(name, _)| name != "vcpus" && name != "memory_mib");
    set(&mut spec, "template", Value::object(wanted.collect()));
    let mut answer = host.launch(&spec);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    assert_eq!(host.exit_of(&pod, answer.descriptors.pop().unwrap()).0, "code 0 APP_EXIT");
    set(&mut spec, "machine.vcpus", Value::Integer(2));
    assert_eq!(host.launch(&spec).code(), "SPEC_NOT_OF_THIS_HOST", "a template is of one shape");
}

#[test]
fn keeps_a_template_for_the_next_spawn_that_is_made_of_the_same() {
    let Some(host) = host() else { return };
    let template = host.ask(ONE).value.get("template").unwrap().clone();
    // The probe's memory is new at each build, and so is its digest.
    let host = host.restart();
    assert_eq!(host.describe().get("templates"), Some(&Value::Array(vec![])), "read when wanted");
    let found = host.ask(ONE);
    assert_eq!(found.value.get("kept"), Some(&Value::Bool(true)), "{}", found.text());
    assert_eq!(found.value.get("template"), Some(&template));
    let folder = only_entry(&host.directory.join("templates"));
    std::fs::write(folder.join("state"), "altered").unwrap();
    let host = host.restart();
    let built = host.ask(ONE);
    assert_eq!(built.value.get("kept"), Some(&Value::Bool(false)), "{}", built.text());
    std::fs::write(host.directory.join("vmlinux"), "\u{7f}ELF casemate-softkvm casemate other")
        .unwrap();
    let host = host.restart();
    let other = host.ask(ONE);
    assert_eq!(other.value.get("kept"), Some(&Value::Bool(false)), "another kernel");
}

fn only_entry(folder: &std::path::Path) -> std::path::PathBuf {
    let entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [only] = <[_; 1]>::try_from(entries).unwrap();
    only
}

#[test]
fn refuses_shapes_that_are_not_in_the_catalogue() {
    let Some(host) = host() else { return };
    let request = r#"{"memory_mib":512,"op":"template","vcpus":1}"#;
    assert_eq!(host.ask(request).code(), "TEMPLATE_SHAPE");
}

#[test]
fn tells_why_a_template_could_not_be_built() {
    for (word, reason) in [
        ("template-fails", "BOOT_TIMEOUT: the guest did not say HELLO"),
        ("template-unsealed", "memory is no sealed memfd"),
    ] {
        let Some(host) = host_with(word, |_| {}) else { return };
        let answer = host.ask(ONE);
        assert_eq!(answer.code(), "TEMPLATE_FAILED");
        assert!(answer.text().contains(reason), "{}", answer.text());
        assert_eq!(host.describe().get("templates"), Some(&Value::Array(vec![])));
    }
}
