//! Reads: confirmed with a quorum when they are to be linearizable, then served in bounded steps.

use std::collections::{HashMap, VecDeque};

use drave_batch::control::LOG_NAME_BYTES_MAX;
use drave_batch::wire::{self, ErrorCode, LOCAL_READ};
use drave_batch::{BODY_BYTES_MAX, encoded_bytes};
use drave_net::ConnId;
use drave_wal::{ReadError, Slices};

use super::scan::{Cursor, Found, Step};
use super::{CLIENT_QUEUE_BYTES_HIGH, Context};
use crate::node::JobKey;
use crate::replica::{Fatal, Refusal, ReplyTo};

/// Reads that may wait for their confirmation or their bytes.
const READS_MAX: usize = 4096;

/// Of these, reads of one connection: one that does not take its answers leaves room for others.
const READS_PER_CONNECTION_MAX: u32 = 256;

/// How long an answer waits for a client to read before the client is given up.
const STALL_US_MAX: u64 = 60_000_000;

/// Logs in one answer to a listing at most: their names fit a frame's head.
const LIST_MAX: usize = 60_000 / (LOG_NAME_BYTES_MAX + 26);

/// Steps of one read in one turn of the loop.
const STEPS_MAX: usize = 4;

/// Bytes of batches in one answer at most: with one batch more it still fits a frame.
const READ_BYTES_MAX: usize =
    wire::FRAME_PAYLOAD_BYTES_MAX as usize - encoded_bytes(BODY_BYTES_MAX);

/// Keys of reads are even, keys of tails odd, so that a finished job finds its owner.
const KEY_STEP: u64 = 2;

enum Request {
    Lookup(wire::LogLookup),
    List(wire::LogList),
    Read(wire::Read),
}

struct Scan {
    to: ReplyTo,
    cursor: Cursor,
    bytes_max: usize,
    found: Found,
    waits_for_disk: bool,
    /// Since when its client has not read enough to be given more.
    stalled_since_us: Option<u64>,
}

/// Reads under way.
#[derive(Default)]
pub(super) struct Reads {
    next_ticket: u64,
    unconfirmed: HashMap<u64, (ReplyTo, Request)>,
    /// Reads under way by connection.
    by_connection: HashMap<u64, u32>,
    next_key: u64,
    scans: HashMap<u64, Scan>,
    runnable: VecDeque<u64>,
    /// Scans that wait for their client to read, or for the helper to have room.
    stalled: VecDeque<u64>,
}

impl Reads {
    pub(super) fn lookup(
        &mut self,
        context: &mut Context<'_>,
        to: ReplyTo,
        request: wire::LogLookup,
    ) -> Result<(), Fatal> {
        let local = request.consistency == LOCAL_READ;
        self.begin(context, to, Request::Lookup(request), local)
    }

