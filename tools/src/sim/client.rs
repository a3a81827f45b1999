//! Clients: producers that pipeline and retry under the same sequence, wherever the leader is; appends that
//! are sent once; linearizable reads of a log's ends.
//!
//! What became of an operation is one of: acknowledged, refused as not written, unknown. Unknown is not
//! absent: it may turn up once, later.

use std::collections::BTreeMap;

use bytes::Bytes;
use drave::replica::{Answer, Refusal};
use drave_batch::wire::{Append, EXPECT_SEQ_NONE, Effect, ErrorCode, MemberChange};
use drave_batch::{BatchHeader, BodyBuilder, EntryKind, FENCE_NEXT, LogChange};

use super::invariants::committed::LogModel;
use super::plan::Plan;
use super::random::Random;

/// What a client asks a node.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Make a log if there is none.
    Create {
        /// Its name.
        name: String,
    },
    /// Register a producer.
    OpenProducer,
    /// Append a batch.
    Append {
        /// The head.
        append: Append,
        /// The body.
        body: Bytes,
    },
    /// Change a log.
    Change {
        /// The log.
        log_id: u64,
        /// How.
        change: LogChange,
    },
    /// Where a log begins and ends, linearizably.
    Tail {
        /// The log.
        log_id: u64,
    },
    /// Change the members.
    Members(MemberChange),
    /// Hand the lead over.
    Transfer {
        /// To whom.
        to: u64,
    },
    /// Give up the records of a log below `first_seq`.
    Trim {
        /// The log.
        log_id: u64,
        /// The first to keep.
        first_seq: u64,
    },
}

/// A request on its way. The id is the operation's and the same for every attempt.
#[derive(Clone, Debug)]
pub struct Request {
    /// The operation.
    pub request_id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// An answer on its way.
#[derive(Clone, Debug)]
pub struct Reply {
    /// To whom.
    pub client: usize,
    /// The operation.
    pub request_id: u64,
    /// The answer.
    pub answer: Answer,
    /// Of a read: what the log is.
    pub tail: Option<LogModel>,
    /// Who answers.
    pub node: usize,
    /// Whom that node takes for the leader.
    pub leader: Option<usize>,
}

/// What an operation is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The client's log is wanted.
    Create,
    /// A producer is wanted.
    Open,
    /// A batch under a producer's sequence: retried until it is settled.
    Sequenced,
    /// A batch without one: sent once.
    Once,
    /// The log is to be this client's: it is fenced.
    Fence,
    /// A read that began when this much was committed.
    Read(LogModel),
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What it is for.
    pub purpose: Purpose,
    /// What is sent.
    pub ask: Ask,
    /// The producer's number of it.
    pub sequence: u64,
    /// The fencing tokens that its attempts carried.
    pub fences: Vec<u64>,
    /// When it is sent again.
    due_us: u64,
    /// Nobody has answered the last attempt.
    is_silent: bool,
    attempts: u32,
}

/// What a client wants sent.
#[derive(Debug)]
pub struct Sending {
    /// Which node.
    pub node: usize,
    /// The request.
    pub request: Request,
    /// Whether a second copy may arrive without harm to what the client believes.
    pub may_repeat: bool,
}

/// What became of an operation, for the checkers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// Acknowledged, or answered.
    Done,
    /// Refused for good, and certainly not written.
    NotWritten,
    /// Given up: nobody knows.
    Unknown,
}

/// A client.
pub struct Client {
    slot: usize,
    random: Random,
    /// The node it believes to lead.
    target: usize,
    log_name: String,
    log_id: Option<u64>,
    producer: Option<u64>,
    next_sequence: u64,
    /// The log's next seq by its last answer.
    tail_known: u64,
    /// The log's fencing token, as far as this client has heard.
    fence: u64,
    /// By operation.
    under_way: BTreeMap<u64, Operation>,
    /// It begins nothing new.
    pub is_stopping: bool,
    timeout_us: u64,
}

