//! Client requests to the replica and back: appends, logs, producers, reads, tails, status.
//!
//! It owns who waits for a linearizable read and who tails what. It does not decide duplicates or
//! conditions (the replica does) and does not move bytes (the node and `drave-net` do).

mod reads;
mod scan;
mod status;
mod tails;

use drave_batch::DecodeError;
use drave_batch::wire::{self, ErrorCode, Message, MessageKind, decode_head};
use drave_net::frame::Frame;
use drave_net::{ConnId, Net};

use crate::node::{GroupLog, Helper};
use crate::raft::NodeId;
use crate::replica::{Answer, Fatal, Now, Refusal, Replica, ReplyTo};
use reads::Reads;
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

/// Everything a request may touch, lent for one turn of the node's loop.
pub(crate) struct Context<'a> {
    pub now: Now,
    pub net: &'a Net,
    pub replica: &'a mut Replica,
    pub log: &'a mut GroupLog,
    pub helper: &'a Helper,
    pub facts: &'a NodeFacts,
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

    /// The answer about a log that is not here: final only when nothing can be on its way.
    fn refuse_absent(&self, to: ReplyTo, what: &str, is_linearizable: bool) {
        let refusal = if !is_linearizable && self.replica.may_lag() {
            let message =
                format!("{what} is not on this node yet: it does not know how far the group is");
            Refusal::new(ErrorCode::ReadUnconfirmed, message)
        } else {
            Refusal::new(ErrorCode::LogNotFound, format!("no {what}"))
        };
        self.refuse(to, &refusal);
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
}

impl Service {
    pub(crate) fn new(tails_max: usize) -> Self {
        Self {
            reads: Reads::default(),
            tails: Tails::new(tails_max),
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
                if frame.header.kind == MessageKind::Append =>
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
                context
                    .replica
                    .append(now, to, &request, &frame.payload, context.log)
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
            MessageKind::LogLookup => self.reads.lookup(context, to, decode_head(header, head)?),
            MessageKind::LogList => self.reads.list(context, to, decode_head(header, head)?),
            MessageKind::Read => self.reads.read(context, to, decode_head(header, head)?),
            MessageKind::TailStart => {
                self.tails.start(context, to, &decode_head(header, head)?);
                Ok(())
            }
            MessageKind::TailCredit => {
                let credit: wire::TailCredit = decode_head(header, head)?;
                self.tails.credit(to, credit.credit_bytes);
                Ok(())
            }
            MessageKind::TailStop => {
                decode_head::<wire::TailStop>(header, head)?;
                self.tails.stop(to);
                Ok(())
            }
            MessageKind::Status => {
                decode_head::<wire::Status>(header, head)?;
                let status = status::status(context);
                context.reply(to, &status, &[]);
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
            _ => return Ok(None),
        }))
    }

    /// Carries the replica's answers and advances to clients, and goes on with reads and tails.
    pub(crate) fn turn(&mut self, context: &mut Context<'_>) {
        for (to, answer) in std::mem::take(&mut context.replica.outputs.replies) {
            match answer {
                Answer::Appended(appended) => context.reply(to, &appended, &[]),
                Answer::Log(info) => context.reply(to, &info, &[]),
                Answer::Producer(opened) => context.reply(to, &opened, &[]),
                Answer::Members(listed) => context.reply(to, &listed, &[]),
                Answer::Transferred(transferred) => context.reply(to, &transferred, &[]),
                Answer::Refused(refusal) => context.refuse(to, &refusal),
            }
        }
        for ticket in std::mem::take(&mut context.replica.outputs.reads_ready) {
            self.reads.confirmed(context, ticket);
        }
        for ticket in std::mem::take(&mut context.replica.outputs.reads_failed) {
            self.reads.failed(context, ticket);
        }
        for log_id in std::mem::take(&mut context.replica.outputs.advanced) {
            self.tails.advanced(log_id);
        }
        self.reads.turn(context);
        self.tails.turn(context);
    }

    /// Whether [`Self::turn`] has more to do at once.
    pub(crate) fn has_work(&self) -> bool {
        self.reads.has_work() || self.tails.has_work()
    }

    /// A read of the helper thread has finished.
    pub(crate) fn on_cold(
        &mut self,
        context: &Context<'_>,
        key: u64,
        result: Result<drave_wal::Slices, drave_wal::ReadError>,
    ) {
        if let Some(result) = self.reads.on_cold(context, key, result) {
            self.tails.on_cold(context, key, result);
        }
    }

    /// A client is gone.
    pub(crate) fn on_closed(&mut self, conn: ConnId) {
        self.reads.on_closed(conn);
        self.tails.on_closed(conn);
    }

    /// Signs of life for tailing readers; called every [`tails::KEEPALIVE_US`].
    pub(crate) fn keepalive(&mut self, context: &mut Context<'_>) {
        self.tails.keepalive(context);
    }
}
