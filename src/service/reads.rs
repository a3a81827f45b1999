//! Reads: confirmed with a quorum when they are to be linearizable, then served in bounded steps.

use std::collections::HashMap;

use drave_batch::control::LOG_NAME_BYTES_MAX;
use drave_batch::wire::{self, ErrorCode, LOCAL_READ};
use drave_batch::{BODY_BYTES_MAX, encoded_bytes};
use drave_net::ConnId;
use drave_wal::{ReadError, Slices};

use super::rounds::{After, FIRST_READ_KEY, KEY_STEP, Rounds};
use super::scan::{Cursor, Found, Step};
use super::seek::{Seek, SeqAndTime};
use super::{Context, absent, deleted};
use crate::replica::{Fatal, LogState, Refusal, ReplyTo};

/// Reads that may wait for their confirmation or their bytes.
const READS_MAX: usize = 4096;

/// Of these, reads of one connection: one that does not take its answers leaves room for others.
const READS_PER_CONNECTION_MAX: u32 = 256;

/// Logs in one answer to a listing at most: their names fit a frame's head.
const LIST_MAX: usize = 60_000 / (LOG_NAME_BYTES_MAX + 26);

/// Bytes of batches in one answer at most: with one batch more it still fits a frame.
const READ_BYTES_MAX: usize =
    wire::FRAME_PAYLOAD_BYTES_MAX as usize - encoded_bytes(BODY_BYTES_MAX);

enum Request {
    Lookup(wire::LogLookup),
    List(wire::LogList),
    Describe(wire::LogDescribe),
    SeqAt(wire::SeqAt),
    Read(wire::Read),
}

impl Request {
    fn is_local(&self) -> bool {
        let consistency = match self {
            Self::Lookup(lookup) => lookup.consistency,
            Self::List(list) => list.consistency,
            Self::Describe(describe) => describe.consistency,
            Self::SeqAt(at) => at.consistency,
            Self::Read(read) => read.consistency,
        };
        consistency == LOCAL_READ
    }
}

struct Scan {
    to: ReplyTo,
    cursor: Cursor,
    bytes_max: usize,
    found: Found,
    /// What is wanted is a seq, and not the batches found on the way.
    seek: Option<Seek>,
}

impl Scan {
    /// Goes on with a search for a time, after a step of its cursor.
    fn step_seek(&mut self, context: &Context<'_>, log: &LogState, step: Step) -> After {
        let Some(seek) = &self.seek else {
            return After::Done;
        };
        let is_end = match step {
            Step::Cold(job) => return After::Cold(job),
            Step::Missing => {
                context.refuse_unconfirmed(self.to);
                return After::Done;
            }
            Step::Moved | Step::Full => false,
            Step::End => true,
        };
        let found = seek.take(&mut self.found, log.first_seq);
        if found.is_none() && !is_end {
            return After::Again;
        }
        context.reply(self.to, &seq_found(log, found), &[]);
        After::Done
    }

    /// What was to be looked at was trimmed meanwhile: the first record held is the next candidate.
    fn seek_from(&mut self, first_seq: u64) -> After {
        self.found = Found::default();
        self.cursor = Cursor::new(self.cursor.log_id, first_seq);
        After::Again
    }
}

/// Reads under way.
pub(super) struct Reads {
    next_ticket: u64,
    unconfirmed: HashMap<u64, (ReplyTo, Request)>,
    /// Reads under way by connection.
    by_connection: HashMap<u64, u32>,
    next_key: u64,
    scans: HashMap<u64, Scan>,
}

impl Reads {
    pub(super) fn new() -> Self {
        Self {
            next_ticket: 0,
            unconfirmed: HashMap::new(),
            by_connection: HashMap::new(),
            next_key: FIRST_READ_KEY,
            scans: HashMap::new(),
        }
    }

    pub(super) fn lookup(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: wire::LogLookup,
    ) -> Result<(), Fatal> {
        self.begin(context, rounds, to, Request::Lookup(request))
    }

    pub(super) fn list(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: wire::LogList,
    ) -> Result<(), Fatal> {
        self.begin(context, rounds, to, Request::List(request))
    }

    pub(super) fn describe(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: wire::LogDescribe,
    ) -> Result<(), Fatal> {
        self.begin(context, rounds, to, Request::Describe(request))
    }

