//! The order of recovery, and what it leaves on disk: one whole log that can be appended to.

use std::collections::VecDeque;

use super::RecoveryReport;
use super::files::{self, Found, corrupt, failed};
use super::judge::{self, Verdict};
use super::scan::Progress;
use crate::buffer::Blocks;
use crate::engine::{Engine, Operation, Target};
use crate::error::{CorruptionKind, OpenError, Proof};
use crate::format::{
    BLOCK_BYTES, FileName, GroupKind, META_FILE_BYTES, MetaRecord, PREDECESSOR_SEALED,
    SegmentHeader, SegmentName, USED_BEFORE,
};
use crate::machine::{Segment, Start};
use crate::mutants::{Mutant, is_planted};
use crate::options::Options;
use crate::terms::Terms;

/// What there is in the directory.
#[derive(Default)]
struct Listing {
    has_meta: bool,
    segments: Vec<SegmentName>,
    spares: Vec<u64>,
    /// Removed at the end: temporaries, spares of another length.
    rubbish: Vec<FileName>,
    next_spare: u64,
}

/// Reads the directory, judges it, and leaves a log that can be appended to.
pub(crate) fn recover(
    engine: &mut dyn Engine,
    options: Options,
) -> Result<(Start, RecoveryReport), OpenError> {
    let mut recovery = Recovery {
        engine,
        options,
        number: u64::MAX / 2,
        report: RecoveryReport::default(),
    };
    let started_us = recovery.engine.now_us();
    let listing = recovery.list()?;
    let start = if recovery.is_fresh(&listing)? {
        recovery.create(listing)?
    } else {
        recovery.reopen(listing)?
    };
    let mut report = recovery.report;
    report.segments = start.segments.len();
    report.first_index = start.segments[0].lo;
    report.last_index = start.next_index - 1;
    let us = recovery.engine.now_us().saturating_sub(started_us);
    report.duration = std::time::Duration::from_micros(us);
    Ok((start, report))
}

struct Recovery<'a> {
    engine: &'a mut dyn Engine,
    options: Options,
    number: u64,
    report: RecoveryReport,
}

