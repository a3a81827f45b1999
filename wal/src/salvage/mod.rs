//! A damaged log: what of it is still there, what is missing, and writing it back.
//!
//! The end of the log proves the rest: every entry names the checksum of the one before it. So whatever batch
//! is found anywhere in the directory is the log's or not, and what another copy of the log offers, too.

mod chain;
mod files;
mod frames;
mod judge;
mod plan;
mod repair;
mod scratch;
mod types;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use drave_batch::BatchRef;

use crate::engine::Engine;
use crate::error::{Corruption, CorruptionKind, OpenError, ReadError};
use crate::format::{FileName, MetaRecord, SegmentName};
use crate::options::Options;
use crate::recover::files::{MetaSlots, corrupt, failed, read_meta};
use chain::{Chain, Floor, Wanted};
use files::{Candidate, Found, Place, SegmentFile, candidate};
use judge::{End, Judged};
use scratch::Scratch;
pub use types::{CutReport, EndError, Missing, OfferError, Offered, RepairReport};

/// Segments that may be missing in a row of files before the meta record is not believed.
const SEGMENTS_MISSING_MAX: u64 = 1 << 16;

/// What a damaged log still holds. It holds the directory's lock, and changes nothing until [`Salvage::repair`]
/// or [`Salvage::cut`]. Every call blocks on the disk. One owner.
pub struct Salvage {
    engine: Box<dyn Engine>,
    options: Options,
    meta: MetaRecord,
    files: Vec<SegmentFile>,
    judged: Judged,
    chain: Chain,
    scratch: Scratch,
    /// Files that claim to be segments and are none of the log's.
    strays: Vec<FileName>,
    /// Where the log ended was not found here.
    is_end_lost: bool,
    meta_slots_valid: u32,
    next_spare: u64,
    number: u64,
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first_index, next_index) = (self.first_index(), self.last_index() + 1);
        write!(
            f,
            "Salvage([{first_index}, {next_index}), {:?})",
            self.missing()
        )
    }
}

