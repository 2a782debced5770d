//! Token buckets: how many operations and bytes a device does for its guest in a time.
//!
//! Nothing here asks for the time: it is passed in, in nanoseconds of a clock that never goes back.
//! Levels are kept in billionths of a token, so that a refill of `r` tokens a second is `r` of them
//! a nanosecond: no remainder is ever lost, and the instant at which a request may go is exact. A
//! request that may not go yet is left in its queue; it is not tried again in steps (Cloud Hypervisor
//! documents a tenth of the configured rate for its pause of 100 ms), the device says when.

/// Billionths of a token, and nanoseconds of a second.
const SCALE: i128 = 1_000_000_000;

/// What a bucket holds, in tokens: operations or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSize {
    /// The most it holds; it starts full. At least 1 counts.
    pub capacity: u64,
    /// Given once on top, and used up first.
    pub burst: u64,
    /// Tokens that come back in a second. At least 1 counts.
    pub refill_per_second: u64,
}

/// One bucket.
#[derive(Clone, Debug)]
struct Bucket {
    /// Scaled.
    capacity: i128,
    /// Tokens a second, which is scaled tokens a nanosecond.
    refill: i128,
    /// Tokens.
    burst: u64,
    /// Scaled; below zero while a request larger than the bucket is paid off.
    level: i128,
    /// The instant that `level` is of.
    at: u64,
}

fn scaled(tokens: u64) -> i128 {
    i128::from(tokens).saturating_mul(SCALE)
}

impl Bucket {
    fn new(size: BucketSize) -> Self {
        let capacity = scaled(size.capacity.max(1));
        let refill = i128::from(size.refill_per_second.max(1));
        Self { capacity, refill, burst: size.burst, level: capacity, at: 0 }
    }

    /// Adds what came back since the last call. Time that goes back is time that stood still.
    fn refill(&mut self, now: u64) {
        let elapsed = i128::from(now.saturating_sub(self.at));
        let back = self.refill.saturating_mul(elapsed);
        self.level = self.level.saturating_add(back).min(self.capacity);
        self.at = self.at.max(now);
    }

    /// The first instant, not before that of the last refill, at which `count` tokens can be taken.
    /// More than the bucket ever holds can be taken when it is full.
    fn ready_at(&self, count: u64) -> u64 {
        let wanted = scaled(count.saturating_sub(self.burst)).min(self.capacity);
        let missing = wanted.saturating_sub(self.level).max(0);
        // Rounded up: a nanosecond earlier, a part of the last token is missing.
        let whole = missing.checked_div(self.refill).unwrap_or(i128::MAX);
        let part = i128::from(missing.checked_rem(self.refill) != Some(0));
        let wait = u64::try_from(whole.saturating_add(part)).unwrap_or(u64::MAX);
        self.at.saturating_add(wait)
    }

    fn spend(&mut self, count: u64) {
        let rest = count.saturating_sub(self.burst);
        self.burst = self.burst.saturating_sub(count);
        self.level = self.level.saturating_sub(scaled(rest));
    }
}

/// The limits of one device in one direction; a bucket that is absent limits nothing.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Rate {
    /// Full buckets of these sizes.
    #[must_use]
    pub fn new(operations: Option<BucketSize>, bytes: Option<BucketSize>) -> Self {
        Self { operations: operations.map(Bucket::new), bytes: bytes.map(Bucket::new) }
    }

    /// Takes one operation of `bytes` bytes out of both buckets, or out of neither.
    ///
    /// # Errors
    /// The instant, after `now`, from which the same operation may go.
    pub fn admit(&mut self, bytes: u64, now: u64) -> Result<(), u64> {
        self.ready(bytes, now)?;
        self.spend(bytes);
        Ok(())
    }

    /// Whether one operation of `bytes` bytes may go now; nothing is taken.
    ///
    /// # Errors
    /// The instant, after `now`, from which it may.
    pub fn ready(&mut self, bytes: u64, now: u64) -> Result<(), u64> {
        let mut ready = now;
        for (bucket, count) in [(&mut self.operations, 1), (&mut self.bytes, bytes)] {
            if let Some(bucket) = bucket {
                bucket.refill(now);
                ready = ready.max(bucket.ready_at(count));
            }
        }
        if ready > now { Err(ready) } else { Ok(()) }
    }

    /// Takes what [`Self::ready`] said is there.
    pub fn spend(&mut self, bytes: u64) {
        for (bucket, count) in [(&mut self.operations, 1), (&mut self.bytes, bytes)] {
            if let Some(bucket) = bucket {
                bucket.spend(count);
            }
        }
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
