//! What the fake nodes share: logs, producers with the nodes' dedup rule, and the faults to come.

use std::collections::{BTreeMap, HashMap, VecDeque};

use drave_batch::control::MemberRole;
use drave_batch::wire::{
    Append, AppendTogether, Appended, AppendedPart, AppendedTogether, EXPECT_SEQ_NONE, ErrorCode,
    ErrorReply, LogChangeRequest, LogDescribed, LogInfo, LogList, LogListed, MemberListed,
    MessageKind, SeqAt, SeqFound, StatusMember, StatusReply, TailData,
};
use drave_batch::{BatchHeader, Batches, EntryKind, LogChange};

use super::members::MemberModel;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The connection closes before the request takes effect.
    CloseBefore,
    /// It takes effect, and the connection closes without an answer.
    CloseAfter,
    /// It is refused with this code.
    Refuse(ErrorCode),
    /// It takes effect and is never answered.
    Silent,
    /// One bit of the answer's payload is wrong.
    Damage,
    /// The answer's frame is cut in the middle, and the connection closes.
    Cut,
    /// The answer's head does not match its checksum.
    DamageHead,
}

/// A small generator: everything random in a test comes from one printed seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

pub struct LogModel {
    pub name: String,
    pub first_seq: u64,
    pub next_seq: u64,
    pub fence: u64,
    pub fence_seq: u64,
    pub is_closed: bool,
    pub retention: drave_batch::Retention,
    pub quota: drave_batch::Quota,
    /// Encoded batches with the seq of their first record.
    pub batches: Vec<(u64, Vec<u8>)>,
}

impl LogModel {
    /// Of each batch the seq after it, and when it was appended.
    fn times(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.batches.iter().map(|(_, encoded)| {
            let (header, _) = BatchHeader::decode(encoded).unwrap();
            (header.next_seq(), header.append_time_us)
        })
    }
}

/// The replicated state of all fake nodes: what one applies, all have.
pub struct Model {
    pub leader: usize,
    pub term: u64,
    pub addresses: Vec<String>,
    pub members: MemberModel,
    /// What nodes that do not lead say about who does.
    pub hint: Hint,
    pub logs: BTreeMap<u64, LogModel>,
    pub logs_created: u64,
    pub producers: HashMap<u64, Vec<Appended>>,
    pub producers_opened: u64,
    /// Faults for the next requests of a kind, in order.
    pub script: HashMap<u8, VecDeque<Fault>>,
    /// Random faults for appends: generator and percent.
    pub chaos: Option<(Random, u64)>,
    /// Leader changes at random with the chaos.
    pub chaos_elections: bool,
    pub appends_taken: u64,
    pub requests: HashMap<u8, u64>,
    /// The most payload bytes that any tail had unacknowledged, and the credit given with TailStart.
    pub tail_outstanding_max: u64,
    pub tail_starts: Vec<(usize, u64)>,
    pub tail_payload_bytes_max: usize,
    /// Nodes that say nothing on their tails.
    pub tail_silent: Vec<usize>,
    /// Nodes that are cut off at a seq, and tell their tails nothing beyond it.
    pub tail_stale: HashMap<usize, u64>,
    /// A trim that another client makes when the next read comes.
    pub trim_at_next_read: Option<(u64, u64)>,
    pub in_flight_max: u32,
    pub record_bytes_max: u32,
    pub credit_bytes: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hint {
    Right,
    Nothing,
    /// Node n names node n + 1: a circle.
    Circle,
}

pub fn refusal(code: ErrorCode) -> ErrorReply {
    ErrorReply {
        code: code as u32,
        message: format!("scripted {code}"),
        ..ErrorReply::default()
    }
}

fn check_conditions(
    log: Option<&mut LogModel>,
    expect_seq: u64,
    fence: u64,
) -> Result<&mut LogModel, ErrorReply> {
    let log = log.ok_or_else(|| refusal(ErrorCode::LogNotFound))?;
    if log.is_closed {
        return Err(refusal(ErrorCode::LogClosed));
    }
    if fence != log.fence {
        return Err(ErrorReply {
            expected: log.fence,
            found: fence,
            ..refusal(ErrorCode::Fenced)
        });
    }
    if expect_seq != EXPECT_SEQ_NONE && expect_seq != log.next_seq {
        return Err(ErrorReply {
            expected: expect_seq,
            found: log.next_seq,
            ..refusal(ErrorCode::ExpectSeq)
        });
    }
    Ok(log)
}

impl Model {
    pub fn new(addresses: Vec<String>) -> Self {
        Self {
            leader: 0,
            term: 1,
            members: MemberModel::new(&addresses),
            addresses,
            hint: Hint::Right,
            logs: BTreeMap::new(),
            logs_created: 0,
            producers: HashMap::new(),
            producers_opened: 0,
            script: HashMap::new(),
            chaos: None,
            chaos_elections: false,
            appends_taken: 0,
            requests: HashMap::new(),
            tail_outstanding_max: 0,
            tail_starts: Vec::new(),
            tail_payload_bytes_max: 1 << 20,
            tail_silent: Vec::new(),
            tail_stale: HashMap::new(),
            trim_at_next_read: None,
            in_flight_max: 64,
            record_bytes_max: 1 << 20,
            credit_bytes: 8 << 20,
        }
    }

