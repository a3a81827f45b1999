//! The grammar of `drave member` and `drave leader`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{ConnectArgs, ResultFormat, duration, endpoint};

/// How long a new node may take to catch up unless something else is said.
const WAIT_DEFAULT: &str = "10m";

/// Commands about members.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Show the members: role, how far each is, how many may fail
    List(MemberListArgs),
    /// Add a node, made with `drave format --join`, that gets the log and no vote yet
    Add(MemberAddArgs),
    /// Give a learner a vote, once it has caught up
    Promote(MemberPromoteArgs),
    /// Let a member leave
    Remove(MemberRemoveArgs),
    /// Put a new node in the place of a member, safely
    Replace(MemberReplaceArgs),
}

/// Commands about the leader.
#[derive(Debug, Subcommand)]
pub enum LeaderCommand {
    /// Hand the lead to another voter
    Transfer(LeaderTransferArgs),
}

/// `drave member list`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
All of it is as the leader knows it. A voter that it has not heard of for 2 s counts as failed.

Examples:
  drave member list
  drave member list --format json")]
pub struct MemberListArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave member add`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The node must run: it is asked who it is before the cluster is told of it. Ids are used once: give one above \
every id that was ever a member's. Done again, it changes nothing.

Example:
  on the new machine:
  drave format --join --data-dir /var/lib/drave --cluster-id prod --node-id 4 --address 10.0.0.4:4436
  drave start --data-dir /var/lib/drave

  anywhere:
  drave member add 4 10.0.0.4:4436
  drave member promote 4")]
pub struct MemberAddArgs {
    /// The new node's id
    #[arg(value_name = "ID")]
    pub node_id: u64,
    /// Where it listens
    #[arg(value_name = "HOST:PORT", value_parser = endpoint)]
    pub address: String,
    /// How to print the members afterwards
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave member promote`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Waits until the leader finds the node caught up, then gives it a vote. Done again, it changes nothing.

Example:
  drave member promote 4 --wait 1h")]
pub struct MemberPromoteArgs {
    /// The learner
    #[arg(value_name = "ID")]
    pub node_id: u64,
    /// How long it may take to catch up
    #[arg(long, value_name = "DURATION", default_value = WAIT_DEFAULT, value_parser = duration)]
    pub wait: Duration,
    /// How to print the members afterwards
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave member remove`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Refused when the voters that would be left are no majority that answers. The leader may be removed: it hands \
over. A removed id is never used again. Done again, it changes nothing. To exchange a node, use \
`drave member replace`, which never has fewer voters than before.

Example:
  drave member remove 2")]
pub struct MemberRemoveArgs {
    /// The member
    #[arg(value_name = "ID")]
    pub node_id: u64,
    /// How to print the members afterwards
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave member replace`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Adds NEW as a learner, waits until it has caught up, then exchanges it for OLD in one change, so that the \
number of voters never falls. OLD may be dead. Before and after every step it says how many failures the \
cluster tolerates. Every step can be repeated: when the command or the leader dies in the middle, run the same \
command again and it goes on from where things are.

Example:
  on the new machine:
  drave format --join --data-dir /var/lib/drave --cluster-id prod --node-id 4 --address 10.0.0.4:4436
  drave start --data-dir /var/lib/drave

  anywhere:
  drave member replace 2 4 10.0.0.4:4436")]
pub struct MemberReplaceArgs {
    /// The member that leaves
    #[arg(value_name = "OLD")]
    pub old: u64,
    /// The id of the node that comes
    #[arg(value_name = "NEW")]
    pub new: u64,
    /// Where the new node listens
    #[arg(value_name = "HOST:PORT", value_parser = endpoint)]
    pub address: String,
    /// How long the new node may take to catch up
    #[arg(long, value_name = "DURATION", default_value = WAIT_DEFAULT, value_parser = duration)]
    pub wait: Duration,
    /// How to print the members afterwards
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave leader transfer`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The leader takes no appends until the other has everything, then the other leads; clients follow by \
themselves. When that is not done within an election timeout, the old leader goes on.

Example:
  drave leader transfer 3")]
pub struct LeaderTransferArgs {
    /// The voter that is to lead
    #[arg(value_name = "ID")]
    pub node_id: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}
