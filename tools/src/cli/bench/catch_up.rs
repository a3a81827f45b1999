//! The grammar of `drave bench catch-up`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{seconds, sized};
use crate::cli::ResultFormat;

/// `drave bench catch-up`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Starts three nodes, in --dir or a temporary folder, and fills a log with --bytes of records of 1 KiB, 64 in a batch. \
Then single records are appended at a constant rate, and meanwhile, in turn: nothing else; the log's files of a \
follower are sent through a socket of this machine into a file in the same folder (fdatasync every 4 MiB and at the \
end); a fourth node, formatted and empty, is added as a learner. It has caught up when everything that the leader had \
when it was added is on its disk. With --cuts it is killed meanwhile and started again, at random points: it should \
still have everything that it said was on its disk. About three times --bytes and what is appended meanwhile, on each \
node, must fit on the disk twice over.

Examples:
  drave bench catch-up
  drave bench catch-up --bytes 512m --rate 2000
  drave bench catch-up --bytes 512m --cuts 5 --seed 7 -o json")]
pub struct BenchCatchUpArgs {
    /// Where the cluster keeps its files, which stay; nothing may be there yet [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Bytes of records that the log is filled with, with k, m or g
    #[arg(long, value_name = "N", default_value = "2g", value_parser = fill_bytes)]
    pub bytes: u64,
    /// Records per second meanwhile [default: half of what a closed loop of 256 gets in two seconds before]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// How long appends alone are measured before, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub alone: Duration,
    /// How often the new node is killed and started again while it catches up
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=1_000))]
    pub cuts: u32,
    /// Where it is killed follows from it [default: random, and told]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ResultFormat,
}

fn fill_bytes(text: &str) -> Result<u64, String> {
    match sized(text)? {
        bytes @ 1_048_576..=1_099_511_627_776 => Ok(bytes),
        bytes => Err(format!("{bytes} is not from 1m to 1024g")),
    }
}
