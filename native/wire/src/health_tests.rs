#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that fails may panic"
)]

use super::*;

const HEALTH: Health<'_> = Health {
    state: State::Unhealthy,
    answer: Answer::Code(7),
    streak: 258,
    since_ns: 3,
    output: b"no\n",
};

#[test]
fn lays_health_out_as_documented() {
    let bytes = HEALTH.encode();
    assert_eq!(bytes, [2, 0, 7, 0, 2, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'n', b'o', b'\n']);
    assert_eq!(Health::parse(&bytes), Some(HEALTH));
    assert_eq!(Health::parse(&bytes[..15]), None);
    for answer in [Answer::Code(0), Answer::Signal(64), Answer::TimedOut, Answer::NotAsked] {
        let health = Health { answer, ..HEALTH };
        assert_eq!(Health::parse(&health.encode()), Some(health));
        assert_eq!(answer.is_right(), answer == Answer::Code(0));
    }
}

#[test]
fn refuses_numbers_that_mean_nothing() {
    for (at, wrong) in [(0, 3), (1, 4), (3, 1)] {
        let mut bytes = HEALTH.encode();
        bytes[at] = wrong;
        assert_eq!(Health::parse(&bytes), None, "byte {at} as {wrong}");
    }
    for [how, value] in [[1, 0], [1, 65], [2, 1], [3, 1]] {
        let mut bytes = HEALTH.encode();
        (bytes[1], bytes[2]) = (how, value);
        assert_eq!(Health::parse(&bytes), None, "{how} {value}");
    }
}

#[test]
fn keeps_the_end_of_long_output() {
    let output = [vec![b'a'; 10], vec![b'z'; OUTPUT_MAX]].concat();
    let bytes = Health { output: &output, ..HEALTH }.encode();
    assert_eq!(Health::parse(&bytes).unwrap().output, [b'z'; OUTPUT_MAX]);
    assert_eq!(Health::parse(&[bytes, vec![b'z']].concat()), None);
}

#[test]
fn allows_one_check_a_second_for_ever_and_no_flood() {
    let second = 1_000_000_000;
    let mut steady = Allowance::new(0);
    assert!((0..10_000).all(|tick| steady.spend(tick * second).is_some()));
    let mut flood = Allowance::new(0);
    assert_eq!((0..1000).filter(|_| flood.spend(5).is_some()).count(), 32);
    assert_eq!(flood.spend(second / 4), Some(()));
    assert_eq!(flood.spend(second / 4 + 1), None);
    let mut later = Allowance::new(0);
    assert_eq!((0..1000).filter(|_| later.spend(3600 * second).is_some()).count(), 32);
    // A clock that stands still or goes back earns nothing.
    assert_eq!(later.spend(0), None);
}
