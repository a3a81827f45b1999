//! Client requests to the replica and back: appends, logs, producers, reads, tails, status.
//!
//! It owns who waits for a linearizable read and who tails what. It does not decide duplicates or
//! conditions (the replica does) and does not move bytes (the node and `drave-net` do).

mod quota;
mod reads;
mod rounds;
pub(crate) mod scan;
mod seek;
mod status;
mod tails;

use std::time::Instant;

use drave_batch::wire::{self, ErrorCode, Message, MessageKind, decode_head};
use drave_batch::{DecodeError, Quota};
use drave_net::frame::Frame;
use drave_net::{ConnId, Net};

use crate::node::{GroupLog, Helper, JobKey, Latency};
use crate::raft::NodeId;
use crate::replica::{Answer, Fatal, Now, Refusal, Replica, ReplyTo};
use quota::{Asked, ClientQuotas};
use reads::Reads;
use rounds::{After, Budget, Outgoing, Rounds};
pub(crate) use status::{NodeFacts, role_name};
pub(crate) use tails::KEEPALIVE_US;
use tails::Tails;

/// Bytes queued for a client beyond which it gets no more data until it has read some.
const CLIENT_QUEUE_BYTES_HIGH: usize = 2 << 20;

/// Bytes of the text in an answer that refuses.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whether a connection goes on after one of its frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Served {
    /// It does.
    Open,
    /// It is being closed: what else came on it is not looked at.
    Closing,
}

/// The answer about a log that is not there.
fn absent(what: &str) -> Refusal {
    Refusal::new(ErrorCode::LogNotFound, format!("no {what}"))
}

/// The answer about a log that was there when the request came.
fn deleted(log_id: u64) -> Refusal {
    let message = format!("log {log_id} was deleted");
    Refusal::new(ErrorCode::LogNotFound, message)
}

/// Everything a request may touch, lent for one turn of the node's loop.
pub(crate) struct Context<'a> {
    pub now: Now,
    pub net: &'a Net,
    pub replica: &'a mut Replica,
    pub log: &'a mut GroupLog,
    pub helper: &'a Helper,
    pub facts: &'a NodeFacts,
    pub latency: &'a Latency,
}

impl Context<'_> {
    fn reply<M: Message>(&self, to: ReplyTo, message: &M, payload: &[bytes::Bytes]) {
        let conn = ConnId::from_number(to.connection);
        if let Err(error) =
            self.net
                .send(conn, self.facts.group_id, to.request_id, message, payload)
        {
            tracing::debug!(connection = to.connection, %error, "answer not sent: the client is gone");
        }
    }

    /// How a client takes what it is sent.
    fn outgoing(&self, connection: u64) -> Outgoing {
        let conn = ConnId::from_number(connection);
        Outgoing {
            queued_bytes: self.net.queued_bytes(conn),
            written_bytes: self.net.written_bytes(conn),
        }
    }

    /// Refuses for good what may only be missing here: the leader after a quorum has confirmed that it leads,
    /// another replica not at all, unless no later entry can change the answer.
    fn refuse_if_confirmed(&mut self, to: ReplyTo, refusal: Refusal) -> Result<(), Fatal> {
        if refusal.code == ErrorCode::Trimmed {
            self.refuse(to, &refusal);
        } else if self.replica.check_authority(self.now).is_ok() {
            return self
                .replica
                .refuse_for_good(self.now, to, refusal, self.log);
        } else {
            self.refuse_unconfirmed(to);
        }
        Ok(())
    }

    /// The answer when it is not known what there is.
    fn refuse_unconfirmed(&self, to: ReplyTo) {
        let message = "no quorum has confirmed to this node how far the group is";
        self.refuse(to, &Refusal::new(ErrorCode::ReadUnconfirmed, message));
    }

    fn refuse(&self, to: ReplyTo, refusal: &Refusal) {
        let leader = self.replica.leader();
        // What the client sent may be part of the text, and a head has its limit.
        let mut message_bytes = refusal.message.len().min(MESSAGE_BYTES_MAX);
        while !refusal.message.is_char_boundary(message_bytes) {
            message_bytes -= 1;
        }
        let reply = wire::ErrorReply {
            code: refusal.code as u32,
            leader_id: leader.map_or(0, |(id, _)| id.0),
            expected: refusal.expected,
            found: refusal.found,
            leader_address: leader.map_or(String::new(), |(_, address)| address.to_owned()),
            message: refusal.message[..message_bytes].to_owned(),
        };
        self.reply(to, &reply, &[]);
    }
}

