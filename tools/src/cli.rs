//! The command line: its grammar and its help. What the commands do is in `commands`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;

pub mod bench;
pub mod explain;
pub mod log;
pub mod member;
pub mod sim;
pub mod together;
pub mod wal;

/// The version, and the commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " of ", env!("DRAVE_COMMIT"));

const ABOUT: &str = "\
A durable, replicated log as a service.

A cluster of one, three or five nodes keeps named logs. A record is acknowledged when a majority of the \
nodes has it on stable storage; from then on it survives the loss of power on every node at once and the \
loss of any minority of disks.";

fn after_help() -> String {
    format!(
        "\
Examples:
  drave demo                          see it survive the death of its leader, in seconds
  drave dev                           a cluster on this machine to play with, until Ctrl-C
  echo hello | drave append greetings --create
  drave append jobs --fence $(drave log fence jobs) < jobs.txt
  drave tail greetings --follow
  drave status

Data goes to standard output, everything else to standard error. Colour only on a terminal, and not when \
NO_COLOR is set.

{}",
        Exit::HELP
    )
}

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "drave", version = VERSION, about = ABOUT, after_help = after_help(), max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a data directory for a new node
    Format(FormatArgs),
    /// Run a node until SIGTERM
    Start(StartArgs),
    /// Create, list, describe and trim logs
    #[command(subcommand)]
    Log(LogCommand),
    /// Append each line of standard input as one record
    Append(AppendArgs),
    /// Append records to several logs: all of them or none
    AppendTogether(together::AppendTogetherArgs),
    /// Print a log's records up to its present end
    Read(ReadArgs),
    /// Print a log's last records, and those to come
    Tail(TailArgs),
    /// Say where a log ends
    CheckTail(log::CheckTailArgs),
    /// Say what an error code means and what to do
    Explain(explain::ExplainArgs),
    /// Show every node: role, term, indexes
    Status(StatusArgs),
    /// Show and change the members
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Hand over the lead
    #[command(subcommand)]
    Leader(member::LeaderCommand),
    /// Run a cluster on this machine until Ctrl-C
    Dev(DevArgs),
    /// Show that nothing is lost when the leader dies
    Demo(DemoArgs),
    /// Hurt a cluster under load, round after round, and check what it promised
    Chaos(ChaosArgs),
    /// Check recorded histories
    #[command(subcommand)]
    History(HistoryCommand),
    /// Run whole clusters in simulation, with faults, checking every step
    Sim(sim::SimArgs),
    /// Measure against the raw machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Look at a node's log on disk
    #[command(subcommand)]
    Wal(wal::WalCommand),
}

/// Commands about logs.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Create a log
    Create(LogCreateArgs),
    /// List the logs in order of their names
    Ls(LogListArgs),
    /// Show one log in full
    Describe(log::LogDescribeArgs),
    /// Give up a log's oldest records
    Trim(LogTrimArgs),
    /// Take a log over: only appends that carry its new token are taken
    Fence(log::LogFenceArgs),
    /// End a log: it takes no append any more, and stays to be read
    Close(log::LogCloseArgs),
    /// Say how much of a log is kept
    SetRetention(log::LogRetentionArgs),
    /// Say how much may be appended to a log in a second
    SetQuota(log::LogQuotaArgs),
    /// Delete a log and all its records
    Delete(log::LogDeleteArgs),
}

/// Commands about histories.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Hold what clients did and saw against what the logs held at last
    Check(HistoryCheckArgs),
}

/// How a node does its I/O.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Io {
    /// io_uring where the system allows it, else posix
    #[default]
    Auto,
    /// io_uring, or refuse to start
    Uring,
    /// pwrite on threads, plain sockets
    Posix,
}

