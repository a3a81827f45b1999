//! Snapshots that a follower cannot keep.

use super::snapshots::{caught_up, with_one_behind};

/// A follower that cannot keep a snapshot gets it seldom; what it would need does not stay for it; and once there is
/// room, it gets it.
#[test]
fn a_snapshot_that_cannot_be_kept_is_sent_ever_more_seldom() {
    let (mut cluster, leader, behind) = with_one_behind();
    let log = cluster
        .replicas
        .get_mut(&behind)
        .map(|(_, log)| log)
        .unwrap();
    log.refuses_snapshots = true;
    let mut begun = Vec::new();
    for _ in 0..4 {
        for _ in 0..1_200 {
            cluster.pass(50_000);
        }
        begun.push(cluster.replica(leader).sending.sessions_begun());
    }
    // In the first minute after 0, 1, 3, 7, 15 and 31 seconds, then once a minute.
    println!("sent by the end of each minute: {begun:?}");
    assert!((4..=7).contains(&begun[0]), "{begun:?}");
    assert!(
        begun[3] >= begun[0] + 2 && begun[3] <= begun[0] + 4,
        "{begun:?}"
    );
    let (id, pause_us) = cluster.replica(behind).snapshot_not_kept().unwrap();
    assert_eq!(pause_us, 60_000_000);
    assert!(cluster.log(behind).first_index == 1 && id.index > 1);
    let sending = &cluster.replica(leader).sending;
    assert_eq!(sending.lowest_index(), None, "nothing is kept for it");
    let log = cluster
        .replicas
        .get_mut(&behind)
        .map(|(_, log)| log)
        .unwrap();
    log.refuses_snapshots = false;
    for _ in 0..1_200 {
        cluster.pass(50_000);
    }
    caught_up(&mut cluster, behind);
    assert_eq!(cluster.replica(behind).snapshot_not_kept(), None);
    assert_eq!(
        cluster.replica(leader).sending.sessions_begun(),
        begun[3] + 1
    );
}
