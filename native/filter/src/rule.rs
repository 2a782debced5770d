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

impl When {
    /// Whether a call with these arguments meets the condition.
    #[must_use]
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let argument = arguments.get(usize::from(self.argument)).copied().unwrap_or(0);
        argument & self.mask == self.value
    }
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
    /// What has to happen before the call is made, when an ordinary life can go by without. Where a list is searched for
    /// rules that are never met (test/system/calls.cases.ts), those without such a sentence have to be met in every life.
    pub rare: Option<&'static str>,
}

impl Rule {
    /// A call whatever its arguments are. `name` is that of the constant in `libc`; [`call!`](crate::call) writes both.
    #[must_use]
    pub const fn new(call: i64, name: &'static str, why: &'static str) -> Self {
        Self { call, name, when: &[], why, rare: None }
    }

    /// Only such calls.
    #[must_use]
    pub const fn when(self, when: &'static [When]) -> Self {
        Self { when, ..self }
    }

    /// Says that many a life goes by without it.
    #[must_use]
    pub const fn rare(self, rare: &'static str) -> Self {
        Self { rare: Some(rare), ..self }
    }

    /// The call's name, as people write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.trim_start_matches("SYS_")
    }

    /// Whether this call meets it.
    #[must_use]
    pub fn is_met(&self, call: i64, arguments: &[u64; 6]) -> bool {
        self.call == call && self.when.iter().all(|when| when.holds(arguments))
    }
}

/// `call!(SYS_read, "why")`: the number and the name cannot differ.
#[macro_export]
macro_rules! call {
    ($name:ident, $why:literal) => {
        $crate::Rule::new($crate::libc::$name, stringify!($name), $why)
    };
}

/// `calls!["why": SYS_read SYS_write;]`: several with one reason.
#[macro_export]
macro_rules! calls {
    ($($why:literal: $($name:ident)+;)+) => {
        &[$($($crate::call!($name, $why),)+)+]
    };
}

/// The argument equals `value` where the kernel takes an `int`: it reads the low 32 bits, and callers may leave
/// anything in the others.
#[must_use]
pub const fn is(argument: u8, value: u64) -> When {
    When { argument, mask: 0xffff_ffff, value }
}

/// The argument equals `value` where the kernel takes a `long`, a `size_t` or an address.
#[must_use]
pub const fn is_wide(argument: u8, value: u64) -> When {
    When { argument, mask: u64::MAX, value }
}

/// The argument has none of `bits`.
#[must_use]
pub const fn lacks(argument: u8, bits: u64) -> When {
    When { argument, mask: bits, value: 0 }
}

/// The argument has all of `bits`.
#[must_use]
pub const fn has(argument: u8, bits: u64) -> When {
    When { argument, mask: bits, value: bits }
}
