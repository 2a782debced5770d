//! Width changes that cannot fail or wrap silently.

/// A host size as u64. Saturates where `usize` were wider, which no supported host is.
pub fn widen(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// A u64 as host size, saturating: only for values that a later bound checks again.
pub fn narrow(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Adds one, and stays at the top: counters never wrap to a harmless looking value.
pub fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
