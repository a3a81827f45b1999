//! Members for tests of what is made of them.

use std::time::Duration;

use drave_client::{Member, MemberRole, Members};

/// Members by a letter each, ids from 1: `v` voter, `s` silent voter, `l` learner, `o` only in the outgoing
/// half, `b` voter in both halves, `-` one that left.
pub(super) fn members(letters: &str) -> Members {
    let mut members = Members::default();
    members.leader_id = 1;
    members.term = 5;
    members.commit_index = 1_000;
    members.configuration_index = 12;
    members.is_committed = true;
    members.node_id_max = letters.len() as u64;
    for (node_id, letter) in (1..).zip(letters.chars()) {
        if letter == '-' {
            continue;
        }
        let mut member = Member::default();
        member.node_id = node_id;
        member.address = format!("10.0.0.{node_id}:4436");
        member.role = match letter {
            'v' | 's' | 'b' => Some(MemberRole::Voter),
            'l' => Some(MemberRole::Learner),
            _ => None,
        };
        member.outgoing_voter = matches!(letter, 'o' | 'b');
        member.last_active = (letter != 's').then_some(Duration::from_millis(12));
        member.match_index = 1_000;
        member.is_caught_up = true;
        members.members.push(member);
    }
    members
}