impl Recovery<'_> {
    fn run(&mut self, operation: Operation) -> Result<(), OpenError> {
        files::run(self.engine, &mut self.number, operation)
    }

    fn list(&mut self) -> Result<Listing, OpenError> {
        let mut listing = Listing::default();
        let files = self
            .engine
            .list()
            .map_err(|error| failed("listing", ".", error))?;
        for (file, bytes) in files {
            match file {
                FileName::Lock => {}
                FileName::Meta => listing.has_meta = true,
                FileName::Segment(name) => listing.segments.push(name),
                FileName::Spare(number) => {
                    listing.next_spare = listing.next_spare.max(number + 1);
                    if bytes == self.options.segment_bytes {
                        listing.spares.push(number);
                    } else {
                        listing.rubbish.push(file);
                    }
                }
                FileName::Temporary(_) => listing.rubbish.push(file),
            }
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }

    /// Whether the directory never held a complete log: no meta record yet, or one that says so.
    fn is_fresh(&mut self, listing: &Listing) -> Result<bool, OpenError> {
        if !listing.has_meta {
            if let Some(name) = listing.segments.first() {
                return Err(corrupt(
                    FileName::Segment(*name),
                    0,
                    CorruptionKind::MetaMissing,
                ));
            }
            return Ok(true);
        }
        let mut settled = vec![FileName::Meta];
        settled.extend(
            listing
                .segments
                .iter()
                .rev()
                .take(2)
                .copied()
                .map(FileName::Segment),
        );
        self.engine
            .settle(&settled)
            .map_err(|error| failed("flush", "the directory", error))?;
        let slots = files::read_meta(self.engine, self.options.store_id)?;
        Ok(!slots.newest.initialised)
    }

    fn remove_all(&mut self, files: impl IntoIterator<Item = FileName>) -> Result<(), OpenError> {
        for file in files {
            self.run(Operation::Remove { file })?;
            self.report.files_removed += 1;
        }
        Ok(())
    }

    fn create(&mut self, listing: Listing) -> Result<Start, OpenError> {
        let segments = listing.segments.iter().copied().map(FileName::Segment);
        self.remove_all(listing.rubbish.iter().copied().chain(segments))?;
        let mut meta = MetaRecord {
            store_id: self.options.store_id,
            generation: 1,
            first_segment_seq: 1,
            ..MetaRecord::default()
        };
        // Until the first segment exists the record says so: after a crash here, open begins again.
        let mut blocks = vec![0; META_FILE_BYTES];
        for slot in blocks.chunks_mut(BLOCK_BYTES) {
            meta.encode(slot);
        }
        self.run(Operation::CreateMeta {
            blocks: Blocks::copy_of(&blocks),
        })?;
        let (mut spares, mut next_spare) = (listing.spares, listing.next_spare);
        let header = SegmentHeader {
            segment_seq: 1,
            base_index: 1,
            first_group_seq: 1,
            ..SegmentHeader::default()
        };
        let segment = self.make_segment(header, &mut spares, &mut next_spare)?;
        meta.initialised = true;
        meta.last_segment_seq = 1;
        meta.seed = segment.seed;
        self.write_meta(&mut meta)?;
        self.report.created = true;
        Ok(Start {
            options: self.options.clone(),
            segments: VecDeque::from([segment]),
            terms: Terms::starting_after(0, 0),
            next_index: 1,
            last_crc: 0,
            next_group_seq: 1,
            last_group_crc: 0,
            last_kind: GroupKind::Idle,
            meta,
            spares,
            next_spare,
        })
    }

    fn reopen(&mut self, listing: Listing) -> Result<Start, OpenError> {
        let slots = files::read_meta(self.engine, self.options.store_id)?;
        let (mut meta, slots_equal) = (slots.newest, slots.are_equal);
        let below = |name: &&SegmentName| name.segment_seq < meta.first_segment_seq;
        let retired: Vec<FileName> = listing
            .segments
            .iter()
            .filter(below)
            .copied()
            .map(FileName::Segment)
            .collect();
        let names = &listing.segments[retired.len()..];
        files::check_sequence(names, &meta)?;
        let entered_count = (meta.last_segment_seq + 1 - meta.first_segment_seq) as usize;
        let (entered, unentered) = names.split_at(entered_count);
        self.check_unentered(unentered, &meta)?;
        let (mut progress, verdict) = self.follow(entered, &meta)?;
        self.report.groups = progress.groups;
        self.report.torn = verdict.torn;
        // Everything is judged; from here on the directory is changed.
        let unentered = unentered.iter().copied().map(FileName::Segment);
        self.remove_all(
            listing
                .rubbish
                .iter()
                .copied()
                .chain(retired)
                .chain(unentered),
        )?;
        self.run(Operation::OpenMeta)?;
        if !slots_equal {
            self.report.meta_healed = true;
            self.copy_meta(&meta)?;
        }
        let (mut spares, mut next_spare) = (listing.spares, listing.next_spare);
        let last = progress.segments.last().expect("a log has a segment");
        let torn = verdict
            .torn
            .filter(|_| !is_planted(Mutant::TornTailAppended));
        let is_unused = progress.groups == 0 && progress.segments.len() == 1 && torn.is_none();
        if is_unused && last.bytes != self.options.segment_bytes {
            // Nothing was ever written to it: it gives way, under its own name, to one of the size wanted now.
            let header = SegmentHeader {
                segment_seq: last.name.segment_seq,
                ..header_after(&progress, &verdict)
            };
            let segment = self.make_segment(header, &mut spares, &mut next_spare)?;
            meta.seed = segment.seed;
            self.write_meta(&mut meta)?;
            progress.last_group_seq = verdict.group_seq_max;
            progress.segments = vec![segment];
        } else if torn.is_some() || last.seal_offset.is_some() {
            let header = header_after(&progress, &verdict);
            let segment = self.make_segment(header, &mut spares, &mut next_spare)?;
            meta.last_segment_seq = segment.name.segment_seq;
            meta.seed = segment.seed;
            self.write_meta(&mut meta)?;
            progress.last_group_seq = verdict.group_seq_max;
            progress.last_kind = GroupKind::Idle;
            progress.segments.push(segment);
        } else {
            self.run(Operation::Open { segment: last.name })?;
            if let (Some(cut), Some(last)) = (verdict.torn, progress.segments.last_mut()) {
                // Only where that bug is planted: a torn log goes on in a new segment.
                last.end_offset = (cut.offset + cut.bytes).min(last.bytes);
            }
        }
        Ok(Start {
            options: self.options.clone(),
            segments: progress.segments.into(),
            terms: progress.terms,
            next_index: progress.next_index,
            last_crc: progress.last_crc,
            next_group_seq: progress.last_group_seq + 1,
            last_group_crc: progress.last_group_crc,
            last_kind: progress.last_kind,
            meta,
            spares,
            next_spare,
        })
    }

    /// Segments above the last one that the meta record names were made and not entered. One that holds a
    /// group was entered, so the record is older than it should be.
    fn check_unentered(
        &mut self,
        names: &[SegmentName],
        meta: &MetaRecord,
    ) -> Result<(), OpenError> {
        for name in names {
            let found = files::read_segment(self.engine, *name, self.options.store_id)?;
            judge::probe(&found, BLOCK_BYTES as u64, |_, header| {
                let expected = u64::from(header.meta_generation).max(meta.generation + 1);
                let kind = CorruptionKind::MetaOld {
                    expected,
                    found: meta.generation,
                };
                Err(corrupt(FileName::Meta, 32, kind))
            })?;
        }
        Ok(())
    }

    fn follow(
        &mut self,
        names: &[SegmentName],
        meta: &MetaRecord,
    ) -> Result<(Progress, Verdict), OpenError> {
        let mut segments: Vec<Found> = Vec::with_capacity(names.len());
        for name in names {
            segments.push(files::read_segment(
                self.engine,
                *name,
                self.options.store_id,
            )?);
        }
        let mut progress = Progress::before(&segments[0]);
        let mut verdict = None;
        for (position, found) in segments.iter().enumerate() {
            let next = segments.get(position + 1);
            if let Some(next) = next
                && !self.options.verify_on_open
                && progress.trust_seal(found, next)?
            {
                continue;
            }
            let last_group_seq = next.map_or(u64::MAX, |next| next.header.previous_group_seq);
            let stop = progress.follow(found, last_group_seq)?;
            match (stop, next) {
                (Some(stop), Some(next)) => {
                    let kind = CorruptionKind::Group {
                        group_seq: stop.group_seq,
                        first_index: progress.next_index,
                        what: stop.what,
                        proof: Proof::NextSegment {
                            segment_seq: next.name.segment_seq,
                        },
                    };
                    return Err(corrupt(found.file(), stop.offset, kind));
                }
                (None, Some(next)) => check_continues(&progress, next)?,
                (Some(stop), None) => {
                    verdict = Some(judge::judge(found, &stop, progress.next_index)?);
                }
                (None, None) => unreachable!("the last segment is followed until it stops"),
            }
        }
        let generation = u64::from(progress.meta_generation);
        if generation > meta.generation {
            let kind = CorruptionKind::MetaOld {
                expected: generation,
                found: meta.generation,
            };
            return Err(corrupt(FileName::Meta, 32, kind));
        }
        Ok((progress, verdict.expect("there is a last segment")))
    }

    /// Makes a segment from the fields of `header` that say where it stands.
    fn make_segment(
        &mut self,
        header: SegmentHeader,
        spares: &mut Vec<u64>,
        next_spare: &mut u64,
    ) -> Result<Segment, OpenError> {
        let used = !spares.is_empty();
        let spare = match spares.pop() {
            Some(spare) => spare,
            None => {
                let (bytes, prewrite) = (self.options.segment_bytes, self.options.prewrite);
                *next_spare += 1;
                self.run(Operation::Prepare {
                    spare: *next_spare - 1,
                    bytes,
                    prewrite,
                })?;
                *next_spare - 1
            }
        };
        let header = SegmentHeader {
            store_id: self.options.store_id,
            incarnation: self.engine.random_u64(),
            segment_bytes: self.options.segment_bytes,
            group_bytes_max: self.options.group_bytes_max,
            groups_in_flight_max: self.options.groups_in_flight_max,
            flags: header.flags | if used { USED_BEFORE } else { 0 },
            ..header
        };
        let name = SegmentName {
            segment_seq: header.segment_seq,
            first_index: header.base_index,
        };
        let mut block = [0; BLOCK_BYTES];
        header.encode(&mut block);
        let blocks = Blocks::copy_of(&block);
        self.run(Operation::Activate {
            spare,
            segment: name,
            header: blocks,
        })?;
        Ok(Segment::new(
            name,
            header.segment_bytes,
            header.seed(),
            header.base_index,
        ))
    }

    /// Writes the record as the next generation, into both slots one after the other.
    fn write_meta(&mut self, meta: &mut MetaRecord) -> Result<(), OpenError> {
        meta.generation += 1;
        self.write_slot(meta, meta.generation % 2)?;
        self.copy_meta(meta)
    }

    fn copy_meta(&mut self, meta: &MetaRecord) -> Result<(), OpenError> {
        self.write_slot(meta, (meta.generation + 1) % 2)
    }

    fn write_slot(&mut self, meta: &MetaRecord, slot: u64) -> Result<(), OpenError> {
        let mut block = [0; BLOCK_BYTES];
        meta.encode(&mut block);
        self.run(Operation::Write {
            target: Target::Meta,
            offset: slot * BLOCK_BYTES as u64,
            blocks: Blocks::copy_of(&block),
        })
    }
}

