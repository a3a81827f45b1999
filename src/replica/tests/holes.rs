//! What was found that no test would notice, and is noticed now.

use super::*;

#[test]
fn an_append_with_the_wrong_group_is_refused() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let follower = 3 - leader;
    let last = cluster.replica(leader).raft().last();
    let header = BatchHeader {
        index: last.index + 1,
        term: last.term,
        group_id: 7,
        prev_crc: cluster.log(leader).last_crc(),
        ..BatchHeader::new(EntryKind::Noop, &[], 0)
    };
    let mut payload = Vec::new();
    header.encode_with_body(&[], &mut payload);
    let message = wire::AppendEntries {
        term: last.term,
        prev_term: last.term,
        prev_index: last.index,
        commit_index: 0,
        session: 1,
        batch_count: 1,
    };
    let now = cluster.now;
    let (replica, log) = cluster.replicas.get_mut(&follower).unwrap();
    let taken = replica
        .on_append_entries(now, NodeId(leader), &message, &payload, log)
        .unwrap();
    let AppendTaken::Invalid(AppendProblem::Group {
        expected, found, ..
    }) = taken
    else {
        panic!("{taken:?}")
    };
    assert_eq!((expected, found), (0, 7));
}
