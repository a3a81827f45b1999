//! Which stage shows a delay, and what the figures are of.

use super::*;

const MS: u64 = 1_000;
const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn view(next_index: u64, state: ProgressState) -> ProgressView {
    ProgressView {
        peer: PEER,
        match_index: 0,
        next_index,
        state,
        in_flight_messages: 0,
        in_flight_bytes: 0,
        window_bytes: 0,
        last_active_us: 0,
        is_departing: false,
    }
}

fn stage(latency: &Latency, name: &str, peer: u64) -> StageLatency {
    let told = latency.told(1, 0).stages;
    let found = told
        .into_iter()
        .find(|told| (told.stage.as_str(), told.peer) == (name, peer));
    found.unwrap_or_default()
}

/// Half the entries of a stage took about so long.
#[track_caller]
fn assert_took(latency: &Latency, (name, peer): (&str, u64), us: u64, entries: u64) {
    let found = stage(latency, name, peer);
    assert_eq!(found.entries, entries, "{name}");
    assert!(found.us_p50.abs_diff(us) <= us / 100, "{name}: {found:?}");
}

/// Entries 1 to 10, of which every stage takes another time.
fn one_turn_of_ten(latency: &mut Latency) {
    latency.sent(0, [view(1, ProgressState::Replicate)].into_iter());
    latency.begin_turn(3 * MS);
    latency.appended((MS, 3 * MS, 4 * MS), 11, true);
    latency.sent(5 * MS, [view(11, ProgressState::Replicate)].into_iter());
    latency.submitted(6 * MS, 11);
    latency.acknowledged(25 * MS, PEER, 10, 13 * MS);
    latency.committed(25 * MS, PEER, 11);
    latency.answered(25 * MS, 28 * MS);
    latency.durable(46 * MS, 10);
    latency.committed(46 * MS, OWN, 11);
}

#[test]
fn every_stage_has_its_own_time() {
    let mut latency = Latency::new(0, 1);
    one_turn_of_ten(&mut latency);
    let expected = [
        ("queue", 0, 2 * MS),
        ("encode", 0, MS / 10),
        ("write", 0, 2 * MS),
        ("flush", 0, 40 * MS),
        ("peer wire", 2, 7 * MS),
        ("peer flush", 2, 13 * MS),
        ("peer ack", 2, 20 * MS),
        ("commit", 0, 21 * MS),
        ("answer", 0, 3 * MS),
    ];
    for (name, peer, us) in expected {
        assert_took(&latency, (name, peer), us, 10);
    }
    let names: Vec<String> = latency
        .told(1, 0)
        .stages
        .into_iter()
        .map(|it| it.stage)
        .collect();
    assert_eq!(
        names,
        expected.map(|(name, _, _)| name),
        "in the order of the way"
    );
    let closed = QuorumsClosed {
        node_id: PEER.0,
        entries: 10,
    };
    assert_eq!(latency.told(1, 0).closed, [closed]);
    assert_eq!(latency.residence_us(), 42 * MS);
}

#[test]
fn a_follower_tells_of_its_disk_only() {
    let mut latency = Latency::new(0, 1);
    latency.appended((0, MS, MS), 6, false);
    latency.submitted(MS, 4);
    latency.durable(3 * MS, 3);
    assert_eq!(latency.residence_us(), 2 * MS);
    latency.submitted(3 * MS, 6);
    // What came second waited for its turn.
    assert_eq!(stage(&latency, "write", 0).us_max / 100, 2 * MS / 100);
    latency.durable(5 * MS, 5);
    assert_eq!(latency.residence_us(), 4 * MS);
    let told: Vec<(String, u64)> = latency
        .told(2, 0)
        .stages
        .into_iter()
        .map(|it| (it.stage, it.entries))
        .collect();
    assert_eq!(told, [("write".to_owned(), 5), ("flush".to_owned(), 5)]);
    assert_eq!(latency.told(2, 0).closed, []);
}

