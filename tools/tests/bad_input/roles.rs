//! Who is not who it says it is, and who sends what is not its to send.

use std::time::Instant;

use drave_batch::wire::{
    AppendEntries, AppendReply, EntriesRequest, ErrorCode, ErrorReply, Heartbeat, HeartbeatReply,
    Hello, HelloAck, Lane, Message, MessageKind, Role, Status, StatusReply, TimeoutNow, VoteReply,
    VoteRequest,
};
use drave_batch::{BatchHeader, EntryKind};

use crate::common::LIMIT;
use crate::node::Victim;
use crate::wire::{client_hello, frame, frame_around};

fn peer_hello(node_id: u64, incarnation: u128) -> Hello {
    Hello {
        role: Role::Peer,
        node_id,
        incarnation,
        ..client_hello()
    }
}

/// Ids above every one that was used may be those of members this node has not heard of yet: they come in.
#[test]
fn members_that_left_are_refused() {
    let mut victim = Victim::start_in_three();
    victim.test.cluster.kill(3).unwrap();
    let removed = victim.test.client.remove(3);
    victim.test.runtime.block_on(removed).unwrap();
    let deadline = Instant::now() + LIMIT;
    for lane in [Lane::Control, Lane::Append, Lane::CatchUp] {
        // Until it has been told of its removal, or the time for that is over, its own store may come in.
        loop {
            let mut raw = victim.connect();
            let hello = Hello {
                lane,
                ..peer_hello(3, 7)
            };
            raw.send(&frame(0, 0, &hello, &[]));
            let code = raw.receive().expect("an answer").code();
            if code == Some(ErrorCode::UnknownMember as u32) {
                break;
            }
            assert_eq!(code, Some(ErrorCode::WrongIncarnation as u32));
            assert!(Instant::now() < deadline, "it is still let in");
        }
    }
}

#[test]
fn nodes_without_an_id_of_their_own_are_refused() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let mut raw = victim.connect();
    raw.send(&frame(0, 0, &peer_hello(1, 7), &[]));
    raw.refused_with("the node's own id", &[ErrorCode::WrongNode]);
    victim.log_names(mark, ErrorCode::WrongNode);
    let mut raw = victim.connect();
    raw.send(&frame(0, 0, &peer_hello(0, 7), &[]));
    raw.refused_with("no node id", &[ErrorCode::MalformedFrame]);
    let mut raw = victim.connect();
    let hello = Hello {
        cluster_id: None,
        ..peer_hello(2, 7)
    };
    raw.send(&frame(0, 0, &hello, &[]));
    raw.refused_with("a peer of any cluster", &[ErrorCode::WrongCluster]);
    victim.is_sound();
}

#[test]
fn known_members_under_another_incarnation_are_refused() {
    let mut victim = Victim::start_in_three();
    // From here on node 1 has met both others.
    victim.test.caught_up();
    let term = victim.term();
    let mark = victim.log_mark();
    for node_id in [2, 3] {
        for incarnation in [0, 1, u128::MAX] {
            let mut raw = victim.connect();
            raw.send(&frame(0, 0, &peer_hello(node_id, incarnation), &[]));
            // What such a peer sends behind its hello must not count.
            raw.send_message(0, &TimeoutNow { term: u64::MAX - 1 });
            raw.refused_with("another incarnation", &[ErrorCode::WrongIncarnation]);
        }
    }
    victim.log_names(mark, ErrorCode::WrongIncarnation);
    victim.is_sound();
    assert!(victim.term() < term + 1_000, "nothing took the term along");
}

/// Every message that is not a client's to send, as whole frames.
fn not_for_clients() -> Vec<(MessageKind, Vec<u8>)> {
    fn of<M: Message>(message: &M) -> (MessageKind, Vec<u8>) {
        (M::KIND, frame(0, 7, message, &[]))
    }
    let term = u64::MAX - 1;
    let header = BatchHeader {
        index: 2,
        term,
        ..BatchHeader::new(EntryKind::Noop, &[], 0)
    };
    let append = AppendEntries {
        term,
        prev_term: 1,
        prev_index: 1,
        commit_index: u64::MAX,
        session: 1,
        batch_count: 1,
    };
    let vote = VoteRequest {
        term,
        last_term: term,
        last_index: u64::MAX,
        pre_vote: false,
        transfer: true,
    };
    let heartbeat = Heartbeat {
        term,
        commit_index: u64::MAX,
        read_round: 1,
        session: 1,
    };
    let mut frames = vec![
        of(&vote),
        of(&VoteReply {
            term,
            granted: true,
            pre_vote: false,
        }),
        of(&heartbeat),
        of(&HeartbeatReply {
            term,
            match_index: u64::MAX,
            ..HeartbeatReply::default()
        }),
        of(&AppendReply {
            term,
            accepted: true,
            index: u64::MAX,
            ..AppendReply::default()
        }),
        of(&TimeoutNow { term }),
        of(&EntriesRequest {
            lo: 1,
            hi: 2,
            bytes_max: 1,
        }),
        of(&HelloAck::default()),
        of(&ErrorReply::default()),
        of(&StatusReply::default()),
        (AppendEntries::KIND, frame(0, 7, &append, &header.encode())),
    ];
    let answers = [
        MessageKind::HelloReject,
        MessageKind::ProducerOpened,
        MessageKind::LogInfo,
        MessageKind::LogListed,
        MessageKind::Appended,
        MessageKind::ReadReply,
        MessageKind::TailData,
    ];
    // Their heads do not matter: the kind alone is refused.
    frames.extend(answers.map(|kind| (kind, frame_around(kind, 7, b"any head at all"))));
    frames
}

#[test]
fn a_client_may_not_speak_as_a_peer_or_a_node() {
    let mut victim = Victim::start();
    let term = victim.term();
    for (kind, bytes) in not_for_clients() {
        let mut raw = victim.connect_client();
        raw.send(&bytes);
        let refusal = raw.refused_with(&format!("{kind:?}"), &[ErrorCode::UnexpectedMessage]);
        assert_eq!(refusal.header.request_id, 0);
    }
    assert_eq!(victim.term(), term, "no client moves the term");
    victim.is_sound();
}

#[test]
fn a_client_that_speaks_as_a_peer_is_named_in_the_log() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let mut raw = victim.connect_client();
    raw.send_message(0, &TimeoutNow { term: 1 });
    raw.refused_with("TimeoutNow", &[ErrorCode::UnexpectedMessage]);
    victim.is_sound();
    victim.log_says(mark, &ErrorCode::UnexpectedMessage.to_string());
}

#[test]
fn groups_that_are_not_there_are_refused_by_request() {
    let mut victim = Victim::start();
    let mut raw = victim.connect_client();
    for (request_id, group_id) in [(1, 1), (2, 1 << 31), (3, u32::MAX)] {
        raw.send(&frame(group_id, request_id, &Status {}, &[]));
        let reply = raw.answer_refused(request_id, ErrorCode::UnexpectedMessage);
        assert!(reply.message.contains(&group_id.to_string()), "{reply:?}");
    }
    raw.still_serves();
    victim.is_sound();
}