/// The client side of a node.
pub(crate) struct Service {
    reads: Reads,
    tails: Tails,
    /// Whose turn it is among them.
    rounds: Rounds,
    quotas: ClientQuotas,
}

impl Service {
    pub(crate) fn new(tails_max: usize, client_quota: Quota) -> Self {
        Self {
            quotas: ClientQuotas::new(client_quota),
            reads: Reads::new(),
            tails: Tails::new(tails_max),
            rounds: Rounds::default(),
        }
    }

    /// A client's frame. An error of the client is answered and, when its bytes cannot be trusted,
    /// closes its connection.
    pub(crate) fn on_frame(
        &mut self,
        context: &mut Context<'_>,
        conn: ConnId,
        frame: &Frame,
    ) -> Result<Served, Fatal> {
        let to = ReplyTo {
            connection: conn.number(),
            request_id: frame.header.request_id,
        };
        if frame.header.group_id != context.facts.group_id {
            let message = format!("this node has no group {}", frame.header.group_id);
            context.refuse(to, &Refusal::new(ErrorCode::UnexpectedMessage, message));
            return Ok(Served::Open);
        }
        let (code, message) = match self.dispatch(context, to, frame) {
            Ok(Some(served)) => return served.map(|()| Served::Open),
            Ok(None) => (
                ErrorCode::UnexpectedMessage,
                format!("clients do not send {:?}", frame.header.kind),
            ),
            // The frame is whole; only what it asks for is too much.
            Err(DecodeError::TooLarge { what, limit, found })
                if matches!(
                    frame.header.kind,
                    MessageKind::Append | MessageKind::AppendTogether
                ) =>
            {
                let message = format!("{what}: at most {limit} are taken, found {found}");
                let refusal = Refusal::numbers(ErrorCode::TooLarge, limit, found, message);
                context.refuse(to, &refusal);
                return Ok(Served::Open);
            }
            Err(error) => (ErrorCode::MalformedFrame, error.to_string()),
        };
        tracing::warn!(connection = conn.number(), %code, message, "client closed");
        context.net.close_with(conn, code, &message);
        Ok(Served::Closing)
    }

