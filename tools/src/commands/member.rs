//! `drave member`: who the members are, and changes to them.
//!
//! Whether a change is safe is for the leader to decide; the commands ask, wait, and explain. What is done
//! is told on standard error, the members afterwards go to standard output.

mod catch_up;
#[cfg(test)]
mod fixture;
pub mod replace;
mod view;

use std::time::{Duration, Instant};

use drave_batch::wire::ErrorCode;
use drave_client::{Client, ClientError, Members, NodeIdentity, probe_identity};

use self::catch_up::{PAUSE, Progress, catch_up};
use crate::cli::ResultFormat;
use crate::cli::member::{MemberAddArgs, MemberListArgs, MemberPromoteArgs, MemberRemoveArgs};
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::print;

/// How long a new node may take to say who it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a new leader may take to hear of a majority before it is believed that there is none.
const FIRST_SIGHT: Duration = Duration::from_secs(3);

/// Runs `drave member list`.
///
/// # Errors
/// [`CliError`] without a leader.
pub fn list(arguments: &MemberListArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let members = members(&client).await?;
        show(&client, &members, arguments.format).await
    })
}

/// Runs `drave member add`.
///
/// # Errors
/// [`CliError`] when the node is not who it should be, or the leader refuses it.
pub fn add(arguments: &MemberAddArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let before = members(&client).await?;
        let identity = identify(&client, &before, arguments.node_id, &arguments.address).await?;
        eprintln!("before: {}", view::tolerance(&before));
        let added = client
            .add_learner(arguments.node_id, &arguments.address, identity.incarnation)
            .await;
        let after = added.map_err(|error| change_error(&error, arguments.node_id))?;
        let after = led(&client, after).await?;
        eprintln!("after:  {}", view::tolerance(&after));
        eprintln!("next: drave member promote {}", arguments.node_id);
        show(&client, &after, arguments.format).await
    })
}

/// Runs `drave member promote`.
///
/// # Errors
/// [`CliError`] when the node does not catch up in time, or the leader refuses it.
pub fn promote(arguments: &MemberPromoteArgs) -> Result<(), CliError> {
    let deadline = Instant::now() + arguments.wait;
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let node_id = arguments.node_id;
        let mut progress = Progress::new();
        let after = loop {
            let before = catch_up(&client, node_id, deadline, &mut progress).await?;
            eprintln!("before: {}", view::tolerance(&before));
            match client.promote(node_id).await {
                Ok(after) => break after,
                Err(error) if falls_behind(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(change_error(&error, node_id)),
            }
        };
        let after = led(&client, after).await?;
        eprintln!("after:  {}", view::tolerance(&after));
        show(&client, &after, arguments.format).await
    })
}

/// Runs `drave member remove`.
///
/// # Errors
/// [`CliError`] when the leader refuses it.
pub fn remove(arguments: &MemberRemoveArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        eprintln!("before: {}", view::tolerance(&members(&client).await?));
        let removed = client.remove(arguments.node_id).await;
        let after = removed.map_err(|error| change_error(&error, arguments.node_id))?;
        let after = led(&client, after).await?;
        eprintln!("after:  {}", view::tolerance(&after));
        show(&client, &after, arguments.format).await
    })
}

async fn members(client: &Client) -> Result<Members, CliError> {
    let listed = client.members().await;
    listed.map_err(|error| client_error("cannot list the members", &error))
}

/// The members after a change, as a leader that stays sees them. One that has left with the change has
/// answered for it, and sees nobody any more; the next one has to hear of the others first, which says
/// nothing about them.
async fn led(client: &Client, after: Members) -> Result<Members, CliError> {
    let deadline = Instant::now() + FIRST_SIGHT;
    let mut after = after;
    loop {
        let leads = after.member(after.leader_id).is_some();
        let has_majority = after
            .failures_tolerated(|member| view::is_silent(&after, member))
            .is_some();
        if leads && (has_majority || Instant::now() >= deadline) {
            return Ok(after);
        }
        tokio::time::sleep(PAUSE).await;
        after = members(client).await?;
    }
}

async fn show(client: &Client, members: &Members, format: ResultFormat) -> Result<(), CliError> {
    let cluster_id = client.cluster_id().unwrap_or_default();
    print(&view::render(cluster_id, members, format)).await
}

/// The learner has lost touch again since it was looked at.
fn falls_behind(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::NotCaughtUp)
}

fn change_error(error: &ClientError, node_id: u64) -> CliError {
    client_error("the members were not changed", error)
        .with("node", node_id)
        .next_if_unknown(
            "`drave member list` shows whether it was done; running the same command again is safe",
        )
}

/// Asks the node at `address` who it is, and refuses it unless it is node `node_id` of this cluster, made to
/// join or a member already.
async fn identify(
    client: &Client,
    members: &Members,
    node_id: u64,
    address: &str,
) -> Result<NodeIdentity, CliError> {
    let identity = probe_identity(address, PROBE_TIMEOUT)
        .await
        .map_err(|error| {
            client_error("the new node does not say who it is", &error)
                .with("address", address)
                .effect("nothing was changed")
                .next("start it (drave start), and check that its address can be reached from here")
        })?;
    match objection(client.cluster_id(), members, node_id, &identity) {
        None => Ok(identity),
        Some(error) => Err(error.with("address", address).effect("nothing was changed")),
    }
}

/// Why the node that answered must not be added. Only what the leader cannot see; the rest is its verdict.
fn objection(
    cluster_id: Option<&str>,
    members: &Members,
    node_id: u64,
    found: &NodeIdentity,
) -> Option<CliError> {
    let cluster_id = cluster_id.unwrap_or_default();
    if found.cluster_id != cluster_id {
        let why = format!("expected cluster {cluster_id}, found {}", found.cluster_id);
        let summary = "the new node belongs to another cluster";
        return Some(
            CliError::new(Exit::Mismatch, summary)
                .code(ErrorCode::WrongCluster)
                .why(why)
                .next("check the address, or format the node anew with the right --cluster-id"),
        );
    }
    if found.node_id != node_id {
        let why = format!("expected node {node_id}, found node {}", found.node_id);
        return Some(
            CliError::new(Exit::Mismatch, "another node answers at this address")
                .code(ErrorCode::WrongNode)
                .why(why)
                .next("check the id and the address"),
        );
    }
    let is_member = members.member(node_id).is_some();
    if !is_member && !found.members.is_empty() {
        let ids: Vec<String> = found.members.iter().map(|(id, _)| id.to_string()).collect();
        let why = format!(
            "it knows the members {} already: it was not made with --join, or was a member before",
            ids.join(" ")
        );
        return Some(
            CliError::new(Exit::Precondition, "the new node is not a new one")
                .code(ErrorCode::MemberExists)
                .why(why)
                .next(format!(
                    "format an empty directory: drave format --join ... --node-id {}",
                    members.node_id_max.saturating_add(1)
                )),
        );
    }
    None
}

#[cfg(test)]
mod tests;
