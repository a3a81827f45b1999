//! What a running node does when part of its log cannot be read: it hands the lead over, and leaves its replica
//! to repair it. The repair itself is `node::repairing`.

use drave_wal::ReadError;

use super::{Fault, Found, Node};
use crate::node::is_damage;
use crate::node::peers::Unreadable;
use crate::replica::{Fatal, Now};

/// How long a leader whose log is damaged waits for another one to take over.
const LEAVE_PATIENCE_US: u64 = 1_000_000;

/// A replica whose log turned out to be damaged takes no part any longer than it must.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) damage: ReadError,
    pub(super) deadline_us: u64,
}

impl Node {
    /// A leader that cannot read what a peer needs lets one lead that can.
    pub(super) fn hand_over_if_unreadable(&mut self, now: Now) -> Result<(), Fatal> {
        let reason = match self.peers.take_unreadable() {
            None => return Ok(()),
            Some(Unreadable::Damage(damage)) => return self.on_damage(now, damage),
            Some(Unreadable::Other(reason)) => reason,
        };
        self.faults.insert(
            Fault::Unreadable,
            format!("part of the log cannot be read: {reason}"),
        );
        self.hand_over(now, &reason)
    }

    fn hand_over(&mut self, now: Now, reason: &str) -> Result<(), Fatal> {
        if self.replica.hand_over(now, &mut self.log)? {
            tracing::error!(
                reason,
                "handing the lead over: a peer needs what cannot be read here"
            );
        }
        Ok(())
    }

    /// The log is damaged: the lead is handed over, and the node leaves its replica to repair it. Alone, with
    /// nobody to repair it from, it goes on as well as it can.
    pub(super) fn on_damage(&mut self, now: Now, damage: ReadError) -> Result<(), Fatal> {
        if self.damage.is_some() {
            return Ok(());
        }
        let reason = damage.to_string();
        tracing::error!(reason, "the log is damaged");
        let fault = format!("the log is damaged: {reason}");
        self.faults.insert(Fault::Unreadable, fault);
        self.hand_over(now, &reason)?;
        let own = self.facts.node_id;
        let members = &self.replica.members().members;
        if members.iter().any(|member| member.node_id != own) {
            let deadline_us = now.mono_us + LEAVE_PATIENCE_US;
            self.damage = Some(Leaving {
                damage,
                deadline_us,
            });
        }
        Ok(())
    }

    /// Has the log and the snapshots checked in the background, and does what damage calls for.
    pub(super) fn scrub(&mut self, now: Now) -> Result<(), Fatal> {
        if self.damage.is_some() {
            return Ok(());
        }
        let found = self.scrubber.turn(now, &self.log.wal, &self.snapshots);
        self.facts.scrub = self.scrubber.status();
        match found {
            None => Ok(()),
            Some(Found::Log(error)) if is_damage(&error) => self.on_damage(now, error),
            Some(Found::Log(error)) => {
                tracing::error!(%error, "part of the log was not checked");
                Ok(())
            }
            Some(Found::Snapshot(id, error)) => {
                tracing::error!(snapshot = %id, %error, "a stored snapshot is damaged: another one is taken");
                self.replica.snapshot_lost(id);
                Ok(())
            }
        }
    }

    pub(super) fn is_time_to_leave(&self) -> bool {
        self.damage.as_ref().is_some_and(|leaving| {
            !self.replica.is_leader() || leaving.deadline_us <= self.clock.now().mono_us
        })
    }
}
