//! Messages that wait for term and vote to be durable. Bounded; what does not fit counts as lost.

use super::marks::{Mark, mark};
use super::message::Message;
use super::types::{HardState, NodeId};
use alloc::vec::Vec;
use core::mem::discriminant;

const HELD_MAX: usize = 128;

struct HeldMessage {
    needs: HardState,
    to: NodeId,
    message: Message,
}

#[derive(Default)]
pub(super) struct Held {
    messages: Vec<HeldMessage>,
}

impl Held {
    /// A newer message of the same kind to the same node replaces the older one.
    pub(super) fn push(&mut self, needs: HardState, to: NodeId, message: Message) {
        let kind = discriminant(&message);
        let same = |held: &&mut HeldMessage| held.to == to && discriminant(&held.message) == kind;
        if let Some(older) = self.messages.iter_mut().find(same) {
            *older = HeldMessage { needs, to, message };
        } else if self.messages.len() < HELD_MAX {
            self.messages.push(HeldMessage { needs, to, message });
        }
    }

    /// A new term makes whatever the old one had to say pointless.
    pub(super) fn clear(&mut self) {
        if !self.messages.is_empty() {
            mark(Mark::VoteHeldBack);
        }
        self.messages.clear();
    }

    /// Takes one message that `durable` covers.
    pub(super) fn pop_covered(&mut self, durable: HardState) -> Option<(NodeId, Message)> {
        let position = self
            .messages
            .iter()
            .position(|held| durable.covers(held.needs))?;
        let held = self.messages.remove(position);
        Some((held.to, held.message))
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
}
