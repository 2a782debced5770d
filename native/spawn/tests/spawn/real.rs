//! Spawn with the real VMM, kernel and guest-init, where set-up has built them: the jail is no use if
//! the VMM cannot live in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use casemate_ticket::json::Value;

use crate::documents::{set, text};
use crate::host::{Host, host_with};

/// A copy of what `npm run setup` leaves, or `None` with a printed reason.
fn artifacts() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/artifacts");
    if !folder.join("artifacts.json").exists() {
        eprintln!("skipped: {} is missing; npm run setup makes it", folder.display());
        return None;
    }
    let copy = std::env::temp_dir().join(format!("casemate-real-{}", std::process::id()));
    let copied = Command::new("cp").args(["-r", "--sparse=always"]).arg(folder).arg(&copy).status();
    assert!(copied.unwrap().success());
    Some(copy)
}

/// The value of a member of a small JSON file of set-up's, as text.
fn member(json: &str, name: &str) -> String {
    let (_, rest) = json.split_once(&format!("\"{name}\": ")).expect(name);
    let value = rest.split([',', '\n']).next().unwrap();
    value.trim_matches('"').to_owned()
}

struct Real {
    host: Host,
    folder: PathBuf,
    verity: Value,
    size: i64,
    scratch: (String, i64),
}

fn real() -> Option<Real> {
    let folder = artifacts()?;
    let init = fs::read_to_string(folder.join("init.json")).unwrap();
    let scratch = fs::read_to_string(folder.join("scratch.json")).unwrap();
    let scratch = (member(&scratch, "blocks"), member(&scratch, "size").parse().unwrap());
    let verity = crate::documents::object([
        ("data_blocks", Value::Integer(member(&init, "data_blocks").parse().unwrap())),
        ("root", text(&member(&init, "root"))),
        ("salt", text(&member(&init, "salt"))),
    ]);
    let host = host_with("", |config| {
        let path = |name: &str| text(folder.join(name).to_str().unwrap());
        set(config, "vmm", path("casemate-vmm"));
        set(config, "kernel", path(crate::host::kernel_file()));
        set(config, "init", path("init.img"));
        set(config, "init_verity", verity.clone());
        let known = crate::documents::object([
            ("blocks", text(&scratch.0)),
            ("path", path("scratch.img")),
            ("size", Value::Integer(scratch.1)),
        ]);
        set(config, "scratch", known);
    })?;
    let size = member(&init, "size").parse().unwrap();
    Some(Real { host, folder, verity, size, scratch })
}

impl Real {
    /// The image is guest-init's own disk: a file system whose only program says that it is no app.
    fn launch(&self, template: Value) -> (String, String) {
        let (pod, mut spec) = self.host.spec(&["/init"]);
        set(&mut spec, "descriptors.1.size", Value::Integer(self.size));
        set(&mut spec, "descriptors.1.verity", self.verity.clone());
        set(&mut spec, "descriptors.2.size", Value::Integer(self.scratch.1));
        set(&mut spec, "descriptors.2.blocks", text(&self.scratch.0));
        set(&mut spec, "limits.boot_ms", Value::Integer(600_000));
        set(&mut spec, "template", template);
        let mut files = self.host.files();
        files[0] = fs::File::open(self.folder.join("init.img")).unwrap().into();
        let request = crate::documents::admitted(&spec);
        let mut answer = self.host.client().ask(&request, &files);
        assert_eq!(answer.code(), "ok", "{}", answer.text());
        self.host.exit_of(&pod, answer.descriptors.pop().unwrap())
    }
}

#[test]
#[ignore = "boots a VM, a minute and more; test/system does so through the agent"]
fn the_real_vmm_builds_a_template_in_the_jail_and_restores_from_it() {
    let Some(real) = real() else { return };
    let mut client = real.host.client();
    client.0.set_read_timeout(None).unwrap();
    let answer = client.ask(r#"{"memory_mib":128,"op":"template","vcpus":1}"#, &[]);
    assert_eq!(answer.code(), "ok", "{}", answer.text());
    let Some(Value::Object(members)) = answer.value.get("template").cloned() else {
        panic!("no template")
    };
    let wanted = members.into_iter().filter(|(name, _)| name != "vcpus" && name != "memory_mib");
    let (exit, why) = real.launch(Value::object(wanted.collect()));
    // Guest-init is no app and its disk no image: that the guest itself says so is all that matters.
    assert!(exit.contains("APP_"), "{exit}: {why}");
    fs::remove_dir_all(&real.folder).unwrap();
}
