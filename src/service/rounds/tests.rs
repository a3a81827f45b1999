use super::*;

const FULL: usize = CLIENT_QUEUE_BYTES_HIGH + 1;

fn outgoing(queued_bytes: usize, written_bytes: u64) -> Outgoing {
    Outgoing {
        queued_bytes,
        written_bytes,
    }
}

fn slices(lo: u64) -> Result<Slices, ReadError> {
    Ok(Slices {
        lo,
        hi: lo + 1,
        bytes: 0,
        pieces: Vec::new(),
    })
}

fn drain(rounds: &mut Rounds) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| rounds.next()).collect()
}

#[test]
fn a_client_with_thousands_of_scans_takes_every_second_turn_and_no_more() {
    let mut rounds = Rounds::default();
    for key in 0..8_000 {
        rounds.push(7, key);
    }
    rounds.push(8, 8_000);
    let (mut waited, mut served) = (0, 0);
    while let Some((connection, key)) = rounds.next() {
        served += 1;
        if connection == 8 {
            // It asks for more each time, as a scan through a long log does.
            assert!(waited <= 1, "one turn of the other client lies between");
            waited = 0;
            if served < 200 {
                rounds.push(8, key);
            }
        } else {
            waited += 1;
        }
        if served == 200 {
            break;
        }
    }
    assert_eq!(served, 200);
}

#[test]
fn a_turn_ends_with_its_time_or_its_steps() {
    let mut budget = Budget::start();
    let soon = Instant::now();
    let steps = (1..).take_while(|_| budget.spend(soon)).count();
    assert_eq!(steps as u32, TURN_STEPS_MAX - 1);
    let mut budget = Budget::start();
    assert!(!budget.spend(Instant::now() + TURN_TIME_MAX));
}

#[test]
fn a_client_that_takes_bytes_is_never_given_up() {
    let mut rounds = Rounds::default();
    rounds.stall(1, FIRST_READ_KEY, 0, outgoing(FULL, 0));
    let mut now_us = 0;
    // For an hour it takes a byte in each 59 seconds, and its queue stays full.
    for written_bytes in 1..=60 {
        now_us += STALL_US_MAX - 1_000_000;
        assert!(
            rounds
                .begin_turn(now_us, |_| outgoing(FULL, written_bytes))
                .is_empty()
        );
        assert!(!rounds.has_work());
    }
    // Then it takes no more.
    let given_up = rounds.begin_turn(now_us + STALL_US_MAX, |_| outgoing(FULL, 60));
    assert!(given_up.is_empty(), "the limit is not over yet");
    let given_up = rounds.begin_turn(now_us + STALL_US_MAX + 1, |_| outgoing(FULL, 60));
    assert_eq!(given_up, [1]);
}

#[test]
fn a_stall_begins_anew_when_the_client_has_read() {
    let mut rounds = Rounds::default();
    rounds.stall(1, FIRST_READ_KEY, 0, outgoing(FULL, 5));
    let late_us = STALL_US_MAX - 1;
    assert!(rounds.begin_turn(late_us, |_| outgoing(0, 5)).is_empty());
    assert_eq!(drain(&mut rounds), [(1, FIRST_READ_KEY)]);
    rounds.stall(1, FIRST_READ_KEY, late_us, outgoing(FULL, 5));
    let later_us = late_us + STALL_US_MAX;
    assert!(
        rounds
            .begin_turn(later_us, |_| outgoing(FULL, 5))
            .is_empty()
    );
}

#[test]
fn a_tail_that_is_not_read_stops_only_itself() {
    let mut rounds = Rounds::default();
    rounds.stall(1, FIRST_TAIL_KEY, 0, outgoing(FULL, 0));
    let given_up = rounds.begin_turn(1 << 50, |_| outgoing(FULL, 0));
    assert!(given_up.is_empty());
}

#[test]
fn the_helper_is_given_a_bounded_number_of_reads() {
    let mut rounds = Rounds::default();
    for key in 0..COLD_READS_MAX as u64 {
        assert!(rounds.has_room_for_cold());
        rounds.submitted(1, key);
    }
    assert!(!rounds.has_room_for_cold());
    rounds.defer(1, 100);
    rounds.begin_turn(0, |_| outgoing(0, 0));
    assert_eq!(drain(&mut rounds), [], "it waits for room");
    // A read that has finished counts until its scan has looked at it.
    rounds.on_cold(0, slices(5));
    assert!(!rounds.has_room_for_cold());
    assert_eq!(rounds.next(), Some((1, 0)));
    assert_eq!(rounds.take_arrived(0).unwrap().unwrap().lo, 5);
    assert_eq!(rounds.next(), Some((1, 100)));
    // A helper that is full, of whose reads ever, is asked once in a turn.
    rounds.defer(1, 100);
    assert_eq!(rounds.next(), None);
    rounds.begin_turn(0, |_| outgoing(0, 0));
    assert_eq!(rounds.next(), Some((1, 100)));
}

#[test]
fn what_is_forgotten_never_comes_back() {
    let mut rounds = Rounds::default();
    rounds.push(1, 0);
    rounds.push(1, 2);
    rounds.defer(1, 4);
    rounds.submitted(1, 6);
    rounds.stall(1, 8, 0, outgoing(FULL, 0));
    rounds.submitted(1, 10);
    rounds.on_cold(10, slices(1));
    for key in [0, 4, 6, 8, 10] {
        rounds.forget(1, key);
    }
    rounds.on_cold(6, slices(1));
    rounds.begin_turn(0, |_| outgoing(0, 0));
    assert_eq!(drain(&mut rounds), [(1, 2)]);
    assert!(rounds.arrived.is_empty() && rounds.under_way.is_empty() && rounds.stalled.is_empty());

    rounds.push(2, 0);
    rounds.push(3, 1);
    rounds.defer(2, 2);
    rounds.submitted(2, 4);
    rounds.stall(2, 6, 0, outgoing(FULL, 0));
    rounds.forget_connection(2, [0, 2, 4, 6].into_iter());
    rounds.on_cold(4, slices(1));
    rounds.begin_turn(0, |_| outgoing(0, 0));
    assert_eq!(drain(&mut rounds), [(3, 1)]);
    assert!(rounds.arrived.is_empty() && rounds.under_way.is_empty() && rounds.stalled.is_empty());
}

#[test]
fn a_removed_key_leaves_no_second_place_in_the_order() {
    let mut queue = FairQueue::default();
    for key in 0..1_000 {
        queue.push(1, key);
        queue.remove(1, key);
    }
    assert_eq!(queue.order.len(), 1);
    queue.push(1, 5);
    queue.push(2, 6);
    assert_eq!(queue.pop(), Some((1, 5)));
    assert_eq!(queue.pop(), Some((2, 6)));
    assert_eq!(queue.pop(), None);
    assert!(queue.is_empty() && queue.queues.is_empty());
}
