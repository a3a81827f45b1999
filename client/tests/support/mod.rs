//! Scripted fake nodes on real sockets: they speak the frames, share one model, and misbehave on demand.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "every test binary has this module and uses a part of it"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use drave_batch::wire::{
    Append, AppendTogether, ClusterId, ErrorCode, ErrorReply, FRAME_HEADER_BYTES, LOCAL_READ,
    LeaderTransfer, LeaderTransferred, LogChangeRequest, LogCreate, LogDescribe, LogList,
    LogLookup, LogTrim, MemberChange, Message, MessageKind, ProducerOpen, ProducerOpened, Read,
    ReadReply, SeqAt, TailCredit, TailStart, encode_frame,
};
use drave_client::{Client, ClientBuilder};
use drave_net::frame::{Frame, FrameReader};
use drave_net::handshake::{Acceptor, Identity, Limits, frame_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub mod members;
pub mod model;

pub use members::{INCARNATION, MemberModel};
pub use model::{Fault, Hint, Model, Random, refusal};

const SIGN_OF_LIFE: Duration = Duration::from_millis(50);

struct Shared {
    model: Mutex<Model>,
    /// Changes whenever records were added.
    changed: watch::Sender<u64>,
    cluster: String,
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}

/// Fake nodes, ids from 1; the one at place 0 leads at first.
pub struct FakeCluster {
    shared: Arc<Shared>,
    nodes: Vec<Option<JoinHandle<()>>>,
    pub addresses: Vec<String>,
}

impl FakeCluster {
    pub async fn start(count: usize) -> Self {
        Self::start_as(count, "test").await
    }

    pub async fn start_as(count: usize, cluster: &str) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<String> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().to_string())
            .collect();
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(addresses.clone())),
            changed: watch::Sender::new(0),
            cluster: cluster.to_owned(),
        });
        let nodes = listeners.into_iter().enumerate().map(|(at, listener)| {
            let shared = Arc::clone(&shared);
            Some(tokio::spawn(accept(at, listener, shared)))
        });
        Self {
            nodes: nodes.collect(),
            shared,
            addresses,
        }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.shared.model()
    }

    /// A client of all nodes, with a short timeout so that tests of deadlines are quick.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .endpoints(self.addresses.clone())
            .request_timeout(Duration::from_secs(10))
            .connect_timeout(Duration::from_millis(500))
    }

    pub fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// Closes the node's listener and all its connections.
    pub async fn kill(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            node.abort();
            // The listener is closed once the task is gone.
            let _ = node.await;
        }
    }

    /// Another node leads from now on.
    pub fn elect(&self, at: usize) {
        let mut model = self.model();
        model.leader = at;
        model.term += 1;
    }

    /// Appends a record to the model directly, as another client would.
    pub fn put(&self, log_id: u64, records: &[&[u8]]) {
        let mut body = drave_batch::BodyBuilder::new();
        for record in records {
            body.push(record);
        }
        let mut bytes = Vec::new();
        body.drain_into(&mut bytes);
        let mut model = self.model();
        let producer_id = model.open_producer();
        let mut header = drave_batch::BatchHeader::new(
            drave_batch::EntryKind::Data,
            &bytes,
            records.len() as u32,
        );
        header.log_id = log_id;
        header.producer_id = producer_id;
        let append = Append {
            header,
            expect_seq: drave_batch::wire::EXPECT_SEQ_NONE,
            fence: model.logs[&log_id].fence,
        };
        model.append(&append, &bytes).unwrap();
        drop(model);
        self.shared.changed.send_modify(|version| *version += 1);
    }
}

async fn accept(at: usize, listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and all connections with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(serve(at, stream, shared));
        while connections.try_join_next().is_some() {}
    }
}

struct TailState {
    log_id: u64,
    position: u64,
    credit: i64,
    granted: u64,
    sent: u64,
}

struct Connection {
    at: usize,
    shared: Arc<Shared>,
    out: Vec<u8>,
    tails: HashMap<u64, TailState>,
}

/// Whether the connection goes on.
type Goes = bool;

