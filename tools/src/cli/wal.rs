//! The grammar of `drave wal`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Commands about a node's log on disk.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// List a log's segments
    Ls(WalListArgs),
    /// Print a log's batches, damaged ones too
    Dump(WalDumpArgs),
    /// Read and check everything
    Verify(WalVerifyArgs),
    /// Print batches as they become durable
    Tail(WalTailArgs),
    /// Say what could be done about damage, and do it on demand
    Repair(WalRepairArgs),
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum RowFormat {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
}

/// What all of them take.
#[derive(Args, Clone, Debug)]
pub struct WalArgs {
    /// A node's data directory, or its group's log directory; a node may be running on it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// How to print
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub format: RowFormat,
}

/// `drave wal ls`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Sealed segments are taken by their seals, as at an ordinary start; only the last one is read. Nothing is written \
and no lock is taken. The exit code is 6 if something is damaged.

Example:
  drave wal ls /var/lib/drave")]
pub struct WalListArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub wal: WalArgs,
}

/// `drave wal dump`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Batches in the order of the files: an entry that was superseded comes before what superseded it. Truncations have \
rows of their own. Damage is named, and the batches behind it that are intact follow. The exit code is 6 if \
something is damaged.

Examples:
  drave wal dump /var/lib/drave --from 1000 --to 1100
  drave wal dump /var/lib/drave -o jsonl | jq 'select(.kind == \"configuration\")'")]
pub struct WalDumpArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub wal: WalArgs,
    /// The first index
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// The index to end before
    #[arg(long, value_name = "INDEX")]
    pub to: Option<u64>,
}

/// `drave wal verify`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Every header, every batch and the chain from entry to entry. An unfinished write at the log's end is no damage: \
it was never acknowledged. Damage is told with file, offset, the entries concerned, expected and found, and the \
exit code is 6.

Example:
  drave wal verify /var/lib/drave")]
pub struct WalVerifyArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub wal: WalArgs,
}

/// `drave wal tail`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Reads the files of a running node; a batch is printed when a later group, or the next segment, records that it \
is durable here, which takes some milliseconds. It need not be committed: what a new leader supersedes is \
followed by a row that says so. Goes on until Ctrl-C.

Examples:
  drave wal tail /var/lib/drave
  drave wal tail /var/lib/drave --from 1 -o jsonl")]
pub struct WalTailArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub wal: WalArgs,
    /// The first index [default: what becomes durable from now on]
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// End after this many batches
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `drave wal repair`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A node that has other replicas repairs itself: start it. This command is for a log that has none. Without \
--cut-at-damage it changes nothing and says what is lost and what could be saved. With it, the entries behind the \
damage that can be read are written to the file of --export as encoded batches, and the log ends before the first \
entry that is lost. What was acknowledged from there on is gone. The cut is recorded beside the log: among other \
voters a node does not start on it (DRV-0405), and so a log of one of several replicas is not cut (exit code 4) \
without --force-with-other-voters.

The log must not be in use (exit code 4). A damaged log that was not cut ends with exit code 6.

Examples:
  drave wal repair /var/lib/drave
  drave wal repair /var/lib/drave --cut-at-damage --export lost-entries.batches")]
pub struct WalRepairArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub wal: WalArgs,
    /// End the log before the first entry that is lost
    #[arg(long, requires = "export")]
    pub cut_at_damage: bool,
    /// A new file for the entries behind the damage
    #[arg(long, value_name = "FILE", requires = "cut_at_damage")]
    pub export: Option<PathBuf>,
    /// Cut the log though other nodes vote; this node will then never start again
    #[arg(long, requires = "cut_at_damage")]
    pub force_with_other_voters: bool,
}
