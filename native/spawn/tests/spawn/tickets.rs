//! The first wall: a launch with anything but a good, unspent ticket for this very spec is refused,
//! and no process is started.

use casemate_ticket::json::{self, Value};

use crate::client::Answer;
use crate::documents::{
    self, as_container, boottime_ns, key, launch_request, object, set, text, ticket,
};
use crate::host::{Host, host, host_with};

/// Launches with a bent record; the ticket is an honest log's for that record.
fn with_record(host: &Host, bend: impl FnOnce(&mut Value)) -> Answer {
    let (_, spec) = host.spec(&["serve"]);
    let mut record = documents::record(&spec);
    bend(&mut record);
    let record = json::write(&record);
    let request = launch_request(&ticket(record.as_bytes(), &key(7)), &record, &json::write(&spec));
    host.client().ask(&request, &host.files())
}

fn nothing_runs(host: &Host) {
    assert_eq!(host.pods(), []);
    let spent = std::fs::read_dir(host.run_dir().join("spent")).unwrap().count();
    assert_eq!(spent, 0, "a refused ticket is not spent");
}

#[test]
fn refuses_records_of_another_place_time_or_kind() {
    let Some(host) = host() else { return };
    let now = boottime_ns();
    let boot = "01936f5e-0000-4000-8000-000000000000";
    let late = text(&(now - 1).to_string());
    let far = text(&(now + 120_000_000_000).to_string());
    let digest = text(&format!("sha256:{}", "0".repeat(64)));
    for (path, value, code) in [
        ("node.id", text("other-host"), "TICKET_HOST"),
        ("clock.boot_id", text(boot), "TICKET_BOOT"),
        ("deadline.boottime_ns", late, "TICKET_EXPIRED"),
        ("deadline.boottime_ns", far, "TICKET_TOO_FAR"),
        ("type", text("launch.started"), "TICKET_RECORD"),
        ("v", text("casemate.audit/2"), "TICKET_RECORD"),
        ("spec.digest", digest, "TICKET_SPEC_DIGEST"),
        ("spec.size", Value::Integer(1), "TICKET_SPEC_DIGEST"),
        ("tenant", text("other"), "SPEC_MISMATCH"),
        ("launch_id", text("01936f5e-0000-7000-8000-ffffffffffff"), "SPEC_MISMATCH"),
        ("isolation.level", text("container"), "TICKET_RECORD"),
        ("isolation.kvm", Value::Null, "TICKET_RECORD"),
    ] {
        let answer = with_record(&host, |record| set(record, path, value));
        assert_eq!(answer.code(), code, "{path}: {}", answer.text());
    }
    nothing_runs(&host);
}

#[test]
fn refuses_tickets_that_are_missing_altered_or_signed_by_another_key() {
    let Some(host) = host() else { return };
    let (_, spec) = host.spec(&["serve"]);
    let spec_text = json::write(&spec);
    let record = json::write(&documents::record(&spec));
    let good = ticket(record.as_bytes(), &key(7));
    let ask = |ticket: &str, record: &str, spec: &str| {
        let request = launch_request(ticket, record, spec);
        host.client().ask(&request, &host.files()).code().to_owned()
    };
    assert_eq!(ask("", &record, &spec_text), "TICKET_MISSING");
    assert_eq!(ask(&good, "", &spec_text), "TICKET_MISSING");
    assert_eq!(ask("x", &record, &spec_text), "TICKET_MALFORMED");
    assert_eq!(ask(&ticket(record.as_bytes(), &key(8)), &record, &spec_text), "TICKET_KEY_UNKNOWN");
    assert_eq!(ask(&good.replace("\n2\n", "\n3\n"), &record, &spec_text), "TICKET_SIGNATURE");
    assert_eq!(
        ask(&good.replace("index 1", "index 0"), &record, &spec_text),
        "TICKET_NOT_INCLUDED"
    );
    let other = record.replace("acme", "evil");
    assert_eq!(ask(&good, &other, &spec_text), "TICKET_NOT_INCLUDED");
    let other = spec_text.replace("web-1", "web-2");
    assert_eq!(ask(&good, &record, &other), "TICKET_SPEC_DIGEST");
    nothing_runs(&host);
}

#[test]
fn admits_a_ticket_once() {
    let Some(host) = host() else { return };
    let (pod, spec) = host.spec(&["exit", "0"]);
    let request = documents::admitted(&spec);
    let mut first = host.client().ask(&request, &host.files());
    assert_eq!(first.code(), "ok", "{}", first.text());
    assert_eq!(host.client().ask(&request, &host.files()).code(), "POD_EXISTS");
    host.exit_of(&pod, first.descriptors.pop().unwrap());
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    let again = host.client().ask(&request, &host.files());
    assert_eq!(again.code(), "TICKET_SPENT", "{}", again.text());
}

