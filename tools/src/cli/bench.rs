//! The grammar of `drave bench`.

pub mod append;
pub mod catch_up;
pub mod growth;
pub mod stability;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use self::append::BenchAppendArgs;
use self::catch_up::BenchCatchUpArgs;
use self::growth::BenchGrowthArgs;
use self::stability::BenchStabilityArgs;
use super::ResultFormat;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The log alone beside the raw disk: durable appends, and plain writes of the same sizes
    Wal(BenchWalArgs),
    /// Appends to a whole cluster: how many are acknowledged, and how soon
    Append(BenchAppendArgs),
    /// A cluster at a constant rate while its nodes are killed and paused: latency and memory over time
    Stability(BenchStabilityArgs),
    /// An empty node joins under load: how fast it gets the log, beside a plain copy of the same bytes
    CatchUp(BenchCatchUpArgs),
    /// What an append costs while nodes, logs, connections or records grow, each alone
    Growth(BenchGrowthArgs),
}

/// Which of the log's engines are measured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum BenchEngine {
    /// io_uring
    Uring,
    /// pwrite on threads
    Posix,
    /// Both, in turns
    #[default]
    Both,
}

/// `drave bench wal`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
In each round every case runs the log, then at once the raw disk with writes of the size the log's flushes had: \
O_DIRECT|O_DSYNC over a file that was written before, one at a time and as many at once as the log had in flight, \
and buffered writes each followed by fdatasync. Compare figures of one run only; the ratios are what stays. \
The files, about 450 MiB, are removed at the end.

Examples:
  drave bench wal
  drave bench wal --dir /var/lib/drave --engine uring --waiting 1 --rounds 21
  drave bench wal --bytes 128 --waiting 1 --segment-bytes 1m      appends around the ends of segments")]
pub struct BenchWalArgs {
    /// Where the files are made; the file system to be measured [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Engines of the log
    #[arg(long, value_enum, default_value_t)]
    pub engine: BenchEngine,
    /// Body sizes, with k or m
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "128,1k,16k"
    )]
    #[arg(value_parser = body_bytes)]
    pub bytes: Vec<u32>,
    /// Appends kept waiting
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,16,256,4096"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub waiting: Vec<u32>,
    /// How long each case runs in each round, and each of its raw loops
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    pub seconds: Duration,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Bytes of a segment, with k or m: small ones end often
    #[arg(long, value_name = "N", default_value = "64m", value_parser = segment_bytes)]
    pub segment_bytes: u64,
    /// Bytes of durable appends the log keeps in memory for readers, with k or m
    #[arg(long, value_name = "N", default_value = "64m", value_parser = segment_bytes)]
    pub tail_bytes: u64,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ResultFormat,
}

fn sized(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        other => return Err(format!("{other:?} is no unit (k, m, g)")),
    };
    let number: u32 = digits
        .parse()
        .map_err(|error| format!("{digits:?}: {error}"))?;
    Ok(u64::from(number) * unit)
}

fn body_bytes(text: &str) -> Result<u32, String> {
    match sized(text)? {
        bytes @ 1..=1_048_576 => Ok(bytes as u32),
        bytes => Err(format!("{bytes} is not from 1 to 1m")),
    }
}

fn segment_bytes(text: &str) -> Result<u64, String> {
    match sized(text)? {
        bytes @ 1_048_576..=1_073_741_824 => Ok(bytes),
        bytes => Err(format!("{bytes} is not from 1m to 1024m")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not from 0.01 to 60".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(body_bytes("128"), Ok(128));
        assert_eq!(body_bytes("16k"), Ok(16 << 10));
        assert_eq!(segment_bytes("64m"), Ok(64 << 20));
        for wrong in ["", "k", "0", "2m", "99999999999", "1g", "1kk", "-1"] {
            assert!(body_bytes(wrong).is_err(), "{wrong}");
        }
        assert!(segment_bytes("1k").is_err());
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "61", "NaN", "inf", "x"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