    pub(super) fn list(
        &mut self,
        context: &mut Context<'_>,
        to: ReplyTo,
        request: wire::LogList,
    ) -> Result<(), Fatal> {
        let local = request.consistency == LOCAL_READ;
        self.begin(context, to, Request::List(request), local)
    }

    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        to: ReplyTo,
        request: wire::Read,
    ) -> Result<(), Fatal> {
        let local = request.consistency == LOCAL_READ;
        self.begin(context, to, Request::Read(request), local)
    }

    fn begin(
        &mut self,
        context: &mut Context<'_>,
        to: ReplyTo,
        request: Request,
        local: bool,
    ) -> Result<(), Fatal> {
        let under_way = self.by_connection.get(&to.connection).copied().unwrap_or(0);
        if under_way >= READS_PER_CONNECTION_MAX {
            let message = format!("{under_way} reads of this connection are under way already");
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return Ok(());
        }
        if local {
            self.serve(context, to, request);
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
            context.refuse(to, &refusal);
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

    /// A client is gone: nobody waits for its reads any more.
    pub(super) fn on_closed(&mut self, conn: ConnId) {
        self.scans
            .retain(|_, scan| scan.to.connection != conn.number());
        self.unconfirmed
            .retain(|_, (to, _)| to.connection != conn.number());
        self.by_connection.remove(&conn.number());
    }

    /// A quorum confirmed the read: everything committed before it was asked for is applied.
    pub(super) fn confirmed(&mut self, context: &mut Context<'_>, ticket: u64) {
        if let Some((to, request)) = self.unconfirmed.remove(&ticket) {
            self.ended(to);
            self.serve(context, to, request);
        }
    }

    pub(super) fn failed(&mut self, context: &mut Context<'_>, ticket: u64) {
        if let Some((to, _)) = self.unconfirmed.remove(&ticket) {
            self.ended(to);
            let message = "the lead was lost before a quorum confirmed the read";
            context.refuse(to, &Refusal::new(ErrorCode::ReadUnconfirmed, message));
        }
    }

    fn serve(&mut self, context: &mut Context<'_>, to: ReplyTo, request: Request) {
        match request {
            Request::Lookup(lookup) => match context.replica.catalogue().log_named(&lookup.name) {
                Some(log) => context.reply(to, &log.info(false), &[]),
                None => {
                    let linearizable = lookup.consistency != LOCAL_READ;
                    context.refuse_absent(to, &format!("log named {}", lookup.name), linearizable);
                }
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
            Request::Read(read) => self.start_scan(context, to, &read),
        }
    }

    fn start_scan(&mut self, context: &mut Context<'_>, to: ReplyTo, read: &wire::Read) {
        let Some(log) = context.replica.catalogue().log(read.log_id) else {
            let linearizable = read.consistency != LOCAL_READ;
            context.refuse_absent(to, &format!("log {}", read.log_id), linearizable);
            return;
        };
        if let Some(refusal) = out_of_range(read.from_seq, log.first_seq, log.next_seq) {
            context.refuse(to, &refusal);
            return;
        }
        if self.scans.len() >= READS_MAX {
            let message = format!("{READS_MAX} reads are under way already");
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return;
        }
        let key = self.next_key;
        self.next_key += KEY_STEP;
        let cursor = Cursor::new(read.log_id, read.from_seq);
        let bytes_max = (read.bytes_max as usize).clamp(1, READ_BYTES_MAX);
        let found = Found::default();
        self.scans.insert(
            key,
            Scan {
                to,
                cursor,
                bytes_max,
                found,
                waits_for_disk: false,
                stalled_since_us: None,
            },
        );
        self.begun(to);
        self.run(context, key);
    }

    fn run(&mut self, context: &mut Context<'_>, key: u64) {
        let Some(scan) = self.scans.get_mut(&key) else {
            return;
        };
        if scan.waits_for_disk {
            return;
        }
        let conn = ConnId::from_number(scan.to.connection);
        if context.net.queued_bytes(conn) > CLIENT_QUEUE_BYTES_HIGH {
            let now_us = context.now.mono_us;
            let since_us = *scan.stalled_since_us.get_or_insert(now_us);
            if now_us - since_us > STALL_US_MAX {
                let message = "the client does not read the answers it asked for";
                tracing::warn!(connection = conn.number(), message, "client closed");
                context.net.close_with(conn, ErrorCode::Busy, message);
                self.on_closed(conn);
                return;
            }
            self.stalled.push_back(key);
            return;
        }
        let commit_index = context.replica.applied_index();
        for _ in 0..STEPS_MAX {
            let Some(log) = context.replica.catalogue().log(scan.cursor.log_id) else {
                break;
            };
            let step = scan.cursor.step(
                log,
                &context.log.wal,
                commit_index,
                scan.bytes_max,
                &mut scan.found,
            );
            match step {
                Ok(Step::Moved) => {}
                Ok(Step::Full | Step::End) => {
                    let reply = wire::ReadReply {
                        log_id: log.log_id,
                        first_seq: log.first_seq,
                        next_seq: log.next_seq,
                    };
                    context.reply(scan.to, &reply, &scan.found.pieces);
                    self.end_scan(key);
                    return;
                }
                Ok(Step::Cold(job)) => {
                    if context.helper.submit(JobKey::Scan(key), job) {
                        scan.waits_for_disk = true;
                    } else {
                        self.stalled.push_back(key);
                    }
                    return;
                }
                Err(error) => {
                    context.refuse(scan.to, &unreadable(&error));
                    self.end_scan(key);
                    return;
                }
            }
        }
        self.runnable.push_back(key);
    }

    pub(super) fn turn(&mut self, context: &mut Context<'_>) {
        for _ in 0..self.runnable.len() {
            if let Some(key) = self.runnable.pop_front() {
                self.run(context, key);
            }
        }
        for _ in 0..self.stalled.len() {
            if let Some(key) = self.stalled.pop_front() {
                self.run(context, key);
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Gives the result back when the job was not a read's.
    pub(super) fn on_cold(
        &mut self,
        context: &Context<'_>,
        key: u64,
        result: Result<Slices, ReadError>,
    ) -> Option<Result<Slices, ReadError>> {
        if !key.is_multiple_of(KEY_STEP) {
            return Some(result);
        }
        if let Some(scan) = self.scans.get_mut(&key) {
            scan.waits_for_disk = false;
            match result {
                Ok(slices) => {
                    scan.cursor.take(&slices, scan.bytes_max, &mut scan.found);
                    self.runnable.push_back(key);
                }
                Err(error) => {
                    context.refuse(scan.to, &unreadable(&error));
                    self.end_scan(key);
                }
            }
        }
        None
    }
}

/// Why a seq cannot be read from.
pub(super) fn out_of_range(from_seq: u64, first_seq: u64, next_seq: u64) -> Option<Refusal> {
    if from_seq < first_seq {
        let message = format!("records before seq {first_seq} were trimmed");
        return Some(Refusal::numbers(
            ErrorCode::Trimmed,
            first_seq,
            from_seq,
            message,
        ));
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

/// What a reader is told of bytes that this replica cannot give.
pub(super) fn unreadable(error: &ReadError) -> Refusal {
    tracing::error!(%error, "the log cannot be read");
    Refusal::new(ErrorCode::Corruption, error.to_string())
}
