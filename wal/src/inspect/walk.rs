//! Going through segments and groups in order.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use drave_batch::DecodeError;

use super::remains::{
    explain_group, explain_segment, goes_on_at, remains, shorter, superseding_from, view,
};
use super::{
    Damage, Inspector, Item, MetaView, SegmentEnd, SegmentView, Slot, WalkOptions, newest,
};
use crate::engine::disk;
use crate::error::{Corruption, CorruptionKind, OpenError, Proof};
use crate::format::{BLOCK_BYTES, FileName, SegmentHeader, SegmentName, WAL_VERSION};
use crate::recover::Torn;
use crate::recover::files::{Found, check_segment, failed};
use crate::recover::finish::check_continues;
use crate::recover::judge::{judge, probe};
use crate::recover::scan::{Group, Progress, Stop, read_group};

/// Goes through a log; see [`Inspector::walk`]. Blocking.
pub struct Walk {
    inspector: Inspector,
    options: WalkOptions,
    meta: Option<MetaView>,
    store_id: Option<u128>,
    /// The segments as last listed, by number; a number claimed twice has more than one name.
    names: BTreeMap<u64, Vec<SegmentName>>,
    next_segment_seq: u64,
    progress: Option<Progress>,
    current: Option<Current>,
    /// What comes next need not continue what was followed so far.
    is_broken: bool,
    /// Damage whose end is known only when the next segment is entered.
    open_damage: Vec<(Corruption, Option<(u64, DecodeError)>)>,
    items: VecDeque<Item>,
    /// The segment read last is the log's last one, as of when it was judged.
    is_past_last: bool,
    /// Judge the present end although the walk stays there.
    is_checking: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    New,
    Going,
    Finished,
}

/// The segment being read.
struct Current {
    found: Found,
    /// The segment after it, once it was entered.
    next: Option<Found>,
    groups: u64,
    is_damaged: bool,
}

/// A segment's file, or why there is none to be read.
enum Opening {
    Found(Found),
    Damaged(Corruption, Option<(u64, DecodeError)>, Option<Found>),
    Refused(OpenError),
    Gone,
}

impl Iterator for Walk {
    type Item = Result<Item, OpenError>;

