//! Frames of the control pipe (guest-init and VMM) and of the pod stream (VMM and agent).
//!
//! A frame is eight bytes of header and a payload whose length its kind fixes or caps. [`FrameReader`]
//! takes the bytes as they come and holds one frame at most, in a buffer it allocates once: a peer
//! that announces more than its kind may carry is refused at the header, before a byte is kept.

use std::fmt;

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;
/// Most bytes a payload may have, except that of `CONFIG`.
pub const PAYLOAD_MAX: u32 = 65_536;
/// Most bytes the payload of `CONFIG` may have: an app's process section with its seccomp program.
pub const CONFIG_MAX: u32 = 524_288;
/// The version of the protocol that `HELLO` announces.
pub const PROTOCOL_VERSION: u32 = 1;
/// Bytes of output the VMM lets a guest send, per stream, before it grants more.
pub const OUTPUT_WINDOW: u32 = 65_536;
/// Most bytes the payload of `ADMIT` may have: a request, its record and its ticket.
pub const ADMIT_MAX: u32 = 163_840;

/// Whose frame may be of a kind: the header's stream number is 0 for the app, else a session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The app's or the machine's.
    App,
    /// A session's.
    Session,
    /// Either's.
    Both,
}

impl Whose {
    const fn admits(self, session: u16) -> bool {
        match self {
            Self::App => session == 0,
            Self::Session => session != 0,
            Self::Both => true,
        }
    }
}

/// One direction's kinds of frame.
pub trait Kind: Copy + Eq + fmt::Debug + Sized {
    /// The longest payload of any kind of this direction: what a reader allocates.
    const PAYLOAD_MAX: u32;

    /// The kind a byte stands for in this direction.
    fn from_byte(byte: u8) -> Option<Self>;

    /// The byte in the header.
    fn byte(self) -> u8;

    /// Least and most bytes a payload of this kind has.
    fn length(self) -> (u32, u32);

    /// Whose a frame of this kind may be.
    fn whose(self) -> Whose;
}

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident, $longest:expr, { $($(#[$variant_doc:meta])* $variant:ident = $byte:literal, $whose:ident, $min:expr, $max:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every kind of this direction, in the order of their bytes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
        }

        impl Kind for $name {
            const PAYLOAD_MAX: u32 = $longest;

            fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(Self::$variant),)* _ => None }
            }

            fn byte(self) -> u8 {
                match self { $(Self::$variant => $byte,)* }
            }

            fn length(self) -> (u32, u32) {
                match self { $(Self::$variant => ($min, $max),)* }
            }

            fn whose(self) -> Whose {
                match self { $(Self::$variant => Whose::$whose,)* }
            }
        }
    };
}

kinds! {
    /// What the host sends: VMM to guest, and on the pod stream agent to VMM.
    HostKind, CONFIG_MAX, {
        /// Entropy, wall clock and nonce that make a restored guest unlike its siblings.
        Unique = 1, App, 88, 88;
        /// Canonical JSON: the app and the host name.
        Config = 2, App, 2, CONFIG_MAX;
        /// Bytes for the app's standard input.
        Stdin = 3, Both, 1, PAYLOAD_MAX;
        /// The app's standard input ends here.
        StdinEof = 4, Both, 0, 0;
        /// A signal for the app.
        Signal = 5, Both, 4, 4;
        /// Leave to send more output.
        Credit = 6, Both, 5, 5;
        /// TERM for the app, KILL after a time.
        Stop = 7, App, 4, 4;
        /// The scratch disk is larger: the file system may grow.
        Resize = 8, App, 8, 8;
        /// To the guest: start one more process beside the app. Canonical JSON.
        Exec = 9, Session, 2, PAYLOAD_MAX;
        /// The size of a session's terminal.
        Window = 10, Session, 4, 4;
        /// Nobody listens to a session any more: it is to end.
        Close = 11, Session, 0, 0;
        /// From the agent: an `EXEC` with its ticket and its record.
        Admit = 12, Session, 10, ADMIT_MAX;
        /// Content of the app's files, in pieces, before its `CONFIG`.
        Files = 13, App, 1, PAYLOAD_MAX;
    }
}

kinds! {
    /// What the guest sends: guest to VMM, and on the pod stream VMM to agent.
    GuestKind, PAYLOAD_MAX, {
        /// Init waits; a template is taken here.
        Hello = 64, App, 8, 8;
        /// Reseeded, clock set, init executed anew.
        UniqueDone = 65, App, 0, 0;
        /// The app runs.
        Started = 66, Both, 4, 4;
        /// The app's standard output.
        Stdout = 67, Both, 1, PAYLOAD_MAX;
        /// The app's standard error.
        Stderr = 68, Both, 1, PAYLOAD_MAX;
        /// The app ended.
        Exit = 69, Both, 5, 5;
        /// The app could not be started.
        Error = 70, Both, 2, 2 + 1024;
        /// Leave to send more standard input.
        Credit = 71, Both, 4, 4;
        /// What came of a RESIZE.
        Resized = 72, App, 12, 12;
        /// What the app's health check came to.
        Health = 73, Both, 16, 16 + 4096;
    }
}