    pub(super) fn seq_at(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: wire::SeqAt,
    ) -> Result<(), Fatal> {
        self.begin(context, rounds, to, Request::SeqAt(request))
    }

    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: wire::Read,
    ) -> Result<(), Fatal> {
        self.begin(context, rounds, to, Request::Read(request))
    }

    fn begin(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: Request,
    ) -> Result<(), Fatal> {
        let under_way = self.by_connection.get(&to.connection).copied().unwrap_or(0);
        if under_way >= READS_PER_CONNECTION_MAX {
            let message = format!("{under_way} reads of this connection are under way already");
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return Ok(());
        }
        let is_local = request.is_local();
        // What is missing here may be elsewhere, a leader too may have been replaced without knowing: "there is
        // none" is said only after a round.
        if is_local && is_here(context, &request) {
            self.serve(context, rounds, to, request);
            return Ok(());
        }
        if self.unconfirmed.len() >= READS_MAX {
            let message = format!("{READS_MAX} reads wait already");
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return Ok(());
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.unconfirmed.insert(ticket, (to, request));
        self.begun(to);
        if let Err(refusal) = context
            .replica
            .read_index(context.now, ticket, context.log)?
        {
            self.unconfirmed.remove(&ticket);
            self.ended(to);
            if is_local {
                context.refuse_unconfirmed(to);
            } else {
                context.refuse(to, &refusal);
            }
        }
        Ok(())
    }

    fn begun(&mut self, to: ReplyTo) {
        *self.by_connection.entry(to.connection).or_default() += 1;
    }

    fn ended(&mut self, to: ReplyTo) {
        if let Some(count) = self.by_connection.get_mut(&to.connection) {
            *count -= 1;
            if *count == 0 {
                self.by_connection.remove(&to.connection);
            }
        }
    }

    fn end_scan(&mut self, key: u64) {
        if let Some(scan) = self.scans.remove(&key) {
            self.ended(scan.to);
        }
    }

    /// A client is gone: nobody waits for its reads any more. Gives the keys of those.
    pub(super) fn on_closed(&mut self, conn: ConnId) -> Vec<u64> {
        let of_client = |to: &ReplyTo| to.connection == conn.number();
        self.unconfirmed.retain(|_, (to, _)| !of_client(to));
        self.by_connection.remove(&conn.number());
        let scans = self.scans.extract_if(|_, scan| of_client(&scan.to));
        scans.map(|(key, _)| key).collect()
    }

    /// A quorum confirmed the read: everything committed before it was asked for is applied.
    pub(super) fn confirmed(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        ticket: u64,
    ) {
        if let Some((to, request)) = self.unconfirmed.remove(&ticket) {
            self.ended(to);
            self.serve(context, rounds, to, request);
        }
    }

    pub(super) fn failed(&mut self, context: &mut Context<'_>, ticket: u64) {
        if let Some((to, _)) = self.unconfirmed.remove(&ticket) {
            self.ended(to);
            context.refuse_unconfirmed(to);
        }
    }

    fn serve(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: Request,
    ) {
        match request {
            Request::Lookup(lookup) => match context.replica.catalogue().log_named(&lookup.name) {
                Some(log) => context.reply(to, &log.info(false), &[]),
                None => context.refuse(to, &absent(&format!("log named {}", lookup.name))),
            },
            Request::List(list) => {
                let count_max = (list.count_max as usize).clamp(1, LIST_MAX);
                let mut logs = context.replica.catalogue().logs_after(&list.after);
                let page = logs
                    .by_ref()
                    .take(count_max)
                    .map(|log| log.info(false))
                    .collect();
                let more = logs.next().is_some();
                drop(logs);
                context.reply(to, &wire::LogListed { more, logs: page }, &[]);
            }
            Request::Describe(asked) => match context.replica.catalogue().log_named(&asked.name) {
                Some(log) => context.reply(to, &log.describe(), &[]),
                None => context.refuse(to, &absent(&format!("log named {}", asked.name))),
            },
            Request::SeqAt(at) => self.start_seek(context, rounds, to, &at),
            Request::Read(read) => self.start_scan(context, rounds, to, &read),
        }
    }

    fn start_scan(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        read: &wire::Read,
    ) {
        let Some(log) = context.replica.catalogue().log(read.log_id) else {
            context.refuse(to, &absent(&format!("log {}", read.log_id)));
            return;
        };
        if let Some(refusal) = out_of_range(read.from_seq, log.first_seq, log.next_seq) {
            context.refuse(to, &refusal);
            return;
        }
        let scan = Scan {
            to,
            cursor: Cursor::new(read.log_id, read.from_seq),
            bytes_max: (read.bytes_max as usize).clamp(1, READ_BYTES_MAX),
            found: Found::default(),
            seek: None,
        };
        self.add_scan(context, rounds, scan);
    }

    fn start_seek(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        at: &wire::SeqAt,
    ) {
        let Some(log) = context.replica.catalogue().log(at.log_id) else {
            context.refuse(to, &absent(&format!("log {}", at.log_id)));
            return;
        };
        let (seek, cursor) = Seek::begin(log, at.time_us);
        let Some(cursor) = cursor else {
            context.reply(to, &seq_found(log, None), &[]);
            return;
        };
        let scan = Scan {
            to,
            cursor,
            bytes_max: READ_BYTES_MAX,
            found: Found::default(),
            seek: Some(seek),
        };
        self.add_scan(context, rounds, scan);
    }

    fn add_scan(&mut self, context: &mut Context<'_>, rounds: &mut Rounds, scan: Scan) {
        let to = scan.to;
        if self.scans.len() >= READS_MAX {
            let message = format!("{READS_MAX} reads are under way already");
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return;
        }
        let key = self.next_key;
        self.next_key += KEY_STEP;
        self.scans.insert(key, scan);
        self.begun(to);
        rounds.push(to.connection, key);
    }

    /// Goes on with a read, whose bytes from the disk may have arrived.
    pub(super) fn step(
        &mut self,
        context: &Context<'_>,
        key: u64,
        arrived: Option<Result<Slices, ReadError>>,
    ) -> After {
        let Some(scan) = self.scans.get_mut(&key) else {
            return After::Done;
        };
        let log = context.replica.catalogue().log(scan.cursor.log_id);
        let Some(log) = log else {
            context.refuse(scan.to, &deleted(scan.cursor.log_id));
            self.end_scan(key);
            return After::Done;
        };
        let (to, seq) = (scan.to, scan.cursor.seq);
        if seq < log.first_seq && scan.seek.is_some() {
            return scan.seek_from(log.first_seq);
        }
        if seq < log.first_seq {
            context.refuse(to, &trimmed(seq, log.first_seq));
            self.end_scan(key);
            return After::Done;
        }
        let step = match arrived {
            Some(Ok(slices)) => Ok(scan
                .cursor
                .take_cold(&slices, scan.bytes_max, &mut scan.found)),
            Some(Err(error)) => Err(error),
            None if context.outgoing(to.connection).is_full() => return After::Stalled,
            None => scan.cursor.step(
                (&log.index, log.next_seq),
                &context.log.wal,
                context.replica.applied_index(),
                scan.bytes_max,
                &mut scan.found,
            ),
        };
        if scan.seek.is_some()
            && let Ok(step) = step
        {
            let after = scan.step_seek(context, log, step);
            if matches!(after, After::Done) {
                self.end_scan(key);
            }
            return after;
        }
        match step {
            Ok(Step::Moved) => return After::Again,
            Ok(Step::Cold(job)) => return After::Cold(job),
            Ok(Step::Full | Step::End) => {
                let reply = wire::ReadReply {
                    log_id: log.log_id,
                    first_seq: log.first_seq,
                    next_seq: log.next_seq,
                };
                context.reply(to, &reply, &scan.found.pieces);
            }
            Ok(Step::Missing) => context.refuse_unconfirmed(to),
            Err(error) => context.refuse(to, &unreadable(&error)),
        }
        self.end_scan(key);
        After::Done
    }
}