#[test]
fn what_was_sent_and_lost_is_measured_from_when_it_is_sent_again() {
    let mut latency = Latency::new(0, 1);
    latency.sent(0, [view(1, ProgressState::Replicate)].into_iter());
    latency.sent(MS, [view(11, ProgressState::Replicate)].into_iter());
    latency.sent(50 * MS, [view(5, ProgressState::Probe)].into_iter());
    latency.sent(60 * MS, [view(5, ProgressState::Replicate)].into_iter());
    latency.sent(70 * MS, [view(11, ProgressState::Replicate)].into_iter());
    latency.acknowledged(75 * MS, PEER, 10, 90 * MS);
    // The six that were sent again, and no flush that is longer than the whole.
    assert_took(&latency, ("peer ack", 2), 5 * MS, 6);
    assert_took(&latency, ("peer flush", 2), 5 * MS, 6);
    assert_eq!(stage(&latency, "peer wire", 2).us_max, 0);
    latency.sent(80 * MS, [view(13, ProgressState::Replicate)].into_iter());
    latency.lead_lost();
    latency.acknowledged(99 * MS, PEER, 12, 0);
    assert_eq!(stage(&latency, "peer ack", 2).entries, 6);
    // A node that is no peer is not listened to.
    latency.acknowledged(99 * MS, NodeId(9), 12, 0);
    assert_eq!(stage(&latency, "peer ack", 9).entries, 0);
}

#[test]
fn entries_that_waited_for_a_busy_disk_of_a_peer_were_not_on_the_wire() {
    let mut latency = Latency::new(0, 1);
    latency.sent(0, [view(1, ProgressState::Replicate)].into_iter());
    for index in 1..=3 {
        latency.sent(
            index * 10 * MS,
            [view(index + 1, ProgressState::Replicate)].into_iter(),
        );
    }
    // The last one took 20 ms there, of 22; the first two have waited for 10 and 20 ms more.
    latency.acknowledged(52 * MS, PEER, 3, 20 * MS);
    assert_took(&latency, ("peer wire", 2), 2 * MS, 3);
    assert_took(&latency, ("peer flush", 2), 30 * MS, 3);
    assert_took(&latency, ("peer ack", 2), 32 * MS, 3);
}

#[test]
fn entries_that_are_cut_off_or_replaced_are_not_counted() {
    let mut latency = Latency::new(0, 1);
    latency.appended((0, 0, MS), 11, false);
    latency.submitted(MS, 11);
    latency.appended((0, 0, 9 * MS), 6, false);
    assert!(latency.is_news(7) && !latency.is_news(6));
    latency.durable(10 * MS, 5);
    assert_took(&latency, ("flush", 0), 9 * MS, 5);
    latency.restart(1_000);
    latency.durable(11 * MS, 999);
    latency.submitted(11 * MS, 1_000);
    assert_eq!(stage(&latency, "flush", 0).entries, 5);
}

#[test]
fn figures_are_of_the_last_two_spans() {
    let mut latency = Latency::new(0, 1);
    one_turn_of_ten(&mut latency);
    latency.begin_turn(SPAN_US);
    assert_eq!(stage(&latency, "flush", 0).entries, 10);
    assert_eq!(latency.told(1, SPAN_US + 5).span_us, SPAN_US + 5);
    latency.begin_turn(2 * SPAN_US - 1);
    assert_eq!(stage(&latency, "peer ack", 2).entries, 10);
    assert_eq!(latency.peers.len(), 1);
    latency.begin_turn(2 * SPAN_US);
    assert_eq!(latency.told(1, 2 * SPAN_US).stages, []);
    assert_eq!(latency.told(1, 2 * SPAN_US).closed, []);
    assert_eq!(latency.told(1, 2 * SPAN_US).span_us, SPAN_US);
    assert!(latency.peers.is_empty(), "also what it took to keep them");
}