async fn serve(at: usize, mut stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = FrameReader::for_handshake();
    let (record_bytes_max, credit_bytes) = {
        let model = shared.model();
        (model.record_bytes_max, model.credit_bytes)
    };
    let acceptor = Acceptor::new(
        Identity {
            cluster_id: ClusterId::new(&shared.cluster).unwrap(),
            node_id: at as u64 + 1,
            incarnation: INCARNATION,
        },
        Limits {
            payload_bytes_max: 4 << 20,
            record_bytes_max,
            credit_bytes,
        },
    );
    let hello = loop {
        if let Some(frame) = reader.next_frame().ok()? {
            break frame;
        }
        if stream.read_buf(reader.spare()).await.ok()? == 0 {
            return None;
        }
    };
    match acceptor.on_frame(&hello, |_| Ok(())) {
        Ok((ack, _)) => stream.write_all(&frame_bytes(&ack)).await.ok()?,
        Err(reject) => {
            let reject = frame_bytes(&reject.to_wire());
            stream.write_all(&reject).await.ok()?;
            return None;
        }
    }
    reader.establish(4 << 20);
    let mut changed = shared.changed.subscribe();
    let mut signs = tokio::time::interval(SIGN_OF_LIFE);
    let mut connection = Connection {
        at,
        shared,
        out: Vec::new(),
        tails: HashMap::new(),
    };
    loop {
        let mut goes = true;
        while goes && let Some(frame) = reader.next_frame().ok()? {
            goes = connection.take(&frame)?;
        }
        connection.feed_tails(false);
        let out = std::mem::take(&mut connection.out);
        stream.write_all(&out).await.ok()?;
        if !goes {
            return None;
        }
        tokio::select! {
            read = stream.read_buf(reader.spare()) => if read.ok()? == 0 { return None },
            _ = changed.changed() => {}
            _ = signs.tick() => connection.feed_tails(true),
        }
    }
}

impl Connection {
    fn reply<M: Message>(&mut self, request_id: u64, message: &M, payload: &[u8]) {
        encode_frame(&mut self.out, 0, request_id, message, payload.len());
        self.out.extend_from_slice(payload);
    }

    fn take(&mut self, frame: &Frame) -> Option<Goes> {
        let kind = frame.header.kind;
        let request_id = frame.header.request_id;
        match kind {
            MessageKind::TailCredit => {
                let credit: TailCredit = frame.decode().unwrap();
                if let Some(tail) = self.tails.get_mut(&request_id) {
                    tail.credit += i64::from(credit.credit_bytes);
                    tail.granted += u64::from(credit.credit_bytes);
                }
                return Some(true);
            }
            MessageKind::TailStop => {
                self.tails.remove(&request_id);
                return Some(true);
            }
            _ => {}
        }
        let fault = self.shared.model().next_fault(kind);
        match fault {
            Some(Fault::CloseBefore) => return None,
            Some(Fault::Refuse(code)) => {
                self.reply(request_id, &refusal(code), &[]);
                return Some(true);
            }
            _ => {}
        }
        let before = self.out.len();
        if let Err(refused) = self.handle(frame) {
            self.reply(request_id, &refused, &[]);
        }
        match fault {
            Some(Fault::CloseAfter) => {
                self.out.truncate(before);
                return Some(false);
            }
            Some(Fault::Silent) => self.out.truncate(before),
            Some(Fault::Cut) => {
                let half = before + (self.out.len() - before) / 2;
                self.out.truncate(half);
                return Some(false);
            }
            Some(Fault::Damage) => {
                if let Some(last) = self.out.last_mut() {
                    *last ^= 0x10;
                }
            }
            Some(Fault::DamageHead) => self.out[before + FRAME_HEADER_BYTES] ^= 1,
            _ => {}
        }
        Some(true)
    }

    /// Only the leader answers these, unless a local read is asked for.
    fn check_leader(&self, model: &Model, consistency: u8) -> Result<(), ErrorReply> {
        if model.leader == self.at || consistency == LOCAL_READ {
            return Ok(());
        }
        Err(model.not_leader(self.at))
    }

