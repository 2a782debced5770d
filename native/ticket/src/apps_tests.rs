#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use crate::config::Config;
use crate::mounts;

const PROCESS: &str = r#"{"additional_gids":[],"args":["x"],"capabilities":{"ambient":[],"bounding":[],"effective":[],"inheritable":[],"permitted":[]},"cwd":"/","env":[],"no_new_privileges":true,"rlimits":[],"user":""}"#;
const HEALTH: &str = r#"{"interval_ms":1000,"probe":{"kind":"tcp","port":1},"retries":1,"start_interval_ms":1000,"start_period_ms":0,"timeout_ms":1000}"#;

/// An app by its name, what it waits for, its check and its mounts, each canonical JSON.
fn app(name: &str, after: &str, health: &str, mounts: &str) -> String {
    format!(
        r#"{{"after":{after},"health":{health},"image":0,"mounts":[{mounts}],"name":"{name}","process":{PROCESS},"read_only_root":false,"seccomp":null,"stop_signal":15}}"#
    )
}

fn plain(name: &str) -> String {
    app(name, "null", "null", "")
}

fn after(name: &str, other: &str, condition: &str) -> String {
    app(name, &format!(r#"{{"app":"{other}","condition":"{condition}"}}"#), "null", "")
}

fn with(name: &str, mounts: &str) -> String {
    app(name, "null", "null", mounts)
}

fn config(apps: &[String]) -> Option<Config> {
    let apps = apps.join(",");
    let text = format!(r#"{{"apps":[{apps}],"hostname":"h","stop_ms":1,"sysctls":[]}}"#);
    Config::parse(text.as_bytes()).ok()
}

#[test]
fn takes_up_to_eight_apps_with_names_of_their_own() {
    let names: Vec<String> = (0..9).map(|number| plain(&format!("app-{number}"))).collect();
    assert_eq!(config(names.get(..8).unwrap()).unwrap().apps.len(), 8);
    for bad in [&names[..], &[], &[plain("a"), plain("a")], &[plain("")], &[plain("A b")]] {
        assert!(config(bad).is_none(), "{bad:?}");
    }
    // There is one image.
    assert!(config(&[plain("a").replace(r#""image":0"#, r#""image":1"#)]).is_none());
}

#[test]
fn waits_for_what_comes_before_it_and_can_be() {
    let checked = || app("a", "null", HEALTH, "");
    for condition in ["started", "healthy", "exited"] {
        assert!(config(&[checked(), after("b", "a", condition)]).is_some(), "{condition}");
    }
    for bad in [
        [plain("a"), after("b", "a", "healthy")],
        [plain("a"), after("b", "a", "running")],
        [plain("a"), after("b", "b", "started")],
        [plain("a"), after("b", "c", "started")],
        [after("a", "b", "started"), plain("b")],
    ] {
        assert!(config(&bad).is_none(), "{bad:?}");
    }
}

#[test]
fn shares_volumes_and_directories_by_name() {
    let volume = |name: &str, read_only: bool| {
        format!(
            r#"{{"kind":"volume","name":"{name}","path":"/{name}","read_only":{read_only},"sub_path":null}}"#
        )
    };
    let both = [with("a", &volume("x", true)), with("b", &volume("x", false))];
    let found = config(&both).unwrap();
    let all: Vec<_> =
        mounts::of_all(&found.apps).iter().map(|one| (one.name, one.read_only)).collect();
    assert_eq!(all, [("x", false)]);
    let three = ["x", "y", "z"].map(|name| volume(name, true)).join(",");
    let more = [volume("v", true), volume("w", true)].join(",");
    assert!(config(&[with("a", &three), with("b", &volume("v", true))]).is_some());
    assert!(config(&[with("a", &three), with("b", &more)]).is_none(), "five in all");

    let empty = |mode: u32, name: &str| {
        format!(r#"{{"kind":"empty","mode":{mode},"name":{name},"path":"/e"}}"#)
    };
    let shared = |mode: u32| empty(mode, r#""e""#);
    assert!(config(&[with("a", &shared(448)), with("b", &shared(448))]).is_some());
    assert!(config(&[with("a", &shared(448)), with("b", &shared(511))]).is_none());
    assert!(config(&[with("a", &empty(448, "null")), with("b", &empty(511, "null"))]).is_some());
}
