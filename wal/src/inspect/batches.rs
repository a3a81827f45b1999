//! The batches of a group, also of a damaged one: what is intact is found again behind what is not.

use drave_batch::{BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, BatchRef, DecodeError};

use super::{BatchState, BatchView, GroupView};
use crate::format::{GROUP_HEADER_BYTES, may_begin_batch};

impl GroupView {
    /// The payload as it is on disk; of a damaged group, what is in its place.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Its batches in order. Behind a damaged header the next intact one with a later index of the group is
    /// looked for; entries in between have no view.
    #[must_use]
    pub fn batches(&self) -> Vec<BatchView<'_>> {
        if self.kind != crate::GroupKind::Data {
            return Vec::new();
        }
        let end = self.first_index.saturating_add(self.batch_count.into());
        let (mut views, mut at, mut index) = (Vec::new(), 0, self.first_index);
        while index < end && at < self.payload.len() {
            let rest = &self.payload[at..];
            let view = self.view(at, index, rest);
            if let Some(header) = &view.header
                && (index..end).contains(&header.index)
                && self.has_term(header.term)
            {
                (at, index) = (at + header.encoded_bytes(), header.index + 1);
                views.push(view);
                continue;
            }
            let next = self.next_intact(at + BATCH_ALIGN, index + 1, end);
            let stop = next.map_or(self.payload.len(), |(offset, _)| offset);
            views.push(damaged(view, index, &self.payload[at..stop]));
            (at, index) = next.unwrap_or((self.payload.len(), end));
        }
        views
    }

    fn has_term(&self, term: u64) -> bool {
        self.term_known.is_none_or(|known| known == term)
    }

    fn view<'a>(&self, at: usize, index: u64, rest: &'a [u8]) -> BatchView<'a> {
        let offset = self.offset + (GROUP_HEADER_BYTES + at) as u64;
        match BatchRef::decode(rest) {
            Ok(batch) => BatchView {
                offset,
                index: batch.header.index,
                state: batch
                    .verify_body()
                    .err()
                    .map_or(BatchState::Intact, BatchState::Body),
                encoded: batch.encoded(),
                header: Some(batch.header),
            },
            Err(error) => BatchView {
                offset,
                index,
                header: None,
                state: BatchState::Header(error),
                encoded: rest,
            },
        }
    }

    /// The first place from `at` on with a header of `[lo, hi)`, and its index.
    fn next_intact(&self, at: usize, lo: u64, hi: u64) -> Option<(usize, u64)> {
        let last = self.payload.len().checked_sub(BATCH_HEADER_BYTES)?;
        (at..=last).step_by(BATCH_ALIGN).find_map(|at| {
            if !may_begin_batch(&self.payload[at..]) {
                return None;
            }
            let (header, _) = BatchHeader::decode(&self.payload[at..]).ok()?;
            let belongs = (lo..hi).contains(&header.index) && self.has_term(header.term);
            belongs.then_some((at, header.index))
        })
    }
}

/// A view of bytes that are not the batch expected there.
fn damaged<'a>(view: BatchView<'a>, index: u64, encoded: &'a [u8]) -> BatchView<'a> {
    let state = match (view.state, &view.header) {
        (BatchState::Header(error), _) => BatchState::Header(error),
        (_, Some(header)) => BatchState::Header(DecodeError::Invalid {
            what: "batch index or term in this place",
            found: header.index,
        }),
        (state, None) => state,
    };
    BatchView {
        index,
        header: None,
        state,
        encoded,
        offset: view.offset,
    }
}
