//! How a pod is asked whether its app does its work: part of the spec, so that the launch's ticket covers it.

use crate::app::{App, read_args};
use crate::json::Value;
use crate::shape::{ShapeError, fields, integer32, text, wrong};

/// Shortest and longest time between two checks, and for one. `policy/nouns/health.ts` has the same limits.
const TIME_MS: std::ops::RangeInclusive<u32> = 1000..=3_600_000;
const RETRIES_MAX: u32 = 100;
/// Longest path of a request, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// What is asked, how often, and how many wrong answers count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// From the end of one check to the next, milliseconds.
    pub interval_ms: u32,
    /// The same while the app starts.
    pub start_interval_ms: u32,
    /// How long wrong answers do not count unless there was a right one, milliseconds.
    pub start_period_ms: u32,
    /// For one check, milliseconds.
    pub timeout_ms: u32,
    /// Wrong answers in a row that make it unhealthy.
    pub retries: u32,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A program beside the app that ends with 0.
    Exec(Vec<String>),
    /// A port of the pod's loopback address that takes a connection.
    Tcp(u16),
    /// A server at a port of that address that answers a GET of the path with a status from 200 to 399.
    Http(u16, String),
}

impl Check {
    /// `null` is none.
    pub(crate) fn read(value: &Value) -> Result<Option<Self>, ShapeError> {
        if *value == Value::Null {
            return Ok(None);
        }
        let [interval, probe, retries, start_interval, start_period, timeout] = fields(
            value,
            "apps.health",
            [
                "interval_ms",
                "probe",
                "retries",
                "start_interval_ms",
                "start_period_ms",
                "timeout_ms",
            ],
        )?;
        Ok(Some(Self {
            probe: Probe::read(probe)?,
            interval_ms: integer32(interval, "apps.health.interval_ms", TIME_MS)?,
            start_interval_ms: integer32(start_interval, "apps.health.start_interval_ms", TIME_MS)?,
            start_period_ms: integer32(
                start_period,
                "apps.health.start_period_ms",
                0..=*TIME_MS.end(),
            )?,
            timeout_ms: integer32(timeout, "apps.health.timeout_ms", TIME_MS)?,
            retries: integer32(retries, "apps.health.retries", 1..=RETRIES_MAX)?,
        }))
    }
}

impl Probe {
    fn read(value: &Value) -> Result<Self, ShapeError> {
        let path = "apps.health.probe";
        match value.get("kind").and_then(Value::as_str) {
            Some("exec") => {
                let [args, _] = fields(value, path, ["args", "kind"])?;
                read_args(args, "apps.health.probe.args").map(Self::Exec)
            }
            Some("tcp") => {
                let [_, port] = fields(value, path, ["kind", "port"])?;
                read_port(port).map(Self::Tcp)
            }
            Some("http") => {
                let [_, place, port] = fields(value, path, ["kind", "path", "port"])?;
                Ok(Self::Http(read_port(port)?, read_path(place)?))
            }
            _ => Err(wrong(path, "must have a kind: exec, tcp or http")),
        }
    }

    /// The app as it would have to be for the question's process to be its first: everything that confines it is the
    /// app's own.
    #[must_use]
    pub fn beside(&self, app: &App) -> App {
        let mut beside = app.clone();
        if let Self::Exec(args) = self {
            beside.process.args.clone_from(args);
        }
        beside
    }
}

fn read_port(value: &Value) -> Result<u16, ShapeError> {
    let path = "apps.health.probe.port";
    let port = integer32(value, path, 1..=u32::from(u16::MAX))?;
    u16::try_from(port).map_err(|_| wrong(path, "must fit 16 bits"))
}

/// It becomes part of a request's first line: nothing in it may end that line or a part of it.
fn read_path(value: &Value) -> Result<String, ShapeError> {
    let path = "apps.health.probe.path";
    let place = text(value, path, PATH_BYTES_MAX)?;
    let fits = place.starts_with('/') && place.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(place.into()) } else { Err(wrong(path, "must be / and printable ASCII")) }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
