//! The grammar of `drave bench append`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{body_bytes, seconds};
use crate::cli::ResultFormat;

/// What a load goes to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum BenchTarget {
    /// A cluster of drave
    #[default]
    Drave,
    /// Three plain files with group commit, two of three flushed; no network, no protocol
    Floor,
    /// Three etcd servers, a put under a new key
    #[cfg(feature = "peers")]
    Etcd,
    /// Redis with two replicas, XADD and WAIT 1, appendfsync always
    #[cfg(feature = "peers")]
    Redis,
}

impl BenchTarget {
    /// For tables and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drave => "drave",
            Self::Floor => "floor",
            #[cfg(feature = "peers")]
            Self::Etcd => "etcd",
            #[cfg(feature = "peers")]
            Self::Redis => "redis",
        }
    }
}

/// `drave bench append`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Without --endpoints it starts a cluster of its own, one process per node, in --dir or a temporary folder, and stops it \
at the end. With --endpoints the logs bench-TIME-0, bench-TIME-1 and so on are made in that cluster and stay there.

Each batch is one append and one entry of Raft. Latency is from handing a batch to the client until its \
acknowledgement, every append counted once; with --rate it is from the time at which the batch was due, so that \
a stall counts for all that came due in it. Raise --in-flight with --rate until nothing waits for a place in it: \
time spent waiting for one is counted too.

Examples:
  drave bench append --in-flight 256
  drave bench append --bytes 128 --batch 100 --in-flight 64 --verify
  drave bench append --target drave,floor --rounds 5 --in-flight 256
  drave bench append --endpoints a:4436,b:4436,c:4436 --rate 20000 --in-flight 4096 -o json")]
pub struct BenchAppendArgs {
    /// Nodes of a running cluster, HOST:PORT, comma-separated [default: start one]
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...", value_parser = crate::cli::endpoint)]
    pub endpoints: Vec<String>,
    /// Where the own cluster keeps its files, which stay; one found there is used again [default: a temporary folder]
    #[arg(long, value_name = "DIR", conflicts_with = "endpoints")]
    pub dir: Option<PathBuf>,
    /// Nodes of the own cluster
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        conflicts_with = "endpoints"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=7))]
    pub nodes: u32,
    /// What the load goes to; of several, each in turn in every round, and the first held against the others
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "TARGET,...",
        default_value = "drave"
    )]
    pub target: Vec<BenchTarget>,
    /// Rounds; of more than one, medians are told
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Batches kept unacknowledged, over all clients
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// Clients, each with connections and a producer of its own; at most --in-flight
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub clients: u32,
    /// Logs that the batches go to in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub logs: u32,
    /// Bytes of a record, with k or m
    #[arg(long, value_name = "N", default_value = "1k", value_parser = body_bytes)]
    pub bytes: u32,
    /// Records in a batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// How long is measured, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub duration: Duration,
    /// How long it runs before that, in seconds
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub warm_up: Duration,
    /// Batches per second at constant distances, instead of as fast as they are acknowledged
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// Read every acknowledged record back and compare; records of 16 bytes or more
    #[arg(long)]
    pub verify: bool,
    /// Write the latencies of all runs, in nanoseconds, as a log of HdrHistogram; a run's tag is its target
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write latency by percentile, a line for each target, as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ResultFormat,
}
