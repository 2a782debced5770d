//! From fork to the answer, in the process beside the app: its program, or, for a port, our own few lines, which have
//! given up by then what the app does not have.

use std::io::{Read, Write, stdout};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use casemate_ticket::app::App;
use casemate_ticket::health::Probe;
use casemate_wire::payload::ErrorCode;
use rustix::fs::Mode;
use rustix::process::{chdir, setsid, umask};

use crate::child::{Stdio, finish, identify, take_stdio};
use crate::failure::{Failure, OrFailure};
use crate::report::Reporter;
use crate::users::Identity;
use crate::{privileges, process_unsafe};

/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
/// How much of an answer is listened to, and how long for each piece: a server that is cut off may complain.
const REST_BYTES_MAX: u64 = 65_536;
const REST_TIMEOUT: Duration = Duration::from_millis(200);

/// Asks and ends with 0, or says why not. Called in the forked process only. `app` is what [`Probe::beside`] makes of it.
pub fn run(probe: &Probe, app: &App, stdio: Stdio, report: &Reporter, tunables: Option<&str>) -> ! {
    let failure = match (prepare(app, stdio, report), probe) {
        (Err(failure), _) => failure,
        (Ok(identity), Probe::Exec(_)) => finish(app, &identity, tunables),
        (Ok(identity), probe) => match privileges::apply(app, &identity) {
            Ok(()) => process_unsafe::exit_now(answer(probe)),
            Err(failure) => failure,
        },
    };
    report.fail(&failure);
    process_unsafe::exit_now(127)
}

fn prepare(app: &App, stdio: Stdio, report: &Reporter) -> Result<Identity, Failure> {
    setsid().or_failure(ErrorCode::Other, "begin a session")?;
    process_unsafe::default_signals().or_failure(ErrorCode::Other, "reset signals")?;
    umask(Mode::empty());
    let identity = identify(&app.process.user)?;
    take_stdio(stdio, &identity)?;
    process_unsafe::close_all_but(&[report.as_fd()])
        .or_failure(ErrorCode::Other, "close descriptors")?;
    let cwd = app.process.cwd.as_str();
    chdir(cwd).or_failure(ErrorCode::Cwd, format!("enter {cwd:?}"))?;
    Ok(identity)
}

/// The exit code of a question that has no program.
fn answer(probe: &Probe) -> i32 {
    let asked = match probe {
        Probe::Http(port, path) => http(*port, path),
        Probe::Tcp(port) => connect(*port).map(|_| format!("port {port} takes connections")),
        Probe::Exec(_) => Err("it is a program".to_owned()),
    };
    let (code, text) = match asked {
        Ok(text) => (0, text),
        Err(text) => (1, text),
    };
    let _ = writeln!(stdout(), "{text}");
    code
}

fn connect(port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| format!("port {port}: {error}"))
}

/// One GET (RFC 9112); nothing of the answer counts but its status.
fn http(port: u16, path: &str) -> Result<String, String> {
    let mut stream = connect(port)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: casemate-health\r\nConnection: close\r\n\r\n"
    );
    let failed = |error: std::io::Error| format!("port {port}: {error}");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut head = [0_u8; STATUS_BYTES];
    stream.read_exact(&mut head).map_err(failed)?;
    let status = status_of(&head).ok_or_else(|| format!("port {port} does not speak HTTP"))?;
    let _ = stream.set_read_timeout(Some(REST_TIMEOUT));
    let _ = std::io::copy(&mut stream.take(REST_BYTES_MAX), &mut std::io::sink());
    let text = format!("status {status}");
    if (200..400).contains(&status) { Ok(text) } else { Err(text) }
}

/// The three digits behind the version.
fn status_of(head: &[u8; STATUS_BYTES]) -> Option<u16> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', digits @ ..] = head else {
        return None;
    };
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_status_and_nothing_that_is_none() {
        assert_eq!(status_of(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503"), Some(503));
        for wrong in
            [b"HTTP/2.0 200", b"http/1.1 200", b"HTTP/1.1 2 0", b"HTTP/1.1 +20", b"SSH-2.0-open"]
        {
            assert_eq!(status_of(wrong), None);
        }
    }
}
