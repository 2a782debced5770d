//! What our own code does beside the app for somebody, in place of a program of the image: copying in and out, and a
//! list of processes. It works in images that have no shell and no tar.
//!
//! It runs where a program would and as that would: in the app's namespaces and cgroup, as its user, under its limits
//! and seccomp program, with the capabilities that exec would have left to it. So nothing of the pod's file systems is
//! resolved by anybody who could reach more than the pod itself (CVE-2018-15664, CVE-2019-14271, CVE-2024-21626).
//! What is on the way there is the app's to change at any time; the worst is an archive or a directory of its own
//! making.

mod archive;
mod archive_read;
mod copy_in;
mod copy_out;
mod processes;

use std::fmt;
use std::io::{Write, stderr};
use std::os::fd::AsFd;

use casemate_ticket::app::App;
use casemate_ticket::errand::Errand;
use casemate_wire::payload::ErrorCode;

use crate::failure::{Failure, OrFailure};
use crate::report::Reporter;
use crate::users::Identity;
use crate::{privileges, process_unsafe};

/// Exit codes, beside 0: all was done.
const FAILED: i32 = 1;

/// Why an errand was given up, or what it left out; for people.
#[derive(Debug)]
pub(crate) struct Trouble(String);

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

pub(crate) type Outcome<T> = Result<T, Trouble>;

pub(crate) fn trouble<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Trouble(text.into()))
}

pub(crate) trait OrTrouble<T> {
    /// `what` says what was tried, as in "open /x".
    fn or_trouble(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> OrTrouble<T> for Result<T, E> {
    fn or_trouble(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|cause| Trouble(format!("cannot {what}: {cause}")))
    }
}

/// A name for people: what could be no text, or steer a terminal, is escaped.
pub(crate) fn shown(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}

/// Says what was left out, and goes on.
pub(crate) fn say(text: &impl fmt::Display) {
    // Nobody may be listening.
    let _ = writeln!(stderr(), "{text}");
}

/// Gives up what the app does not have, and does the errand. Called in the forked process only, in the app's root and
/// with its streams as 0, 1 and 2; answers why it could not begin.
#[must_use]
pub fn run(errand: &Errand, app: &App, identity: &Identity, report: &Reporter) -> Failure {
    let mut app = app.clone();
    if identity.uid != 0 {
        // As exec by another user than root has it.
        let capabilities = &mut app.process.capabilities;
        capabilities.effective = capabilities.ambient;
        capabilities.permitted = capabilities.ambient;
    }
    if let Err(failure) = privileges::apply(&app, identity) {
        return failure;
    }
    // That it ends without a word says that this has begun. It is the last descriptor beside the streams; the app's
    // program may forbid `close_range`.
    if let Err(failure) = process_unsafe::close(report.as_fd())
        .or_failure(ErrorCode::Seccomp, "close a descriptor under the seccomp program")
    {
        return failure;
    }
    // Nothing returns from here.
    let done = match errand {
        Errand::CopyIn { path, place, owners } => {
            copy_in::run(path, *place, *owners && identity.uid == 0)
        }
        Errand::CopyOut { path } => copy_out::run(path),
        Errand::Processes => processes::run(),
    };
    if let Err(trouble) = &done {
        say(trouble);
    }
    process_unsafe::exit_now(if matches!(done, Ok(true)) { 0 } else { FAILED })
}