    /// Nothing when clients do not send such a message.
    fn dispatch(
        &mut self,
        context: &mut Context<'_>,
        to: ReplyTo,
        frame: &Frame,
    ) -> Result<Option<Result<(), Fatal>>, DecodeError> {
        let (header, head) = (&frame.header, &frame.head[..]);
        let now = context.now;
        Ok(Some(match header.kind {
            MessageKind::Append => {
                let request: wire::Append = decode_head(header, head)?;
                let (body_len, record_count) =
                    (request.header.body_len, request.header.record_count);
                let asked = Asked {
                    body_len,
                    record_count,
                };
                if self.is_over_quota(context, to, [asked]) {
                    return Ok(Some(Ok(())));
                }
                context
                    .replica
                    .append(now, to, &request, &frame.payload, context.log)
            }
            MessageKind::AppendTogether => {
                let request: wire::AppendTogether = decode_head(header, head)?;
                let asked = request.parts.iter().map(|part| Asked {
                    body_len: part.body_len,
                    record_count: part.record_count,
                });
                if self.is_over_quota(context, to, asked) {
                    return Ok(Some(Ok(())));
                }
                context
                    .replica
                    .append_together(now, to, &request, &frame.payload, context.log)
            }
            MessageKind::LogCreate => {
                let request: wire::LogCreate = decode_head(header, head)?;
                let (name, if_missing) = (&request.name, request.if_missing);
                context
                    .replica
                    .create_log(now, to, name, if_missing, context.log)
            }
            MessageKind::ProducerOpen => {
                let request: wire::ProducerOpen = decode_head(header, head)?;
                context
                    .replica
                    .open_producer(now, to, &request.name, context.log)
            }
            MessageKind::LogLookup => {
                let request = decode_head(header, head)?;
                self.reads.lookup(context, &mut self.rounds, to, request)
            }
            MessageKind::LogList => {
                let request = decode_head(header, head)?;
                self.reads.list(context, &mut self.rounds, to, request)
            }
            MessageKind::LogDescribe => {
                let request = decode_head(header, head)?;
                self.reads.describe(context, &mut self.rounds, to, request)
            }
            MessageKind::SeqAt => {
                let request = decode_head(header, head)?;
                self.reads.seq_at(context, &mut self.rounds, to, request)
            }
            MessageKind::Read => {
                let request = decode_head(header, head)?;
                self.reads.read(context, &mut self.rounds, to, request)
            }
            MessageKind::TailStart => {
                let request = decode_head(header, head)?;
                self.tails.start(context, &mut self.rounds, to, &request)
            }
            MessageKind::TailCredit => {
                let credit: wire::TailCredit = decode_head(header, head)?;
                self.tails.credit(&mut self.rounds, to, credit.credit_bytes);
                Ok(())
            }
            MessageKind::TailStop => {
                decode_head::<wire::TailStop>(header, head)?;
                self.tails.stop(&mut self.rounds, to);
                Ok(())
            }
            MessageKind::Status => {
                decode_head::<wire::Status>(header, head)?;
                let status = status::status(context);
                context.reply(to, &status, &[]);
                Ok(())
            }
            MessageKind::Latency => {
                decode_head::<wire::Latency>(header, head)?;
                let told = context.latency.told(context.facts.node_id, now.mono_us);
                context.reply(to, &told, &[]);
                Ok(())
            }
            MessageKind::MemberList => {
                decode_head::<wire::MemberList>(header, head)?;
                // Only the leader knows how far each member is.
                if context.replica.is_leader() {
                    let listed = context.replica.member_status(now);
                    context.reply(to, &listed, &[]);
                } else {
                    let refusal = context.replica.not_leader();
                    context.refuse(to, &refusal);
                }
                Ok(())
            }
            MessageKind::MemberChange => {
                let change: wire::MemberChange = decode_head(header, head)?;
                context
                    .replica
                    .change_members(now, to, &change, context.log)
            }
            MessageKind::LeaderTransfer => {
                let transfer: wire::LeaderTransfer = decode_head(header, head)?;
                context
                    .replica
                    .transfer_leader(now, to, NodeId(transfer.to), context.log)
            }
            MessageKind::LogTrim => {
                let trim: wire::LogTrim = decode_head(header, head)?;
                let (log_id, first_seq) = (trim.log_id, trim.first_seq);
                context
                    .replica
                    .trim_log(now, to, log_id, first_seq, context.log)
            }
            MessageKind::LogChangeRequest => {
                let asked: wire::LogChangeRequest = decode_head(header, head)?;
                context
                    .replica
                    .change_log(now, to, asked.log_id, asked.change, context.log)
            }
            _ => return Ok(None),
        }))
    }

    /// Refuses what is beyond the client's quota. A node that does not lead appends nothing, and counts nothing.
    fn is_over_quota(
        &mut self,
        context: &Context<'_>,
        to: ReplyTo,
        asked: impl IntoIterator<Item = Asked>,
    ) -> bool {
        if !context.replica.is_leader() {
            return false;
        }
        let refusal = self.quotas.check(context.now.mono_us, to.connection, asked);
        if let Some(refusal) = &refusal {
            context.refuse(to, refusal);
        }
        refusal.is_some()
    }

