//! The grammar of `drave sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `drave sim`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Without --seed or --seeds, fresh seeds are run: a thousand, or as many as --seconds allow. A failing run \
prints the broken invariant and the command that replays it. docs/simulator.md is the guide."
)]
pub struct SimArgs {
    /// What else the simulator does
    #[command(subcommand)]
    pub command: Option<SimCommand>,
    /// Run this seed only
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Run the seeds from A up to, not including, B
    #[arg(long, value_name = "A..B")]
    pub seeds: Option<String>,
    /// Begin no further run after this long
    #[arg(long, value_name = "S")]
    pub seconds: Option<u64>,
    /// The profile [default: drawn from the seed; plain for none of the faults]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Voters at the start [default: drawn]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub nodes: Option<u8>,
    /// Steps of the safety phase [default: drawn]
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Clients [default: drawn]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: Option<u32>,
    /// Kinds of faults that stay off, separated by commas
    #[arg(long, value_name = "KINDS")]
    pub without: Option<String>,
    /// Print the run as a timeline
    #[arg(long)]
    pub trace: bool,
    /// Make a failing run as small as can be, then print its command
    #[arg(long)]
    pub shrink: bool,
    /// Threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
}

/// What else the simulator does.
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Plant known bugs one by one and show what finds each (needs the feature `mutants`)
    Mutants(MutantsArgs),
    /// Plant one known bug and fail unless it is found (needs the feature `mutants`)
    Canary,
    /// Run text scripts over Raft cores; without files, all that are built in
    Script(ScriptArgs),
}

/// `drave sim script`
#[derive(Debug, Args)]
pub struct ScriptArgs {
    /// Scripts; docs/scripts.md is the guide
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `drave sim mutants`
#[derive(Debug, Args)]
pub struct MutantsArgs {
    /// Only this one
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Only this profile [default: all, churn more often]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// How long to search for each
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub seconds: u64,
    /// Threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
}