impl Io {
    /// The word on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Posix => "posix",
        }
    }
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum RecordFormat {
    /// The payload, byte for byte, and a newline
    #[default]
    Raw,
    /// One JSON object per line: log, seq, time_us, and payload (or payload_hex when it is not UTF-8)
    Json,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ResultFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// How a cluster is reached.
#[derive(Args, Clone, Debug)]
pub struct ConnectArgs {
    /// Nodes to ask, HOST:PORT, comma-separated; any subset of the cluster's
    #[arg(
        long,
        env = "DRAVE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:4436"
    )]
    #[arg(value_name = "HOST:PORT,...", value_parser = endpoint, help_heading = "Connection")]
    pub endpoints: Vec<String>,

    /// Refuse nodes of any other cluster
    #[arg(
        long,
        env = "DRAVE_CLUSTER_ID",
        value_name = "ID",
        help_heading = "Connection"
    )]
    pub cluster_id: Option<String>,

    /// How long one request may take, all its retries included [default: 10s; append: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Connection")]
    pub timeout: Option<Duration>,
}

/// `drave format`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Run it once per node, with the same --member lines on each. The directory gets the node's identity; \
a directory that is not empty is refused. A lost directory is not made again under its old node id while \
its cluster lives: it would have forgotten its votes.

Examples:
  drave format --data-dir /var/lib/drave --cluster-id prod --node-id 1 \\
      --member 1=10.0.0.1:4436 --member 2=10.0.0.2:4436 --member 3=10.0.0.3:4436

  a single node, to start small:
  drave format --data-dir ./data --cluster-id small --node-id 1 --member 1=127.0.0.1:4436

  a node for a cluster that exists, to be added with `drave member add` or `replace`:
  drave format --join --data-dir /var/lib/drave --cluster-id prod --node-id 4 --address 10.0.0.4:4436")]
pub struct FormatArgs {
    /// The directory; created when it is not there
    #[arg(long, value_name = "DIR", env = "DRAVE_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The cluster's name: 1 to 64 letters, digits, '.', '_', '-'
    #[arg(long, value_name = "ID")]
    pub cluster_id: String,
    /// This node's number, 1 or higher
    #[arg(long, value_name = "N")]
    pub node_id: u64,
    /// A founding member, itself included: its number, and the HOST:PORT where it listens for nodes and
    /// clients; HOST is also the address its own connections leave from
    #[arg(long = "member", value_name = "N=HOST:PORT", required_unless_present = "join", value_parser = founder)]
    pub members: Vec<(u64, String)>,
    /// Make a node for a cluster that exists: it has no members until that cluster adds it. Its id must be
    /// above every id that was ever a member's
    #[arg(long, conflicts_with = "members", requires = "address")]
    pub join: bool,
    /// Where a node made with --join listens; HOST is also the address its own connections leave from
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    #[arg(requires = "join", conflicts_with = "members")]
    pub address: Option<String>,
}

/// `drave start`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The node listens on the HOST:PORT of its own --member line of `drave format`. SIGTERM or Ctrl-C stops it in \
order (exit code 0), a second one at once. Its log goes to standard error.

Examples:
  drave start --data-dir /var/lib/drave
  DRAVE_LOG=debug drave start --data-dir ./data --io posix")]
pub struct StartArgs {
    /// A directory made by `drave format`
    #[arg(long, value_name = "DIR", env = "DRAVE_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Settings (TOML); every key is optional, unknown keys are errors
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The I/O engine for disk and sockets
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    /// What to log: error, warn, info, debug, trace, or per module as in `info,drave_net=debug`
    #[arg(long, value_name = "FILTER", env = "DRAVE_LOG", default_value = "info")]
    pub log: String,
    /// How to log
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Stop when this process, which must be the parent, is gone
    #[arg(long, value_name = "PID", hide = true)]
    pub exit_with_parent: Option<u32>,
    /// Run with this known bug
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "BUG", hide = true)]
    pub plant: Option<String>,
}

/// How a node logs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One line per event, for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// `drave log create`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Prints the log's number.

Examples:
  drave log create orders
  drave log create orders --if-missing")]
