//! Which of the batches that were found are the log: the chain, followed down from its last entry.
//!
//! Every entry names the checksum of the one before it, so the end of the log proves all of it. Below an entry
//! that is missing the newest that was found is assumed to be the one, until what is fetched proves it or not.

use std::collections::BTreeMap;

use super::Missing;
use super::files::{Bodiless, Candidate, Found};

/// What is known of an entry before it is found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wanted {
    pub(super) crc: Option<u32>,
    pub(super) term: Option<u64>,
}

/// The entry just below the log's first one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Floor {
    /// The log's first index.
    pub(super) first_index: u64,
    /// Term and checksum of the entry before it, 0 if none.
    pub(super) term: u64,
    pub(super) crc: u32,
    /// The segment whose reset group says so.
    pub(super) reset_in: Option<u64>,
}

/// The log as far as it is known.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) floor: Floor,
    /// The last index, if it is known where the log ends.
    pub(super) last_index: Option<u64>,
    /// The last entry's checksum, if that is known.
    last_crc: Option<u32>,
    /// Ordered by index, then loose ones first, then by group.
    found: Vec<Candidate>,
    /// Entries that cannot be read and still name the one before them, ordered by index.
    bodiless: Vec<Bodiless>,
    /// The log's entries.
    live: BTreeMap<u64, Candidate>,
    pub(super) missing: Vec<Missing>,
}

