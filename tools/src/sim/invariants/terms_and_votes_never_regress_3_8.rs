//! Terms and votes never regress (thesis section 3.8), through crashes too: what a node has said is bound
//! to what it says later.

use std::collections::BTreeMap;

use drave::raft::{Message, NodeId};

use super::{Checked, View, require};

const NAME: &str = "terms_and_votes_never_regress_3_8";

/// What each node has said.
#[derive(Debug, Default)]
pub struct TermsAndVotes {
    /// By node and term: whom it told that it votes for them.
    votes: BTreeMap<(usize, u64), NodeId>,
    /// The highest term it has sent.
    said: Vec<u64>,
    /// Term and vote of its process when last seen.
    seen: Vec<(u64, u64, Option<NodeId>)>,
}

impl TermsAndVotes {
    fn make_place(&mut self, slot: usize) {
        if self.said.len() <= slot {
            self.said.resize(slot + 1, 0);
            self.seen.resize(slot + 1, (0, 0, None));
        }
    }

    /// A node after its turn.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(&mut self, view: &View<'_>) -> Checked {
        self.make_place(view.slot);
        let (term, vote) = (view.hard_state.term, view.hard_state.vote);
        let (start, term_before, vote_before) = self.seen[view.slot];
        self.seen[view.slot] = (view.start, term, vote);
        require(term >= self.said[view.slot], NAME, || {
            format!(
                "node {} is in term {term} and has spoken in {}",
                view.slot + 1,
                self.said[view.slot]
            )
        })?;
        if start != view.start {
            return Ok(());
        }
        let kept = term > term_before
            || (term == term_before && (vote_before.is_none() || vote == vote_before));
        require(kept, NAME, || {
            format!(
                "node {} went from term {term_before}, vote {vote_before:?}, to term {term}, vote {vote:?}",
                view.slot + 1
            )
        })
    }

    /// A node sends a message.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check_sent(&mut self, slot: usize, to: NodeId, message: &Message) -> Checked {
        self.make_place(slot);
        let vote = match message {
            Message::VoteRequest(request) if request.pre_vote => return Ok(()),
            Message::VoteReply(reply) if reply.pre_vote => return Ok(()),
            Message::VoteRequest(request) => Some((request.term, NodeId(slot as u64 + 1))),
            Message::VoteReply(reply) if reply.granted => Some((reply.term, to)),
            _ => None,
        };
        self.said[slot] = self.said[slot].max(message.term());
        let Some((term, candidate)) = vote else {
            return Ok(());
        };
        let first = *self.votes.entry((slot, term)).or_insert(candidate);
        require(first == candidate, NAME, || {
            format!(
                "node {} votes for {candidate} in term {term} and voted for {first}",
                slot + 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shadow, three, view};
    use super::*;
    use drave::raft::{HardState, VoteReply};

    #[test]
    fn a_second_vote_and_a_forgotten_term_are_found() {
        let (entries, three) = (shadow(&[]), three());
        let mut checker = TermsAndVotes::default();
        let granted = |term| {
            Message::VoteReply(VoteReply {
                term,
                granted: true,
                pre_vote: false,
            })
        };
        assert!(checker.check_sent(0, NodeId(2), &granted(4)).is_ok());
        assert!(checker.check_sent(0, NodeId(2), &granted(4)).is_ok());
        assert!(checker.check_sent(0, NodeId(3), &granted(4)).is_err());
        assert!(checker.check_sent(0, NodeId(3), &granted(5)).is_ok());
        let mut node = view(&entries, &three);
        node.start = 2;
        node.hard_state.term = 4;
        assert!(checker.check(&node).is_err(), "it has spoken in term 5");
        node.hard_state = HardState {
            term: 6,
            vote: Some(NodeId(1)),
        };
        assert!(checker.check(&node).is_ok());
        node.hard_state.vote = None;
        assert!(checker.check(&node).is_err());
    }
}