pub struct LogCreateArgs {
    /// 1 to 255 letters, digits, '.', '_', '-', '/'; not starting with '.' or '/'
    pub name: String,
    /// Be content when a log of this name exists
    #[arg(long)]
    pub if_missing: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log ls`
#[derive(Args, Clone, Debug)]
pub struct LogListArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    /// Ask this node alone, for what it knows
    #[arg(long, value_name = "N")]
    pub node: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log trim`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The records are gone for every reader, for good; their space is given back later. Below the first seq held it \
changes nothing.

Example:
  drave log trim orders --before 100000")]
pub struct LogTrimArgs {
    /// The log's name
    pub name: String,
    /// Give up the records below this seq; at most the log's next seq
    #[arg(long, value_name = "SEQ")]
    pub before: u64,
    /// How to print the log afterwards
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave append`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A line is a record: its bytes as they are, without the newline. A last line without a newline counts. A line \
over the limit (1 MiB) is refused and told; all others are appended.

Each line's number in the log (seq) is printed when a majority has it on stable storage, in order. The exit \
code is 0 only if every line was acknowledged; else standard error says which lines are in the log, which are \
not, and of which it is unknown.

Whatever was read is sent at once, in batches of up to 64 KiB, so that single lines are quick and files are \
fast. When leaders change, unanswered batches are sent again and never appended twice.

Examples:
  echo hello | drave append greetings --create
  drave append access --summary < access.log
  tail -F /var/log/syslog | drave append syslog > /dev/null")]
pub struct AppendArgs {
    /// The log's name
    pub log: String,
    /// Records per batch at most; a batch is also cut at 1 MiB and when the input pauses [default: what was
    /// read, up to 64 KiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: Option<u32>,
    /// Batches that may be unacknowledged
    #[arg(long, value_name = "K", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub in_flight: u32,
    /// Create the log when there is none of this name
    #[arg(long)]
    pub create: bool,
    /// Append only while the log's fencing token is this one, from `drave log fence`
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u64).range(1..))]
    pub fence: Option<u64>,
    /// Print no seqs, only a summary at the end: count, first and last seq, rate, latencies
    #[arg(long)]
    pub summary: bool,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t, requires = "summary")]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave read`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Without --count it ends at the log's end as it was when the command began.

Examples:
  drave read orders
  drave read orders --from 1000 --count 10 --format json
  drave read orders --at now-1h               what was appended in the last hour
  drave read orders --last 100
  drave read orders --node 2 | sha256sum      what replica 2 holds")]
pub struct ReadArgs {
    /// The log's name
    pub log: String,
    /// The first seq [default: the first one held]
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["at", "last"])]
    pub from: Option<u64>,
    /// Begin with the first record appended at this time or later: 2026-01-31T12:00:00Z (UTC), @SECONDS since 1970,
    /// or now-1h
    #[arg(long, value_name = "TIME", value_parser = log::moment, conflicts_with = "last")]
    pub at: Option<u64>,
    /// The last N records held
    #[arg(long, value_name = "N")]
    pub last: Option<u64>,
    /// Records at most
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: RecordFormat,
    /// Read from this replica alone, what it knows to be committed
    #[arg(long, value_name = "N")]
    pub node: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave tail`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
With --follow it goes on when nodes die and resumes at the next seq: nothing is left out, nothing comes twice.

Examples:
  drave tail orders                    the last 10 records
  drave tail orders --last 100 --follow
  drave tail orders --from 0 --follow --format json")]
pub struct TailArgs {
    /// The log's name
    pub log: String,
    /// The first seq
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["at", "last"])]
    pub from: Option<u64>,
    /// Begin with the first record appended at this time or later: 2026-01-31T12:00:00Z (UTC), @SECONDS since 1970,
    /// or now-1h
    #[arg(long, value_name = "TIME", value_parser = log::moment, conflicts_with = "last")]
    pub at: Option<u64>,
    /// The last N records [default: 10]
    #[arg(long, value_name = "N")]
    pub last: Option<u64>,
    /// Go on with the records to come, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: RecordFormat,
    /// Read from this replica alone, what it knows to be committed
    #[arg(long, value_name = "N")]
    pub node: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave status`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Asks every node by itself; one that does not answer within a second is shown as unreachable.

Examples:
  drave status
  drave status --format json")]
pub struct StatusArgs {
    /// Where entries spent their time in the last 30 to 60 seconds, stage by stage
    #[arg(long)]
    pub latency: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave dev`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The nodes are real processes with their own directories and logs. A temporary folder goes when the command \
ends; one given with --data-dir stays and is taken up again the next time.

Examples:
  drave dev
  drave dev --data-dir ./drave-dev --nodes 5")]
pub struct DevArgs {
    /// Where to keep everything [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = node_count)]
    pub nodes: u64,
    /// The I/O engine for disk and sockets
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    /// Settings for every node
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `drave demo`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Starts three nodes, appends real text, kills the leader with SIGKILL in the middle, goes on, starts the dead \
node again, and compares what each node holds with what was acknowledged. The exit code is 0 only if nothing \
acknowledged was lost and nothing was appended twice.")]
pub struct DemoArgs {
    /// Append the lines of this file, over and over until there are enough [default: text of its own]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Records to append
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1_000..=2_000_000)
    )]
    pub records: u64,
    /// The I/O engine for disk and sockets
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    /// Where to keep everything, to look at it afterwards [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `drave chaos`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Starts real nodes and clients. In each round nodes are killed, stopped for a while and cut off from each \
other, leaders first; then everything is healed, and the history of all clients is checked against the logs \
of all replicas. The next acknowledgement must come within two election timeouts of healing. The exit code is \
0 only if everything held in every round.

Partitions need an unprivileged network namespace and nftables; without these there are kills and pauses only.

Examples:
  drave chaos --rounds 20
  drave chaos --rounds 20 --proxy
  drave chaos --rounds 100 --seed 7 --keep ./kept")]
pub struct ChaosArgs {
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Where all draws come from [default: a random number, printed]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = node_count)]
    pub nodes: u64,
    /// How long faults strike in one round
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration_or_seconds)]
    pub seconds_per_round: Duration,
    /// From healing to the next acknowledgement at most [default: 1200ms, two election timeouts]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub back_within: Option<Duration>,
    /// Let the nodes talk through a proxy that delays, reorders and doubles their frames
    #[arg(long)]
    pub proxy: bool,
    /// Kills and pauses only, in the machine's own network
    #[arg(long, conflicts_with = "proxy")]
    pub no_partitions: bool,
    /// Keep the nodes' data and logs and every history in this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The I/O engine for disk and sockets
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    /// Plant this known bug in every node: what is promised must break
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "BUG")]
    pub plant: Option<String>,
    /// This process is in its network namespace already
    #[arg(long, hide = true)]
    pub in_namespace: bool,
}

/// `drave history check`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each acknowledgement names its seq, so the check is a sort and a scan: nothing acknowledged is lost, nothing \
comes twice, real-time and producer order hold, reads and tails are linearizable, what failed is absent. Each \
violation is printed with the operations concerned. The exit code is 0 only if there is none.

Examples:
  drave history check ./kept/round-12.jsonl")]
pub struct HistoryCheckArgs {
    /// JSON lines, as `drave chaos --keep` writes them
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error} (try 500ms, 10s, 2m)"))?;
    if duration.is_zero() {
        Err("must be over zero".to_owned())
    } else {
        Ok(duration)
    }
}

/// A bare number is seconds.
fn duration_or_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => duration(&format!("{seconds}s")),
        Err(_) => duration(text),
    }
}

pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.to_owned()),
        _ => Err("not HOST:PORT with a port from 1 to 65535".to_owned()),
    }
}

fn founder(text: &str) -> Result<(u64, String), String> {
    let (number, address) = text.split_once('=').ok_or("not N=HOST:PORT")?;
    let number = number
        .parse()
        .map_err(|error| format!("{number:?} is no node number: {error}"))?;
    Ok((number, endpoint(address)?))
}

fn node_count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}

#[cfg(test)]
mod tests;