impl Chain {
    pub(super) fn new(floor: Floor, found: Found) -> Self {
        let Found {
            batches: mut found,
            mut bodiless,
        } = found;
        sort(&mut found);
        bodiless.sort_unstable_by_key(|batch| batch.index);
        Self {
            floor,
            last_index: None,
            last_crc: None,
            found,
            bodiless,
            live: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// The log ends with this entry. What was taken so far is found again where the chain names it.
    pub(super) fn end_with(&mut self, last_index: u64, wanted: Wanted) {
        self.last_index = Some(last_index);
        self.last_crc = wanted.crc;
        self.missing.clear();
        let live = std::mem::take(&mut self.live).into_values();
        self.found
            .extend(live.filter(|batch| batch.place.file.is_none()));
        sort(&mut self.found);
        self.walk(last_index, wanted);
    }

    /// It is not known where the log ends: from the last entry found in a group on it is missing.
    pub(super) fn end_unknown(&mut self) {
        let placed = self.found.iter().rev().find(|batch| is_placed(batch));
        let last = placed.map_or(self.floor.first_index - 1, |batch| batch.index);
        self.last_index = None;
        self.walk(last, Wanted::default());
        self.missing.push(Missing {
            lo: last + 1,
            hi: u64::MAX,
            crc: None,
            term: None,
        });
    }

    pub(super) fn get(&self, index: u64) -> Option<&Candidate> {
        self.live.get(&index)
    }

    /// Term and checksum of the entry before `index`, if it is known.
    pub(super) fn before(&self, index: u64) -> Option<(u64, u32)> {
        if index < self.floor.first_index {
            return None;
        }
        if index == self.floor.first_index {
            return Some((self.floor.term, self.floor.crc));
        }
        self.get(index - 1).map(|batch| (batch.term, batch.crc))
    }

    /// Whether the group `group_seq` holds the very entry that the log has at `index`.
    pub(super) fn is_in_group(&self, index: u64, group_seq: u64) -> bool {
        let Some(live) = self.get(index) else {
            return false;
        };
        self.at(index)
            .iter()
            .any(|batch| batch.crc == live.crc && batch.group_seq == group_seq)
    }

    /// Whether the first entry continues the one that the log is said to begin after; without any, whether that one is
    /// the last.
    pub(super) fn begins_at_floor(&self) -> bool {
        let floor = &self.floor;
        if let Some(first) = self.get(floor.first_index) {
            return first.prev_crc == floor.crc;
        }
        match self.last_index {
            Some(last_index) if last_index < floor.first_index => {
                last_index + 1 == floor.first_index
                    && self.last_crc.is_none_or(|crc| crc == floor.crc)
            }
            _ => true,
        }
    }

    /// What the batch of `index` in the group `group_seq` continues.
    pub(super) fn prev_crc_in_group(&self, index: u64, group_seq: u64) -> Option<u32> {
        let mut found = self.at(index).iter();
        let found = found.find(|batch| batch.group_seq == group_seq);
        found.map(|batch| batch.prev_crc)
    }

    fn at(&self, index: u64) -> &[Candidate] {
        let lo = self.found.partition_point(|batch| batch.index < index);
        let hi = self.found.partition_point(|batch| batch.index <= index);
        &self.found[lo..hi]
    }

    fn find(&self, index: u64, wanted: Wanted) -> Option<Candidate> {
        let fits = |batch: &&Candidate| match wanted.crc {
            Some(crc) => batch.crc == crc,
            None => is_placed(batch) && wanted.term.is_none_or(|term| batch.term == term),
        };
        self.at(index).iter().rev().find(fits).copied()
    }

    /// Of an entry that cannot be read, what the one before it is called.
    fn named_by(&self, index: u64, wanted: Wanted) -> Option<u32> {
        let crc = wanted.crc?;
        let lo = self.bodiless.partition_point(|batch| batch.index < index);
        let mut at = self.bodiless[lo..]
            .iter()
            .take_while(|batch| batch.index == index);
        at.find(|batch| batch.crc == crc)
            .map(|batch| batch.prev_crc)
    }

    /// The highest index below `index` at which a batch has a place in the log's order.
    fn placed_below(&self, index: u64) -> Option<u64> {
        let below = self.found.partition_point(|batch| batch.index < index);
        let mut placed = self.found[..below].iter().rev();
        placed
            .find(|batch| is_placed(batch))
            .map(|batch| batch.index)
            .filter(|index| *index >= self.floor.first_index)
    }

    /// Settles the log from `index` downwards, to where it is settled already.
    fn walk(&mut self, mut index: u64, mut wanted: Wanted) {
        let (from, mut missing) = (index, Vec::<Missing>::new());
        let settled = loop {
            if index < self.floor.first_index {
                break self.floor.first_index;
            }
            if let Some(batch) = self.find(index, wanted) {
                let before = self.live.insert(index, batch);
                if before.is_some_and(|before| before.crc == batch.crc) {
                    break index;
                }
                wanted = Wanted {
                    crc: Some(batch.prev_crc),
                    term: None,
                };
                index -= 1;
                continue;
            }
            let before = self.named_by(index, wanted);
            let lo = match before {
                Some(_) => index,
                None => {
                    let lower = self.placed_below(index);
                    lower.map_or(self.floor.first_index, |lower| lower + 1)
                }
            };
            self.live.retain(|other, _| !(lo..=index).contains(other));
            match missing.last_mut() {
                Some(above) if above.lo == index + 1 => above.lo = lo,
                _ => missing.push(Missing {
                    lo,
                    hi: index + 1,
                    crc: wanted.crc,
                    term: wanted.term,
                }),
            }
            wanted = Wanted {
                crc: before,
                term: None,
            };
            index = lo - 1;
        };
        self.missing
            .retain(|range| range.hi <= settled || range.lo > from);
        self.missing.extend(missing);
        self.missing.sort_unstable_by_key(|range| range.lo);
    }

    /// Takes entries that were proven to be the upper end of the missing range `[lo, hi)`.
    pub(super) fn take(&mut self, range: Missing, batches: &[Candidate]) {
        self.missing.retain(|other| other.hi != range.hi);
        let first = batches[0];
        for batch in batches {
            self.live.insert(batch.index, *batch);
        }
        let wanted = Wanted {
            crc: Some(first.prev_crc),
            term: None,
        };
        self.walk(first.index - 1, wanted);
    }

    /// Ends the log before `index`.
    pub(super) fn cut(&mut self, index: u64) -> u64 {
        let dropped = self.live.split_off(&index);
        self.missing.clear();
        self.last_index = Some(index - 1);
        self.last_crc = self.before(index).map(|(_, crc)| crc);
        dropped.len() as u64
    }
}

fn sort(found: &mut Vec<Candidate>) {
    let key = |batch: &Candidate| {
        (
            batch.index,
            batch.group_seq,
            batch.place.file,
            batch.place.offset,
        )
    };
    found.sort_unstable_by_key(key);
    found.dedup_by_key(|batch| key(batch));
}

/// Whether it may be the log's as far as the groups say: loose ones may only be what the chain names.
fn is_placed(batch: &Candidate) -> bool {
    batch.group_seq > 0 && !batch.is_superseded
}
