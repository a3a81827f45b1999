use super::*;

const OWN: PeerSettings = PeerSettings {
    producers_max: 100,
    election_timeout_us_min: 300_000,
    has_leases: false,
};

const WITH_LEASES: PeerSettings = PeerSettings {
    has_leases: true,
    ..OWN
};

fn refusal(own: PeerSettings, other: PeerSettings) -> String {
    let (code, text) = Judge::new(own).judge(7, Some(&other)).unwrap_err();
    assert_eq!(code, ErrorCode::SettingsDiffer);
    text
}

#[test]
fn what_is_alike_or_not_said_comes_in() {
    for own in [OWN, WITH_LEASES] {
        let judge = Judge::new(own);
        judge.judge(7, Some(&own)).unwrap();
        judge.judge(7, None).unwrap();
        assert!(judge.told.borrow().is_empty());
    }
}

#[test]
fn another_number_of_producers_is_refused_with_both_values() {
    for own in [OWN, WITH_LEASES] {
        let other = PeerSettings {
            producers_max: 99,
            ..own
        };
        let text = refusal(own, other);
        let expected = "limits.producers_max is 100 here and 99 on node 7: ";
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn with_leases_everything_they_stand_on_must_be_alike() {
    let text = refusal(WITH_LEASES, OWN);
    let expected = "raft.lease_drift_ppm is set here and not set on node 7: ";
    assert!(text.starts_with(expected), "{text}");
    let text = refusal(OWN, WITH_LEASES);
    let expected = "raft.lease_drift_ppm is not set here and set on node 7: ";
    assert!(text.starts_with(expected), "{text}");
    let other = PeerSettings {
        election_timeout_us_min: 299_000,
        ..WITH_LEASES
    };
    let text = refusal(WITH_LEASES, other);
    let expected = "raft.election_timeout_min is 300ms here and 299ms on node 7: ";
    assert!(text.starts_with(expected), "{text}");
}

/// It may be changed on one node after the other; once for each value it is told.
#[test]
fn without_leases_another_election_timeout_is_told_and_comes_in() {
    let judge = Judge::new(OWN);
    let mut texts = Vec::new();
    for election_timeout_us_min in [200_000, 200_000, 400_000, 300_000] {
        let other = PeerSettings {
            election_timeout_us_min,
            ..OWN
        };
        judge.judge(7, Some(&other)).unwrap();
        texts.push(judge.told.borrow().get(&7).cloned());
    }
    let told = |ms| {
        Some(format!(
            "raft.election_timeout_min is 300ms here and {ms}ms on node 7: \
             the one that waits less campaigns more often"
        ))
    };
    assert_eq!(texts, [told(200), told(200), told(400), None]);
}
