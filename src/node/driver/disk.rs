//! What a running node makes of its own disk: it tells its leader how the disk does, and as a leader hands the
//! lead over when its disk does much worse than a peer's. What decides is `replica::hand_over`.

use super::{Fault, Node};
use crate::node::peers::OwnDisk;
use crate::replica::{Fatal, Now};

/// How long status tells that, and why, the lead was handed over.
const TOLD_FOR_US: u64 = 600_000_000;

impl Node {
    /// What goes with answers to a leader.
    pub(super) fn own_disk(&self) -> OwnDisk {
        OwnDisk {
            report: self.replica.disk_report(),
            residence_us: self.latency.residence_us(),
        }
    }

    /// Looks how the disk does, and tells what follows from it.
    pub(super) fn mind_disk(&mut self, now: Now) -> Result<(), Fatal> {
        if self.replica.snapshot_not_kept().is_none() {
            self.faults.remove(&Fault::NotKept);
        }
        let state = self.log.disk();
        let order = self.replica.mind_disk(now, state, &mut self.log)?;
        if let Some(refusal) = self.replica.outputs.lead_given_up.take() {
            let reason = refusal.to_string();
            tracing::warn!(
                reason,
                "the lead is given up: no room for an entry that leading needs"
            );
            let fault = format!("gave up the lead: {reason}");
            self.tell_of_disk(now, fault);
        }
        if let Some(order) = order {
            let (to, reason) = (order.to.0, order.reason.to_string());
            tracing::warn!(to, reason, "handing the lead over");
            let fault = format!("handed the lead to node {to}: {reason}");
            self.tell_of_disk(now, fault);
        } else if self.disk_told_until_us > 0 && self.disk_told_until_us <= now.mono_us {
            self.disk_told_until_us = 0;
            self.faults.remove(&Fault::Disk);
        }
        Ok(())
    }

    /// Tells that a snapshot from the leader was not kept, if that is so.
    pub(super) fn tell_of_snapshot(&mut self, reason: &str) {
        if let Some((id, pause_us)) = self.replica.snapshot_not_kept() {
            let pause_s = pause_us / 1_000_000;
            let fault = format!(
                "the snapshot {id} that this node needs was not stored: {reason}; \
                 the leader sends it again in {pause_s} s"
            );
            tracing::warn!("{fault}");
            self.faults.insert(Fault::NotKept, fault);
        }
    }

    fn tell_of_disk(&mut self, now: Now, fault: String) {
        self.faults.insert(Fault::Disk, fault);
        self.disk_told_until_us = now.mono_us.saturating_add(TOLD_FOR_US);
    }
}