    fn handle(&mut self, frame: &Frame) -> Result<(), ErrorReply> {
        let request_id = frame.header.request_id;
        let shared = Arc::clone(&self.shared);
        let mut model = shared.model();
        match frame.header.kind {
            MessageKind::Status => {
                let status = model.status(self.at);
                self.reply(request_id, &status, &[]);
            }
            MessageKind::ProducerOpen => {
                self.check_leader(&model, 0)?;
                let _: ProducerOpen = frame.decode().unwrap();
                let opened = ProducerOpened {
                    producer_id: model.open_producer(),
                    producer_epoch: 3,
                    in_flight_max: model.in_flight_max,
                };
                self.reply(request_id, &opened, &[]);
            }
            MessageKind::LogCreate => {
                self.check_leader(&model, 0)?;
                let create: LogCreate = frame.decode().unwrap();
                let (log_id, created) = match model.find(&create.name) {
                    Some(log_id) if create.if_missing => (log_id, false),
                    Some(_) => return Err(refusal(ErrorCode::LogExists)),
                    None => (model.create(&create.name), true),
                };
                let info = model.info(log_id, created);
                self.reply(request_id, &info, &[]);
            }
            MessageKind::LogLookup => {
                let lookup: LogLookup = frame.decode().unwrap();
                self.check_leader(&model, lookup.consistency)?;
                let found = model.find(&lookup.name);
                let log_id = found.ok_or_else(|| refusal(ErrorCode::LogNotFound))?;
                let info = model.info(log_id, false);
                self.reply(request_id, &info, &[]);
            }
            MessageKind::LogList => {
                let list: LogList = frame.decode().unwrap();
                self.check_leader(&model, list.consistency)?;
                let listed = model.list(&list);
                self.reply(request_id, &listed, &[]);
            }
            MessageKind::LogDescribe => {
                let describe: LogDescribe = frame.decode().unwrap();
                self.check_leader(&model, describe.consistency)?;
                let found = model.find(&describe.name);
                let log_id = found.ok_or_else(|| refusal(ErrorCode::LogNotFound))?;
                let described = model.describe(log_id);
                self.reply(request_id, &described, &[]);
            }
            MessageKind::LogChangeRequest => {
                let asked: LogChangeRequest = frame.decode().unwrap();
                self.check_leader(&model, 0)?;
                let described = model.change(&asked)?;
                drop(model);
                self.shared.changed.send_modify(|version| *version += 1);
                self.reply(request_id, &described, &[]);
            }
            MessageKind::SeqAt => {
                let at: SeqAt = frame.decode().unwrap();
                self.check_leader(&model, at.consistency)?;
                let found = model.seq_at(&at);
                self.reply(request_id, &found, &[]);
            }
            MessageKind::Append => {
                self.check_leader(&model, 0)?;
                let append: Append = frame.decode().unwrap();
                let crc = drave_batch::checksum(&frame.payload);
                assert_eq!(
                    append.header.body_crc, crc,
                    "the body as it was checksummed"
                );
                assert_eq!(append.header.producer_epoch, 3);
                let appended = model.append(&append, &frame.payload)?;
                drop(model);
                self.shared.changed.send_modify(|version| *version += 1);
                self.reply(request_id, &appended, &[]);
            }
            MessageKind::AppendTogether => {
                self.check_leader(&model, 0)?;
                let asked: AppendTogether = frame.decode().unwrap();
                assert_eq!(asked.producer_epoch, 3);
                let appended = model.append_together(&asked, &frame.payload)?;
                drop(model);
                self.shared.changed.send_modify(|version| *version += 1);
                self.reply(request_id, &appended, &[]);
            }
            MessageKind::Read => {
                let read: Read = frame.decode().unwrap();
                self.check_leader(&model, read.consistency)?;
                if let Some((log_id, first_seq)) = model.trim_at_next_read.take() {
                    model.trim(log_id, first_seq)?;
                }
                let data = model.tail_data(read.log_id);
                check_range(read.from_seq, data.first_seq, data.next_seq)?;
                let payload = model.batches(read.log_id, read.from_seq, read.bytes_max as usize);
                let reply = ReadReply {
                    log_id: read.log_id,
                    first_seq: data.first_seq,
                    next_seq: data.next_seq,
                };
                self.reply(request_id, &reply, &payload);
            }
            MessageKind::TailStart => {
                let start: TailStart = frame.decode().unwrap();
                let data = model.tail_data(start.log_id);
                model.tail_starts.push((self.at, start.from_seq));
                check_range(start.from_seq, data.first_seq, data.next_seq)?;
                let tail = TailState {
                    log_id: start.log_id,
                    position: start.from_seq,
                    credit: start.credit_bytes.into(),
                    granted: start.credit_bytes.into(),
                    sent: 0,
                };
                self.tails.insert(request_id, tail);
            }
            _ => return self.administer(frame, &mut model),
        }
        Ok(())
    }

