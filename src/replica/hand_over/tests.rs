//! When a leader gives the lead away, and when it keeps it.

use super::*;

const MS: u64 = 1_000;
const S: u64 = 1_000_000;

/// A leader of three whose peers are both caught up.
struct Bench {
    now_us: u64,
    disk: DiskState,
    has_room: bool,
    own: HandOver,
    matched: [u64; 2],
}

impl Bench {
    /// The peers' flushes take these times.
    fn new(peers_us: [u64; 2]) -> Self {
        let mut bench = Self {
            now_us: 100 * S,
            disk: DiskState::default(),
            has_room: true,
            own: HandOver::default(),
            matched: [50, 50],
        };
        for (peer, flush_us) in (2..).zip(peers_us) {
            bench.report(peer, flush_us, 0, true);
        }
        bench.look();
        bench
    }

    fn report(&mut self, peer: u64, flush_us: u64, waits_us: u64, has_room: bool) {
        let report = DiskReport {
            flush_us,
            waits_us,
            has_room,
        };
        self.own.reported(NodeId(peer), report);
    }

    /// One turn of the node.
    fn look(&mut self) -> Option<HandOverOrder> {
        self.own.measured(self.now_us, self.disk, self.has_room);
        if !self.own.has_cause(self.now_us) {
            return None;
        }
        let peers = (2..).zip(self.matched);
        let candidates = peers.map(|(peer, match_index)| Candidate {
            peer: NodeId(peer),
            match_index,
        });
        self.own.order(self.now_us, candidates)
    }

    /// Flushes of this length, one after another, until the lead is to be handed over. How long that took.
    fn flushes(&mut self, us: u64, count: u64) -> Option<(u64, HandOverOrder)> {
        let began_us = self.now_us;
        for _ in 0..count {
            self.now_us += us;
            self.disk.flushes += 1;
            self.disk.flush_us_sum += us;
            if let Some(order) = self.look() {
                return Some((self.now_us - began_us, order));
            }
        }
        None
    }

    /// One flush hangs for so long; looked at every 50 ms, as a leader does.
    fn hangs(&mut self, us: u64) -> Option<(u64, HandOverOrder)> {
        let began_us = self.now_us;
        while self.now_us - began_us < us {
            self.now_us += 50 * MS;
            self.disk.waits_us = self.now_us - began_us;
            if let Some(order) = self.look() {
                return Some((self.now_us - began_us, order));
            }
        }
        None
    }
}

#[test]
fn slow_flushes_hand_over_within_a_second_and_to_the_faster_peer() {
    for us in [50 * MS, 100 * MS, 300 * MS] {
        let mut bench = Bench::new([90 * MS, 2 * MS]);
        assert_eq!(bench.flushes(MS, 100), None);
        let (after_us, order) = bench.flushes(us, 20).unwrap();
        assert!(after_us < S, "{us}: {after_us}");
        assert_eq!(order.to, NodeId(3));
        let expected = HandOverReason::Slow {
            own_us: us,
            peer_us: 2 * MS,
        };
        assert_eq!(order.reason, expected);
    }
}

#[test]
fn a_pause_of_the_disk_is_no_reason() {
    let mut bench = Bench::new([MS, MS]);
    for _ in 0..100 {
        assert_eq!(bench.flushes(400 * MS, 2), None);
        assert_eq!(bench.flushes(MS, 1), None);
    }
    // Three in a row, and too soon: they were under way together.
    bench.disk.flushes += 3;
    bench.disk.flush_us_sum += 3 * 60 * MS;
    bench.now_us += 60 * MS;
    assert_eq!(bench.look(), None);
}

#[test]
fn a_peer_whose_disk_is_as_slow_is_not_given_the_lead() {
    for peers_us in [[100 * MS, 100 * MS], [26 * MS, 30 * MS], [0, 0]] {
        let mut bench = Bench::new(peers_us);
        assert_eq!(bench.flushes(100 * MS, 100), None, "{peers_us:?}");
    }
    let mut bench = Bench::new([MS, MS]);
    bench.report(2, MS, 90 * MS, true);
    bench.report(3, MS, 0, false);
    assert_eq!(bench.flushes(100 * MS, 100), None);
    assert_eq!(bench.hangs(350 * MS), None);
    // What they say changes.
    bench.report(3, MS, 0, true);
    assert_eq!(bench.flushes(100 * MS, 100).unwrap().1.to, NodeId(3));
}

#[test]
fn flushes_below_the_floor_are_never_slow() {
    let mut bench = Bench::new([100, 100]);
    assert_eq!(bench.flushes(39 * MS, 1_000), None);
}