    /// The next thing met. After an error the walk is over; after `None` it goes on only if it follows.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some(Ok(item));
            }
            if self.state == State::Finished {
                return None;
            }
            match self.advance() {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) if self.items.is_empty() => return None,
                Ok(ControlFlow::Break(())) => {}
                Err(error) => {
                    self.state = State::Finished;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Walk {
    pub(super) fn new(inspector: Inspector, options: WalkOptions) -> Self {
        Self {
            inspector,
            options,
            meta: None,
            store_id: None,
            names: BTreeMap::new(),
            next_segment_seq: 0,
            progress: None,
            current: None,
            is_broken: false,
            open_damage: Vec::new(),
            items: VecDeque::new(),
            is_past_last: false,
            is_checking: false,
            state: State::New,
        }
    }

    /// Judges the place where a walk that follows stands: an unfinished write is left alone, damage becomes
    /// an item. Reads the rest of the segment.
    ///
    /// # Errors
    /// [`OpenError::Io`]
    pub fn check_end(&mut self) -> Result<(), OpenError> {
        self.is_checking = true;
        let result = match self.current {
            Some(_) => self.follow(),
            None => Ok(ControlFlow::Break(())),
        };
        self.is_checking = false;
        result.map(drop)
    }

    /// The index after the last entry followed; 1 before anything was.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.progress
            .as_ref()
            .map_or(1, |progress| progress.next_index)
    }

    fn advance(&mut self) -> Result<ControlFlow<()>, OpenError> {
        match self.state {
            State::New => self.begin().map(ControlFlow::Continue),
            _ if self.current.is_some() => self.follow(),
            _ => self.enter(),
        }
    }

    fn begin(&mut self) -> Result<(), OpenError> {
        self.refresh()?;
        self.state = State::Going;
        let first = self.names.keys().next().copied();
        match &self.meta {
            Some(meta) => self.next_segment_seq = meta.first_segment_seq.max(1),
            None => self.next_segment_seq = first.unwrap_or(1),
        }
        if self.meta.is_some() {
            return Ok(());
        }
        let kind = match self.inspector.meta()? {
            None if first.is_none() => return Ok(()),
            None => CorruptionKind::MetaMissing,
            Some(slots) => {
                if let Some(found) = slots.iter().find_map(|slot| match slot {
                    Slot::Version(found) => Some(*found),
                    _ => None,
                }) {
                    self.items.push_back(Item::Refused(OpenError::Version {
                        file: FileName::Meta,
                        expected: WAL_VERSION,
                        found,
                    }));
                    return Ok(());
                }
                CorruptionKind::Meta
            }
        };
        self.push_damage(
            Corruption {
                file: FileName::Meta,
                offset: 0,
                kind,
            },
            None,
            BLOCK_BYTES as u64,
            (1, Some(1)),
        );
        Ok(())
    }

    /// Lists the directory and reads the meta record anew.
    fn refresh(&mut self) -> Result<(), OpenError> {
        // The record first: what it names was made before it was written.
        if let Some(slots) = self.inspector.meta()?
            && let Some(meta) = newest(&slots)
        {
            self.store_id = Some(meta.store_id);
            self.meta = Some(meta.clone());
        }
        self.names.clear();
        for (file, _) in self.inspector.files()? {
            if let FileName::Segment(name) = file {
                self.names.entry(name.segment_seq).or_default().push(name);
            }
        }
        Ok(())
    }

    fn is_retired(&self, segment_seq: u64) -> bool {
        let meta = self.meta.as_ref();
        meta.is_some_and(|meta| segment_seq < meta.first_segment_seq)
    }

    fn is_entered(&self, segment_seq: u64) -> bool {
        let meta = self.meta.as_ref();
        meta.is_none_or(|meta| segment_seq <= meta.last_segment_seq)
    }

    /// Enters the next segment; breaks at the end of the log.
    fn enter(&mut self) -> Result<ControlFlow<()>, OpenError> {
        let segment_seq = self.next_segment_seq;
        let last = self.meta.as_ref().map(|meta| meta.last_segment_seq);
        let Some(names) = self.names.get(&segment_seq).cloned() else {
            if self.is_past_last && last.is_none_or(|last| last < segment_seq) {
                return self.finish();
            }
            return self.enter_missing();
        };
        if names.len() > 1 {
            let kind = CorruptionKind::SegmentName { segment_seq };
            let file = FileName::Segment(names[1]);
            self.open_damage.push((
                Corruption {
                    file,
                    offset: 0,
                    kind,
                },
                None,
            ));
        }
        if !self.is_entered(segment_seq) {
            return self.pass_unentered(names[0]);
        }
        match self.open(names[0])? {
            Opening::Found(found) => self.enter_found(found)?,
            Opening::Damaged(corruption, detail, found) => {
                self.open_damage.push((corruption, detail));
                match found {
                    Some(found) => self.enter_found(found)?,
                    None => {
                        self.is_broken = true;
                        self.next_segment_seq += 1;
                    }
                }
            }
            Opening::Refused(error) => {
                self.items.push_back(Item::Refused(error));
                self.is_broken = true;
                self.next_segment_seq += 1;
            }
            Opening::Gone => {
                self.refresh()?;
                self.names.entry(segment_seq).or_default().clear();
                self.names.retain(|_, names| !names.is_empty());
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// There is no file of the next number: the log ends here, was trimmed meanwhile, or lacks a segment.
    fn enter_missing(&mut self) -> Result<ControlFlow<()>, OpenError> {
        let segment_seq = self.next_segment_seq;
        self.refresh()?;
        if self.is_retired(segment_seq) {
            self.pass_trimmed();
            return Ok(ControlFlow::Continue(()));
        }
        if self.names.contains_key(&segment_seq) {
            return Ok(ControlFlow::Continue(()));
        }
        let later = self.names.range(segment_seq..).next();
        let later = later.map(|(_, names)| names[0]);
        let last = self.meta.as_ref().map_or(0, |meta| meta.last_segment_seq);
        if later.is_none() && segment_seq > last {
            return self.finish();
        }
        let (file, offset) = match later {
            Some(name) => (FileName::Segment(name), 0),
            None => (FileName::Meta, 56),
        };
        let kind = CorruptionKind::SegmentMissing { segment_seq };
        self.open_damage
            .push((Corruption { file, offset, kind }, None));
        self.is_broken = true;
        self.next_segment_seq = segment_seq + 1;
        Ok(ControlFlow::Continue(()))
    }

    fn pass_trimmed(&mut self) {
        let next_index = self.next_index();
        self.items.push_back(Item::Trimmed { next_index });
        let first = self.meta.as_ref().map_or(0, |meta| meta.first_segment_seq);
        self.next_segment_seq = first.max(self.next_segment_seq);
        self.is_broken = true;
        self.current = None;
    }

    /// The end of the log: what is known only now.
    fn finish(&mut self) -> Result<ControlFlow<()>, OpenError> {
        self.close_damage(None);
        if self.options.follow {
            return Ok(ControlFlow::Break(()));
        }
        self.state = State::Finished;
        let seen = self.progress.as_ref().map_or(0, |p| p.meta_generation);
        let meta = self.meta.as_ref().map(|meta| meta.generation);
        if let Some(found) = meta
            && u64::from(seen) > found
        {
            self.push_meta_old(seen.into(), found);
        }
        Ok(ControlFlow::Break(()))
    }

    fn push_meta_old(&mut self, expected: u64, found: u64) {
        let corruption = Corruption {
            file: FileName::Meta,
            offset: 32,
            kind: CorruptionKind::MetaOld { expected, found },
        };
        let at = self.next_index();
        self.push_damage(corruption, None, BLOCK_BYTES as u64, (at, Some(at)));
    }

    /// A segment above the last one that the meta record names: nothing, unless it holds a group.
    fn pass_unentered(&mut self, name: SegmentName) -> Result<ControlFlow<()>, OpenError> {
        if self.options.follow {
            self.refresh()?;
            return Ok(ControlFlow::Break(()));
        }
        let mut seen = None;
        if let Opening::Found(found) = self.open(name)? {
            probe(&found, BLOCK_BYTES as u64, |_, header| {
                seen = Some(u64::from(header.meta_generation));
                Ok(ControlFlow::Break(()))
            })?;
        }
        self.refresh()?;
        if self.is_entered(name.segment_seq) {
            if self.is_past_last {
                // The log went on after its end was judged: what came since is not looked at.
                return self.finish();
            }
            return Ok(ControlFlow::Continue(()));
        }
        if let (Some(generation), Some(meta)) = (seen, &self.meta) {
            let found = meta.generation;
            self.push_meta_old(generation.max(found + 1), found);
        } else {
            self.items.push_back(Item::Unentered(name));
        }
        self.next_segment_seq += 1;
        Ok(ControlFlow::Continue(()))
    }

    fn open(&mut self, name: SegmentName) -> Result<Opening, OpenError> {
        let file = FileName::Segment(name);
        let source = match disk::source(&self.inspector.directory, file, false) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opening::Gone),
            Err(error) => return Err(failed("opening", file, error)),
        };
        let bytes = source.bytes().min(BLOCK_BYTES as u64) as usize;
        let block = Arc::clone(&source)
            .load(0, bytes)
            .map_err(|error| failed("reading", file, error))?;
        let store_id = match (self.store_id, SegmentHeader::decode(&block)) {
            (None, Ok(header)) => *self.store_id.insert(header.store_id),
            (known, _) => known.unwrap_or(0),
        };
        match check_segment(name, Arc::clone(&source), Arc::clone(&source), store_id) {
            Ok(found) => Ok(Opening::Found(found)),
            Err(OpenError::Corrupt(corruption)) => {
                let detail = explain_segment(&block, &corruption);
                let shorter = shorter(name, source, &block, &corruption);
                Ok(Opening::Damaged(corruption, detail, shorter))
            }
            Err(error @ OpenError::Io { .. }) => Err(error),
            Err(error) => Ok(Opening::Refused(error)),
        }
    }

    /// The segment of this number, if it was entered and its header can be read.
    fn peek(&mut self, segment_seq: u64) -> Result<Option<Found>, OpenError> {
        let Some(name) = self.names.get(&segment_seq).map(|names| names[0]) else {
            return Ok(None);
        };
        if !self.is_entered(segment_seq) {
            return Ok(None);
        }
        match self.open(name)? {
            Opening::Found(found) | Opening::Damaged(_, _, Some(found)) => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    fn enter_found(&mut self, found: Found) -> Result<(), OpenError> {
        let base_index = found.header.base_index;
        let mut is_damaged = !self.open_damage.is_empty();
        self.close_damage(Some(base_index));
        if let Some(progress) = &mut self.progress {
            let has_gap = progress.has_gap;
            if self.is_broken {
                progress.resume_before(&found);
            } else if let Err(OpenError::Corrupt(corruption)) = check_continues(progress, &found) {
                progress.resume_before(&found);
                is_damaged = true;
                self.push_damage(
                    corruption,
                    None,
                    BLOCK_BYTES as u64,
                    (base_index, Some(base_index)),
                );
            } else if has_gap {
                progress.resume_before(&found);
            }
        }
        self.is_broken = false;
        self.next_segment_seq = found.name.segment_seq + 1;
        let next = self.peek(self.next_segment_seq)?;
        let progress = self
            .progress
            .get_or_insert_with(|| Progress::before(&found));
        self.items.push_back(Item::Segment(SegmentView {
            name: found.name,
            bytes: found.header.segment_bytes,
            base_index,
            first_group_seq: found.header.first_group_seq,
            incarnation: found.header.incarnation,
        }));
        let below = |next: &Found| next.header.base_index <= self.options.skip_below;
        if let Some(next) = &next
            && !is_damaged
            && (self.options.trust_seals || below(next))
            && progress.trust_seal(&found, next)?
        {
            let groups = progress.last_group_seq + 1 - found.header.first_group_seq;
            self.push_end(found.name, groups, (false, false), None);
            return Ok(());
        }
        progress.begin(&found);
        self.current = Some(Current {
            found,
            next,
            groups: 0,
            is_damaged,
        });
        Ok(())
    }

    /// Follows one group of the current segment, or ends it.
    fn follow(&mut self) -> Result<ControlFlow<()>, OpenError> {
        let (Some(current), Some(progress)) = (&mut self.current, &mut self.progress) else {
            return Ok(ControlFlow::Continue(()));
        };
        let bound = current
            .next
            .as_ref()
            .map_or(u64::MAX, |next| next.header.previous_group_seq);
        if progress.last_group_seq >= bound {
            self.end(None);
            return Ok(ControlFlow::Continue(()));
        }
        let offset = end_offset(progress);
        match progress.follow_group(&current.found, offset)? {
            Ok(group) => self.push_group(&group, offset),
            Err(stop) => return self.stopped(&stop),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Tries again what was not valid: by now it may be.
    fn follow_again(&mut self, stop: &Stop) -> Result<bool, OpenError> {
        let (Some(current), Some(progress)) = (&self.current, &mut self.progress) else {
            return Ok(false);
        };
        let group = progress.follow_group(&current.found, stop.offset)?;
        if let Ok(group) = &group {
            self.push_group(group, stop.offset);
        }
        Ok(group.is_ok())
    }

    fn stopped(&mut self, stop: &Stop) -> Result<ControlFlow<()>, OpenError> {
        let follow = self.options.follow;
        if self.find_next()? {
            return Ok(ControlFlow::Continue(()));
        }
        if self.is_current_retired() {
            self.pass_trimmed();
            return Ok(ControlFlow::Continue(()));
        }
        let (Some(current), Some(progress)) = (&self.current, &self.progress) else {
            return Ok(ControlFlow::Continue(()));
        };
        let corruption = if let Some(next) = &current.next {
            Corruption {
                file: current.found.file(),
                offset: stop.offset,
                kind: CorruptionKind::Group {
                    group_seq: stop.group_seq,
                    first_index: progress.next_index,
                    what: stop.what,
                    proof: Proof::NextSegment {
                        segment_seq: next.name.segment_seq,
                    },
                },
            }
        } else if follow && !self.is_checking {
            return Ok(ControlFlow::Break(()));
        } else {
            match judge(&current.found, stop, progress.next_index) {
                Ok(verdict) => {
                    // The log may have gone on in another segment while this one was judged.
                    if !self.find_next()? {
                        if follow {
                            return Ok(ControlFlow::Break(()));
                        }
                        if self.is_current_retired() {
                            self.pass_trimmed();
                            return Ok(ControlFlow::Continue(()));
                        }
                        self.is_past_last = true;
                        self.end(verdict.torn);
                    }
                    return Ok(ControlFlow::Continue(()));
                }
                Err(OpenError::Corrupt(corruption)) => corruption,
                Err(error) => return Err(error),
            }
        };
        if self.follow_again(stop)? {
            return Ok(ControlFlow::Continue(()));
        }
        if !self.is_same_file()? {
            return Ok(ControlFlow::Continue(()));
        }
        self.damaged(corruption, stop)?;
        Ok(ControlFlow::Continue(()))
    }

    /// The current segment, and nothing that is known to follow it, was retired.
    fn is_current_retired(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| {
            current.next.is_none() && self.is_retired(current.found.name.segment_seq)
        })
    }

    /// Whether a segment after the current one has come to be known just now.
    fn find_next(&mut self) -> Result<bool, OpenError> {
        let Some(current) = &self.current else {
            return Ok(false);
        };
        let next = current.found.name.segment_seq + 1;
        if current.next.is_some() {
            return Ok(false);
        }
        self.refresh()?;
        let found = self.peek(next)?;
        let is_known = found.is_some();
        if let Some(current) = &mut self.current {
            current.next = found;
        }
        Ok(is_known)
    }

    /// Whether the current file still has its name and use. If not, the walk leaves it.
    fn is_same_file(&mut self) -> Result<bool, OpenError> {
        let Some(current) = &self.current else {
            return Ok(true);
        };
        let (name, header) = (current.found.name, current.found.header.clone());
        let now = self.open(name)?;
        if let Opening::Found(now) | Opening::Damaged(_, _, Some(now)) = now
            && now.header == header
        {
            return Ok(true);
        }
        self.refresh()?;
        if self.is_retired(name.segment_seq) {
            self.next_segment_seq = name.segment_seq;
            self.pass_trimmed();
        } else {
            self.reenter()?;
        }
        Ok(false)
    }

    /// Begins the current or last segment again.
    fn reenter(&mut self) -> Result<(), OpenError> {
        let segment = self.progress.as_ref().and_then(|p| p.segments.last());
        let Some(name) = segment.map(|segment| segment.name) else {
            return Ok(());
        };
        self.current = None;
        self.is_broken = true;
        self.next_segment_seq = name.segment_seq;
        self.refresh()
    }

    fn damaged(&mut self, corruption: Corruption, stop: &Stop) -> Result<(), OpenError> {
        let (Some(current), Some(progress)) = (&mut self.current, &mut self.progress) else {
            return Ok(());
        };
        let (found, next) = (&current.found, current.next.as_ref());
        let bound = next.map_or(u64::MAX, |next| next.header.previous_group_seq);
        let mut resume = None;
        probe(found, stop.offset, |offset, header| {
            let is_itself = header.group_seq == stop.group_seq
                && offset == stop.offset
                && read_group(found, offset)?.is_ok();
            if header.group_seq > bound || (header.group_seq <= stop.group_seq && !is_itself) {
                return Ok(ControlFlow::Continue(()));
            }
            resume = Some((offset, header.clone()));
            Ok(ControlFlow::Break(()))
        })?;
        let lo = superseding_from(found, stop)?
            .map_or(progress.next_index, |from| from.min(progress.next_index));
        let (end, hi) = match &resume {
            Some((offset, header)) => (*offset, Some(goes_on_at(found, *offset, header, lo)?)),
            None => (
                next.map_or(found.header.segment_bytes, |next| {
                    next.header.previous_end_offset
                })
                .clamp(stop.offset, found.header.segment_bytes),
                next.map(|next| next.header.base_index.max(lo)),
            ),
        };
        current.is_damaged = true;
        let remains = remains(found, stop, end, (lo, hi.unwrap_or(u64::MAX)))?;
        let detail = explain_group(found, stop, &remains)?;
        match &resume {
            Some((offset, header)) => {
                progress.resume(found, *offset, header, hi.unwrap_or(lo))?;
            }
            None => self.is_broken = true,
        }
        let bytes = end.max(stop.offset) - stop.offset;
        self.push_damage(corruption, detail, bytes, (lo, hi));
        if !remains.batches().is_empty() {
            self.items.push_back(Item::Group(remains));
        }
        if resume.is_none() {
            self.end(None);
        }
        Ok(())
    }

    fn end(&mut self, torn: Option<Torn>) {
        let (Some(current), Some(progress)) = (self.current.take(), &self.progress) else {
            return;
        };
        let segment = progress.segments.last();
        let is_damaged = current.is_damaged;
        self.next_segment_seq = segment.map_or(0, |segment| segment.name.segment_seq) + 1;
        self.push_end(current.found.name, current.groups, (true, is_damaged), torn);
    }

    fn push_end(
        &mut self,
        name: SegmentName,
        groups: u64,
        (was_read, is_damaged): (bool, bool),
        torn: Option<Torn>,
    ) {
        let Some(segment) = self.progress.as_ref().and_then(|p| p.segments.last()) else {
            return;
        };
        self.items.push_back(Item::End(SegmentEnd {
            name,
            lo: segment.lo,
            hi: segment.hi,
            used_bytes: segment.end_offset,
            groups,
            is_sealed: segment.seal_offset.is_some(),
            was_read,
            is_damaged,
            torn,
        }));
    }

    fn push_group(&mut self, group: &Group, offset: u64) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.groups += 1;
        let payload = group.payload.clone();
        self.items.push_back(Item::Group(view(
            current.found.name,
            offset,
            &group.header,
            payload,
            true,
        )));
    }

    /// Damage that reaches to where the log goes on.
    fn close_damage(&mut self, hi: Option<u64>) {
        let lo = self.next_index();
        let lo = if self.progress.is_none() {
            hi.unwrap_or(lo)
        } else {
            lo
        };
        for (corruption, detail) in std::mem::take(&mut self.open_damage) {
            let hi = hi.map(|hi| hi.max(lo));
            self.push_damage(corruption, detail, 0, (lo, hi));
        }
    }

    fn push_damage(
        &mut self,
        corruption: Corruption,
        detail: Option<(u64, DecodeError)>,
        bytes: u64,
        (lo, hi): (u64, Option<u64>),
    ) {
        self.items.push_back(Item::Damage(Damage {
            corruption,
            bytes,
            lo,
            hi,
            detail,
        }));
    }
}

fn end_offset(progress: &Progress) -> u64 {
    let segment = progress.segments.last();
    segment.map_or(BLOCK_BYTES as u64, |segment| segment.end_offset)
}
