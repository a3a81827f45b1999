//! The grammar of `drave explain`.

use clap::Args;

use super::ResultFormat;

/// `drave explain`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Codes stay the same across versions. Without a code all are listed, a line each.

Examples:
  drave explain DRV-0104
  drave explain 104 --format json")]
pub struct ExplainArgs {
    /// The code: DRV-0104, or its number
    pub code: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ResultFormat,
}
