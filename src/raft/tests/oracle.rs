//! What must hold of the whole cluster, whatever happens. Panics with the name of what broke.

use super::super::{Configuration, EntryId};
use super::disk::{Entry, Image};
use std::collections::BTreeMap;
use std::vec::Vec;

#[derive(Default)]
pub(super) struct Oracle {
    leaders: BTreeMap<u64, usize>,
    /// By index, from 1: the entry, and the term of the leader that first committed it.
    pub(super) committed: Vec<(Entry, u64)>,
    reads: BTreeMap<u64, u64>,
    pub(super) elections: u64,
    pub(super) reads_served: u64,
}

impl Oracle {
    /// Election safety, and leader completeness: every entry committed in an earlier term is there.
    pub(super) fn leader_elected(&mut self, node: usize, term: u64, image: &Image) {
        let first = *self.leaders.entry(term).or_insert(node);
        assert_eq!(first, node, "election safety: two leaders in term {term}");
        self.elections += 1;
        for (index, (entry, commit_term)) in (1..).zip(&self.committed) {
            if index <= image.start.last.index || *commit_term >= term {
                continue;
            }
            assert_eq!(
                image.get(index),
                Some(entry),
                "leader completeness: node {node} of term {term} lacks committed entry {index}"
            );
        }
    }

    /// State machine safety: what is committed at an index is the same everywhere and for ever.
    /// A leader commits only what a quorum of the configuration in force has on disk.
    pub(super) fn commit_advanced(
        &mut self,
        commit_index: u64,
        term: u64,
        image: &Image,
        leads: bool,
        configuration: &Configuration,
        disks: &[&Image],
    ) {
        // A snapshot may stand for entries this oracle has from others already.
        let known = self.committed.len() as u64;
        assert!(
            image.start.last.index <= known,
            "a snapshot of what was never committed"
        );
        for index in image.start.last.index + 1..=commit_index {
            let entry = image.get(index).expect("committed entries are in the log");
            match self.committed.get(index as usize - 1) {
                Some((known, _)) => {
                    assert_eq!(known, entry, "state machine safety at index {index}");
                }
                None => self.committed.push((entry.clone(), term)),
            }
        }
        if leads && commit_index > image.start.last.index {
            let entry = image.get(commit_index).unwrap();
            let has = |disk: &&&Image| {
                disk.start.last.index >= commit_index || disk.get(commit_index) == Some(entry)
            };
            for voters in [&configuration.voters, &configuration.voters_outgoing] {
                let holding = voters
                    .iter()
                    .map(|voter| &disks[voter.0 as usize])
                    .filter(has);
                assert!(
                    voters.is_empty() || holding.count() > voters.len() / 2,
                    "quorum durability: entry {commit_index} is committed but not on a majority's disk"
                );
            }
        }
    }

    pub(super) fn read_started(&mut self, ticket: u64) {
        self.reads.insert(ticket, self.committed.len() as u64);
    }

    /// A read sees everything that was committed anywhere before it began.
    pub(super) fn read_ready(&mut self, ticket: u64, index: u64) {
        let committed_before = self.reads.remove(&ticket).expect("a read is answered once");
        assert!(
            index >= committed_before,
            "linearizable read: {committed_before} was committed before, it saw {index}"
        );
        self.reads_served += 1;
    }

    pub(super) fn read_failed(&mut self, ticket: u64) {
        self.reads.remove(&ticket).expect("a read is answered once");
    }

    /// Log matching over every pair: where two logs have the same term at an index, they are the
    /// same up to there.
    pub(super) fn log_matching(images: &[&Image]) {
        for (position, a) in images.iter().enumerate() {
            for b in &images[position + 1..] {
                let lo = a.start.last.index.max(b.start.last.index) + 1;
                let mut equal_from_here = false;
                for index in (lo..=a.last_index().min(b.last_index())).rev() {
                    let (left, right) = (a.get(index).unwrap(), b.get(index).unwrap());
                    equal_from_here |= left.term == right.term;
                    assert!(
                        !equal_from_here || left == right,
                        "log matching at index {index}"
                    );
                }
            }
        }
    }

    pub(super) fn last_committed(&self) -> EntryId {
        let index = self.committed.len() as u64;
        EntryId {
            term: self.committed.last().map_or(0, |(entry, _)| entry.term),
            index,
        }
    }
}
