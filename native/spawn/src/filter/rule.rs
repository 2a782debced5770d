//! What a rule is: one system call, conditions on its arguments, and why it is on its list.

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

/// One call. A call with several rules is met when one of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// System call number (x86-64).
    pub call: i64,
    /// The constant's name in `libc`.
    name: &'static str,
    /// All of these must hold.
    pub when: &'static [When],
    /// Why it is here, for people.
    pub why: &'static str,
}

impl Rule {
    /// Any call of this number. `name` is that of the constant in `libc`.
    pub(super) const fn new(call: i64, name: &'static str, why: &'static str) -> Self {
        Self { call, name, when: &[], why }
    }

    /// Only such calls.
    pub(super) const fn when(self, when: &'static [When]) -> Self {
        Self { when, ..self }
    }

    /// The call's name, as people write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.trim_start_matches("SYS_")
    }
}

/// `call!(SYS_read, "why")`: the number and the name cannot differ.
macro_rules! call {
    ($name:ident, $why:literal) => {
        $crate::filter::rule::Rule::new(libc::$name, stringify!($name), $why)
    };
}
pub(super) use call;

/// `calls!("why": SYS_read SYS_write)`: several with one reason.
macro_rules! calls {
    ($($why:literal: $($name:ident)+;)+) => {
        &[$($($crate::filter::rule::call!($name, $why),)+)+]
    };
}
pub(super) use calls;

/// The argument equals `value` where the kernel takes an `int`: it reads the low 32 bits, and callers may leave
/// anything in the others.
pub(super) const fn is(argument: u8, value: u64) -> When {
    When { argument, mask: 0xffff_ffff, value }
}

/// The argument equals `value` where the kernel takes a `long` or an address.
pub(super) const fn is_wide(argument: u8, value: u64) -> When {
    When { argument, mask: u64::MAX, value }
}

/// The argument has none of `bits`.
pub(super) const fn lacks(argument: u8, bits: u64) -> When {
    When { argument, mask: bits, value: 0 }
}

/// The argument has all of `bits`.
pub(super) const fn has(argument: u8, bits: u64) -> When {
    When { argument, mask: bits, value: bits }
}
