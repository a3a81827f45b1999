//! A node's life: a replica as long as the log is whole, a patient when it is not, and back.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use super::clock::Clock;
use super::driver::{Ended, Node};
use super::{NodeError, NodeOptions, repairing, start};
use crate::store::Store;

/// Repairs that changed nothing, after which the disk or the memory is not to be trusted.
const IN_VAIN_MAX: u32 = 2;

/// Runs a node until `stop` completes, or it can go on neither as a replica nor with a repair.
pub(super) async fn live(
    options: NodeOptions,
    store: Rc<Store>,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut stop = pin!(stop);
    let clock = Clock::start();
    let mut in_vain = 0;
    let mut is_just_repaired = false;
    loop {
        let damage = match start::open(&options, &store, clock) {
            Ok(opened) => {
                let node = Node::listen(opened)?;
                match Box::pin(node.run(stop.as_mut())).await? {
                    Ended::Stopped => return Ok(()),
                    Ended::Damaged(damage) => NodeError::Read(damage),
                }
            }
            Err(error) if error.is_damage() => {
                in_vain += u32::from(is_just_repaired);
                error
            }
            Err(error) => return Err(error),
        };
        if in_vain >= IN_VAIN_MAX {
            tracing::error!(reason = %damage, "damaged again right after a repair");
            return Err(damage);
        }
        match repairing::repair(&options, &store, clock, damage, stop.as_mut()).await? {
            repairing::After::Stopped => return Ok(()),
            repairing::After::Repaired => is_just_repaired = true,
            repairing::After::FoundWhole => in_vain += 1,
        }
    }
}
