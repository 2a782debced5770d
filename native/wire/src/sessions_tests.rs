#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const KINDS: [GuestKind; 6] = [
    GuestKind::Started,
    GuestKind::Stdout,
    GuestKind::Stderr,
    GuestKind::Credit,
    GuestKind::Exit,
    GuestKind::Error,
];

proptest! {
    /// Against a map of number to "has started".
    #[test]
    fn follows_each_session_by_itself(steps in vec((0..=6_usize, 1..24_u16), 0..200)) {
        let mut sessions = Sessions::default();
        let mut model = BTreeMap::new();
        for (step, number) in steps {
            let known = model.get(&number).copied();
            let Some(kind) = KINDS.get(step) else {
                let fits = known.is_none() && model.len() < SESSIONS_MAX;
                prop_assert_eq!(sessions.may_open(number), fits);
                prop_assert_eq!(sessions.open(number, number).is_ok(), fits);
                if fits {
                    model.insert(number, false);
                }
                continue;
            };
            let answer = sessions.guest(number, *kind);
            let expected = match (known, kind) {
                (Some(false), GuestKind::Started) => {
                    model.insert(number, true);
                    Some(None)
                }
                (Some(true), GuestKind::Exit) | (Some(false), GuestKind::Error) => {
                    model.remove(&number);
                    Some(Some(number))
                }
                (Some(true), GuestKind::Stdout | GuestKind::Stderr | GuestKind::Credit) => Some(None),
                _ => None,
            };
            prop_assert_eq!(answer.ok(), expected);
            prop_assert_eq!(sessions.iter().count(), model.len());
        }
    }
}

#[test]
fn no_frame_but_those_of_a_session_is_one() {
    let mut sessions = Sessions::default();
    sessions.open(7, ()).unwrap();
    for kind in [GuestKind::Hello, GuestKind::UniqueDone, GuestKind::Resized] {
        assert!(matches!(sessions.guest(7, kind), Err(SessionError::Turn { session: 7, .. })));
    }
    sessions.clear();
    assert!(matches!(
        sessions.guest(7, GuestKind::Started),
        Err(SessionError::NotOpen { session: 7, .. })
    ));
}
