//! User ids of pods: one for each VM, a range for each container, never one of two that live.

/// Hands out the ids `base`, `base + stride`, ..., `count` of them, each with those up to the next, going round, so that
/// one just freed is the last to come back.
#[derive(Debug)]
pub struct Uids {
    base: u32,
    stride: u32,
    used: Vec<bool>,
    next: usize,
}

impl Uids {
    /// All ids free.
    pub fn new(base: u32, count: u32, stride: u32) -> Self {
        let count = usize::try_from(count).unwrap_or(0);
        Self { base, stride: stride.max(1), used: vec![false; count], next: 0 }
    }

    /// Takes a free id, or `None` when every id has its VM.
    pub fn take(&mut self) -> Option<u32> {
        let (before, after) = self.used.split_at(self.next.min(self.used.len()));
        let free = |used: &bool| !used;
        let slot = match after.iter().position(free) {
            Some(found) => before.len().saturating_add(found),
            None => before.iter().position(free)?,
        };
        *self.used.get_mut(slot)? = true;
        self.next = slot.saturating_add(1);
        u32::try_from(slot).ok()?.checked_mul(self.stride)?.checked_add(self.base)
    }

    /// Takes this id, of a VM that an earlier spawn started. False when it is in use: no two VMs share one. An id that is
    /// not among these is handed out to nobody anyway.
    pub fn reserve(&mut self, uid: u32) -> bool {
        let Some(slot) = self.slot(uid) else { return true };
        self.next = self.next.max(slot.saturating_add(1));
        self.used.get_mut(slot).is_some_and(|used| !std::mem::replace(used, true))
    }

    /// Gives an id back, once its last process is gone.
    pub fn free(&mut self, uid: u32) {
        if let Some(used) = self.slot(uid).and_then(|slot| self.used.get_mut(slot)) {
            *used = false;
        }
    }

    fn slot(&self, uid: u32) -> Option<usize> {
        let slot = uid.checked_sub(self.base)?.checked_div(self.stride)?;
        usize::try_from(slot).ok().filter(|slot| *slot < self.used.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Uids;

    #[test]
    fn never_hands_out_an_id_that_is_in_use() {
        let mut uids = Uids::new(2_000_000, 3, 1);
        assert_eq!(uids.take(), Some(2_000_000));
        assert_eq!(uids.take(), Some(2_000_001));
        uids.free(2_000_000);
        assert_eq!(uids.take(), Some(2_000_002), "a freed id comes back last");
        assert_eq!(uids.take(), Some(2_000_000));
        assert_eq!(uids.take(), None);
        uids.free(2_000_001);
        assert_eq!(uids.take(), Some(2_000_001));
        assert_eq!(uids.take(), None);
    }

    #[test]
    fn takes_ids_that_are_in_use_over() {
        let mut uids = Uids::new(10, 3, 1);
        assert!(uids.reserve(11));
        assert!(!uids.reserve(11), "of two VMs");
        assert!(uids.reserve(99) && uids.reserve(9), "of another range");
        assert_eq!(uids.take(), Some(12), "the ids before it were in use lately");
        assert_eq!(uids.take(), Some(10));
        assert_eq!(uids.take(), None);
        uids.free(11);
        assert_eq!(uids.take(), Some(11));
    }

    #[test]
    fn hands_out_whole_ranges() {
        let mut ranges = Uids::new(1000, 2, 100);
        assert_eq!(ranges.take(), Some(1000));
        assert!(!ranges.reserve(1099), "an id of a range that is in use");
        assert!(ranges.reserve(1100) && ranges.reserve(1200), "of one that is free, and of none");
        assert_eq!(ranges.take(), None);
        ranges.free(1100);
        assert_eq!(ranges.take(), Some(1100));
    }

    #[test]
    fn ignores_ids_that_are_not_its_own() {
        let mut uids = Uids::new(10, 1, 1);
        assert_eq!(uids.take(), Some(10));
        for foreign in [0, 9, 11, u32::MAX] {
            uids.free(foreign);
        }
        assert_eq!(uids.take(), None);
    }
}
