#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use super::*;

const SECOND: u64 = 1_000_000_000;

/// xorshift64*, with a seed of its own for every run of a model.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }
}

fn bytes(capacity: u64, burst: u64, refill_per_second: u64) -> Rate {
    Rate::new(None, Some(BucketSize { capacity, burst, refill_per_second }))
}

/// What a bucket must do, said in another way: time is cut into ticks in each of which one scaled
/// token comes back for each token a second, and every tick is walked.
struct Model {
    capacity: i128,
    refill: i128,
    burst: u64,
    level: i128,
    now: u64,
}

impl Model {
    fn walk_to(&mut self, now: u64) {
        while self.now < now {
            self.now += 1;
            self.level = (self.level + self.refill).min(self.capacity);
        }
    }

    fn may(&self, count: u64) -> bool {
        let rest = i128::from(count.saturating_sub(self.burst)) * SCALE;
        self.level >= rest || (self.level == self.capacity && rest > self.capacity)
    }

    fn spend(&mut self, count: u64) {
        self.level -= i128::from(count.saturating_sub(self.burst)) * SCALE;
        self.burst = self.burst.saturating_sub(count);
    }
}

/// Against the model: the same answers, and the instant that is named is the first one.
#[test]
fn agrees_with_a_model_that_walks_every_nanosecond() {
    for seed in 1..400 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        // Tokens so fast that all happens within a few hundred nanoseconds, and odd remainders.
        let size = BucketSize {
            capacity: 1 + random.below(9),
            burst: random.below(3) * random.below(9),
            refill_per_second: 1 + random.below(SECOND / 3),
        };
        let mut rate = Rate::new(None, Some(size));
        let mut model = Model {
            capacity: scaled(size.capacity),
            refill: size.refill_per_second.into(),
            burst: size.burst,
            level: scaled(size.capacity),
            now: 0,
        };
        for _ in 0..40 {
            let count = random.below(14);
            let now = model.now + random.below(40);
            model.walk_to(now);
            match rate.admit(count, now) {
                Ok(()) => {
                    assert!(model.may(count), "seed {seed}: {size:?} gave {count} too early");
                    model.spend(count);
                }
                Err(ready) => {
                    assert!(!model.may(count), "seed {seed}: {size:?} kept {count} back");
                    if ready - now > 100_000 {
                        continue;
                    }
                    model.walk_to(ready - 1);
                    assert!(!model.may(count), "seed {seed}: {size:?} could give {count} earlier");
                    model.walk_to(ready);
                    assert_eq!(rate.admit(count, ready), Ok(()), "seed {seed}: {size:?}");
                    model.spend(count);
                }
            }
        }
    }
}

/// However requests are cut: what goes in a time is at most what was there and what came back, and
/// a guest that always wants more gets all of that but the last request.
#[test]
fn keeps_the_rate_over_any_requests() {
    for seed in 1..200 {
        let mut random = Random(0xd134_2543_de82_ef95_u64.wrapping_mul(seed));
        let refill = 1 + random.below(1 << 33);
        let capacity = 1 + random.below(1 << 20);
        let burst = random.below(1 << 20);
        let mut rate = bytes(capacity, burst, refill);
        let (mut now, mut gone, mut largest) = (random.below(SECOND), 0_u128, 0);
        let start = now;
        // A full bucket takes nothing more, not even the rest of the nanosecond that filled it.
        let spilt = u128::from(refill.div_ceil(SECOND));
        for request in 0..2000 {
            let count = 1 + random.below(capacity * 2);
            largest = largest.max(count);
            if let Err(ready) = rate.admit(count, now) {
                assert!(ready > now);
                now = ready;
                assert_eq!(rate.admit(count, now), Ok(()));
            }
            gone += u128::from(count);
            let back = u128::from(refill) * u128::from(now - start) / u128::from(SECOND);
            let there = u128::from(capacity) + u128::from(burst) + back;
            // A request larger than the bucket goes when the bucket is full, and is owed.
            let owed = u128::from(largest.saturating_sub(capacity));
            assert!(gone <= there + owed, "seed {seed}: {gone} of {there}");
            let least = gone + u128::from(largest + capacity) + spilt * request;
            assert!(least >= back, "seed {seed}: {gone} where {back} came back");
        }
    }
}

