//! Finding and becoming the app's program, as execvp does but inside the new root, with the app's
//! own PATH, and without falling back to a shell for a file the kernel does not execute.

use std::ffi::CString;
use std::io;

use casemate_ticket::app::Process;
use casemate_wire::payload::ErrorCode;

use crate::failure::{Failure, OrFailure};
use crate::process_unsafe;

/// Where programs are looked for when the app's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TUNABLES: &str = "GLIBC_TUNABLES";

/// The app's environment: its own, HOME by the passwd file if it sets none, and under software KVM
/// the tunables that keep glibc from instructions whose registers the guest's kernel does not save.
#[must_use]
pub fn environment(process: &Process, home: &str, tunables: Option<&str>) -> Vec<String> {
    let mut env = process.env.clone();
    let extra = [("HOME", Some(home)), (TUNABLES, tunables)];
    for (name, value) in extra {
        if let (None, Some(value)) = (lookup(&process.env, name), value) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// Becomes the program; returns only the reason why not.
#[must_use]
pub fn run(args: &[String], env: &[String]) -> Failure {
    match try_run(args, env) {
        Ok(failure) | Err(failure) => failure,
    }
}

fn try_run(args: &[String], env: &[String]) -> Result<Failure, Failure> {
    let program = args.first().map_or("", String::as_str);
    let strings = |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect();
    let arguments: Vec<CString> = Result::<_, _>::or_failure(
        strings(args),
        ErrorCode::Config,
        "use an argument with a NUL byte",
    )?;
    let variables: Vec<CString> = Result::<_, _>::or_failure(
        strings(env),
        ErrorCode::Config,
        "use an environment with a NUL byte",
    )?;
    let mut refused = None;
    for path in candidates(program, lookup(env, "PATH")) {
        let path =
            CString::new(path).or_failure(ErrorCode::Config, "use a path with a NUL byte")?;
        let error = process_unsafe::exec(&path, &arguments, &variables);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // A file that may not be executed does not hide one further down the PATH.
            Some(libc::EACCES) => refused = refused.or(Some(error)),
            _ => {
                refused = Some(error);
                break;
            }
        }
    }
    Ok(failure(program, refused))
}

fn failure(program: &str, refused: Option<io::Error>) -> Failure {
    match refused {
        None => Failure::new(
            ErrorCode::NotFound,
            format!("{program:?} is not in the image, or the interpreter it names is not"),
        ),
        Some(error) => {
            Failure::new(ErrorCode::NotExecutable, format!("cannot execute {program:?}: {error}"))
        }
    }
}

/// The paths to try. A name with a slash is a path; empty elements of PATH, which would mean the
/// working directory, are left out.
fn candidates(program: &str, path: Option<&str>) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.into()];
    }
    path.unwrap_or(DEFAULT_PATH)
        .split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

fn lookup<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_ticket::app::Capabilities;

    fn process(env: &[&str]) -> Process {
        Process {
            args: vec!["x".into()],
            env: env.iter().map(ToString::to_string).collect(),
            cwd: "/".into(),
            user: String::new(),
            additional_gids: vec![],
            capabilities: Capabilities::default(),
            rlimits: vec![],
            no_new_privileges: true,
        }
    }

    #[test]
    fn searches_the_path_of_the_app_only_for_bare_names() {
        assert_eq!(candidates("sh", Some("/a::/b")), ["/a/sh", "/b/sh"]);
        assert_eq!(candidates("./sh", Some("/a")), ["./sh"]);
        assert_eq!(candidates("/bin/sh", None), ["/bin/sh"]);
        assert_eq!(candidates("sh", None).len(), 6);
        assert_eq!(candidates("", Some("/a")), Vec::<String>::new());
    }

    #[test]
    fn adds_home_and_tunables_only_where_the_app_sets_none() {
        let plain = environment(&process(&["A=1"]), "/root", None);
        assert_eq!(plain, ["A=1", "HOME=/root"]);
        let software = environment(&process(&["HOMER=1"]), "/", Some("x=y"));
        assert_eq!(software, ["HOMER=1", "HOME=/", "GLIBC_TUNABLES=x=y"]);
        let own = environment(&process(&["HOME=/h", "GLIBC_TUNABLES="]), "/", Some("x=y"));
        assert_eq!(own, ["HOME=/h", "GLIBC_TUNABLES="]);
    }
}
