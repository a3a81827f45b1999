//! Between the core's messages and the wire's: field by field, no decision.

use drave_batch::DecodeError;
use drave_batch::wire::{self, MessageKind};
use drave_net::frame::Frame;

use crate::raft::{self, AppendResult, EntryId, Message};
use crate::replica::DiskReport;

/// The core's message in a peer's frame.
///
/// # Errors
/// [`DecodeError`] when the head is damaged or the kind is none that peers send here.
pub(super) fn from_wire(frame: &Frame) -> Result<Message, DecodeError> {
    let (header, head) = (&frame.header, &frame.head[..]);
    Ok(match header.kind {
        MessageKind::VoteRequest => {
            let m: wire::VoteRequest = wire::decode_head(header, head)?;
            let last = EntryId {
                term: m.last_term,
                index: m.last_index,
            };
            let (term, pre_vote, transfer) = (m.term, m.pre_vote, m.transfer);
            Message::VoteRequest(raft::VoteRequest {
                term,
                last,
                pre_vote,
                transfer,
            })
        }
        MessageKind::VoteReply => {
            let m: wire::VoteReply = wire::decode_head(header, head)?;
            let (term, granted, pre_vote) = (m.term, m.granted, m.pre_vote);
            Message::VoteReply(raft::VoteReply {
                term,
                granted,
                pre_vote,
            })
        }
        MessageKind::Heartbeat => {
            let m: wire::Heartbeat = wire::decode_head(header, head)?;
            Message::Heartbeat(raft::Heartbeat {
                term: m.term,
                commit_index: m.commit_index,
                read_round: m.read_round,
                session: m.session,
            })
        }
        MessageKind::HeartbeatReply => {
            let m: wire::HeartbeatReply = wire::decode_head(header, head)?;
            Message::HeartbeatReply(raft::HeartbeatReply {
                term: m.term,
                read_round: m.read_round,
                session: m.session,
                match_index: m.match_index,
                received_index: m.received_index,
                credit_bytes: m.credit_bytes,
            })
        }
        MessageKind::AppendReply => {
            let m: wire::AppendReply = wire::decode_head(header, head)?;
            let result = if m.accepted {
                let (match_index, received_index) = (m.index, m.received_index);
                AppendResult::Accepted {
                    match_index,
                    received_index,
                }
            } else {
                AppendResult::Rejected {
                    rejected_prev: m.index,
                    hint: EntryId {
                        term: m.hint_term,
                        index: m.hint_index,
                    },
                    last_index: m.last_index,
                }
            };
            let (term, session, credit_bytes) = (m.term, m.session, m.credit_bytes);
            Message::AppendReply(raft::AppendReply {
                term,
                session,
                result,
                credit_bytes,
            })
        }
        MessageKind::TimeoutNow => {
            let m: wire::TimeoutNow = wire::decode_head(header, head)?;
            Message::TimeoutNow(raft::TimeoutNow { term: m.term })
        }
        MessageKind::ReadIndexRequest => {
            let m: wire::ReadIndexRequest = wire::decode_head(header, head)?;
            let (term, number) = (m.term, m.number);
            Message::ReadIndexRequest(raft::ReadIndexRequest { term, number })
        }
        MessageKind::ReadIndexReply => {
            let m: wire::ReadIndexReply = wire::decode_head(header, head)?;
            Message::ReadIndexReply(raft::ReadIndexReply {
                term: m.term,
                number: m.number,
                index: m.index,
                ok: m.ok,
            })
        }
        other => {
            return Err(DecodeError::Invalid {
                what: "message kind from a peer",
                found: other as u64,
            });
        }
    })
}

pub(super) fn vote_request(m: &raft::VoteRequest) -> wire::VoteRequest {
    wire::VoteRequest {
        term: m.term,
        last_term: m.last.term,
        last_index: m.last.index,
        pre_vote: m.pre_vote,
        transfer: m.transfer,
    }
}

pub(super) fn vote_reply(m: &raft::VoteReply) -> wire::VoteReply {
    wire::VoteReply {
        term: m.term,
        granted: m.granted,
        pre_vote: m.pre_vote,
    }
}

pub(super) fn heartbeat(m: &raft::Heartbeat) -> wire::Heartbeat {
    wire::Heartbeat {
        term: m.term,
        commit_index: m.commit_index,
        read_round: m.read_round,
        session: m.session,
    }
}

/// What a peer says of its disk beside its answer to a heartbeat.
pub(super) fn disk_report(m: &wire::HeartbeatReply) -> DiskReport {
    DiskReport {
        flush_us: m.flush_us,
        waits_us: m.flush_waits_us,
        has_room: m.has_room,
    }
}

pub(super) fn heartbeat_reply(m: &raft::HeartbeatReply, disk: &DiskReport) -> wire::HeartbeatReply {
    wire::HeartbeatReply {
        term: m.term,
        read_round: m.read_round,
        session: m.session,
        match_index: m.match_index,
        received_index: m.received_index,
        credit_bytes: m.credit_bytes,
        flush_us: disk.flush_us,
        flush_waits_us: disk.waits_us,
        has_room: disk.has_room,
    }
}

pub(super) fn read_index_request(m: &raft::ReadIndexRequest) -> wire::ReadIndexRequest {
    wire::ReadIndexRequest {
        term: m.term,
        number: m.number,
    }
}

pub(super) fn read_index_reply(m: &raft::ReadIndexReply) -> wire::ReadIndexReply {
    wire::ReadIndexReply {
        term: m.term,
        number: m.number,
        index: m.index,
        ok: m.ok,
    }
}

pub(super) fn append_reply(m: &raft::AppendReply, flush_us: u64) -> wire::AppendReply {
    let mut reply = wire::AppendReply {
        term: m.term,
        session: m.session,
        credit_bytes: m.credit_bytes,
        flush_us,
        ..wire::AppendReply::default()
    };
    match m.result {
        AppendResult::Accepted {
            match_index,
            received_index,
        } => {
            reply.accepted = true;
            reply.index = match_index;
            reply.received_index = received_index;
        }
        AppendResult::Rejected {
            rejected_prev,
            hint,
            last_index,
        } => {
            reply.index = rejected_prev;
            reply.hint_term = hint.term;
            reply.hint_index = hint.index;
            reply.last_index = last_index;
        }
    }
    reply
}
