use super::*;

/// A valid configuration; the log key is of a test vector, its private half is nobody's.
fn good() -> String {
    let digest = format!("sha256:{}", "a".repeat(64));
    format!(
        concat!(
            r#"{{"agent_gid":500,"agent_uid":500,"allow_software_kvm":false,"container":null,"host_paths":{{}},"init":"/opt/init.img","#,
            r#""init_verity":{{"data_blocks":3,"root":"{root}","salt":""}},"kernel":"/opt/vmlinux","#,
            r#""levels":{{"acme":["container"]}},"log_keys":["{key}"],"node":"host-1","#,
            r#""run_dir":"/run/casemate","scratch":{{"blocks":"{digest}","path":"/opt/scratch.img","size":8192}},"#,
            r#""state_dir":"/var/lib/casemate/spawn","template_dir":"/var/cache/casemate/templates","uplink":null,"#,
            r#""v":"casemate.spawn/1","vm_uid_base":2000000,"vm_uid_count":1000,"vmm":"/opt/vmm","#,
            r#""volume":{{"blocks":"{digest}","path":"/opt/volume.img","size":67108864}},"#,
            r#""worker_gid":501,"worker_uid":501,"workers":{{"rootfs":["/usr/bin/node","/w.ts"]}}}}"#
        ),
        root = "b".repeat(64),
        key = key(),
        digest = digest,
    )
}

/// vkey of the Ed25519 public key of RFC 8032 section 7.1, test 1.
fn key() -> String {
    use casemate_ticket::bytes::{Digest, decode_hex, encode_base64, encode_hex};
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let blob = [vec![1], decode_hex(public).unwrap()].concat();
    let id = Digest::of(&[b"log.example/casemate\n".as_slice(), &blob].concat());
    format!("log.example/casemate+{}+{}", encode_hex(&id.0[..4]), encode_base64(&blob))
}

fn problem(from: &str, to: &str) -> String {
    let text = good();
    assert!(text.contains(from), "{from}");
    parse(text.replacen(from, to, 1).as_bytes()).unwrap_err()
}

#[test]
fn reads_every_member() {
    let config = parse(good().as_bytes()).unwrap();
    assert_eq!(config.node, "host-1");
    assert_eq!((config.agent, config.worker), ((500, 500), (501, 501)));
    assert_eq!(config.init_size(), 4 * 4096, "three data blocks and one of their tree");
    assert_eq!(config.workers, [("rootfs".into(), vec!["/usr/bin/node".into(), "/w.ts".into()])]);
    assert_eq!(config.levels, [("acme".into(), vec![Level::Container])]);
    assert!(!config.allow_software_kvm);
}

