//! What must hold of the whole cluster after every input, whatever a script does.

use std::collections::BTreeMap;

use drave::raft::{Configuration, NodeId};

use super::disk::{Entry, Image};
use super::fault::Fault;

/// An entry that was committed.
#[derive(Debug)]
struct Committed {
    entry: Entry,
    /// Term of the node that was first to commit it.
    term: u64,
    /// The configuration by which it was committed.
    configuration: Configuration,
}

/// What was once true for good.
#[derive(Default, Debug)]
pub(super) struct Oracle {
    leaders: BTreeMap<u64, NodeId>,
    /// By index, from 1.
    committed: Vec<Committed>,
    /// By ticket: what was committed anywhere when the read began.
    reads: BTreeMap<u64, u64>,
}

/// A node as the oracle looks at it.
pub(super) struct Witness<'a> {
    pub(super) id: NodeId,
    pub(super) written: &'a Image,
    pub(super) durable: &'a Image,
    /// Its disk was wiped: what it lost, it lost by the script.
    pub(super) wiped: bool,
}

impl Oracle {
    /// Entries a scenario begins with and declares committed.
    pub(super) fn assume_committed(&mut self, image: &Image, commit_index: u64) {
        for (index, entry) in image.indexed().take_while(|(at, _)| *at <= commit_index) {
            if index > self.committed.len() as u64 {
                self.committed.push(Committed {
                    entry: entry.clone(),
                    term: entry.term,
                    configuration: Configuration::default(),
                });
            }
        }
    }

    /// Election Safety and Leader Completeness (figure 3.2).
    pub(super) fn leader_elected(
        &mut self,
        node: NodeId,
        term: u64,
        image: &Image,
    ) -> Result<(), Fault> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            return Err(Fault::invariant(format!(
                "election safety: {first} and {node} lead in term {term}"
            )));
        }
        for (index, known) in (1..).zip(&self.committed) {
            if index <= image.start.last.index || known.term >= term {
                continue;
            }
            if image.get(index) != Some(&known.entry) {
                return Err(Fault::invariant(format!(
                    "leader completeness: {node} leads term {term} without committed entry {index}"
                )));
            }
        }
        Ok(())
    }

    /// State Machine Safety (figure 3.2): an index is committed with one entry, for ever.
    pub(super) fn commit_advanced(
        &mut self,
        node: NodeId,
        commit_index: u64,
        term: u64,
        image: &Image,
        configuration: &Configuration,
    ) -> Result<(), Fault> {
        if image.start.last.index > self.committed.len() as u64 {
            return Err(Fault::invariant(format!(
                "state machine safety: {node} has a snapshot of what was never committed"
            )));
        }
        for index in image.start.last.index + 1..=commit_index {
            let Some(entry) = image.get(index) else {
                return Err(Fault::invariant(format!(
                    "{node} has committed entry {index}, which is not in its log"
                )));
            };
            match self.committed.get(index as usize - 1) {
                Some(known) if known.entry == *entry => {}
                Some(known) => {
                    return Err(Fault::invariant(format!(
                        "state machine safety: {node} commits {index}:{} {:?}, \
                         before it was {index}:{} {:?}",
                        entry.term, entry.payload, known.entry.term, known.entry.payload
                    )));
                }
                None => self.committed.push(Committed {
                    entry: entry.clone(),
                    term,
                    configuration: configuration.clone(),
                }),
            }
        }
        Ok(())
    }

    /// A committed entry is on the disks of a majority of the configuration that committed it, and
    /// stays there.
    pub(super) fn check_durable(&self, nodes: &[Witness<'_>]) -> Result<(), Fault> {
        for (index, known) in (1..).zip(&self.committed) {
            let holds = |node: &Witness<'_>| {
                node.wiped
                    || node.durable.start.last.index >= index
                    || node.durable.get(index) == Some(&known.entry)
            };
            let Configuration {
                voters,
                voters_outgoing,
                ..
            } = &known.configuration;
            for voters in [voters, voters_outgoing] {
                let holding = nodes
                    .iter()
                    .filter(|node| voters.contains(&node.id) && holds(node))
                    .count();
                if !voters.is_empty() && holding <= voters.len() / 2 {
                    return Err(Fault::invariant(format!(
                        "committed on a durable majority: entry {index} is on {holding} of {} disks",
                        voters.len()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Log Matching (figure 3.2) over every pair of logs.
    pub(super) fn check_log_matching(nodes: &[Witness<'_>]) -> Result<(), Fault> {
        for (position, a) in nodes.iter().enumerate() {
            for b in &nodes[position + 1..] {
                let lo = a.written.start.last.index.max(b.written.start.last.index) + 1;
                let hi = a.written.last_index().min(b.written.last_index()) + 1;
                let mut agree = false;
                for index in (lo..hi).rev() {
                    let (left, right) = (a.written.get(index), b.written.get(index));
                    agree |= left.map(|entry| entry.term) == right.map(|entry| entry.term);
                    if agree && left != right {
                        return Err(Fault::invariant(format!(
                            "log matching: {} and {} differ at {index} and agree after it",
                            a.id, b.id
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn read_started(&mut self, ticket: u64) {
        self.reads.insert(ticket, self.committed.len() as u64);
    }

    /// A read sees everything that was committed anywhere before it began (6.4).
    pub(super) fn read_ready(&mut self, ticket: u64, index: u64) -> Result<(), Fault> {
        match self.reads.remove(&ticket) {
            None => Err(Fault::invariant("a read was answered twice")),
            Some(before) if index < before => Err(Fault::invariant(format!(
                "linearizable reads: {before} was committed before it began, it saw {index}"
            ))),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn read_failed(&mut self, ticket: u64) -> Result<(), Fault> {
        match self.reads.remove(&ticket) {
            None => Err(Fault::invariant("a read was answered twice")),
            Some(_) => Ok(()),
        }
    }
}