    /// What operators ask.
    fn administer(&mut self, frame: &Frame, model: &mut Model) -> Result<(), ErrorReply> {
        let request_id = frame.header.request_id;
        self.check_leader(model, 0)?;
        match frame.header.kind {
            MessageKind::MemberList => {
                let listed = model.list_members();
                self.reply(request_id, &listed, &[]);
            }
            MessageKind::MemberChange => {
                let change: MemberChange = frame.decode().unwrap();
                model.members.change(&change)?;
                let listed = model.list_members();
                model.lead_as_member();
                self.reply(request_id, &listed, &[]);
            }
            MessageKind::LeaderTransfer => {
                let transfer: LeaderTransfer = frame.decode().unwrap();
                let term = model.transfer(transfer.to)?;
                let leader_id = transfer.to;
                self.reply(request_id, &LeaderTransferred { leader_id, term }, &[]);
            }
            MessageKind::LogTrim => {
                let trim: LogTrim = frame.decode().unwrap();
                model.trim(trim.log_id, trim.first_seq)?;
                let info = model.info(trim.log_id, false);
                self.reply(request_id, &info, &[]);
            }
            other => panic!("a client does not send {other:?}"),
        }
        Ok(())
    }

    fn feed_tails(&mut self, sign_of_life: bool) {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.model();
        if model.tail_silent.contains(&self.at) {
            return;
        }
        let mut tails = std::mem::take(&mut self.tails);
        let (mut closing, mut ended) = (Vec::new(), Vec::new());
        for (request_id, tail) in &mut tails {
            let mut data = model.tail_data(tail.log_id);
            if let Some(seq) = model.tail_stale.get(&self.at) {
                // Cut off from the others: alive, and never any further.
                data.next_seq = *seq;
            }
            loop {
                if tail.position >= data.next_seq {
                    break;
                }
                let bytes_max = model.tail_payload_bytes_max;
                let mut payload = model.batches(tail.log_id, tail.position, bytes_max);
                // As real nodes do: a batch larger than what is left of the credit is sent whole.
                if payload.is_empty() || tail.credit <= 0 {
                    break;
                }
                let next = drave_batch::Batches::new(&payload)
                    .map(|batch| batch.unwrap().header.next_seq())
                    .last();
                tail.position = next.unwrap();
                tail.credit -= payload.len() as i64;
                tail.sent += payload.len() as u64;
                let granted_by_reader = tail.granted - u64::from(TAIL_CREDIT);
                let outstanding = tail.sent - granted_by_reader.min(tail.sent);
                model.tail_outstanding_max = model.tail_outstanding_max.max(outstanding);
                let fault = model.next_fault(MessageKind::TailData);
                if fault == Some(Fault::Damage) {
                    *payload.last_mut().unwrap() ^= 0x10;
                }
                let before = self.out.len();
                self.reply(*request_id, &data, &payload);
                if fault == Some(Fault::DamageHead) {
                    self.out[before + FRAME_HEADER_BYTES] ^= 1;
                }
                if fault == Some(Fault::CloseAfter) {
                    closing.push(*request_id);
                    break;
                }
            }
            if model.logs[&tail.log_id].is_closed && tail.position >= data.next_seq {
                ended.push((*request_id, data.next_seq));
                continue;
            }
            // Also while it waits for credit.
            if sign_of_life {
                self.reply(*request_id, &data, &[]);
            }
        }
        for request_id in closing {
            tails.remove(&request_id);
            self.reply(request_id, &refusal(ErrorCode::Stopping), &[]);
        }
        for (request_id, expected) in ended {
            tails.remove(&request_id);
            let refusal = ErrorReply {
                expected,
                ..refusal(ErrorCode::LogClosed)
            };
            self.reply(request_id, &refusal, &[]);
        }
        self.tails = tails;
    }
}

/// The credit that the client is known to begin a tail with.
pub const TAIL_CREDIT: u32 = 4 << 20;

fn check_range(from_seq: u64, first_seq: u64, next_seq: u64) -> Result<(), ErrorReply> {
    if from_seq < first_seq {
        return Err(ErrorReply {
            expected: first_seq,
            found: from_seq,
            ..refusal(ErrorCode::Trimmed)
        });
    }
    if from_seq > next_seq {
        return Err(ErrorReply {
            expected: next_seq,
            found: from_seq,
            ..refusal(ErrorCode::BeyondTail)
        });
    }
    Ok(())
}