#[test]
fn a_flush_that_hangs_hands_over_within_a_second() {
    let mut bench = Bench::new([100 * MS, MS]);
    assert_eq!(bench.hangs(450 * MS), None);
    bench.disk.waits_us = 0;
    assert_eq!(bench.look(), None);
    let (after_us, order) = bench.hangs(10 * S).unwrap();
    assert!(after_us < S, "{after_us}");
    // Both do; the one that has more of the log is ready first.
    let waits_us = 500 * MS;
    assert_eq!(order.reason, HandOverReason::Hangs { waits_us });
    let mut bench = Bench::new([100 * MS, MS]);
    bench.matched = [51, 50];
    assert_eq!(bench.hangs(10 * S).unwrap().1.to, NodeId(2));
}

#[test]
fn a_full_disk_hands_over_within_a_second() {
    let mut bench = Bench::new([MS, MS]);
    bench.report(2, MS, 0, false);
    bench.has_room = false;
    assert_eq!(bench.look(), None);
    bench.now_us += 200 * MS;
    bench.has_room = true;
    assert_eq!(bench.look(), None);
    bench.has_room = false;
    assert_eq!(bench.look(), None);
    bench.now_us += 300 * MS;
    let order = bench.look().unwrap();
    assert_eq!((order.to, order.reason), (NodeId(3), HandOverReason::Full));
    // Peers that are full too are no better.
    let mut bench = Bench::new([MS, MS]);
    (2..4).for_each(|peer| bench.report(peer, MS, 0, false));
    bench.has_room = false;
    assert_eq!(bench.look(), None);
    bench.now_us += S;
    assert_eq!(bench.look(), None);
}

#[test]
fn the_lead_is_not_handed_on_again_for_a_minute() {
    let mut bench = Bench::new([MS, MS]);
    assert!(bench.flushes(100 * MS, 10).is_some());
    // It leads again, its disk as slow as before.
    bench.own.lead_lost(bench.now_us);
    let lost_us = bench.now_us;
    while bench.now_us < lost_us + SLOW_QUIET_US - S {
        (2..4).for_each(|peer| bench.report(peer, MS, 0, true));
        assert_eq!(bench.flushes(100 * MS, 5), None);
    }
    let (_, order) = bench.flushes(100 * MS, 20).unwrap();
    assert!(matches!(order.reason, HandOverReason::Slow { .. }));
    // A lead that was handed to this node is kept as long; a disk that hangs is another matter.
    let mut bench = Bench::new([MS, MS]);
    bench.own.lead_offered(bench.now_us);
    assert_eq!(bench.flushes(100 * MS, 500), None);
    assert!(bench.hangs(S).is_some());
    bench.own.lead_lost(bench.now_us);
    let lost_us = bench.now_us;
    (2..4).for_each(|peer| bench.report(peer, MS, 0, true));
    bench.disk.waits_us = 0;
    bench.flushes(MS, 1);
    assert_eq!(bench.hangs(STUCK_QUIET_US - S), None);
    bench.hangs(20 * S).unwrap();
    assert!(bench.now_us >= lost_us + STUCK_QUIET_US);
}

#[test]
fn a_hand_over_that_nobody_took_up_is_tried_again_after_a_while() {
    let mut bench = Bench::new([MS, MS]);
    let began_us = bench.now_us;
    let mut orders_us = Vec::new();
    for _ in 0..200 {
        bench.now_us += 50 * MS;
        bench.disk.waits_us = bench.now_us - began_us;
        orders_us.extend(bench.look().map(|_| bench.now_us));
    }
    assert!(orders_us.len() >= 4, "{orders_us:?}");
    assert!(
        orders_us
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= RETRY_US)
    );
}

#[test]
fn what_is_said_of_the_own_disk_is_the_median_of_the_last_flushes() {
    let mut bench = Bench::new([MS, MS]);
    assert_eq!(bench.own.report().flush_us, 0);
    bench.flushes(3 * MS, 1);
    assert_eq!(bench.own.report().flush_us, 3 * MS);
    bench.flushes(MS, 20);
    bench.flushes(200 * MS, 2);
    assert_eq!(bench.own.report().flush_us, MS);
    bench.disk.waits_us = 7;
    bench.look();
    assert_eq!(bench.own.report().waits_us, 7);
    assert!(bench.own.report().has_room);
}

#[test]
fn reasons_read_well() {
    let slow = HandOverReason::Slow {
        own_us: 104_300,
        peer_us: 1_250,
    };
    assert_eq!(
        slow.to_string(),
        "this node's disk is slow: flushes take 104 ms here and 1.2 ms there"
    );
    let hangs = HandOverReason::Hangs { waits_us: 512_000 };
    assert_eq!(
        hangs.to_string(),
        "this node's disk hangs: nothing has been flushed for 512 ms"
    );
}
