//! A leader whose disk does badly: it commits through its peers, and hands the lead to one that can take it.

use super::*;

const MS: u64 = 1_000;

/// A disk whose flushes take 1 ms.
const GOOD: DiskReport = DiskReport {
    flush_us: MS,
    waits_us: 0,
    has_room: true,
};

/// Lets time pass without the flushes of `hung` completing; its peers say that their disks are good. Gives the
/// first hand-over that it begins.
fn pass_hung(cluster: &mut Cluster, hung: u64, steps: u64) -> Option<HandOverOrder> {
    for step in 1..=steps {
        cluster.now.mono_us += 10 * MS;
        let now = cluster.now;
        let ids: Vec<u64> = cluster.replicas.keys().copied().collect();
        for id in &ids {
            let (replica, log) = cluster.replicas.get_mut(id).unwrap();
            replica.tick(now, log).unwrap();
        }
        settle_but(cluster, hung);
        let (replica, log) = cluster.replicas.get_mut(&hung).unwrap();
        for id in ids.into_iter().filter(|id| *id != hung) {
            replica.on_disk_report(NodeId(id), GOOD);
        }
        let state = DiskState {
            waits_us: step * 10 * MS,
            ..DiskState::default()
        };
        if let Some(order) = replica.mind_disk(now, state, log).unwrap() {
            return Some(order);
        }
    }
    None
}

/// Carries out everything but the flushes of one node.
fn settle_but(cluster: &mut Cluster, hung: u64) {
    for _ in 0..20 {
        cluster.settle(false);
        let ids: Vec<u64> = cluster.replicas.keys().copied().collect();
        for id in ids.into_iter().filter(|id| *id != hung) {
            cluster.flush(id);
        }
    }
}

#[test]
fn a_leader_whose_disk_hangs_commits_through_its_peers_until_another_leads() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    cluster.append(old, 1, &batch(log, 0, 0, &[b"x"]));
    settle_but(&mut cluster, old);
    appended(cluster.answer(1));
    let durable = cluster.replica(old).raft().durable_index();
    assert!(durable < cluster.replica(old).applied_index());
    let order = pass_hung(&mut cluster, old, 100).unwrap();
    assert!(matches!(order.reason, HandOverReason::Hangs { waits_us } if waits_us < 1_000 * MS));
    settle_but(&mut cluster, old);
    assert!(cluster.replica(order.to.0).is_leader());
    cluster.append(order.to.0, 2, &batch(log, 0, 0, &[b"y"]));
    settle_but(&mut cluster, old);
    assert_eq!(appended(cluster.answer(2)).first_seq, 1);
    cluster.settle(true);
    cluster.check_agreement();
}

#[test]
fn a_peer_that_is_behind_or_silent_or_no_voter_does_not_get_the_lead() {
    let mut cluster = Cluster::new(5);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    let others: Vec<u64> = (1..=5).filter(|id| *id != old).collect();
    // One hears and gets no entries, one is cut off.
    cluster.starved = vec![others[0]];
    cluster.cut = vec![others[1]];
    cluster.fill(old, log, 3);
    (0..1_500).for_each(|_| cluster.pass(MS));
    let order = pass_hung(&mut cluster, old, 100).unwrap();
    assert!(others[2..].contains(&order.to.0), "{order:?}");
    // Nobody is left that could.
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    cluster.starved = vec![others[0]];
    cluster.fill(old, log, 3);
    cluster.cut = vec![others[1]];
    (0..1_500).for_each(|_| cluster.pass(MS));
    assert_eq!(pass_hung(&mut cluster, old, 60), None);
    assert!(cluster.replica(old).is_leader());
}

#[test]
fn a_leader_that_cannot_append_for_want_of_room_hands_over() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.log(old).disk_full = true;
    let mut orders = Vec::new();
    for _ in 0..100 {
        cluster.pass(10 * MS);
        let now = cluster.now;
        let (replica, log) = cluster.replicas.get_mut(&old).unwrap();
        (1..=3).for_each(|id| replica.on_disk_report(NodeId(id), GOOD));
        orders.extend(replica.mind_disk(now, DiskState::default(), log).unwrap());
        cluster.settle(true);
    }
    let reasons: Vec<HandOverReason> = orders.iter().map(|order| order.reason).collect();
    assert_eq!(reasons, [HandOverReason::Full]);
    let new = orders[0].to.0;
    assert!(cluster.replica(new).is_leader());
    assert!(!cluster.replica(old).disk_report().has_room);
}

#[test]
fn a_follower_counts_no_reports_and_hands_nothing_over() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    assert_eq!(pass_hung(&mut cluster, follower, 100), None);
    assert!(cluster.replica(leader).is_leader());
}
