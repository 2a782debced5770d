use super::*;
use crate::json::parse;

fn mounts(text: &str) -> Result<Vec<Mount>, ShapeError> {
    read(&parse(text.as_bytes(), 1 << 20).unwrap())
}

fn image(paths: &[&str]) -> Result<Vec<Mount>, ShapeError> {
    let items: Vec<String> =
        paths.iter().map(|path| format!(r#"{{"kind":"image","path":"{path}"}}"#)).collect();
    mounts(&format!("[{}]", items.join(",")))
}

#[test]
fn takes_places_of_the_app_and_no_others() {
    for path in ["/x", "/tmp", "/var/lib/x", "/processes", "/device/x", "/..x", "/a b"] {
        assert!(image(&[path]).is_ok(), "{path}");
    }
    for path in [
        "",
        "/",
        "x",
        "//",
        "/x/",
        "/x//y",
        "/.",
        "/x/..",
        "/../x",
        "/x/./y",
        "/proc",
        "/proc/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/pts",
        "/dev/shm/x",
        "/dev/shm",
    ] {
        assert!(image(&[path]).is_err(), "{path}");
    }
    assert!(image(&[&format!("/{}", "a".repeat(256))]).is_err());
    assert!(image(&[&"/a".repeat(2048)]).is_err());
}

#[test]
fn hides_nothing_that_was_mounted_before() {
    assert!(image(&["/x", "/x/y", "/xy"]).is_ok());
    for paths in [["/x", "/x"], ["/x/y", "/x"], ["/x/y/z", "/x"]] {
        assert!(image(&paths).is_err(), "{paths:?}");
    }
    let many: Vec<String> = (0..33).map(|number| format!("/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(image(many.get(..32).unwrap()).is_ok() && image(&many).is_err());
}

#[test]
fn takes_files_of_a_size_with_nothing_below_them() {
    let file = |path: &str, size: u64, mode: u32, uid: u32| {
        format!(
            r#"{{"gid":0,"kind":"file","mode":{mode},"path":"{path}","size":{size},"uid":{uid}}}"#
        )
    };
    assert!(mounts(&format!("[{}]", file("/x", 524_288, 0o777, 65_535))).is_ok());
    assert!(mounts(&format!("[{},{}]", file("/x", 0, 0, 0), file("/xy", 0, 0, 0))).is_ok());
    for bad in [
        file("/x", 524_289, 0, 0),
        file("/x", 0, 0o1000, 0),
        file("/x", 0, 0, 65_536),
        file("/dev/shm", 0, 0, 0),
        format!("{},{}", file("/x", 0, 0, 0), file("/x/y", 0, 0, 0)),
    ] {
        assert!(mounts(&format!("[{bad}]")).is_err(), "{bad}");
    }
}

#[test]
fn takes_each_volume_once() {
    let volume = |name: &str, number: usize| {
        format!(
            r#"{{"kind":"volume","name":"{name}","path":"/v{number}","read_only":true,"sub_path":null}}"#
        )
    };
    let of = |names: &[&str]| {
        let items: Vec<String> =
            names.iter().enumerate().map(|(number, name)| volume(name, number)).collect();
        mounts(&format!("[{}]", items.join(",")))
    };
    let found = of(&["b", "a"]).unwrap_or_default();
    let names: Vec<_> = volumes(&found).collect();
    let of_name = |name| Volume { name, read_only: true, sub_path: None };
    assert_eq!(names, [of_name("b"), of_name("a")]);
    assert!(of(&["a", "b", "c", "d"]).is_ok());
    for names in [&["a", "b", "a"][..], &["a", "b", "c", "d", "e"], &["../a"], &["-a"], &[""]] {
        assert!(of(names).is_err(), "{names:?}");
    }
    for members in [r#""path":"/v""#, r#""path":"/","read_only":true,"sub_path":null"#] {
        assert!(mounts(&format!(r#"[{{"kind":"volume","name":"a",{members}}}]"#)).is_err());
    }
}

#[test]
fn takes_sub_paths_that_lead_down_and_no_others() {
    let of = |sub_path: &str| {
        mounts(&format!(
            r#"[{{"kind":"volume","name":"a","path":"/v","read_only":true,"sub_path":"{sub_path}"}}]"#
        ))
    };
    for good in ["a", "a/b", "..a/.b", "a b", &"a/".repeat(255).replace("a/a/a", "a/aa")] {
        let good = good.trim_end_matches('/');
        let found = of(good).unwrap_or_default();
        assert_eq!(volumes(&found).next().and_then(|volume| volume.sub_path), Some(good));
    }
    let (long, deep) = ("a".repeat(256), "a/".repeat(256) + "a");
    for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", &long, &deep] {
        assert!(of(bad).is_err(), "{bad}");
    }
    assert!(mounts(r#"[{"kind":"volume","name":"a","path":"/v","read_only":true}]"#).is_err());
}

#[test]
fn takes_paths_of_the_host_by_name() {
    let of = |members: &str| mounts(&format!(r#"[{{"exec":false,"ids":{members}}}]"#));
    let rest = r#""kind":"host","name":"models","path":"/x","read_only""#;
    let found = of(&format!(r#"null,{rest}:true,"sub_path":"a/b""#)).unwrap_or_default();
    let wanted = HostPath {
        name: "models".into(),
        sub_path: Some("a/b".into()),
        read_only: true,
        exec: false,
        ids: None,
    };
    assert_eq!(found, [Mount { path: "/x".into(), kind: Kind::Host(wanted) }]);
    assert!(of(&format!(r#"65536,{rest}:false,"sub_path":null"#)).is_ok());
    for bad in [
        // Written without ids to write as; the host's own ids, and those beyond the last.
        format!(r#"null,{rest}:false,"sub_path":null"#),
        format!(r#"65535,{rest}:false,"sub_path":null"#),
        format!(r#"4294901761,{rest}:false,"sub_path":null"#),
        format!(r#"null,{rest}:true,"sub_path":"../a""#),
        format!(r#"null,{}:true,"sub_path":null"#, rest.replace("models", "../x")),
        format!(r#"null,{}:true,"sub_path":null"#, rest.replace("/x", "/proc/x")),
    ] {
        assert!(of(&bad).is_err(), "{bad}");
    }
    let many = |count: usize| {
        let one = |number| {
            format!(
                r#"{{"exec":false,"ids":null,"kind":"host","name":"m","path":"/x{number}","read_only":true,"sub_path":null}}"#
            )
        };
        mounts(&format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(",")))
    };
    assert!(many(host_path::MOUNTED_MAX).is_ok() && many(host_path::MOUNTED_MAX + 1).is_err());
}

#[test]
fn bounds_what_is_in_memory() {
    let tmpfs = |members: &str| mounts(&format!("[{{{members}}}]"));
    let kind = Kind::Tmpfs { size: 4096, mode: 0o1777, exec: true, read_only: false };
    assert_eq!(
        tmpfs(
            r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/dev/shm","read_only":false,"size":4096"#
        ),
        Ok(vec![Mount { path: SHARED_MEMORY.into(), kind }])
    );
    for members in [
        r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/x","read_only":false,"size":4095"#,
        r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/x","read_only":false,"size":17179869185"#,
        r#""exec":true,"kind":"tmpfs","mode":1024,"path":"/x","read_only":false,"size":4096"#,
        r#""exec":true,"kind":"tmpfs","mode":1023,"path":"/x","size":4096"#,
        r#""kind":"empty","mode":2541,"name":null,"path":"/x""#,
        r#""kind":"empty","mode":511,"path":"/x""#,
        r#""kind":"empty","mode":511,"name":"../x","path":"/x""#,
        r#""kind":"bind","path":"/x""#,
        r#""path":"/x""#,
    ] {
        assert!(tmpfs(members).is_err(), "{members}");
    }
}