    pub fn script(&mut self, kind: MessageKind, faults: impl IntoIterator<Item = Fault>) {
        self.script.entry(kind as u8).or_default().extend(faults);
    }

    pub fn next_fault(&mut self, kind: MessageKind) -> Option<Fault> {
        *self.requests.entry(kind as u8).or_default() += 1;
        let scripted = self.script.get_mut(&(kind as u8));
        if let Some(fault) = scripted.and_then(VecDeque::pop_front) {
            return Some(fault);
        }
        let (random, percent) = self.chaos.as_mut()?;
        if kind != MessageKind::Append || random.below(100) >= *percent {
            return None;
        }
        let fault = match random.below(8) {
            0 => Fault::CloseBefore,
            1 => Fault::CloseAfter,
            2 => Fault::Refuse(ErrorCode::Busy),
            3 => Fault::Refuse(ErrorCode::OutcomeUnknown),
            4 => Fault::Cut,
            5 => Fault::DamageHead,
            6 => Fault::Refuse(ErrorCode::NoQuorum),
            _ => Fault::CloseAfter,
        };
        let next_leader = random.below(self.addresses.len() as u64) as usize;
        if self.chaos_elections && random.below(3) == 0 {
            self.leader = next_leader;
            self.term += 1;
        }
        Some(fault)
    }

    pub fn requests(&self, kind: MessageKind) -> u64 {
        self.requests.get(&(kind as u8)).copied().unwrap_or(0)
    }

    pub fn not_leader(&self, node: usize) -> ErrorReply {
        let named = match self.hint {
            Hint::Right => Some(self.leader),
            Hint::Nothing => None,
            Hint::Circle => Some((node + 1) % self.addresses.len()),
        };
        ErrorReply {
            leader_id: named.map_or(0, |at| at as u64 + 1),
            leader_address: named.map_or(String::new(), |at| self.addresses[at].clone()),
            ..refusal(ErrorCode::NotLeader)
        }
    }

    pub fn create(&mut self, name: &str) -> u64 {
        self.logs_created += 1;
        let log_id = self.logs_created;
        let log = LogModel {
            name: name.to_owned(),
            first_seq: 0,
            next_seq: 0,
            fence: 0,
            fence_seq: 0,
            is_closed: false,
            retention: drave_batch::Retention::default(),
            quota: drave_batch::Quota::default(),
            batches: Vec::new(),
        };
        self.logs.insert(log_id, log);
        log_id
    }

    pub fn info(&self, log_id: u64, created: bool) -> LogInfo {
        let log = &self.logs[&log_id];
        LogInfo {
            log_id,
            first_seq: log.first_seq,
            next_seq: log.next_seq,
            created,
            name: log.name.clone(),
        }
    }

    pub fn describe(&self, log_id: u64) -> LogDescribed {
        let log = &self.logs[&log_id];
        LogDescribed {
            log_id,
            first_seq: log.first_seq,
            next_seq: log.next_seq,
            last_time_us: log.times().last().map_or(0, |(_, time_us)| time_us),
            held_bytes: log
                .batches
                .iter()
                .map(|(_, batch)| batch.len() as u64)
                .sum(),
            fence: log.fence,
            fence_seq: log.fence_seq,
            is_closed: log.is_closed,
            retention_bytes: log.retention.bytes,
            retention_age_us: log.retention.age_us,
            quota_bytes_per_second: log.quota.bytes_per_second,
            quota_records_per_second: log.quota.records_per_second,
            name: log.name.clone(),
        }
    }