impl Salvage {
    /// Reads all of the log in `directory`; no seal is believed without reading what is before it. Works on a
    /// whole log, too, which then has no [`Salvage::damage`].
    ///
    /// # Errors
    /// [`OpenError`]: locked, of another store or version, and [`OpenError::Corrupt`] for what cannot be
    /// repaired, since no other copy has it: the meta record, and where a log begins that was trimmed.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let options = options.within_limits();
        let engine = crate::wal::make_engine(directory, options.engine)?;
        let mut salvage = Self::open_with(engine, options)?;
        salvage.scratch = Scratch::new(Some(directory.to_owned()));
        Ok(salvage)
    }

    /// Reads the log that `engine` holds; what is offered is kept in memory.
    ///
    /// # Errors
    /// As [`Salvage::open`].
    pub fn open_with(mut engine: Box<dyn Engine>, options: Options) -> Result<Self, OpenError> {
        let options = options.within_limits();
        let listed = engine
            .list()
            .map_err(|error| failed("listing", ".", error))?;
        if !listed.iter().any(|(file, _)| *file == FileName::Meta) {
            return Err(corrupt(FileName::Meta, 0, CorruptionKind::MetaMissing));
        }
        let (mut names, mut next_spare): (Vec<SegmentName>, u64) = (Vec::new(), 0);
        for (file, _) in &listed {
            match file {
                FileName::Segment(name) => names.push(*name),
                FileName::Spare(number) => next_spare = next_spare.max(number.saturating_add(1)),
                _ => {}
            }
        }
        let mut settled: Vec<FileName> = names.iter().copied().map(FileName::Segment).collect();
        settled.push(FileName::Meta);
        engine
            .settle(&settled)
            .map_err(|error| failed("flush", "the directory", error))?;
        let MetaSlots {
            newest: meta,
            valid: meta_slots_valid,
            ..
        } = read_meta(engine.as_mut(), options.store_id)?;
        check_span(&meta, names.len() as u64)?;
        names.retain(|name| name.segment_seq >= meta.first_segment_seq);
        let (entered, unentered): (Vec<SegmentName>, Vec<SegmentName>) = names
            .into_iter()
            .partition(|name| name.segment_seq <= meta.last_segment_seq);
        let mut found = Found::default();
        let mut files = Vec::with_capacity(entered.len());
        for name in entered {
            let mut file = SegmentFile::open(engine.as_mut(), name, options.store_id)?;
            let last_seed = (name.segment_seq == meta.last_segment_seq).then_some(meta.seed);
            let seed = file.header.as_ref().map(crate::format::SegmentHeader::seed);
            file.scan(files.len(), seed.or(last_seed), &mut found);
            files.push(file);
        }
        check_generation(&files, &meta)?;
        let mut judged = if meta.initialised {
            judge::judge(&files, &meta)
        } else {
            Judged::default()
        };
        let strays = find_strays(engine.as_mut(), &files, &unentered, &meta, &mut judged)?;
        let floor = match meta.initialised {
            true => judge::floor(&files, &meta)?,
            false => Floor {
                first_index: 1,
                ..Floor::default()
            },
        };
        let end = match meta.initialised {
            true => judge::end(&files, &meta),
            false => Some(End::NOTHING),
        };
        let end_group_seq = end.map_or(u64::MAX, |end| end.group_seq);
        files::mark_superseded(&files, end_group_seq, &mut found.batches);
        let mut chain = Chain::new(floor, found);
        match end {
            Some(end) => chain.end_with(end.last_index, end.wanted),
            None => chain.end_unknown(),
        }
        Ok(Self {
            engine,
            options,
            meta,
            files,
            judged,
            chain,
            scratch: Scratch::new(None),
            strays,
            is_end_lost: end.is_none(),
            meta_slots_valid,
            next_spare,
            number: u64::MAX / 2,
        })
    }

    /// Each damaged place: file, offset and what is wrong. Empty for a whole log; a write that a crash
    /// interrupted is not damage.
    #[must_use]
    pub fn damage(&self) -> &[Corruption] {
        &self.judged.damage
    }

    /// What cannot be read, ascending and disjoint. An offer may show that more is missing below a range: the
    /// damage then took entries that superseded those found there.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.chain.missing
    }

    /// The log's first index.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.chain.floor.first_index
    }

    /// The log's last index, missing or not; of a log whose end is lost, the last one found.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.chain.last_index.unwrap_or_else(|| {
            let open = self.missing().last();
            open.map_or(self.first_index(), |open| open.lo) - 1
        })
    }

    /// The caller's value beside the log.
    #[must_use]
    pub fn meta_value(&self) -> Option<Vec<u8>> {
        (self.meta.sequence > 0).then(|| self.meta.value.clone())
    }

    /// An entry as encoded, checked now. None if it is missing or outside of the log.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if it was valid when the log was opened and is not now; [`ReadError::Io`].
    pub fn read(&self, index: u64) -> Result<Option<Bytes>, ReadError> {
        let Some(batch) = self.chain.get(index) else {
            return Ok(None);
        };
        self.load(batch).map(Some)
    }

    fn load(&self, batch: &Candidate) -> Result<Bytes, ReadError> {
        let Place {
            file,
            offset,
            bytes,
        } = batch.place;
        let (name, loaded) = match file {
            Some(file) => {
                let file = &self.files[file];
                (
                    FileName::Segment(file.name),
                    file.load(offset, bytes as usize),
                )
            }
            None => {
                let file = FileName::Temporary(u64::MAX);
                let loaded = self.scratch.load(offset, bytes as usize);
                let failed = |source| ReadError::Io {
                    file,
                    offset,
                    source: Arc::new(source),
                };
                (file, loaded.map_err(failed)?)
            }
        };
        let decoded = BatchRef::decode(&loaded).ok();
        let is_same = decoded
            .is_some_and(|found| found.header_crc == batch.crc && found.verify_body().is_ok());
        if is_same {
            return Ok(loaded);
        }
        let kind = CorruptionKind::Batch {
            index: batch.index,
            what: "it is not what it was when the log was salvaged",
        };
        Err(Corruption {
            file: name,
            offset,
            kind,
        }
        .into())
    }

    /// Takes encoded batches, back to back, that end where a missing range ends: each is checked, and that the
    /// last one is what the entry after it names. Contiguous from a range's end downwards; entries that reach
    /// below the range are refused.
    ///
    /// # Errors
    /// [`OfferError`]; then nothing was taken.
    pub fn offer(&mut self, encoded: &[u8]) -> Result<Offered, OfferError> {
        let mut batches = check_offer(encoded)?;
        let (first, last) = (batches[0], batches[batches.len() - 1]);
        let (lo, hi) = (first.index, last.index.saturating_add(1));
        let range = self.chain.missing.iter().find(|range| range.hi == hi);
        let Some(range) = range
            .copied()
            .filter(|range| range.lo <= lo && hi < u64::MAX)
        else {
            return Err(OfferError::Range { lo, hi });
        };
        let other = |index, expected: u64, found: u64| OfferError::Chain {
            index,
            expected,
            found,
        };
        match (range.crc, range.term) {
            (Some(crc), _) if crc != last.crc => {
                return Err(other(hi - 1, crc.into(), last.crc.into()));
            }
            (None, Some(term)) if term != last.term => {
                return Err(other(hi - 1, term, last.term));
            }
            (None, None) => return Err(OfferError::Range { lo, hi }),
            _ => {}
        }
        let floor = self.chain.floor;
        if lo == floor.first_index && first.prev_crc != floor.crc {
            return Err(other(lo - 1, floor.crc.into(), first.prev_crc.into()));
        }
        let offset = self
            .scratch
            .push(encoded)
            .map_err(|source| OfferError::Io {
                source: Arc::new(source),
            })?;
        for batch in &mut batches {
            batch.place.offset += offset;
        }
        self.chain.take(range, &batches);
        Ok(Offered { lo, hi })
    }

    /// Says with which entry the log is to end, where that is lost with the last segment: only the caller can find
    /// out from others what this log can have acknowledged. Entries found above it are dropped by a repair. May be
    /// said again, when the others have gone on: entries that were taken stay where the new end proves them.
    ///
    /// # Errors
    /// [`EndError`]
    pub fn set_end(&mut self, last_index: u64, term: u64, crc: u32) -> Result<(), EndError> {
        if let Some(last_index) = self.chain.last_index.filter(|_| !self.is_end_lost) {
            return Err(EndError::Known { last_index });
        }
        let first_index = self.first_index();
        if last_index < first_index {
            return Err(EndError::Below {
                first_index,
                found: last_index,
            });
        }
        let wanted = Wanted {
            crc: Some(crc),
            term: Some(term),
        };
        self.chain.end_with(last_index, wanted);
        Ok(())
    }

    /// Whether [`Salvage::meta_value`] is surely the last value that was durable. It need not be where a slot of the
    /// meta record is damaged, when the groups that would show that there was a newer one are lost with the log's
    /// end.
    #[must_use]
    pub fn is_meta_certain(&self) -> bool {
        !self.is_end_lost || self.meta_slots_valid == 2
    }

    /// Whether nothing is missing, and the log can be repaired.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.chain.missing.is_empty()
    }

    /// Writes the damaged segments anew, so that `Wal::open` finds a whole log. A crash on the way leaves a log
    /// that is as damaged as before at most, and can be salvaged again.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] with the first damage while something is missing, or if where the log begins is
    /// lost with a reset: nothing is changed then.
    /// [`OpenError::NoSpace`], [`OpenError::Failed`] for a write that failed.
    pub fn repair(mut self) -> Result<RepairReport, OpenError> {
        if self.damage().is_empty() {
            return Ok(RepairReport::default());
        }
        if !self.is_whole() || !self.chain.begins_at_floor() {
            return Err(self.first_damage());
        }
        let next_index = self.last_index() + 1;
        self.write(next_index)
    }

    /// Why nothing is repaired.
    fn first_damage(&self) -> OpenError {
        let missing = self.judged.damage.first().cloned();
        missing.expect("only damage is repaired").into()
    }

    /// For a log without replicas, on explicit demand: ends it before the first missing entry. What was
    /// durable from there on is given up, and named. Does what [`Salvage::repair`] does if nothing is missing.
    ///
    /// What is given up should not be forgotten: `value`, if there is one, becomes the caller's value beside the
    /// log, durably, before anything else is changed, so that no crash leaves a log that was cut without it. It
    /// is not written if nothing is missing.
    ///
    /// # Errors
    /// As [`Salvage::repair`].
    ///
    /// # Panics
    /// If the value is longer than [`Options::META_VALUE_BYTES_MAX`].
    pub fn cut(mut self, value: Option<&[u8]>) -> Result<CutReport, OpenError> {
        let missing = self.missing().to_vec();
        let next_index = missing
            .first()
            .map_or(self.last_index() + 1, |first| first.lo);
        let mut entries_dropped = 0;
        if !missing.is_empty() {
            if let Some(value) = value {
                self.write_meta(value)?;
            }
            entries_dropped = self.chain.cut(next_index);
            // Everything from the first damage on is written anew, since it may hold what is cut.
            let mut seqs = self.meta.first_segment_seq..=self.meta.last_segment_seq;
            let whole = &mut self.judged.whole;
            if let Some(damaged) = seqs.find(|seq| !whole.contains_key(seq)) {
                whole.retain(|seq, _| *seq < damaged);
            }
        }
        let repair = self.write(next_index)?;
        Ok(CutReport {
            next_index,
            missing,
            entries_dropped,
            repair,
        })
    }
}

