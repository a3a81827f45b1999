//! `drave member replace`: a new node in the place of a member, one safe step after the other.
//!
//! Which step is next is decided from the members alone, each time anew. So it does not matter who did the
//! steps before, or whether the command, the leader or a node died in the middle: run again, it goes on from
//! where things are. Each step is bound to the configuration it was decided on.

use std::time::Instant;

use drave_batch::wire::ErrorCode;
use drave_client::{Client, ClientError, MemberRole, Members, MembersChange};

use super::catch_up::{PAUSE, Progress, catch_up};
use super::{change_error, falls_behind, identify, led, members, show, view};
use crate::cli::member::MemberReplaceArgs;
use crate::connect::{self, TIMEOUT_DEFAULT};
use crate::errors::CliError;
use crate::exit::Exit;

/// What is to be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Another change is under way: let it end.
    Wait,
    /// The new node is to receive the log.
    Add,
    /// The new node has caught up or is about to: exchange it for the old one.
    Exchange,
    /// The old one has left already: only the vote is missing.
    Promote,
    /// Nothing is left to do.
    Done,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`] with what stands in the way; everything done so far stays done.
pub fn run(arguments: &MemberReplaceArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let after = Replacement::new(&client, arguments).run().await?;
        show(&client, &after, arguments.format).await
    })
}

struct Replacement<'a> {
    client: &'a Client,
    arguments: &'a MemberReplaceArgs,
    deadline: Instant,
    progress: Progress,
    steps_done: u32,
}

impl<'a> Replacement<'a> {
    fn new(client: &'a Client, arguments: &'a MemberReplaceArgs) -> Self {
        Self {
            client,
            arguments,
            deadline: Instant::now() + arguments.wait,
            progress: Progress::new(),
            steps_done: 0,
        }
    }

    async fn run(&mut self) -> Result<Members, CliError> {
        let MemberReplaceArgs {
            old, new, address, ..
        } = self.arguments;
        let mut waits = false;
        loop {
            let before = members(self.client).await?;
            let step = next_step(&before, *old, *new, address)?;
            if step != Step::Wait {
                waits = false;
            }
            match step {
                Step::Wait if Instant::now() >= self.deadline => return Err(self.too_late()),
                Step::Wait => {
                    if !waits {
                        eprintln!("a change of members is under way; waiting for its end");
                    }
                    waits = true;
                    tokio::time::sleep(PAUSE).await;
                }
                Step::Add => self.add(&before).await?,
                Step::Exchange | Step::Promote => self.give_vote(step).await?,
                Step::Done => {
                    let done = if self.steps_done == 0 {
                        "was there already"
                    } else {
                        "done"
                    };
                    eprintln!("{done}: node {new} votes, node {old} is no member any more");
                    eprintln!("now: {}", view::tolerance(&before));
                    eprintln!("next: stop node {old} if it runs; its directory is of no more use");
                    return Ok(before);
                }
            }
        }
    }

    async fn add(&mut self, before: &Members) -> Result<(), CliError> {
        let MemberReplaceArgs { new, address, .. } = self.arguments;
        let identity = identify(self.client, before, *new, address).await?;
        let change = MembersChange::AddLearner {
            node_id: *new,
            address: address.clone(),
            incarnation: identity.incarnation,
        };
        let what = format!("add node {new} at {address} as a learner, without a vote");
        self.change(&what, before, &change).await
    }

    /// Exchanges or promotes the new node, once it has caught up.
    async fn give_vote(&mut self, step: Step) -> Result<(), CliError> {
        let MemberReplaceArgs { old, new, .. } = self.arguments;
        let before = catch_up(self.client, *new, self.deadline, &mut self.progress).await?;
        let (what, change) = if step == Step::Promote {
            let what = format!("give node {new} a vote; node {old} has left already");
            (what, MembersChange::Promote { node_id: *new })
        } else {
            let what = format!("exchange node {old} for node {new}, in one change");
            (
                what,
                MembersChange::Replace {
                    old: *old,
                    new: *new,
                },
            )
        };
        self.change(&what, &before, &change).await
    }

    /// One change, with what the cluster tolerates before and after it. Where only time is missing, or
    /// another change came first, or the answer was lost, the members are looked at again.
    async fn change(
        &mut self,
        what: &str,
        before: &Members,
        change: &MembersChange,
    ) -> Result<(), CliError> {
        eprintln!("step: {what}");
        eprintln!("  before: {}", view::tolerance(before));
        let expected = Some(before.configuration_index);
        match self.client.change_members(change, expected).await {
            Ok(after) => {
                let after = led(self.client, after).await?;
                eprintln!("  after:  {}", view::tolerance(&after));
                self.steps_done += 1;
                Ok(())
            }
            Err(error) if may_pass(&error) && Instant::now() < self.deadline => {
                eprintln!("  not yet: {}", error.why());
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            Err(error) => Err(change_error(&error, self.arguments.new)
                .next("remove the cause, then run the same command again: it goes on from here")),
        }
    }

    fn too_late(&self) -> CliError {
        CliError::new(
            Exit::Unavailable,
            "the change of members that is under way does not end",
        )
        .code(ErrorCode::MembershipConflict)
        .why("its entry is not committed: too few of its voters answer")
        .effect("nothing was changed by this command since then")
        .next("bring the voters back (drave member list), then run the same command again")
    }
}

/// Whether looking again may show another picture.
fn may_pass(error: &ClientError) -> bool {
    falls_behind(error)
        || matches!(error, ClientError::Unknown { .. })
        || error.code() == Some(ErrorCode::MembershipConflict)
}

/// What the members say is to be done next.
fn next_step(members: &Members, old: u64, new: u64, address: &str) -> Result<Step, CliError> {
    if old == new {
        return Err(
            CliError::new(Exit::Usage, "a node cannot take its own place")
                .why("ids are used once: a node on a new disk is a new node with a new id")
                .effect("nothing was changed")
                .next(format!("use id {}", members.node_id_max.saturating_add(1))),
        );
    }
    let newcomer = members.member(new);
    if let Some(member) = newcomer.filter(|member| member.address != address) {
        return Err(CliError::new(
            Exit::Precondition,
            "the new node is a member at another address",
        )
        .code(ErrorCode::MemberExists)
        .why(format!(
            "node {new} is at {}, not {address}",
            member.address
        ))
        .effect("nothing was changed")
        .next("give the address it has, or use another node with a new id"));
    }
    if members.is_changing() {
        return Ok(Step::Wait);
    }
    let new_votes = newcomer.map(|member| member.role == Some(MemberRole::Voter));
    let old_stays = members.member(old).is_some();
    let old_was_member = old > 0 && old <= members.node_id_max;
    match (old_stays, new_votes) {
        (true, None) => Ok(Step::Add),
        (true, Some(_)) => Ok(Step::Exchange),
        (false, Some(false)) if old_was_member => Ok(Step::Promote),
        (false, Some(true)) if old_was_member => Ok(Step::Done),
        (false, _) => Err(
            CliError::new(Exit::NotFound, "the node to replace is not a member")
                .code(ErrorCode::MemberUnknown)
                .with("node", old)
                .effect("nothing was changed")
                .next("drave member list shows who is; drave member add adds without replacing"),
        ),
    }
}

#[cfg(test)]
mod tests;
