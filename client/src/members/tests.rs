use drave_batch::control::Member as WireMember;
use drave_batch::wire::MemberStatus;

use super::*;

/// Members by a word each: `v` voter, `l` learner, `o` only in the outgoing half, `b` voter in both halves.
fn members(words: &str) -> Members {
    let statuses = (1..)
        .zip(words.chars())
        .map(|(node_id, word)| MemberStatus {
            member: WireMember {
                node_id,
                role: match word {
                    'v' | 'b' => Some(MemberRole::Voter),
                    'l' => Some(MemberRole::Learner),
                    _ => None,
                },
                outgoing_voter: matches!(word, 'o' | 'b'),
                incarnation: 0,
                address: format!("n{node_id}:1"),
            },
            match_index: 0,
            lag_entries: 0,
            last_active_ms: if node_id == 2 { u64::MAX } else { 3 },
            is_caught_up: false,
        });
    let listed = MemberListed {
        node_id_max: words.len() as u64,
        is_committed: true,
        members: statuses.collect(),
        ..MemberListed::default()
    };
    Members::checked("a:1", listed).unwrap()
}

#[test]
fn tolerance_is_what_the_weaker_majority_can_spare() {
    let none_failed = |words: &str| members(words).failures_tolerated(|_| false);
    for (words, expected) in [
        ("", None),
        ("l", None),
        ("v", Some(0)),
        ("vv", Some(0)),
        ("vvv", Some(1)),
        ("vvvl", Some(1)),
        ("vvvv", Some(1)),
        ("vvvvv", Some(2)),
        // Three to three with one exchanged, and three to one.
        ("bbov", Some(1)),
        ("boo", Some(0)),
        // One to three: the outgoing half alone has nobody to spare.
        ("bvv", Some(0)),
    ] {
        assert_eq!(none_failed(words), expected, "{words:?}");
    }
    let failed = |words: &str, ids: &[u64]| {
        members(words).failures_tolerated(|member| ids.contains(&member.node_id))
    };
    assert_eq!(failed("vvv", &[2]), Some(0));
    assert_eq!(failed("vvv", &[2, 3]), None);
    assert_eq!(
        failed("vvvl", &[4]),
        Some(1),
        "a learner's failure costs nothing"
    );
    assert_eq!(failed("vvvvv", &[1]), Some(1));
    assert_eq!(failed("bbov", &[3]), Some(0));
    assert_eq!(
        failed("bbov", &[1, 3]),
        None,
        "the outgoing half has lost its majority"
    );
}

#[test]
fn a_list_tells_what_is_going_on() {
    let listed = members("bbov");
    assert!(listed.is_joint() && listed.is_changing());
    assert_eq!(listed.member(3).unwrap().role, None);
    assert_eq!(listed.member(2).unwrap().last_active, None);
    let last_active = listed.member(1).unwrap().last_active;
    assert_eq!(last_active, Some(Duration::from_millis(3)));
    assert!(listed.member(9).is_none());
    assert!(!members("vvv").is_changing());
}

#[test]
fn a_list_out_of_order_or_with_impossible_ids_is_refused() {
    let listed = |ids: &[u64], node_id_max: u64| MemberListed {
        node_id_max,
        members: ids
            .iter()
            .map(|node_id| MemberStatus {
                member: WireMember {
                    node_id: *node_id,
                    role: None,
                    outgoing_voter: false,
                    incarnation: 0,
                    address: String::new(),
                },
                match_index: 0,
                lag_entries: 0,
                last_active_ms: 0,
                is_caught_up: false,
            })
            .collect(),
        ..MemberListed::default()
    };
    assert!(Members::checked("a:1", listed(&[1, 3, u64::MAX], u64::MAX)).is_ok());
    for (ids, node_id_max) in [
        (&[0][..], 9),
        (&[2, 1], 9),
        (&[2, 2], 9),
        (&[10], 9),
        (&[u64::MAX, u64::MAX], u64::MAX),
    ] {
        let error = Members::checked("a:1", listed(ids, node_id_max)).unwrap_err();
        assert!(matches!(error, ClientError::Misbehaved { .. }), "{ids:?}");
    }
}
