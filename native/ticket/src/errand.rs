//! What our own code does in a running pod for somebody, in place of a program: the other form of a request for a
//! process beside the app (docs/formats.md section 7).

use crate::app::{App, read_cwd, read_user};
use crate::exec::{ExecRequest, REQUEST_BYTES_MAX, read_app};
use crate::json::{self, Value};
use crate::shape::{boolean, fields, text, wrong};
use crate::spec::SpecError;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Writes what a tar archive on standard input has.
    CopyIn {
        /// Where, absolute.
        path: String,
        /// Where in respect of that.
        place: Place,
        /// Root keeps the owners that the archive names; else all becomes the user's own.
        owners: bool,
    },
    /// Writes a file, or a directory with all that is in it, to standard output as a tar archive.
    CopyOut {
        /// What, absolute.
        path: String,
    },
    /// Writes a line of canonical JSON for each process of the pod to standard output.
    Processes,
}

/// Where the entries of an archive go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The path is a directory, and they go below it.
    Inside,
    /// They are one thing. Where the path is no directory it becomes the name of that, else the thing goes below it.
    Named,
}

/// An errand, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrandRequest {
    /// Beside which app, by its name; else the first.
    pub app: Option<String>,
    /// What is to be done.
    pub errand: Errand,
    /// User as in the image spec; else the app's.
    pub user: Option<String>,
}

/// What an EXEC asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A program of the image.
    Program(ExecRequest),
    /// Ours.
    Errand(ErrandRequest),
}

impl Request {
    /// Reads the payload of an EXEC frame.
    ///
    /// # Errors
    /// Bytes that are not canonical, members that are missing, unknown or out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        let value = json::parse(bytes, REQUEST_BYTES_MAX)?;
        if value.get("errand").is_none() {
            return Ok(Self::Program(ExecRequest::read(&value)?));
        }
        let [app, errand, user] = fields(&value, "exec", ["app", "errand", "user"])?;
        let user = match user {
            Value::Null => None,
            user => Some(read_user(user, "exec.user")?),
        };
        Ok(Self::Errand(ErrandRequest { app: read_app(app)?, errand: read(errand)?, user }))
    }

    /// The name of the app that it is to be beside; else the first.
    #[must_use]
    pub fn app(&self) -> Option<&str> {
        match self {
            Self::Program(request) => request.app.as_deref(),
            Self::Errand(request) => request.app.as_deref(),
        }
    }

    /// The app as it would have to be for this process to be its first: everything that confines it is the app's own.
    #[must_use]
    pub fn beside(&self, app: &App) -> App {
        match self {
            Self::Program(request) => request.beside(app),
            Self::Errand(request) => {
                let mut beside = app.clone();
                let process = &mut beside.process;
                "/".clone_into(&mut process.cwd);
                if let Some(user) = &request.user {
                    process.user.clone_from(user);
                }
                beside
            }
        }
    }
}

fn read(value: &Value) -> Result<Errand, SpecError> {
    const PATH: &str = "exec.errand.path";
    let kind = value.get("kind").unwrap_or(&Value::Null);
    let errand = match text(kind, "exec.errand.kind", 16)? {
        "copy-in" => {
            let [_, owners, path, place] =
                fields(value, "exec.errand", ["kind", "owners", "path", "place"])?;
            let place = match place.as_str() {
                Some("inside") => Place::Inside,
                Some("named") => Place::Named,
                _ => return Err(wrong("exec.errand.place", "must be inside or named").into()),
            };
            let owners = boolean(owners, "exec.errand.owners")?;
            Errand::CopyIn { path: read_cwd(path, PATH)?, place, owners }
        }
        "copy-out" => {
            let [_, path] = fields(value, "exec.errand", ["kind", "path"])?;
            Errand::CopyOut { path: read_cwd(path, PATH)? }
        }
        "processes" => {
            let [_] = fields(value, "exec.errand", ["kind"])?;
            Errand::Processes
        }
        _ => {
            return Err(wrong("exec.errand.kind", "must be copy-in, copy-out or processes").into());
        }
    };
    Ok(errand)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::*;

    fn errand(text: &str) -> Result<Request, SpecError> {
        Request::parse(format!(r#"{{"app":null,"errand":{text},"user":null}}"#).as_bytes())
    }

    #[test]
    fn reads_errands_and_programs() {
        let Request::Errand(out) = errand(r#"{"kind":"copy-out","path":"/a"}"#).unwrap() else {
            unreachable!("it is no program")
        };
        assert_eq!(
            out,
            ErrandRequest { app: None, errand: Errand::CopyOut { path: "/a".into() }, user: None }
        );
        let text = r#"{"kind":"copy-in","owners":true,"path":"/a","place":"named"}"#;
        let Request::Errand(into) = errand(text).unwrap() else { unreachable!("it is no program") };
        let path = "/a".to_owned();
        assert_eq!(into.errand, Errand::CopyIn { path, place: Place::Named, owners: true });
        assert!(errand(r#"{"kind":"processes"}"#).is_ok());
        let program =
            br#"{"app":null,"args":["sh"],"cwd":null,"env":[],"terminal":null,"user":null}"#;
        assert!(matches!(Request::parse(program), Ok(Request::Program(_))));
    }

    #[test]
    fn reads_nothing_else() {
        for wrong in [
            "null",
            "{}",
            r#"{"kind":"copy-up","path":"/a"}"#,
            r#"{"kind":"copy-out"}"#,
            r#"{"kind":"copy-out","path":"a"}"#,
            r#"{"kind":"copy-out","path":"/a\u0000"}"#,
            r#"{"kind":"copy-out","owners":true,"path":"/a"}"#,
            r#"{"kind":"copy-in","owners":1,"path":"/a","place":"named"}"#,
            r#"{"kind":"copy-in","owners":true,"path":"/a","place":"here"}"#,
            r#"{"kind":"processes","path":"/a"}"#,
        ] {
            assert!(errand(wrong).is_err(), "{wrong}");
        }
        let both = br#"{"app":null,"args":["sh"],"cwd":null,"env":[],"errand":{"kind":"processes"},"terminal":null,"user":null}"#;
        assert!(Request::parse(both).is_err());
    }
}
