//! Apps that cannot be started, and the code each gets.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use casemate_wire::frame::HostKind;
use casemate_wire::payload::{ErrorCode, Exit};

use crate::config::{Config, app};
use crate::machine::{End, Machine, Place, run, run_in};

fn refused(place: &Place, config: &Config) -> (ErrorCode, String) {
    match run_in(place, config) {
        (out, End::Error(code, text)) => {
            assert_eq!(out, "");
            (code, text)
        }
        other => panic!("was not refused: {other:?}"),
    }
}

pub fn reports_programs_that_are_not_there_or_not_executable() {
    let place = Place::new();
    fs::write(place.image("bin/text"), "no program").unwrap();
    fs::write(place.image("bin/odd"), "no program").unwrap();
    fs::set_permissions(place.image("bin/odd"), PermissionsExt::from_mode(0o755)).unwrap();
    for (program, code) in [
        ("/bin/none", ErrorCode::NotFound),
        ("none", ErrorCode::NotFound),
        ("/bin/app/x", ErrorCode::NotFound),
        ("", ErrorCode::NotFound),
        ("text", ErrorCode::NotExecutable),
        ("/bin/odd", ErrorCode::NotExecutable),
        ("/bin", ErrorCode::NotExecutable),
    ] {
        let mut config = app(&[]);
        config.args = vec![program.into()];
        assert_eq!(refused(&place, &config).0, code, "{program:?}");
    }
}

pub fn reports_users_that_do_not_exist() {
    for user in ["nobody", "4294967296", "web:none"] {
        let mut config = app(&["both"]);
        config.user = user.into();
        assert_eq!(refused(&Place::new(), &config).0, ErrorCode::User, "{user}");
    }
}

pub fn reads_users_inside_the_image_only() {
    let place = Place::new();
    let outside = place.0.join("outside");
    fs::write(&outside, "web:x:0:0::/:\n").unwrap();
    fs::remove_file(place.image("etc/passwd")).unwrap();
    symlink(&outside, place.image("etc/passwd")).unwrap();
    let mut config = app(&["both"]);
    config.user = "web".into();
    assert_eq!(refused(&place, &config).0, ErrorCode::User);
    fs::remove_file(place.image("etc/passwd")).unwrap();
    symlink("/dev/zero", place.image("etc/passwd")).unwrap();
    assert_eq!(refused(&place, &config).0, ErrorCode::User);
}

pub fn reports_a_working_directory_it_cannot_enter() {
    for cwd in ["/etc/passwd", "/etc/passwd/x", "/proc/self/fd/3", "/proc/self/fd/4"] {
        let mut config = app(&["cwd"]);
        config.cwd = cwd.into();
        assert_eq!(refused(&Place::new(), &config).0, ErrorCode::Cwd, "{cwd}");
    }
}

pub fn reports_an_image_whose_proc_is_a_link() {
    let place = Place::new();
    symlink("/etc", place.image("proc")).unwrap();
    let (code, text) = refused(&place, &app(&["both"]));
    assert_eq!(code, ErrorCode::Mount);
    assert!(text.contains("/proc"), "{text}");
}

/// The call of that number fails with EPERM, every other is allowed.
pub fn without(call: libc::c_long) -> Vec<[u8; 8]> {
    let [low, high] = u16::try_from(call).unwrap().to_le_bytes();
    vec![
        [0x20, 0, 0, 0, 0, 0, 0, 0],
        [0x15, 0, 0, 1, low, high, 0, 0],
        [0x06, 0, 0, 0, 1, 0, 5, 0],
        [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f],
    ]
}

pub fn applies_seccomp() {
    for (no_new_privileges, user) in [(true, ""), (true, "web"), (false, ""), (false, "web")] {
        let mut config = app(&["cwd"]);
        config.no_new_privileges = no_new_privileges;
        config.user = user.into();
        assert_eq!(run(&config), ("/".into(), End::Exit(Exit::Code(0))));
        config.seccomp = Some(without(libc::SYS_getcwd));
        assert_eq!(run(&config), ("error 1".into(), End::Exit(Exit::Code(0))), "user {user:?}");
    }
}

pub fn reports_a_bad_seccomp_program() {
    let mut config = app(&["both"]);
    config.seccomp = Some(vec![[0xff; 8]]);
    assert_eq!(refused(&Place::new(), &config).0, ErrorCode::Seccomp);
}

pub fn reports_a_bad_configuration() {
    let good = app(&["both"]).bytes();
    let unknown =
        String::from_utf8(good.clone()).unwrap().replace("\"apps\":[{", "\"apps\":[{\"a\":1,");
    for bytes in [b"{}".to_vec(), [good, vec![b' ']].concat(), unknown.into_bytes()] {
        let place = Place::new();
        let mut machine = Machine::start(&place.0, None);
        machine.expect_config_answer();
        machine.say(HostKind::Config, &bytes);
        let (_, _, end) = machine.listen();
        assert!(matches!(end, End::Error(ErrorCode::Config, _)), "{end:?}");
    }
}