/// Whether this replica has what the request names, wherever the group is.
fn is_here(context: &Context<'_>, request: &Request) -> bool {
    let catalogue = context.replica.catalogue();
    match request {
        Request::Lookup(lookup) => catalogue.log_named(&lookup.name).is_some(),
        Request::Describe(asked) => catalogue.log_named(&asked.name).is_some(),
        Request::SeqAt(at) => catalogue.log(at.log_id).is_some(),
        Request::List(_) => true,
        Request::Read(read) => catalogue
            .log(read.log_id)
            .is_some_and(|log| read.from_seq <= log.next_seq),
    }
}

/// The answer to who asked for the first record of a time.
fn seq_found(log: &LogState, found: Option<SeqAndTime>) -> wire::SeqFound {
    let (seq, time_us) = found.unwrap_or((log.next_seq, 0));
    wire::SeqFound {
        log_id: log.log_id,
        first_seq: log.first_seq,
        next_seq: log.next_seq,
        seq,
        time_us,
    }
}

/// Why a seq cannot be read from.
pub(super) fn out_of_range(from_seq: u64, first_seq: u64, next_seq: u64) -> Option<Refusal> {
    if from_seq < first_seq {
        return Some(trimmed(from_seq, first_seq));
    }
    if from_seq > next_seq {
        let message = format!("the log's next seq is {next_seq}, seq {from_seq} is beyond it");
        return Some(Refusal::numbers(
            ErrorCode::BeyondTail,
            next_seq,
            from_seq,
            message,
        ));
    }
    None
}

/// What a reader is told of records that were given up.
pub(super) fn trimmed(from_seq: u64, first_seq: u64) -> Refusal {
    let message = format!("records before seq {first_seq} were trimmed");
    Refusal::numbers(ErrorCode::Trimmed, first_seq, from_seq, message)
}

/// What a reader is told of bytes that this replica cannot give.
pub(super) fn unreadable(error: &ReadError) -> Refusal {
    tracing::error!(%error, "the log cannot be read");
    Refusal::new(ErrorCode::Corruption, error.to_string())
}
