//! The grammar of `drave append-together`.

use clap::Args;

use super::ConnectArgs;
use super::wal::RowFormat;

/// `drave append-together`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
All the records are appended, in one entry, or none: a crash, another leader, a condition that one of the logs does \
not meet leave none of them behind. Records for the same log follow one another. What is refused has written nothing \
to any of the logs.

Examples:
  drave append-together orders='order 17: 2 of 5' stock='5: -2'
  drave append-together orders='order 17' stock='5: -2' --expect-seq stock=41
  drave append-together jobs='job 3 done' results='...' --fence jobs=7")]
pub struct AppendTogetherArgs {
    /// A record and the log it is for
    #[arg(required = true, value_name = "LOG=RECORD", value_parser = record)]
    pub records: Vec<(String, String)>,
    /// Append only if the log's next seq is this one
    #[arg(long, value_name = "LOG=SEQ", value_parser = number)]
    pub expect_seq: Vec<(String, u64)>,
    /// The log's fencing token, from `drave log fence`
    #[arg(long, value_name = "LOG=TOKEN", value_parser = number)]
    pub fence: Vec<(String, u64)>,
    /// How to print where the records are
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub format: RowFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

fn record(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((log, record)) if !log.is_empty() => Ok((log.to_owned(), record.to_owned())),
        _ => Err("LOG=RECORD is needed, as in orders='order 17'".to_owned()),
    }
}

fn number(text: &str) -> Result<(String, u64), String> {
    let (log, number) = record(text).map_err(|_| "LOG=NUMBER is needed, as in orders=41")?;
    match number.parse() {
        Ok(number) => Ok((log, number)),
        Err(error) => Err(format!("{number:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_numbers_are_read() {
        let pair = |log: &str, record: &str| Ok((log.to_owned(), record.to_owned()));
        assert_eq!(record("a=b=c"), pair("a", "b=c"));
        assert_eq!(record("a="), pair("a", ""));
        assert_eq!(number("a=41"), Ok(("a".to_owned(), 41)));
        for bad in ["", "a", "=b"] {
            assert!(record(bad).is_err(), "{bad}");
        }
        for bad in ["", "a", "=1", "a=", "a=-1", "a=x", "a=18446744073709551616"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
