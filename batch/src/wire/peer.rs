//! Messages between the nodes of a group.

use super::message::message;

message! {
    /// Asks for a vote, or a pre-vote.
    VoteRequest {
        /// The term the candidate would lead.
        term: u64,
        /// Term of its last entry.
        last_term: u64,
        /// Index of its last entry.
        last_index: u64,
        /// A trial that changes nothing.
        pre_vote: bool,
        /// Asked for by the leader itself, so stickiness does not apply.
        transfer: bool,
    }
}

message! {
    /// Answers a [`VoteRequest`].
    VoteReply {
        /// For a granted pre-vote the term asked for, else the voter's term.
        term: u64,
        /// Whether the vote is given.
        granted: bool,
        /// Whether it answers a pre-vote.
        pre_vote: bool,
    }
}

message! {
    /// Keeps followers following, carries the commit index and a read round.
    Heartbeat {
        /// The leader's term.
        term: u64,
        /// Its commit index, no higher than what the follower is known to match.
        commit_index: u64,
        /// The read round that an answer confirms.
        read_round: u64,
        /// The leader's session with this peer, given back in the answer.
        session: u64,
    }
}

message! {
    /// Answers a [`Heartbeat`].
    HeartbeatReply {
        /// The follower's term.
        term: u64,
        /// The round of the heartbeat.
        read_round: u64,
        /// The session of the heartbeat.
        session: u64,
        /// What the follower has durable of the entries that this leader's appends verified.
        match_index: u64,
        /// What it has of them, durable or not.
        received_index: u64,
        /// Bytes of appends the follower takes unacknowledged.
        credit_bytes: u64,
    }
    appended {
        /// What the last flushes of the follower's log took, microseconds; 0 when it does not say.
        flush_us: u64,
        /// For how long nothing that waits was flushed there, microseconds; 0 when nothing waits.
        flush_waits_us: u64,
        /// Whether its log takes a record of the largest size; `false` when it does not say.
        has_room: bool,
    }
}

message! {
    /// Entries `prev_index + 1 ..`; the payload is `batch_count` batches back to back.
    AppendEntries {
        /// The leader's term.
        term: u64,
        /// Term of the entry before the first.
        prev_term: u64,
        /// Index of the entry before the first.
        prev_index: u64,
        /// The leader's commit index.
        commit_index: u64,
        /// The leader's session with this peer, given back in the answer.
        session: u64,
        /// Batches in the payload.
        batch_count: u32,
    }
}

message! {
    /// Answers [`AppendEntries`], several at once when their flush was one.
    AppendReply {
        /// The follower's term.
        term: u64,
        /// The session of the append.
        session: u64,
        /// Whether the entries fit the follower's log.
        accepted: bool,
        /// Accepted: the durable prefix. Rejected: the `prev_index` that did not fit.
        index: u64,
        /// Accepted: what was verified, durable or not.
        received_index: u64,
        /// Rejected: term of the highest entry that may fit.
        hint_term: u64,
        /// Rejected: its index.
        hint_index: u64,
        /// The follower's last index.
        last_index: u64,
        /// Bytes of appends the follower takes unacknowledged.
        credit_bytes: u64,
    }
    appended {
        /// What the follower's last flush took, microseconds; 0 when it does not say.
        flush_us: u64,
    }
}

message! {
    /// Tells a follower to campaign at once: leadership is handed to it.
    TimeoutNow {
        /// The leader's term.
        term: u64,
    }
}

message! {
    /// A piece of a state snapshot; the payload is its bytes from `offset` on.
    SnapshotChunk {
        /// The leader's term.
        term: u64,
        /// The leader's session with this peer, given back in the answer.
        session: u64,
        /// Term of the last entry that the snapshot includes.
        snapshot_term: u64,
        /// Index of that entry.
        snapshot_index: u64,
        /// Bytes of the whole snapshot.
        total_bytes: u64,
        /// Where in it the payload begins.
        offset: u64,
        /// Checksum of the payload.
        payload_crc: u32,
    }
}

message! {
    /// Answers [`SnapshotChunk`].
    SnapshotReply {
        /// The receiver's term.
        term: u64,
        /// The session of the chunk.
        session: u64,
        /// Index of the last entry that the snapshot includes.
        snapshot_index: u64,
        /// What the receiver has from the start, without a gap: where to go on.
        next_offset: u64,
        /// The snapshot is on the receiver's disk, or it has no use for it any more.
        installed: bool,
    } appended {
        /// The receiver could not keep it, and wants none for so many microseconds; 0 for no pause.
        pause_us: u64,
    }
}

message! {
    /// A follower asks its leader up to where a linearizable read has to be applied.
    ReadIndexRequest {
        /// The follower's term.
        term: u64,
        /// The follower's number of the question, never used twice.
        number: u64,
    }
}

message! {
    /// Answers [`ReadIndexRequest`], once a quorum has confirmed the leader.
    ReadIndexReply {
        /// The leader's term.
        term: u64,
        /// The number of the question.
        number: u64,
        /// The read may be served once this entry is applied.
        index: u64,
        /// Whether it was confirmed; if not, ask again.
        ok: bool,
    }
}
