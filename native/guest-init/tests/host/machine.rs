//! The host's end of a session: a directory with an image, an init, and the control socket.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use casemate_wire::apps::{APPS_MAX, Turn, place_of};
use casemate_wire::frame::{FrameReader, GuestKind, HostKind, OUTPUT_WINDOW, append_to};
use casemate_wire::order::Conversation;
use casemate_wire::payload::{ErrorCode, Exit, OutputCredit, StartError, Stream};
use casemate_wire::sessions::Sessions;

use crate::config::Config;

/// No answer within this time fails the test; it is no measure of anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A directory with an image that holds the test program as `/bin/app`.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-init-test-{}-{number}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(place.image("bin")).unwrap();
        fs::create_dir_all(place.image("etc")).unwrap();
        fs::create_dir_all(place.0.join("staging")).unwrap();
        fs::set_permissions(place.image(""), PermissionsExt::from_mode(0o755)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), place.image("bin/app")).unwrap();
        fs::set_permissions(place.image("bin/app"), PermissionsExt::from_mode(0o755)).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n";
        fs::write(place.image("etc/passwd"), passwd).unwrap();
        fs::write(place.image("etc/group"), "web:x:34:\ntape:x:26:web\n").unwrap();
        place
    }

    pub fn image(&self, path: &str) -> PathBuf {
        self.0.join("image").join(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What a machine said of its app.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exit(Exit),
    Error(ErrorCode, String),
    /// The pipe ended without a word.
    Gone,
}

pub struct Machine {
    socket: UnixStream,
    reader: FrameReader<GuestKind>,
    unread: Vec<u8>,
    conversation: Conversation,
    sessions: Sessions<()>,
    turns: [Turn; APPS_MAX],
    init: Child,
}

impl Machine {
    /// Starts init and hears `UNIQUE_DONE`.
    pub fn start(place: &Path, tunables: Option<&str>) -> Self {
        Self::start_with(place, tunables, None)
    }

    /// The same, in a network namespace that the shell command `network` has prepared.
    pub fn start_with(place: &Path, tunables: Option<&str>, network: Option<&str>) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if let Some(network) = network {
            command.args(["--net", "sh", "-c"]);
            command.arg(format!("{network} && exec \"$@\"")).arg("sh");
        }
        command.arg(std::env::current_exe().unwrap()).arg("--init").arg(place);
        command.env_clear().envs(tunables.map(|value| ("GLIBC_TUNABLES", value)));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stderr(Stdio::piped());
        let init = command.stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let mut machine = Self {
            socket,
            reader: FrameReader::new(),
            unread: Vec::new(),
            conversation: Conversation::reseeding(),
            sessions: Sessions::default(),
            turns: Default::default(),
            init,
        };
        drop(command);
        assert_eq!(machine.hear().unwrap().0, GuestKind::UniqueDone);
        machine
    }

    pub fn say(&mut self, kind: HostKind, payload: &[u8]) {
        self.say_to(0, kind, payload);
    }

    pub fn say_to(&mut self, session: u16, kind: HostKind, payload: &[u8]) {
        let mut bytes = Vec::new();
        append_to(&mut bytes, session, kind, payload).unwrap();
        self.say_raw(&bytes);
    }

    /// EXEC, and a whole window for both streams.
    pub fn exec(&mut self, session: u16, request: &str) {
        self.exec_without_credit(session, request);
        self.credit_of(session, Stream::Stdout, OUTPUT_WINDOW);
        self.credit_of(session, Stream::Stderr, OUTPUT_WINDOW);
    }

    pub fn exec_without_credit(&mut self, session: u16, request: &str) {
        self.sessions.open(session, ()).unwrap();
        self.say_to(session, HostKind::Exec, request.as_bytes());
    }

    pub fn credit_of(&mut self, session: u16, stream: Stream, bytes: u32) {
        let credit = OutputCredit { stream, bytes }.encode();
        self.say_to(session, HostKind::Credit, credit.as_bytes());
    }

    /// Bytes as they are. Init may have gone; the test finds that out when it listens.
    pub fn say_raw(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub fn credit(&mut self, stream: Stream, bytes: u32) {
        self.say(HostKind::Credit, OutputCredit { stream, bytes }.encode().as_bytes());
    }

    /// CONFIG and a whole window for both streams.
    pub fn configure(&mut self, config: &Config) {
        self.configure_without_credit(config);
        self.credit(Stream::Stdout, OUTPUT_WINDOW);
        self.credit(Stream::Stderr, OUTPUT_WINDOW);
    }

    pub fn configure_without_credit(&mut self, config: &Config) {
        for piece in config.files.chunks(65_536) {
            self.say(HostKind::Files, piece);
        }
        self.expect_config_answer();
        self.say(HostKind::Config, &config.bytes());
    }

    /// From here on init may say what follows a CONFIG.
    pub fn expect_config_answer(&mut self) {
        self.conversation.host(HostKind::Config).unwrap();
    }

    /// The next frame of the app, in its turn; `None` at the end of the pipe.
    pub fn hear(&mut self) -> Option<(GuestKind, Vec<u8>)> {
        loop {
            let (session, kind, payload) = self.hear_any()?;
            if session == 0 {
                return Some((kind, payload));
            }
        }
    }

    /// The next frame of whomever, in its turn.
    pub fn hear_any(&mut self) -> Option<(u16, GuestKind, Vec<u8>)> {
        loop {
            let mut rest = self.unread.as_slice();
            let frame = self.reader.take(&mut rest).expect("init sends frames");
            let frame = frame.map(|frame| (frame.session, frame.kind, frame.payload.to_vec()));
            let taken = self.unread.len() - rest.len();
            self.unread.drain(..taken);
            if let Some((session, kind, payload)) = frame {
                if session == 0 {
                    self.conversation.guest(kind).expect("init keeps the order");
                } else if let Some(place) = place_of(session) {
                    self.turns[place].guest(session, kind).expect("init keeps the apps' order");
                } else {
                    self.sessions.guest(session, kind).expect("init keeps the sessions' order");
                }
                return Some((session, kind, payload));
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("init says nothing: {error}"),
            }
        }
    }

    pub fn hear_started(&mut self) {
        let (kind, payload) = self.hear().expect("init answers CONFIG");
        assert_eq!(kind, GuestKind::Started, "{}", String::from_utf8_lossy(&payload));
    }

    /// Listens to the end, renewing credit; answers standard output, standard error and the end.
    pub fn listen(&mut self) -> (Vec<u8>, Vec<u8>, End) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let Some((kind, payload)) = self.hear() else { return (out, err, End::Gone) };
            let size = u32::try_from(payload.len()).unwrap();
            match kind {
                GuestKind::Stdout => {
                    out.extend(payload);
                    self.credit(Stream::Stdout, size);
                }
                GuestKind::Stderr => {
                    err.extend(payload);
                    self.credit(Stream::Stderr, size);
                }
                GuestKind::Exit => return (out, err, End::Exit(Exit::parse(&payload).unwrap())),
                GuestKind::Error => {
                    let error = StartError::parse(&payload).unwrap();
                    return (out, err, End::Error(error.code, error.text.into()));
                }
                _ => {}
            }
        }
    }

    /// Listens to one session to its end, renewing credit.
    pub fn listen_to(&mut self, session: u16) -> (String, String, End) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let end = loop {
            let Some((from, kind, payload)) = self.hear_any() else { break End::Gone };
            if from != session {
                continue;
            }
            let size = u32::try_from(payload.len()).unwrap();
            match kind {
                GuestKind::Stdout => {
                    out.extend(payload);
                    self.credit_of(session, Stream::Stdout, size);
                }
                GuestKind::Stderr => {
                    err.extend(payload);
                    self.credit_of(session, Stream::Stderr, size);
                }
                GuestKind::Exit => break End::Exit(Exit::parse(&payload).unwrap()),
                GuestKind::Error => {
                    let error = StartError::parse(&payload).unwrap();
                    break End::Error(error.code, error.text.into());
                }
                _ => {}
            }
        };
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), end)
    }

    /// Listens to one session until it has said `words`; answers all it said.
    pub fn hears(&mut self, session: u16, words: &str) -> String {
        let mut said = String::new();
        while !said.contains(words) {
            let (from, kind, payload) = self.hear_any().expect("the guest speaks");
            assert!(from != session || kind != GuestKind::Exit, "it ended and said {said:?}");
            if from == session && kind == GuestKind::Stdout {
                self.credit_of(session, Stream::Stdout, u32::try_from(payload.len()).unwrap());
                said.push_str(&String::from_utf8_lossy(&payload));
            }
        }
        said
    }

    /// What init said on its way out, when it broke the conversation off.
    pub fn last_words(mut self) -> String {
        let mut words = String::new();
        self.init.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        self.init.wait().unwrap();
        words
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Init may have closed its end already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.init.wait().unwrap();
    }
}

/// Runs one app to its end and answers standard output and the end.
pub fn run(config: &Config) -> (String, End) {
    run_in(&Place::new(), config)
}

pub fn run_in(place: &Place, config: &Config) -> (String, End) {
    let mut machine = Machine::start(&place.0, None);
    machine.configure(config);
    let (out, err, end) = machine.listen();
    assert_eq!(String::from_utf8_lossy(&err), "", "standard error");
    (String::from_utf8(out).unwrap(), end)
}
