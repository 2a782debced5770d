use super::*;

#[test]
fn every_list_compiles_and_gives_its_own_digest() {
    let digests = [Kind::Control, Kind::Io, Kind::Vcpu]
        .map(|kind| compile(kind).map(|filter| filter.digest.to_string()).unwrap_or_default());
    assert!(digests.iter().all(|digest| digest.len() == 71), "{digests:?}");
    assert_ne!(digests[0], digests[1]);
    assert_ne!(digests[1], digests[2]);
}

#[test]
fn lists_stay_within_their_targets_and_say_why() {
    let distinct = |kind: Kind| {
        kind.list().iter().map(|allow| allow.call).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!(distinct(Kind::Vcpu) <= 15);
    assert!(distinct(Kind::Io) <= 25);
    assert!(distinct(Kind::Control) <= 25);
    for kind in [Kind::Control, Kind::Io, Kind::Vcpu] {
        assert!(kind.list().iter().all(|allow| !allow.why.is_empty()));
    }
}

/// What no thread may ever do after the start, by name.
#[test]
fn no_list_allows_what_a_taken_over_vmm_would_want() {
    let forbidden = start::LIST.iter().filter(|deny| deny.when.is_empty());
    for deny in forbidden.chain(&[
        Allow { call: libc::SYS_clone, when: &[], why: "" },
        Allow { call: libc::SYS_clone3, when: &[], why: "" },
        Allow { call: libc::SYS_mprotect, when: &[], why: "" },
    ]) {
        for kind in [Kind::Control, Kind::Io, Kind::Vcpu] {
            assert!(
                kind.list().iter().all(|allow| allow.call != deny.call),
                "{kind:?} allows system call {}",
                deny.call
            );
        }
    }
}