#[test]
fn a_restarted_spawn_remembers_spent_tickets() {
    let Some(host) = host() else { return };
    let (pod, spec) = host.spec(&["exit", "0"]);
    let request = documents::admitted(&spec);
    let mut first = host.client().ask(&request, &host.files());
    host.exit_of(&pod, first.descriptors.pop().unwrap());
    let host = host.restart();
    assert_eq!(host.client().ask(&request, &host.files()).code(), "POD_EXISTS");
    assert_eq!(host.ask_pod("forget", &pod).code(), "ok");
    assert_eq!(host.client().ask(&request, &host.files()).code(), "TICKET_SPENT");
}

#[test]
fn refuses_specs_that_are_not_of_this_host() {
    let Some(host) = host() else { return };
    let digest = || text(&format!("sha256:{}", "0".repeat(64)));
    let template = object([
        ("memory", digest()),
        ("memory_size", Value::Integer(128 << 20)),
        ("state", digest()),
        ("state_size", Value::Integer(5)),
    ]);
    for (path, value) in [
        ("vmm.digest", digest()),
        ("vmm.filters.control", digest()),
        ("vmm.filters.io", digest()),
        ("vmm.filters.vcpu", digest()),
        ("kernel.digest", digest()),
        ("kernel.size", Value::Integer(1)),
        ("machine.cmdline", text("init=/bin/sh")),
        ("descriptors.0.verity.root", text(&"0".repeat(64))),
        ("descriptors.0.verity.salt", text("00")),
        ("descriptors.2.blocks", digest()),
        ("template", template),
    ] {
        let (_, mut spec) = host.spec(&["serve"]);
        set(&mut spec, path, value);
        let answer = host.launch(&spec);
        assert_eq!(answer.code(), "SPEC_NOT_OF_THIS_HOST", "{path}: {}", answer.text());
    }
    nothing_runs(&host);
}

#[test]
fn refuses_levels_below_vm_unless_root_lists_the_tenant_and_the_host_has_them() {
    let Some(host) = host_with("", |config| {
        set(config, "levels", object([("trusty", Value::Array(vec![text("container")]))]));
    }) else {
        return;
    };
    for (tenant, level, code) in [
        ("acme", "container", "LEVEL_NOT_LISTED"),
        ("acme", "host", "LEVEL_NOT_LISTED"),
        ("trusty", "host", "LEVEL_NOT_LISTED"),
        ("trusty", "container", "CONTAINER_UNAVAILABLE"),
    ] {
        let (_, mut spec) = host.spec(&["serve"]);
        set(&mut spec, "tenant", text(tenant));
        as_container(&mut spec, level);
        assert_eq!(host.launch(&spec).code(), code, "{tenant} {level}");
    }
    nothing_runs(&host);
}

#[test]
fn refuses_another_class_of_kvm_and_software_kvm_that_root_did_not_allow() {
    let Some(host) = host() else { return };
    let (_, mut spec) = host.spec(&["serve"]);
    let class = spec.get("kvm").and_then(Value::as_str).unwrap().to_owned();
    let other = if class == "software" { "hardware" } else { "software" };
    set(&mut spec, "kvm", text(other));
    assert_eq!(host.launch(&spec).code(), "KVM_CLASS");
    nothing_runs(&host);
    if class == "software" {
        let strict = host_with("", |config| set(config, "allow_software_kvm", Value::Bool(false)));
        let strict = strict.unwrap();
        let (_, spec) = strict.spec(&["serve"]);
        assert_eq!(strict.launch(&spec).code(), "SOFTWARE_KVM_NOT_ALLOWED");
        let template = r#"{"memory_mib":128,"op":"template","vcpus":1}"#;
        assert_eq!(strict.ask(template).code(), "SOFTWARE_KVM_NOT_ALLOWED");
        nothing_runs(&strict);
    }
}

#[test]
fn refuses_a_kernel_that_was_built_for_the_other_class() {
    let Some(host) = host() else { return };
    let class = host.describe().get("kvm").and_then(Value::as_str).unwrap().to_owned();
    let (other, mark) = if class == "software" {
        ("hardware", "casemate")
    } else {
        ("software", "casemate-softkvm")
    };
    let wrong = Host::start_with(mark, |_| {});
    let described = wrong.describe();
    assert_eq!(described.get("kvm"), Some(&Value::Null));
    let reason = described.get("kvm_reason").and_then(Value::as_str).unwrap();
    assert!(reason.contains(&format!("built for {other} KVM")), "{reason}");
    let (_, mut spec) = host.spec(&["serve"]);
    set(&mut spec, "kernel", described.get("kernel").unwrap().clone());
    assert_eq!(wrong.launch(&spec).code(), "KVM_UNAVAILABLE");
}
