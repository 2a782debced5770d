//! What a rule is: one system call, conditions on its arguments, and why the thread needs it.

/// A condition on one argument: after masking it has this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Argument number, from 0.
    pub argument: u8,
    /// Bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

impl When {
    /// Whether a call with these arguments meets the condition.
    #[must_use]
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let argument = arguments.get(usize::from(self.argument)).copied().unwrap_or(0);
        argument & self.mask == self.value
    }
}

/// One allowed call. A call with several rules is allowed when one of them matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow {
    /// System call number (x86-64).
    pub call: i64,
    /// Its name.
    name: &'static str,
    /// All of these must hold.
    pub when: &'static [When],
    /// Why the thread needs it.
    pub why: &'static str,
    /// What has to happen before the thread makes it, when an ordinary life can go by without. A rule that has no such
    /// sentence is met in every life: the test of running VMs (test/system/calls.cases.ts) finds those that are not.
    pub rare: Option<&'static str>,
}

impl Allow {
    /// Allows a call whatever its arguments are. `name` is that of the constant in `libc`.
    pub(super) const fn new(call: i64, name: &'static str, why: &'static str) -> Self {
        Self { call, name, when: &[], why, rare: None }
    }

    /// Allows it only so.
    pub(super) const fn when(self, when: &'static [When]) -> Self {
        Self { when, ..self }
    }

    /// Says that many a life goes by without it.
    pub(super) const fn rare(self, rare: &'static str) -> Self {
        Self { rare: Some(rare), ..self }
    }

    /// The call's name, as people write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.trim_start_matches("SYS_")
    }

    /// Whether it allows this call.
    #[must_use]
    pub fn matches(&self, call: i64, arguments: &[u64; 6]) -> bool {
        self.call == call && self.when.iter().all(|when| when.holds(arguments))
    }
}

/// `call!(SYS_read, "why")`: the number and the name cannot differ.
macro_rules! call {
    ($name:ident, $why:literal) => {
        $crate::seccomp::rule::Allow::new(libc::$name, stringify!($name), $why)
    };
}
pub(super) use call;

/// The argument equals `value` where the kernel takes an `int`: it reads the low 32 bits, and callers may leave
/// anything in the others.
pub(super) const fn is(argument: u8, value: u64) -> When {
    When { argument, mask: 0xffff_ffff, value }
}

/// The argument equals `value` where the kernel takes a `long`, a `size_t` or an address.
pub(super) const fn is_wide(argument: u8, value: u64) -> When {
    When { argument, mask: u64::MAX, value }
}

/// The argument has these bits among those of `mask`.
pub(super) const fn has(argument: u8, mask: u64, value: u64) -> When {
    When { argument, mask, value }
}

/// The first argument is this descriptor, a number where spawn put what `descriptors.rs` says. All that a thread could put
/// there instead, by close and recvmsg, is a pod stream: a socket, which has no positions to read or write at.
pub(super) const fn on(descriptor: i32) -> When {
    let [b0, b1, b2, b3] = descriptor.to_le_bytes();
    is(0, u64::from_le_bytes([b0, b1, b2, b3, 0, 0, 0, 0]))
}

/// `FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG`, the form the standard library waits with.
const WAIT: u64 = 137;
/// `FUTEX_WAKE | FUTEX_PRIVATE_FLAG`.
const WAKE: u64 = 129;

/// Waiting without a time, so that nothing has to be restarted after a stop. The allocator's lock waits in another form
/// (`FUTEX_WAIT`), which is not here: of the running threads one alone allocates.
pub(super) const FUTEX_WAIT: &[When] = &[is(1, WAIT), is_wide(3, 0)];
/// Waking who waits so.
pub(super) const FUTEX_WAKE: &[When] = &[is(1, WAKE)];
/// An eventfd takes and gives 8 bytes.
pub(super) const EVENTFD: &[When] = &[is_wide(2, 8)];