    pub fn change(&mut self, asked: &LogChangeRequest) -> Result<LogDescribed, ErrorReply> {
        let log = self.logs.get_mut(&asked.log_id);
        let log = log.ok_or_else(|| refusal(ErrorCode::LogNotFound))?;
        match asked.change {
            LogChange::Fence { token } => {
                let token = if token == 0 { log.fence + 1 } else { token };
                if token < log.fence {
                    let expected = log.fence;
                    return Err(ErrorReply {
                        expected,
                        ..refusal(ErrorCode::Fenced)
                    });
                }
                if token > log.fence {
                    (log.fence, log.fence_seq) = (token, log.next_seq);
                }
            }
            LogChange::Close => log.is_closed = true,
            LogChange::Retain(retention) => log.retention = retention,
            LogChange::Limit(quota) => log.quota = quota,
            LogChange::Delete => {
                let described = self.describe(asked.log_id);
                self.logs.remove(&asked.log_id);
                return Ok(described);
            }
        }
        Ok(self.describe(asked.log_id))
    }

    pub fn seq_at(&self, at: &SeqAt) -> SeqFound {
        let log = &self.logs[&at.log_id];
        let found = log
            .times()
            .find(|(next_seq, time_us)| *next_seq > log.first_seq && *time_us >= at.time_us);
        let first = found.and_then(|(next_seq, _)| {
            let mut batches = log.batches.iter().rev();
            batches.find(|(first, _)| *first < next_seq)
        });
        SeqFound {
            log_id: at.log_id,
            first_seq: log.first_seq,
            next_seq: log.next_seq,
            seq: first.map_or(log.next_seq, |(seq, _)| (*seq).max(log.first_seq)),
            time_us: found.map_or(0, |(_, time_us)| time_us),
        }
    }

    pub fn find(&self, name: &str) -> Option<u64> {
        let found = self.logs.iter().find(|(_, log)| log.name == name);
        found.map(|(log_id, _)| *log_id)
    }

    pub fn list(&self, request: &LogList) -> LogListed {
        let mut names: Vec<&str> = self.logs.values().map(|log| log.name.as_str()).collect();
        names.sort_unstable();
        names.retain(|name| *name > request.after.as_str());
        let page = names.iter().take(request.count_max.min(3) as usize);
        let logs: Vec<LogInfo> = page
            .map(|name| self.info(self.find(name).unwrap(), false))
            .collect();
        LogListed {
            more: names.len() > logs.len(),
            logs,
        }
    }

    pub fn open_producer(&mut self) -> u64 {
        self.producers_opened += 1;
        let id = 100 + self.producers_opened;
        self.producers.insert(id, Vec::new());
        id
    }

    /// The nodes' rule for appends: duplicates, gaps, conditions, then the log.
    pub fn append(&mut self, append: &Append, body: &[u8]) -> Result<Appended, ErrorReply> {
        let header = &append.header;
        let Some(answers) = self.producers.get_mut(&header.producer_id) else {
            return Err(refusal(ErrorCode::UnknownProducer));
        };
        let expected = answers.len() as u64;
        assert!(
            u64::from(header.producer_unacked) <= header.producer_seq,
            "no more can be unacknowledged than was numbered"
        );
        if let Some(first) = answers.get(header.producer_seq as usize) {
            let duplicate = true;
            return Ok(Appended {
                duplicate,
                ..first.clone()
            });
        }
        if header.producer_seq > expected {
            return Err(refusal(ErrorCode::SequenceGap));
        }
        let log = self.logs.get_mut(&header.log_id);
        let log = check_conditions(log, append.expect_seq, append.fence)?;
        self.appends_taken += 1;
        let mut stored = header.clone();
        stored.term = self.term;
        stored.index = self.appends_taken;
        stored.first_seq = log.next_seq;
        stored.append_time_us = 1_000_000 + self.appends_taken;
        let mut encoded = Vec::new();
        stored.encode_with_body(body, &mut encoded);
        log.batches.push((log.next_seq, encoded));
        log.next_seq += u64::from(header.record_count);
        let appended = Appended {
            log_id: header.log_id,
            first_seq: stored.first_seq,
            record_count: header.record_count,
            duplicate: false,
            producer_seq: header.producer_seq,
            term: self.term,
            index: stored.index,
        };
        answers.push(appended.clone());
        Ok(appended)
    }