/// One token every third of a second, for years: not one nanosecond is lost to rounding.
#[test]
fn remainders_are_kept_for_ever() {
    // Room for two, so that what comes back between a whole token and its nanosecond has a place.
    let mut rate = bytes(2, 0, 3);
    let mut now = 0;
    assert_eq!(rate.admit(2, now), Ok(()));
    for token in 1..=30_000_u64 {
        now = rate.admit(1, now).unwrap_err();
        assert_eq!(now, (token * SECOND).div_ceil(3));
        assert_eq!(rate.admit(1, now - 1), Err(now));
        assert_eq!(rate.admit(1, now), Ok(()));
    }
}

#[test]
fn a_request_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_off() {
    let mut rate = bytes(10, 0, 10);
    assert_eq!(rate.admit(1, 0), Ok(()));
    // Nine are left: it waits until ten are there, not until it could be paid for.
    assert_eq!(rate.admit(35, 0), Err(SECOND / 10));
    assert_eq!(rate.admit(35, SECOND / 10), Ok(()));
    // 25 are owed. One byte has to wait for 26, and none at all need not.
    assert_eq!(rate.admit(1, SECOND / 10), Err(SECOND / 10 + SECOND * 26 / 10));
    assert_eq!(rate.admit(0, SECOND / 10), Err(SECOND / 10 + SECOND * 25 / 10));
}

#[test]
fn the_burst_is_given_once_and_first() {
    let mut rate = bytes(10, 100, 10);
    assert_eq!(rate.admit(95, 0), Ok(()));
    // Five of the burst and ten of the bucket.
    assert_eq!(rate.admit(15, 0), Ok(()));
    assert_eq!(rate.admit(1, 0), Err(SECOND / 10));
    assert_eq!(rate.admit(10, 3600 * SECOND), Ok(()));
    assert_eq!(rate.admit(1, 3600 * SECOND), Err(3600 * SECOND + SECOND / 10));
}

/// The slower bucket decides, and what waits for one takes nothing from the other.
#[test]
fn operations_and_bytes_are_taken_together_or_not_at_all() {
    let size = |capacity, refill_per_second| BucketSize { capacity, burst: 0, refill_per_second };
    let mut rate = Rate::new(Some(size(2, 1)), Some(size(100, 50)));
    assert_eq!(rate.admit(100, 0), Ok(()));
    for _ in 0..9 {
        assert_eq!(rate.admit(25, 0), Err(SECOND / 2));
    }
    assert_eq!(rate.admit(25, SECOND / 2), Ok(()));
    assert_eq!(rate.admit(0, SECOND / 2), Err(SECOND), "operations are the slower ones now");
    assert_eq!(Rate::default().admit(u64::MAX, 0), Ok(()));
}

#[test]
fn numbers_at_their_ends_neither_wrap_nor_stop_it() {
    for refill in [0, 1, SECOND - 1, u64::MAX] {
        let mut rate = bytes(0, 0, refill);
        assert_eq!(rate.admit(u64::MAX, 0), Ok(()));
        let ready = rate.admit(1, 0).unwrap_err();
        assert!(ready > 0);
        assert_eq!(rate.admit(1, ready), Ok(()), "{refill}");
    }
    let mut rate = bytes(u64::MAX, u64::MAX, u64::MAX);
    assert_eq!([rate.admit(u64::MAX, 0), rate.admit(u64::MAX, 0)], [Ok(()), Ok(())]);
    // A clock that goes back gives nothing and takes nothing.
    let mut rate = bytes(1, 0, 1);
    assert_eq!(rate.admit(1, 5 * SECOND), Ok(()));
    assert_eq!(rate.admit(1, 0), Err(6 * SECOND));
    assert_eq!(rate.admit(1, 6 * SECOND), Ok(()));
}
