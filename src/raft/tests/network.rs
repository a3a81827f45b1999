//! The network between simulated nodes: delay, loss, duplication, reordering, cut links.

use super::super::rng::Rng;
use super::super::{AppendEntries, Message, SnapshotMeta};
use super::disk::Entry;
use std::collections::BTreeMap;
use std::vec::Vec;

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Control(Message),
    Append(AppendEntries, Vec<Entry>),
    Snapshot { term: u64, meta: SnapshotMeta },
}

#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) packet: Packet,
}

/// How bad the weather is. Probabilities in percent.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) loss: u64,
    pub(super) duplicate: u64,
    pub(super) late: u64,
    pub(super) delay_us_max: u64,
    pub(super) late_us_max: u64,
}

impl Weather {
    pub(super) fn calm() -> Weather {
        Weather {
            loss: 0,
            duplicate: 0,
            late: 0,
            delay_us_max: 2_000,
            late_us_max: 3_000,
        }
    }
}

pub(super) struct Network {
    pub(super) weather: Weather,
    pub(super) in_flight: BTreeMap<(u64, u64), Envelope>,
    sequence: u64,
    /// `cut[from][to]`.
    pub(super) cut: Vec<Vec<bool>>,
}

impl Network {
    pub(super) fn new(nodes: usize, weather: Weather) -> Network {
        let cut = std::vec![std::vec![false; nodes]; nodes];
        Network {
            weather,
            in_flight: BTreeMap::new(),
            sequence: 0,
            cut,
        }
    }

    pub(super) fn send(&mut self, rng: &mut Rng, now_us: u64, envelope: Envelope) {
        let copies = if rng.range(0, 100) < self.weather.duplicate {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.cut[envelope.from][envelope.to] || rng.range(0, 100) < self.weather.loss {
                continue;
            }
            let late = rng.range(0, 100) < self.weather.late;
            let max_us = if late {
                self.weather.late_us_max
            } else {
                self.weather.delay_us_max
            };
            let at_us = now_us + rng.range(100, max_us.max(101));
            self.sequence += 1;
            self.in_flight
                .insert((at_us, self.sequence), envelope.clone());
        }
    }

    /// The receiver does not read: it gets this later, in order.
    pub(super) fn postpone(&mut self, at_us: u64, envelope: Envelope) {
        self.sequence += 1;
        self.in_flight.insert((at_us, self.sequence), envelope);
    }

    pub(super) fn next_us(&self) -> u64 {
        self.in_flight
            .keys()
            .next()
            .map_or(u64::MAX, |(at_us, _)| *at_us)
    }

    pub(super) fn heal(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
    }

    /// Cuts every link between `inside` and the rest, both ways.
    pub(super) fn isolate(&mut self, inside: &[usize]) {
        for from in 0..self.cut.len() {
            for to in 0..self.cut.len() {
                self.cut[from][to] = inside.contains(&from) != inside.contains(&to);
            }
        }
    }

    /// A connection breaks: what was on its way between the two is lost.
    pub(super) fn break_connection(&mut self, a: usize, b: usize) {
        self.in_flight.retain(|_, envelope| {
            let between = (envelope.from == a && envelope.to == b)
                || (envelope.from == b && envelope.to == a);
            !between
        });
    }
}
