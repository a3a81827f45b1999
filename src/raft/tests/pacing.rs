//! The window finds what a peer takes: a path with a delay, behind it a disk that takes one append after the
//! other.

use super::super::Config;
use super::super::window::Window;
use super::lab::N0;
use alloc::collections::VecDeque;

const FLOOR: u64 = 64 << 10;
const CEILING: u64 = 64 << 20;
const APPEND: u64 = 16 << 10;

/// A peer that takes so many bytes a second, so far away.
struct Peer {
    bytes_per_second: u64,
    delay_us: u64,
    disk_free_us: u64,
    in_flight: VecDeque<(u64, u64)>,
    window: Window,
    now_us: u64,
    next_index: u64,
    taken_bytes: u64,
}

impl Peer {
    fn new(bytes_per_second: u64, delay_us: u64) -> Peer {
        let config = Config {
            window_entries_max: 1 << 20,
            window_bytes_min: FLOOR,
            window_bytes_max: CEILING,
            ..Config::new(N0)
        };
        Peer {
            bytes_per_second,
            delay_us,
            disk_free_us: 0,
            in_flight: VecDeque::new(),
            window: Window::new(&config),
            now_us: 0,
            next_index: 1,
            taken_bytes: 0,
        }
    }

    /// A leader with always more to send, for so long.
    fn run(&mut self, us: u64) {
        let until_us = self.now_us + us;
        loop {
            while self.window.room_bytes(u64::MAX) > 0 {
                self.send(APPEND);
            }
            let (at_us, index) = self.in_flight[0];
            if at_us > until_us {
                self.now_us = until_us;
                return;
            }
            self.in_flight.pop_front();
            self.now_us = at_us;
            self.window.release(at_us, index);
            self.taken_bytes += APPEND;
        }
    }

    fn send(&mut self, bytes: u64) {
        let index = self.next_index;
        self.next_index += 1;
        self.window.push(self.now_us, index, bytes);
        let arrives_us = self.now_us + self.delay_us / 2;
        let flush_us = bytes * 1_000_000 / self.bytes_per_second;
        self.disk_free_us = self.disk_free_us.max(arrives_us) + flush_us;
        let answered_us = self.disk_free_us + self.delay_us / 2;
        self.in_flight.push_back((answered_us, index));
    }

    /// What one round trip takes: path and the flush of one append.
    fn round_trip_bytes(&self) -> u64 {
        self.bytes_per_second * self.delay_us / 1_000_000 + APPEND
    }
}

#[test]
fn a_fast_and_distant_peer_is_filled_within_few_round_trips() {
    let mut peer = Peer::new(500 << 20, 40_000);
    peer.run(20 * 40_000);
    let fills = peer.round_trip_bytes();
    let limit = peer.window.limit_bytes();
    assert!((fills..=3 * fills).contains(&limit), "{limit} for {fills}");
    let before = peer.taken_bytes;
    peer.run(1_000_000);
    let taken = peer.taken_bytes - before;
    assert!(taken >= (500 << 20) * 9 / 10, "{taken} bytes in a second");
}

#[test]
fn a_slow_peer_has_no_more_in_flight_than_it_takes() {
    let mut peer = Peer::new(1 << 20, 1_000);
    peer.run(30_000_000);
    // The floor is what a round trip is seen with.
    let limit = peer.window.limit_bytes();
    assert!(limit <= 3 * FLOOR, "{limit}");
    assert!(peer.window.bytes() < limit + APPEND);
    // And is kept busy all the same.
    assert!(peer.taken_bytes >= (30 << 20) * 9 / 10);
}

#[test]
fn a_peer_that_becomes_slow_is_given_less_once_its_past_is_over() {
    let mut peer = Peer::new(500 << 20, 40_000);
    peer.run(1_000_000);
    let fast = peer.window.limit_bytes();
    peer.bytes_per_second = 5 << 20;
    peer.run(20_000_000);
    let slow = peer.window.limit_bytes();
    let fills = peer.round_trip_bytes();
    assert!(slow <= 4 * fills, "{slow} after {fast}, for {fills}");
    let before = peer.taken_bytes;
    peer.run(20_000_000);
    let taken = peer.taken_bytes - before;
    assert!(taken >= (100 << 20) * 9 / 10, "{taken} bytes in 20 s");
}

#[test]
fn the_ceiling_holds_and_a_restart_begins_at_the_floor() {
    let mut peer = Peer::new(50_000 << 20, 1_000_000);
    let seconds = (0..40).map(|_| {
        peer.run(1_000_000);
        peer.window.limit_bytes()
    });
    assert_eq!(seconds.max(), Some(CEILING));
    peer.window.restart();
    assert_eq!(peer.window.limit_bytes(), FLOOR);
    assert!(peer.window.is_empty());
}

#[test]
fn a_floor_above_the_ceiling_is_the_ceiling() {
    let config = Config {
        window_bytes_min: 100,
        window_bytes_max: 10,
        ..Config::new(N0)
    };
    let mut window = Window::new(&config);
    assert_eq!(window.limit_bytes(), 10);
    window.push(5, 1, 10);
    window.release(5, 1);
    assert_eq!(window.limit_bytes(), 10);
}

/// A peer that answered long ago, or with a clock that did not move, is no division by nothing.
#[test]
fn any_times_and_sizes_are_borne() {
    let mut peer = Peer::new(1 << 20, 0);
    peer.window.push(10, 1, u64::MAX / 2);
    peer.window.release(10, 1);
    assert_eq!(peer.window.limit_bytes(), CEILING);
    peer.window.push(u64::MAX - 1, 2, 0);
    peer.window.release(u64::MAX, 2);
    assert!((FLOOR..=CEILING).contains(&peer.window.limit_bytes()));
}