fn check_span(meta: &MetaRecord, segments: u64) -> Result<(), OpenError> {
    let span = meta.last_segment_seq.saturating_sub(meta.first_segment_seq);
    if span > segments + SEGMENTS_MISSING_MAX {
        let segment_seq = meta.first_segment_seq;
        let kind = CorruptionKind::SegmentMissing { segment_seq };
        return Err(corrupt(FileName::Meta, 48, kind));
    }
    Ok(())
}

/// No group may have seen a newer meta record than there is: what was voted would be lost.
fn check_generation(files: &[SegmentFile], meta: &MetaRecord) -> Result<(), OpenError> {
    let groups = files.iter().flat_map(|file| &file.groups);
    let newest = groups.map(|group| u64::from(group.header.meta_generation));
    let expected = newest.max().unwrap_or(0);
    if expected > meta.generation {
        let found = meta.generation;
        let kind = CorruptionKind::MetaOld { expected, found };
        return Err(corrupt(FileName::Meta, 32, kind));
    }
    Ok(())
}

/// Second files of a segment, and files made for a later one that cannot be read: named as damage, to remove.
fn find_strays(
    engine: &mut dyn Engine,
    files: &[SegmentFile],
    unentered: &[SegmentName],
    meta: &MetaRecord,
    judged: &mut Judged,
) -> Result<Vec<FileName>, OpenError> {
    let mut strays = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let segment_seq = file.name.segment_seq;
        if judge::file_of(files, segment_seq) != Some(number) {
            let (file, offset) = (FileName::Segment(file.name), 0);
            let kind = CorruptionKind::SegmentName { segment_seq };
            judged.damage.push(Corruption { file, offset, kind });
            strays.push(file);
        }
    }
    for name in unentered {
        let mut file = SegmentFile::open(engine, *name, meta.store_id)?;
        let seed = file.header.as_ref().map(crate::format::SegmentHeader::seed);
        file.scan(0, seed, &mut Found::default());
        if !file.groups.is_empty() {
            let (expected, found) = (meta.generation + 1, meta.generation);
            let kind = CorruptionKind::MetaOld { expected, found };
            return Err(corrupt(FileName::Meta, 32, kind));
        }
        if let Some(damage) = file.damage {
            judged.damage.push(damage);
            strays.push(FileName::Segment(*name));
        }
    }
    Ok(strays)
}

/// The batches of an offer, their places counted from its start.
fn check_offer(encoded: &[u8]) -> Result<Vec<Candidate>, OfferError> {
    let mut batches: Vec<Candidate> = Vec::new();
    let mut at = 0;
    while at < encoded.len() || batches.is_empty() {
        let expected = batches
            .last()
            .map_or(0, |last| last.index.saturating_add(1));
        let bad = |what| OfferError::Batch {
            index: expected,
            what,
        };
        let batch = BatchRef::decode(&encoded[at..]).map_err(|_| bad("its header is not valid"))?;
        batch
            .verify_body()
            .map_err(|_| bad("its body is not valid"))?;
        let bytes = batch.encoded().len();
        let place = Place {
            file: None,
            offset: at as u64,
            bytes: bytes as u32,
        };
        let taken = candidate(&batch, 0, place);
        let follows = batches.last().is_none_or(|last| {
            taken.index == expected && taken.prev_crc == last.crc && taken.term >= last.term
        });
        if !follows || taken.index == 0 {
            return Err(bad("it does not follow the one before it"));
        }
        batches.push(taken);
        at += bytes;
    }
    Ok(batches)
}