#[test]
fn refuses_every_member_that_is_missing_or_unknown() {
    let value = json::parse(good().as_bytes(), CONFIG_BYTES_MAX).unwrap();
    let Value::Object(members) = &value else { panic!("an object") };
    for (name, _) in members {
        let rest = members.iter().filter(|(other, _)| other != name).cloned().collect();
        let error = parse(json::write(&Value::Object(rest)).as_bytes()).unwrap_err();
        assert!(error.contains(name.as_str()), "{name}: {error}");
    }
    assert!(problem(r#""uplink":"#, r#""uid":0,"uplink":"#).contains("uid"));
}

fn containers(base: u32, count: u32) -> String {
    format!(
        r#""container":{{"count":{count},"monitor":"/opt/monitor","runtime":"/usr/sbin/runc","uid_base":{base}}}"#
    )
}

#[test]
fn gives_containers_ids_of_their_own_or_none() {
    let with = |base, count| {
        let text = good().replacen(r#""container":null"#, &containers(base, count), 1);
        parse(text.as_bytes()).map(|config| config.container)
    };
    let found = with(1_879_048_192, 256).unwrap().unwrap();
    assert_eq!((found.uid_base, found.count), (1_879_048_192, 256));
    assert_eq!(found.runtime, Path::new("/usr/sbin/runc"));
    // Over those of VMs from below, within them, over the agent's, over the end of what there is.
    for (base, count) in
        [(1_990_000, 1), (2_000_999, 1), (1, 1), (4_293_900_000, 2), (1_879_048_192, 1001)]
    {
        assert!(with(base, count).unwrap_err().contains("container."), "{base} {count}");
    }
    assert!(with(2_001_000, 1).is_ok(), "just beside those of VMs");
}

#[test]
fn has_pods_leave_nothing_that_belongs_to_who_runs() {
    let with = |ids: u32| {
        let entry = format!(
            r#""host_paths":{{"data":{{"exec":false,"ids":{ids},"kind":"directory","path":"/srv","tenants":[]}}}}"#
        );
        let text = good().replacen(r#""host_paths":{}"#, &entry, 1);
        parse(text.replacen(r#""container":null"#, &containers(3_000_000, 1), 1).as_bytes())
    };
    // Of VMs, of a container, of the agent.
    for ids in [2_000_999, 1_934_465, 3_065_535, 2_934_465] {
        assert!(with(ids).unwrap_err().contains("host_paths"), "{ids}");
    }
    for ids in [65_536, 1_934_464, 2_001_000, 3_065_536] {
        assert!(with(ids).is_ok(), "{ids}");
    }
}

fn uplink(ipv4: &str, ipv6: &str, name: &str) -> String {
    format!(r#""uplink":{{"ipv4":"{ipv4}","ipv6":"{ipv6}","name":"{name}"}}"#)
}

#[test]
fn refuses_values_out_of_bounds_and_names_them() {
    for (from, to, word) in [
        ("casemate.spawn/1", "casemate.spawn/2", "v"),
        (r#""node":"host-1""#, r#""node":"""#, "node"),
        (r#""uplink":null"#, r#""uplink":0"#, "uplink"),
        (r#""uplink":null"#, &uplink("169.254.88.0/29", "fdca::/64", "way0"), "uplink.ipv4"),
        (r#""uplink":null"#, &uplink("169.254.88.0/30", "fdca::/63", "way0"), "uplink.ipv6"),
        (r#""uplink":null"#, &uplink("169.254.88.0/30", "fdca::/64", "way 0"), "uplink.name"),
        (r#""node":"host-1""#, r#""node":"a b""#, "node"),
        (r#""allow_software_kvm":false"#, r#""allow_software_kvm":0"#, "allow_software_kvm"),
        (r#""agent_uid":500"#, r#""agent_uid":"500""#, "agent_uid"),
        (r#""agent_uid":500"#, r#""agent_uid":2000999"#, "agent_uid"),
        (r#""worker_uid":501"#, r#""worker_uid":0"#, "worker_uid"),
        (r#""worker_uid":501"#, r#""worker_uid":500"#, "worker_uid"),
        (r#""worker_gid":501"#, r#""worker_gid":2000000"#, "worker_gid"),
        ("2000000", "0", "vm_uid_base"),
        ("2000000", "4294967000", "vm_uid_base"),
        ("1000,", "0,", "vm_uid_count"),
        ("1000,", "1001,", "vm_uid_count"),
        ("/run/casemate", "run/casemate", "run_dir"),
        ("/run/casemate", "/run/../etc", "run_dir"),
        ("/opt/vmm", "vmm", "vmm"),
        (r#""salt":"""#, r#""salt":"0""#, "salt"),
        (r#""data_blocks":3"#, r#""data_blocks":0"#, "data_blocks"),
        ("/usr/bin/node", "node", "workers"),
        (r#"["/usr/bin/node","/w.ts"]"#, "[]", "workers"),
        (r#""rootfs""#, r#""Root/fs""#, "workers"),
        ("sha256:a", "sha256:A", "scratch"),
        ("/opt/scratch.img", "scratch.img", "scratch"),
        ("8192", "8193", "scratch"),
        ("8192", "0", "scratch"),
        ("/opt/volume.img", "volume.img", "volume"),
        ("67108864", "67112960", "volume"),
        ("67108864", "67108863", "volume"),
        ("acme", "ACME", "levels"),
        (r#"["container"]"#, r#"["root"]"#, "levels"),
        ("log.example/casemate+", "log.example/casemat+", "log_keys"),
    ] {
        let error = problem(from, to);
        assert!(error.contains(word), "{from} -> {to}: {error}");
    }
    let without_keys = problem(&format!(r#"["{}"]"#, key()), "[]");
    assert!(without_keys.contains("log_keys"));
}

#[test]
fn refuses_what_is_not_canonical() {
    assert!(parse(good().replace(":false", ": false").as_bytes()).is_err());
    assert!(parse(format!("{}\n", good()).as_bytes()).is_err());
    assert!(parse(b"").is_err());
}

#[test]
fn refuses_a_file_that_others_can_write() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("casemate-config-{}", std::process::id()));
    std::fs::write(&path, good()).unwrap();
    let with_mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        load(&path).map(|_| ()).map_err(|refusal| refusal.code)
    };
    if rustix::process::geteuid().is_root() {
        assert_eq!(with_mode(0o644), Ok(()));
        assert_eq!(with_mode(0o600), Ok(()));
        assert_eq!(with_mode(0o664), Err("CONFIG_UNSAFE"));
        assert_eq!(with_mode(0o646), Err("CONFIG_UNSAFE"));
        std::os::unix::fs::chown(&path, Some(500), None).unwrap();
    }
    assert_eq!(with_mode(0o600), Err("CONFIG_UNSAFE"), "not root's");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(load(&path).unwrap_err().code, "CONFIG");
    assert_eq!(load(Path::new("/dev/null")).unwrap_err().code, "CONFIG_UNSAFE");
}

#[test]
fn every_vm_there_can_be_can_be_handed_to_the_next_spawn() {
    let count = usize::try_from(VM_UID_COUNT_MAX).unwrap();
    assert!(count * 3 + 2 <= crate::keeper::ENTRIES_MAX, "descriptors");
    let name = crate::store::pod_name("01936f5e-0000-7000-8000-000000000001");
    let names = count * 3 * (name.len() + 1) + "listener:network".len();
    assert!("LISTEN_FDNAMES=".len() + names < 128 << 10, "MAX_ARG_STRLEN of execve(2)");
}