    /// The nodes' rule for appends to several logs: all or none.
    pub fn append_together(
        &mut self,
        asked: &AppendTogether,
        payload: &[u8],
    ) -> Result<AppendedTogether, ErrorReply> {
        let answers = self.producers.get(&asked.producer_id);
        if answers.is_some_and(|answers| answers.len() as u64 == asked.producer_seq) {
            for part in &asked.parts {
                let log = self.logs.get_mut(&part.log_id);
                check_conditions(log, part.expect_seq, part.fence)?;
            }
        }
        let mut appended = AppendedTogether {
            producer_seq: asked.producer_seq,
            ..AppendedTogether::default()
        };
        let mut rest = payload;
        for (position, part) in (0..).zip(&asked.parts) {
            let (body, behind) = rest.split_at(part.body_len as usize);
            rest = behind;
            let header = BatchHeader {
                log_id: part.log_id,
                producer_id: asked.producer_id,
                producer_seq: asked.producer_seq + position,
                ..BatchHeader::new(EntryKind::Data, body, part.record_count)
            };
            assert_eq!(
                header.body_crc, part.body_crc,
                "the body as it was checksummed"
            );
            let append = Append {
                header,
                expect_seq: part.expect_seq,
                fence: part.fence,
            };
            let one = self.append(&append, body)?;
            (appended.term, appended.index) = (one.term, one.index);
            appended.duplicate |= one.duplicate;
            appended.parts.push(AppendedPart {
                log_id: one.log_id,
                first_seq: one.first_seq,
                record_count: one.record_count,
            });
        }
        assert!(rest.is_empty(), "nothing behind the last body");
        Ok(appended)
    }

    /// Batches from the one that holds `from_seq` on, up to `bytes_max`, at least one.
    pub fn batches(&self, log_id: u64, from_seq: u64, bytes_max: usize) -> Vec<u8> {
        let log = &self.logs[&log_id];
        let mut out: Vec<u8> = Vec::new();
        let start = log.batches.partition_point(|(first, _)| *first <= from_seq);
        if from_seq >= log.next_seq {
            return out;
        }
        for (_, encoded) in &log.batches[start - 1..] {
            if !out.is_empty() && out.len() + encoded.len() > bytes_max {
                break;
            }
            out.extend_from_slice(encoded);
        }
        out
    }

    /// Gives up records below `first_seq`.
    pub fn trim(&mut self, log_id: u64, first_seq: u64) -> Result<(), ErrorReply> {
        let Some(log) = self.logs.get_mut(&log_id) else {
            return Err(refusal(ErrorCode::LogNotFound));
        };
        if first_seq > log.next_seq {
            return Err(ErrorReply {
                expected: log.next_seq,
                found: first_seq,
                ..refusal(ErrorCode::TrimBeyondTail)
            });
        }
        log.first_seq = log.first_seq.max(first_seq);
        Ok(())
    }

    /// The members as the leader lists them.
    pub fn list_members(&mut self) -> MemberListed {
        self.members.list(self.leader as u64 + 1, self.term)
    }

    /// A leader that left hands over to the first voter.
    pub fn lead_as_member(&mut self) {
        if self.members.member(self.leader as u64 + 1).is_none() {
            self.leader = self.members.members[0].node_id as usize - 1;
            self.term += 1;
        }
    }

    /// Makes a voter that answers the leader; gives its term.
    pub fn transfer(&mut self, to: u64) -> Result<u64, ErrorReply> {
        let role = self.members.member(to).and_then(|member| member.role);
        if role != Some(MemberRole::Voter) || self.members.silent.contains(&to) {
            return Err(refusal(ErrorCode::NotEligible));
        }
        if self.leader as u64 + 1 != to {
            self.leader = to as usize - 1;
            self.term += 1;
        }
        Ok(self.term)
    }

    pub fn tail_data(&self, log_id: u64) -> TailData {
        let log = &self.logs[&log_id];
        TailData {
            log_id,
            first_seq: log.first_seq,
            next_seq: log.next_seq,
            fence: log.fence,
            fence_seq: log.fence_seq,
        }
    }

    pub fn status(&self, node: usize) -> StatusReply {
        let node_id = node as u64 + 1;
        let members = self.members.members.iter().map(|member| StatusMember {
            node_id: member.node_id,
            address: member.address.clone(),
        });
        // Who is no member yet has not been told of any.
        let is_member = self.members.member(node_id).is_some();
        StatusReply {
            node_id,
            term: self.term,
            leader_id: self.leader as u64 + 1,
            role: if node == self.leader {
                "leader"
            } else {
                "follower"
            }
            .to_owned(),
            io_engine: "posix".to_owned(),
            version: "0.1.0".to_owned(),
            members: members.filter(|_| is_member).collect(),
            ..StatusReply::default()
        }
    }

    /// Every record of a log, in order.
    pub fn records(&self, log_id: u64) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        for (_, encoded) in &self.logs[&log_id].batches {
            for batch in Batches::new(encoded) {
                let batch = batch.unwrap();
                assert_eq!(batch.header.kind, EntryKind::Data);
                records.extend(batch.records().unwrap().map(<[u8]>::to_vec));
            }
        }
        records
    }
}