    /// Carries the replica's answers and advances to clients, and goes on with reads and tails.
    pub(crate) fn turn(&mut self, context: &mut Context<'_>) {
        for (to, answer) in std::mem::take(&mut context.replica.outputs.replies) {
            match answer {
                Answer::Appended(appended) => context.reply(to, &appended, &[]),
                Answer::AppendedTogether(appended) => context.reply(to, &appended, &[]),
                Answer::Log(info) => context.reply(to, &info, &[]),
                Answer::Described(described) => context.reply(to, &described, &[]),
                Answer::Producer(opened) => context.reply(to, &opened, &[]),
                Answer::Members(listed) => context.reply(to, &listed, &[]),
                Answer::Transferred(transferred) => context.reply(to, &transferred, &[]),
                Answer::Refused(refusal) => context.refuse(to, &refusal),
            }
        }
        for ticket in std::mem::take(&mut context.replica.outputs.reads_ready) {
            self.reads.confirmed(context, &mut self.rounds, ticket);
        }
        for ticket in std::mem::take(&mut context.replica.outputs.reads_failed) {
            self.reads.failed(context, ticket);
        }
        let mut advanced = std::mem::take(&mut context.replica.outputs.advanced);
        advanced.sort_unstable();
        advanced.dedup();
        for log_id in advanced {
            self.tails.advanced(&mut self.rounds, log_id);
        }
        if context.replica.outputs.log_replaced {
            self.tails.replaced(&mut self.rounds);
        }
        self.go_on(context);
    }

    /// Goes on with reads and tails, in turn, as long as one turn of the loop may.
    fn go_on(&mut self, context: &mut Context<'_>) {
        let look = |connection| context.outgoing(connection);
        for connection in self.rounds.begin_turn(context.now.mono_us, look) {
            let conn = ConnId::from_number(connection);
            let message = "the client does not read the answers it asked for";
            tracing::warn!(connection, message, "client closed");
            context.net.close_with(conn, ErrorCode::Busy, message);
            self.on_closed(conn);
        }
        let mut budget = Budget::start();
        while let Some((connection, key)) = self.rounds.next() {
            let arrived = self.rounds.take_arrived(key);
            let after = if rounds::is_read(key) {
                self.reads.step(context, key, arrived)
            } else {
                self.tails.step(context, key, arrived)
            };
            match after {
                After::Again => self.rounds.push(connection, key),
                After::Stalled => {
                    let outgoing = context.outgoing(connection);
                    let now_us = context.now.mono_us;
                    self.rounds.stall(connection, key, now_us, outgoing);
                }
                After::Cold(job) => {
                    if self.rounds.has_room_for_cold()
                        && context.helper.submit(JobKey::Scan(key), job)
                    {
                        self.rounds.submitted(connection, key);
                    } else {
                        self.rounds.defer(connection, key);
                    }
                }
                After::Done => {}
            }
            if !budget.spend(Instant::now()) {
                break;
            }
        }
    }

    /// Whether [`Self::turn`] has more to do at once.
    pub(crate) fn has_work(&self) -> bool {
        self.rounds.has_work()
    }

    /// A read of the helper thread has finished.
    pub(crate) fn on_cold(
        &mut self,
        key: u64,
        result: Result<drave_wal::Slices, drave_wal::ReadError>,
    ) {
        self.rounds.on_cold(key, result);
    }

    /// A client is gone.
    pub(crate) fn on_closed(&mut self, conn: ConnId) {
        self.quotas.closed(conn);
        let mut keys = self.reads.on_closed(conn);
        keys.append(&mut self.tails.on_closed(conn));
        self.rounds
            .forget_connection(conn.number(), keys.into_iter());
    }

    /// Signs of life for tailing readers; called every [`tails::KEEPALIVE_US`].
    pub(crate) fn keepalive(&mut self, context: &mut Context<'_>) {
        self.tails.keepalive(context);
    }
}
