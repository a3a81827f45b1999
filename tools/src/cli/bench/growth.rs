//! The grammar of `drave bench growth`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{body_bytes, seconds};
use crate::cli::ResultFormat;

/// What grows while all else stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Dimension {
    /// Nodes of the cluster
    Nodes,
    /// Logs that the appends go to in turn
    Logs,
    /// Connections of clients that append in turn
    Connections,
    /// Bytes of a record, each an append of its own
    Sizes,
}

impl Dimension {
    /// For tables and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Logs => "logs",
            Self::Connections => "connections",
            Self::Sizes => "sizes",
        }
    }
}

/// `drave bench growth`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each point of each dimension is a cluster of its own in a temporary folder (TMPDIR says where), three nodes, one log, \
one connection to the leader and records of 1 KiB but for what grows, under a closed loop with --in-flight appends \
unacknowledged, or as many as make 16 MiB if that is less, and at least 16. A point with more connections than files \
may be open is left out, and that is told.

Examples:
  drave bench growth
  drave bench growth --only logs,connections --duration 10
  drave bench growth --only sizes --sizes 1k,1m -o json")]
pub struct BenchGrowthArgs {
    /// What grows, in turn
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "WHAT,...",
        default_value = "nodes,logs,connections,sizes"
    )]
    pub only: Vec<Dimension>,
    /// Nodes
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,3,5"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=7))]
    pub nodes: Vec<u32>,
    /// Logs
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,10,100,1000,10000"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub logs: Vec<u32>,
    /// Connections
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,10,100,1000,10000"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub connections: Vec<u32>,
    /// Bytes of a record, with k or m
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1k,16k,64k,256k,1m"
    )]
    #[arg(value_parser = body_bytes)]
    pub sizes: Vec<u32>,
    /// Appends kept unacknowledged
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// How long each point is measured, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub duration: Duration,
    /// How long it runs before that, in seconds
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub warm_up: Duration,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ResultFormat,
}