/// What the header of a segment says that follows the end of the log as it was found: where its predecessor
/// ends, and group numbers above all that were seen, so that nothing behind that end can be taken for new.
fn header_after(progress: &Progress, verdict: &Verdict) -> SegmentHeader {
    let last = progress.segments.last().expect("a log has a segment");
    let sealed = last.seal_offset.is_some();
    SegmentHeader {
        segment_seq: last.name.segment_seq + 1,
        base_index: progress.next_index,
        base_term: progress.terms.last(),
        base_crc: progress.last_crc,
        previous_end_offset: last.end_offset,
        previous_group_seq: progress.last_group_seq,
        previous_group_crc: progress.last_group_crc,
        first_group_seq: verdict.group_seq_max + 1,
        previous_seal_offset: last.seal_offset.unwrap_or(0),
        flags: if sealed { PREDECESSOR_SEALED } else { 0 },
        ..SegmentHeader::default()
    }
}

/// A segment's header must name the very group that its predecessor ends with.
pub(crate) fn check_continues(progress: &Progress, next: &Found) -> Result<(), OpenError> {
    let header = &next.header;
    let continues = header.previous_group_seq == progress.last_group_seq
        && header.previous_group_crc == progress.last_group_crc;
    if continues {
        return Ok(());
    }
    let what = "it does not continue the segment before it";
    Err(corrupt(
        next.file(),
        96,
        CorruptionKind::SegmentHeader(what),
    ))
}
