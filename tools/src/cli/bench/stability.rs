//! The grammar of `drave bench stability`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::body_bytes;
use crate::cli::ResultFormat;

/// `drave bench stability`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Starts three nodes, in --dir or a temporary folder, and appends single records at a constant rate to a log that keeps \
its last 128 MiB. A follower is killed after a sixth of the time, and started again when what it lacks is gone from \
the others' logs, so that it needs a snapshot; after half of the time the other follower is paused; after three \
quarters the leader is killed, and started again. Latency is from the time at which an append was due.

Examples:
  drave bench stability
  drave bench stability --duration 900s --plot stability.svg
  drave bench stability --duration 30s --rate 2000 -o json")]
pub struct BenchStabilityArgs {
    /// Where the cluster keeps its files, which stay [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long it runs
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Records per second [default: 70% of what a closed loop of 256 gets in five seconds before]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// How long a follower, and the leader, are paused or dead [default: 10s, or a tenth of the time if that is less]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub away: Option<Duration>,
    /// Bytes of a record, with k or m
    #[arg(long, value_name = "N", default_value = "1k", value_parser = body_bytes)]
    pub bytes: u32,
    /// Write p50, p99.9, the longest and memory over time as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ResultFormat,
}
