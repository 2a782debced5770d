//! One more process in a running pod: its request, which guest-init reads, and its ticket, which the
//! VMM checks (docs/formats.md section 7).

use crate::app::{App, read_args, read_cwd, read_env, read_user};
use crate::bytes::Digest;
use crate::document::Context;
use crate::json::{self, Value};
use crate::shape::{self, ShapeError, fields, integer32};
use crate::spec::SpecError;
use crate::ticket::{Head, TicketError, check_inclusion, read_record, string};

/// Most bytes of a request: a frame's payload.
pub const REQUEST_BYTES_MAX: usize = 65_536;

/// What is to run, and how it differs from the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Beside which app, by its name; else the first.
    pub app: Option<String>,
    /// Arguments, at least one.
    pub args: Vec<String>,
    /// On top of the app's environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute; else the app's.
    pub cwd: Option<String>,
    /// User as in the image spec; else the app's.
    pub user: Option<String>,
    /// A terminal of so many rows and columns, if it is to have one.
    pub terminal: Option<(u16, u16)>,
}

impl ExecRequest {
    /// Reads the payload of an EXEC frame that asks for a program.
    ///
    /// # Errors
    /// Bytes that are not canonical, members that are missing, unknown or out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        Self::read(&json::parse(bytes, REQUEST_BYTES_MAX)?)
    }

    pub(crate) fn read(value: &Value) -> Result<Self, SpecError> {
        let [app, args, cwd, env, terminal, user] =
            fields(value, "exec", ["app", "args", "cwd", "env", "terminal", "user"])?;
        let given = |value: &'_ Value| *value != Value::Null;
        let terminal = if given(terminal) {
            let [columns, rows] = fields(terminal, "exec.terminal", ["columns", "rows"])?;
            let number = |value, path| {
                integer32(value, path, 0..=u32::from(u16::MAX))
                    .map(|number| u16::try_from(number).unwrap_or(0))
            };
            Some((number(rows, "exec.terminal.rows")?, number(columns, "exec.terminal.columns")?))
        } else {
            None
        };
        Ok(Self {
            app: read_app(app)?,
            args: read_args(args, "exec.args")?,
            env: read_env(env, "exec.env")?,
            cwd: if given(cwd) { Some(read_cwd(cwd, "exec.cwd")?) } else { None },
            user: if given(user) { Some(read_user(user, "exec.user")?) } else { None },
            terminal,
        })
    }

    /// The app as it would have to be for this process to be its first: everything that confines it is the app's own.
    #[must_use]
    pub fn beside(&self, app: &App) -> App {
        let mut beside = app.clone();
        let process = &mut beside.process;
        process.args.clone_from(&self.args);
        for entry in &self.env {
            let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
            process.env.retain(|one| one.split_once('=').is_none_or(|(other, _)| other != name));
            process.env.push(entry.clone());
        }
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some(user) = &self.user {
            process.user.clone_from(user);
        }
        beside
    }
}

/// The name of the app that a process is to be beside; `null` is the first.
pub(crate) fn read_app(value: &Value) -> Result<Option<String>, ShapeError> {
    if *value == Value::Null {
        return Ok(None);
    }
    Ok(Some(shape::word(value, "exec.app", 63, shape::is_tenant_character)?.into()))
}

/// The pod that a VMM runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its launch id.
    pub launch_id: String,
    /// Its tenant.
    pub tenant: String,
}

/// A ticket that may be spent, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Leaf hash of the record.
    pub leaf_hash: [u8; 32],
    /// `CLOCK_BOOTTIME` after which the ticket is worth nothing, nanoseconds.
    pub deadline_ns: u64,
}

/// Checks the ticket of an exec.intent against its record, the request, the pod and this host.
///
/// # Errors
/// The first rule that does not hold: those of a launch, the pod's id and tenant, and the digest of the request's bytes.
pub fn check(
    ticket: &[u8],
    record: &[u8],
    request: &[u8],
    pod: &Pod,
    context: &Context,
    now_boottime_ns: u64,
) -> Result<Admitted, TicketError> {
    let ticket = std::str::from_utf8(ticket).map_err(|_| TicketError::Malformed)?;
    let leaf_hash = check_inclusion(ticket, record, context)?;
    let value = read_record(record)?;
    let head = Head::read(&value, "exec.intent")?;
    let deadline_ns = head.check_place_and_time(context, now_boottime_ns)?;
    if string(&value, &["launch_id"], "launch_id")? != pod.launch_id {
        return Err(TicketError::OtherPod("launch_id"));
    }
    if head.tenant != pod.tenant {
        return Err(TicketError::OtherPod("tenant"));
    }
    let digest = string(&value, &["request"], "request")?;
    let digest = Digest::parse(digest).ok_or(TicketError::Record("request"))?;
    if Digest::of(request) == digest {
        Ok(Admitted { leaf_hash, deadline_ns })
    } else {
        Err(TicketError::RequestDigest)
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