/// Why bytes are not a frame. Whoever sent them is broken or hostile: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No frame of this direction has that kind.
    UnknownKind(u8),
    /// The byte that must be zero is not.
    ReservedNotZero,
    /// A frame of that kind is never the app's, or never a session's.
    Stream {
        /// The header's kind.
        kind: u8,
        /// The header's stream.
        stream: u16,
    },
    /// The kind does not allow that many bytes.
    Length {
        /// The header's kind.
        kind: u8,
        /// The header's length.
        length: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(out, "kind {kind} does not exist in this direction"),
            Self::ReservedNotZero => write!(out, "a reserved byte of the header is not zero"),
            Self::Stream { kind, stream } => {
                write!(out, "a frame of kind {kind} cannot be of stream {stream}")
            }
            Self::Length { kind, length } => {
                write!(out, "a frame of kind {kind} cannot have {length} bytes")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// A header whose kind and length belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<K> {
    kind: K,
    session: u16,
    length: u32,
}

impl<K: Kind> Header<K> {
    /// The header of a payload of `length` bytes; `session` 0 is the app.
    ///
    /// # Errors
    /// [`FrameError::Length`] when the kind does not allow that many bytes, [`FrameError::Stream`]
    /// when it is not for that session.
    pub fn new(kind: K, session: u16, length: usize) -> Result<Self, FrameError> {
        if !kind.whose().admits(session) {
            return Err(FrameError::Stream { kind: kind.byte(), stream: session });
        }
        let asked = u32::try_from(length).unwrap_or(u32::MAX);
        let (min, max) = kind.length();
        if (min..=max).contains(&asked) {
            Ok(Self { kind, session, length: asked })
        } else {
            Err(FrameError::Length { kind: kind.byte(), length: asked })
        }
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Any [`FrameError`]; nothing of a refused header is to be used.
    pub fn parse(bytes: [u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [kind, zero, stream_low, stream_high, l0, l1, l2, l3] = bytes;
        let known = K::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
        if zero != 0 {
            return Err(FrameError::ReservedNotZero);
        }
        let session = u16::from_le_bytes([stream_low, stream_high]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        Self::new(known, session, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [stream_low, stream_high] = self.session.to_le_bytes();
        [self.kind.byte(), 0, stream_low, stream_high, l0, l1, l2, l3]
    }

    /// The frame's kind.
    pub const fn kind(&self) -> K {
        self.kind
    }

    /// The session whose frame it is; 0 is the app.
    pub const fn session(&self) -> u16 {
        self.session
    }

    /// Bytes of payload that follow.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }
}

/// Appends one whole frame of the app to `out`.
///
/// # Errors
/// As [`append_to`].
pub fn append<K: Kind>(out: &mut Vec<u8>, kind: K, payload: &[u8]) -> Result<(), FrameError> {
    append_to(out, 0, kind, payload)
}

/// Appends one whole frame of a session to `out`.
///
/// # Errors
/// As [`Header::new`], and `out` is unchanged.
pub fn append_to<K: Kind>(
    out: &mut Vec<u8>,
    session: u16,
    kind: K,
    payload: &[u8],
) -> Result<(), FrameError> {
    let header = Header::new(kind, session, payload.len())?;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    Ok(())
}

/// A whole frame, in the reader's buffer until the reader is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a, K> {
    /// What the frame is.
    pub kind: K,
    /// Whose it is; 0 is the app.
    pub session: u16,
    /// Its bytes; the length is one the kind allows.
    pub payload: &'a [u8],
}

/// Cuts a stream of bytes into frames. Allocates once, in [`FrameReader::new`].
#[derive(Debug)]
pub struct FrameReader<K> {
    head: [u8; HEADER_LEN],
    head_len: usize,
    header: Option<Header<K>>,
    payload: Vec<u8>,
    done: bool,
}

impl<K: Kind> Default for FrameReader<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Kind> FrameReader<K> {
    /// A reader at a frame boundary, with room for the longest frame of its direction.
    #[must_use]
    pub fn new() -> Self {
        let room = usize::try_from(K::PAYLOAD_MAX).unwrap_or(0);
        Self {
            head: [0; HEADER_LEN],
            head_len: 0,
            header: None,
            payload: Vec::with_capacity(room),
            done: false,
        }
    }

    /// Takes bytes off the front of `input` until a frame is complete or `input` is empty.
    /// Call it until it answers `None`; then every byte of `input` was taken.
    ///
    /// # Errors
    /// A [`FrameError`] as soon as the header is there. The reader is then of no more use: there is
    /// no way to find the next frame in what a broken peer sends.
    pub fn take<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Frame<'a, K>>, FrameError> {
        if self.done {
            self.restart();
        }
        let Some(header) = self.take_header(input)? else { return Ok(None) };
        let missing = header.payload_len().saturating_sub(self.payload.len());
        let (mine, rest) = input.split_at(missing.min(input.len()));
        self.payload.extend_from_slice(mine);
        *input = rest;
        if self.payload.len() < header.payload_len() {
            return Ok(None);
        }
        self.done = true;
        Ok(Some(Frame { kind: header.kind, session: header.session, payload: &self.payload }))
    }

    /// True between two frames: a stream may end, or change its peer, only here.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.done || self.head_len == 0
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Header<K>>, FrameError> {
        if let Some(header) = self.header {
            return Ok(Some(header));
        }
        let missing = HEADER_LEN.saturating_sub(self.head_len);
        let (mine, rest) = input.split_at(missing.min(input.len()));
        for (slot, byte) in self.head.iter_mut().skip(self.head_len).zip(mine) {
            *slot = *byte;
        }
        self.head_len = self.head_len.saturating_add(mine.len());
        *input = rest;
        if self.head_len < HEADER_LEN {
            return Ok(None);
        }
        let header = Header::parse(self.head)?;
        self.header = Some(header);
        Ok(Some(header))
    }

    /// Forgets what it holds and is at a frame boundary, for another peer's bytes. Allocates nothing.
    pub fn reset(&mut self) {
        self.restart();
    }

    fn restart(&mut self) {
        self.head_len = 0;
        self.header = None;
        self.payload.clear();
        self.done = false;
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