/// Producers that a leader may have registered and nobody has seen committed.
const PRODUCERS_UNSEEN: u64 = 100;

/// Attempts at a read before it is given up.
const READ_ATTEMPTS_MAX: u32 = 6;

impl Client {
    /// Whether an answer contradicts what was asked, in a way that needs no other node to see.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, reply: &Reply, plan: &Plan, producers_opened: u64) -> Result<(), String> {
        let Some(operation) = self.under_way.get(&reply.request_id) else {
            return Ok(());
        };
        match (&reply.answer, &operation.ask) {
            // If the condition still stands, no attempt went without it.
            (Answer::Appended(appended), Ask::Append { append, .. })
                if append.expect_seq != EXPECT_SEQ_NONE
                    && append.expect_seq != appended.first_seq =>
            {
                Err(format!(
                    "operation {} was to be appended at {} only, and is at {}",
                    reply.request_id, append.expect_seq, appended.first_seq
                ))
            }
            (Answer::Refused(refusal), Ask::Append { append, .. })
                if refusal.code == ErrorCode::UnknownProducer
                    && producers_opened + PRODUCERS_UNSEEN
                        < u64::from(plan.limits.producers_max) =>
            {
                Err(format!(
                    "producer {} was opened, there is room for all of them, and node {} does not know it",
                    append.header.producer_id,
                    reply.node + 1
                ))
            }
            _ => Ok(()),
        }
    }

    /// A client that has not asked for anything.
    #[must_use]
    pub fn new(slot: usize, plan: &Plan) -> Self {
        let random = Random::new(plan.options.seed, 100 + slot as u64);
        Self {
            slot,
            random,
            target: slot % plan.nodes,
            log_name: format!("log-{}", slot % 2),
            log_id: None,
            producer: None,
            next_sequence: 0,
            tail_known: 0,
            fence: 0,
            under_way: BTreeMap::new(),
            is_stopping: false,
            timeout_us: plan.election_us / plan.client_patience
                + 20 * plan.delay_us.1
                + 20 * plan.disk_us.1,
        }
    }

    /// Operations under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The operation, if it is under way.
    #[must_use]
    pub fn operation(&self, request_id: u64) -> Option<&Operation> {
        self.under_way.get(&request_id)
    }

    /// Sends again what was not answered, and something new if there is room. `operations` numbers new
    /// ones; `committed` tells what is committed of a log now.
    pub fn turn(
        &mut self,
        now_us: u64,
        plan: &Plan,
        nodes: usize,
        operations: &mut u64,
        committed: &dyn Fn(u64) -> Option<LogModel>,
        sendings: &mut Vec<Sending>,
    ) -> Vec<(u64, Settled)> {
        let settled = self.send_again(now_us, nodes, sendings);
        if self.is_stopping {
            return settled;
        }
        if self.random.chance(3) {
            // The process dies: its successor is another producer, and what was under way is unknown.
            self.forget();
            return settled;
        }
        let Some(log_id) = self.log_id else {
            if self.under_way.is_empty() {
                let name = self.log_name.clone();
                self.begin(
                    now_us,
                    operations,
                    Purpose::Create,
                    Ask::Create { name },
                    0,
                    sendings,
                );
            }
            return settled;
        };
        if (self.under_way.len() as u32) < plan.pipeline {
            self.begin_something(now_us, plan, log_id, operations, committed, sendings);
        }
        settled
    }

    fn begin_something(
        &mut self,
        now_us: u64,
        plan: &Plan,
        log_id: u64,
        operations: &mut u64,
        committed: &dyn Fn(u64) -> Option<LogModel>,
        sendings: &mut Vec<Sending>,
    ) {
        if self.random.chance(30) {
            let change = LogChange::Fence { token: FENCE_NEXT };
            let ask = Ask::Change { log_id, change };
            self.begin(now_us, operations, Purpose::Fence, ask, 0, sendings);
            return;
        }
        match self.random.below(10) {
            draw if draw < plan.reads => {
                let before = committed(log_id).unwrap_or_default();
                let ask = Ask::Tail { log_id };
                self.begin(now_us, operations, Purpose::Read(before), ask, 0, sendings);
            }
            draw if draw == plan.reads => {
                let ask = self.batch(plan, log_id, *operations + 1, None);
                self.begin(now_us, operations, Purpose::Once, ask, 0, sendings);
            }
            _ => match self.producer {
                None => {
                    let opens = |operation: &Operation| matches!(operation.purpose, Purpose::Open);
                    if !self.under_way.values().any(opens) {
                        let ask = Ask::OpenProducer;
                        self.begin(now_us, operations, Purpose::Open, ask, 0, sendings);
                    }
                }
                Some(producer) => {
                    let sequence = self.next_sequence;
                    self.next_sequence += 1;
                    let ask = self.batch(plan, log_id, *operations + 1, Some((producer, sequence)));
                    self.begin(
                        now_us,
                        operations,
                        Purpose::Sequenced,
                        ask,
                        sequence,
                        sendings,
                    );
                }
            },
        }
    }

    fn batch(
        &mut self,
        plan: &Plan,
        log_id: u64,
        operation: u64,
        producer: Option<(u64, u64)>,
    ) -> Ask {
        let count = self.random.range(1, plan.records_max + 1);
        let bytes = self.random.range(8, plan.record_bytes_max + 1) as usize;
        let mut record = vec![operation as u8; bytes];
        record[..8].copy_from_slice(&operation.to_le_bytes());
        let mut builder = BodyBuilder::new();
        for _ in 0..count {
            builder.push(&record);
        }
        let mut body = Vec::new();
        builder.drain_into(&mut body);
        let mut header = BatchHeader::new(EntryKind::Data, &body, count as u32);
        header.log_id = log_id;
        if let Some((producer_id, sequence)) = producer {
            header.producer_id = producer_id;
            header.producer_seq = sequence;
        }
        let fence = self.fence;
        let expect_seq = if self.random.chance(150) {
            self.tail_known
        } else {
            EXPECT_SEQ_NONE
        };
        Ask::Append {
            append: Append {
                header,
                expect_seq,
                fence,
            },
            body: body.into(),
        }
    }

    fn begin(
        &mut self,
        now_us: u64,
        operations: &mut u64,
        purpose: Purpose,
        ask: Ask,
        sequence: u64,
        sendings: &mut Vec<Sending>,
    ) {
        *operations += 1;
        let mut operation = Operation {
            purpose,
            ask,
            sequence,
            fences: Vec::new(),
            due_us: now_us,
            is_silent: true,
            attempts: 0,
        };
        self.send(now_us, *operations, &mut operation, sendings);
        self.under_way.insert(*operations, operation);
    }

    fn send(
        &self,
        now_us: u64,
        request_id: u64,
        operation: &mut Operation,
        sendings: &mut Vec<Sending>,
    ) {
        operation.due_us = now_us + self.timeout_us;
        operation.is_silent = true;
        operation.attempts += 1;
        if let Ask::Append { append, .. } = &operation.ask
            && operation.fences.last() != Some(&append.fence)
        {
            operation.fences.push(append.fence);
        }
        if let (Purpose::Sequenced, Ask::Append { append, .. }) =
            (&operation.purpose, &mut operation.ask)
        {
            let oldest = self.oldest_sequence().unwrap_or(operation.sequence);
            let unacked = operation.sequence - oldest.min(operation.sequence);
            append.header.producer_unacked = unacked as u32;
        }
        sendings.push(Sending {
            node: self.target,
            request: Request {
                request_id,
                ask: operation.ask.clone(),
            },
            may_repeat: !matches!(operation.purpose, Purpose::Once),
        });
    }

    fn oldest_sequence(&self) -> Option<u64> {
        let sequenced = |operation: &&Operation| matches!(operation.purpose, Purpose::Sequenced);
        let sequences = self.under_way.values().filter(sequenced);
        sequences.map(|operation| operation.sequence).min()
    }

    fn send_again(
        &mut self,
        now_us: u64,
        nodes: usize,
        sendings: &mut Vec<Sending>,
    ) -> Vec<(u64, Settled)> {
        let mut settled = Vec::new();
        // A producer sends everything again, in order, when its oldest batch is due: any other order
        // would only meet gaps.
        let is_sequenced = |operation: &Operation| matches!(operation.purpose, Purpose::Sequenced);
        let oldest = self
            .under_way
            .values()
            .find(|operation| is_sequenced(operation));
        let producer_due_us = oldest.map_or(u64::MAX, |operation| operation.due_us);
        let late = |operation: &Operation| {
            let due_us = if is_sequenced(operation) {
                producer_due_us
            } else {
                operation.due_us
            };
            now_us >= due_us
        };
        if !self.under_way.values().any(late) {
            return settled;
        }
        let silent = |operation: &Operation| late(operation) && operation.is_silent;
        if self.under_way.values().any(silent) {
            // Perhaps the leader is another one by now.
            self.target = self.random.below(nodes as u64) as usize;
        }
        let numbers: Vec<u64> = self.under_way.keys().copied().collect();
        for number in numbers {
            let Some(mut operation) = self.under_way.get(&number).cloned() else {
                continue;
            };
            if !late(&operation) {
                continue;
            }
            let gives_up = match operation.purpose {
                // Whoever does not answer may have written it.
                Purpose::Once => true,
                Purpose::Read(_) | Purpose::Fence => operation.attempts >= READ_ATTEMPTS_MAX,
                _ => false,
            };
            if gives_up {
                self.under_way.remove(&number);
                settled.push((number, Settled::Unknown));
                continue;
            }
            self.send(now_us, number, &mut operation, sendings);
            self.under_way.insert(number, operation);
        }
        settled
    }

    fn forget(&mut self) {
        self.under_way.clear();
        self.producer = None;
        self.next_sequence = 0;
    }

    /// Takes an answer. Gives what became of the operation, if this settles it.
    pub fn take(&mut self, now_us: u64, nodes: usize, reply: &Reply) -> Option<Settled> {
        self.under_way.get(&reply.request_id)?;
        match &reply.answer {
            Answer::Appended(appended) => {
                self.tail_known = appended.first_seq + u64::from(appended.record_count);
                self.settle(reply.request_id, Settled::Done)
            }
            Answer::Log(info) => {
                if self.log_id != Some(info.log_id) {
                    self.fence = 0;
                }
                self.log_id = Some(info.log_id);
                self.tail_known = info.next_seq;
                self.settle(reply.request_id, Settled::Done)
            }
            Answer::Described(log) => {
                self.fence = self.fence.max(log.fence);
                self.settle(reply.request_id, Settled::Done)
            }
            Answer::Producer(opened) => {
                self.producer = Some(opened.producer_id);
                self.next_sequence = 0;
                self.settle(reply.request_id, Settled::Done)
            }
            Answer::Refused(refusal) => self.take_refusal(now_us, nodes, reply, refusal),
            // The operator's answers, and one to what these clients do not ask.
            Answer::Members(_) | Answer::Transferred(_) | Answer::AppendedTogether(_) => None,
        }
    }

    fn settle(&mut self, request_id: u64, settled: Settled) -> Option<Settled> {
        self.under_way.remove(&request_id);
        Some(settled)
    }

    fn take_refusal(
        &mut self,
        now_us: u64,
        nodes: usize,
        reply: &Reply,
        refusal: &Refusal,
    ) -> Option<Settled> {
        let random_node = self.random.below(nodes as u64) as usize;
        if matches!(refusal.code, ErrorCode::NotLeader | ErrorCode::NoQuorum) {
            self.target = reply.leader.unwrap_or(random_node);
        }
        let pause_us = self.random.range(0, self.timeout_us / 4);
        if refusal.code == ErrorCode::Fenced {
            self.fence = self.fence.max(refusal.expected);
        }
        let operation = self.under_way.get_mut(&reply.request_id)?;
        match operation.purpose {
            Purpose::Once => {
                let settled = match refusal.code.effect() {
                    Effect::NotWritten => Settled::NotWritten,
                    Effect::Unknown => Settled::Unknown,
                };
                return self.settle(reply.request_id, settled);
            }
            Purpose::Sequenced if refusal.code == ErrorCode::UnknownProducer => {
                self.forget();
                return Some(Settled::Unknown);
            }
            Purpose::Sequenced if refusal.code == ErrorCode::DuplicateForgotten => {
                // Only what was acknowledged is forgotten: an answer that was lost, of a sequence that a
                // later batch of this client did not count as open.
                return self.settle(reply.request_id, Settled::Unknown);
            }
            Purpose::Sequenced if refusal.code == ErrorCode::ExpectSeq => {
                // The condition failed: what is left is to append under this sequence all the same, or
                // the producer's numbers would have a gap.
                if let Ask::Append { append, .. } = &mut operation.ask {
                    append.expect_seq = EXPECT_SEQ_NONE;
                }
            }
            _ if matches!(refusal.code, ErrorCode::LogNotFound | ErrorCode::LogClosed) => {
                // The log is over. What else is under way there is of no more use.
                self.forget();
                self.log_id = None;
                return Some(Settled::Unknown);
            }
            Purpose::Sequenced if refusal.code == ErrorCode::Fenced => {
                // Likewise, and with the token that holds.
                if let Ask::Append { append, .. } = &mut operation.ask {
                    append.fence = refusal.expected;
                }
            }
            _ => {}
        }
        operation.due_us = now_us + pause_us;
        operation.is_silent = false;
        None
    }

    /// How long until its next turn.
    pub fn pause_us(&mut self, plan: &Plan) -> u64 {
        self.random.range(plan.think_us.0, plan.think_us.1)
    }

    /// Its number.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Options;
    use super::*;
    use drave_batch::wire::Appended;

    fn with_an_append(expect_seq: u64) -> (Client, Plan) {
        let mut plan = Plan::draw(&Options::of(1));
        plan.limits.producers_max = 1_000;
        let mut client = Client::new(0, &plan);
        let Ask::Append { mut append, body } = client.batch(&plan, 1, 7, Some((9, 0))) else {
            unreachable!("a batch is an append");
        };
        append.expect_seq = expect_seq;
        let ask = Ask::Append { append, body };
        client.begin(0, &mut 6, Purpose::Sequenced, ask, 0, &mut Vec::new());
        (client, plan)
    }

    fn reply(answer: Answer) -> Reply {
        Reply {
            client: 0,
            request_id: 7,
            answer,
            tail: None,
            node: 0,
            leader: None,
        }
    }

    #[test]
    fn an_append_elsewhere_than_it_was_to_be_is_found() {
        let appended = |first_seq| {
            reply(Answer::Appended(Appended {
                first_seq,
                log_id: 1,
                record_count: 1,
                duplicate: false,
                producer_seq: 0,
                term: 1,
                index: 5,
            }))
        };
        let (client, plan) = with_an_append(4);
        assert!(client.check(&appended(4), &plan, 0).is_ok());
        assert!(client.check(&appended(5), &plan, 0).is_err());
        let (client, plan) = with_an_append(EXPECT_SEQ_NONE);
        assert!(client.check(&appended(5), &plan, 0).is_ok());
    }

    #[test]
    fn a_producer_that_cannot_have_been_forgotten_and_is_not_known_is_found() {
        let refused = reply(Answer::Refused(Refusal::new(
            ErrorCode::UnknownProducer,
            "",
        )));
        let (client, mut plan) = with_an_append(EXPECT_SEQ_NONE);
        assert!(client.check(&refused, &plan, 20).is_err());
        plan.limits.producers_max = 3;
        assert!(client.check(&refused, &plan, 20).is_ok());
    }
}
