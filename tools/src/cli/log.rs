//! The grammar of what is asked about one log, and of moments.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::ConnectArgs;
use super::wal::RowFormat;

/// `drave log describe`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
LAST RECORD is when the last record was appended, by its leader's clock, also when it was trimmed since. HELD BYTES \
are those of the batches that are held, to within some before the first one.

Examples:
  drave log describe orders
  drave log describe orders -o json")]
pub struct LogDescribeArgs {
    /// The log's name
    pub name: String,
    /// How to print
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub format: RowFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave check-tail`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Confirmed by a quorum: every record that was acknowledged before the command began is before the seq it prints.

Examples:
  drave check-tail orders
  drave check-tail orders -o jsonl")]
pub struct CheckTailArgs {
    /// The log's name
    pub name: String,
    /// How to print
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub format: RowFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log fence`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
From then on the log takes only appends that carry the token (append --fence): whoever wrote to it before, and does \
not know yet that it was replaced, writes nothing more. The token is printed. Each fence has a higher token than the \
one before; a log that was fenced stays so.

Examples:
  TOKEN=$(drave log fence orders) && drave append orders --fence $TOKEN < orders.txt
  drave log fence orders --token 41           # a lock service has given 41 to this writer alone")]
pub struct LogFenceArgs {
    /// The log's name
    pub name: String,
    /// The token, above the one in force [default: the next one]
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u64).range(1..))]
    pub token: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log close`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Appends are refused from then on, and have written nothing. Who follows the log (tail -f) hears that it ended. It \
cannot be opened again.

Example:
  drave log close orders")]
pub struct LogCloseArgs {
    /// The log's name
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log set-retention`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Kept are the newest records up to the limits, and up to about 4 MiB or 512 entries of the group more; what is older \
is given up by and by, as by `drave log trim`, on every node alike. With both limits, what is beyond either goes. What \
is not said has no limit. Age is by the clocks of leaders.

Examples:
  drave log set-retention metrics --bytes 10GiB --age 7d
  drave log set-retention metrics --unlimited")]
#[command(group(clap::ArgGroup::new("limits").required(true).multiple(true).args(["bytes", "age", "unlimited"])))]
pub struct LogRetentionArgs {
    /// The log's name
    pub name: String,
    /// Bytes of its newest records that are kept, overhead included
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes: Option<u64>,
    /// For how long a record is kept
    #[arg(long, value_name = "DURATION", value_parser = age)]
    pub age: Option<Duration>,
    /// Everything is kept
    #[arg(long, conflicts_with_all = ["bytes", "age"])]
    pub unlimited: bool,
    /// How to print the log afterwards
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub format: RowFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log set-quota`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The leader takes so much in a second, and a second's worth at once; what is beyond it is refused with DRV-0113, and \
clients send it again until their timeout. With both limits, each holds. What is not said has no limit.

Examples:
  drave log set-quota metrics --bytes-per-second 10MiB --records-per-second 50000
  drave log set-quota metrics --unlimited")]
#[command(group(clap::ArgGroup::new("limits").required(true).multiple(true)
    .args(["bytes_per_second", "records_per_second", "unlimited"])))]
pub struct LogQuotaArgs {
    /// The log's name
    pub name: String,
    /// Bytes that it takes in a second, overhead included
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub bytes_per_second: Option<u64>,
    /// Records that it takes in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records_per_second: Option<u64>,
    /// It takes whatever comes
    #[arg(long, conflicts_with_all = ["bytes_per_second", "records_per_second"])]
    pub unlimited: bool,
    /// How to print the log afterwards
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub format: RowFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// `drave log delete`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The records are gone for every reader, for good; their space is given back later. The name is free for another log.

Example:
  drave log delete orders --yes")]
pub struct LogDeleteArgs {
    /// The log's name
    pub name: String,
    /// Delete it; without this, only say what would be deleted
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become the help's text")]
    pub connect: ConnectArgs,
}

/// A number of bytes, at least 1: `500MB`, `10GiB`.
fn size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        Ok(_) => Err("at least 1 byte is kept; `drave log trim` empties a log".to_owned()),
        Err(error) => Err(format!("{error} (try 500MB, 10GiB)")),
    }
}

/// Bytes in a second, at least 1: `500KB`, `10MiB`.
fn rate(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        Ok(_) => Err("at least 1 byte is taken; `drave log close` ends a log".to_owned()),
        Err(error) => Err(format!("{error} (try 500KB, 10MiB)")),
    }
}

/// A time of at least a microsecond: `90s`, `7d`.
fn age(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(age) if age.as_micros() > 0 => Ok(age),
        Ok(_) => Err("at least 1us is kept; `drave log trim` empties a log".to_owned()),
        Err(error) => Err(format!("{error} (try 90s, 12h, 7d)")),
    }
}

/// A moment as microseconds since 1970: RFC 3339 in UTC, `@SECONDS` since 1970, or `now-DURATION`.
pub(crate) fn moment(text: &str) -> Result<u64, String> {
    moment_before(text, SystemTime::now())
}

fn moment_before(text: &str, now: SystemTime) -> Result<u64, String> {
    let since_1970 = |moment: SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        since.map_err(|_| "before 1970".to_owned())
    };
    let since = if let Some(seconds) = text.strip_prefix('@') {
        let seconds: f64 = seconds
            .parse()
            .map_err(|_| format!("{seconds:?} is no number of seconds"))?;
        Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?
    } else if let Some(ago) = text.strip_prefix("now-") {
        let ago = humantime::parse_duration(ago)
            .map_err(|error| format!("{error} (try now-10m, now-1h)"))?;
        let moment = now.checked_sub(ago).ok_or("too long ago")?;
        since_1970(moment)?
    } else {
        let moment = humantime::parse_rfc3339_weak(text)
            .map_err(|error| format!("{error} (try 2026-01-31T12:00:00Z, @1769860800, now-1h)"))?;
        since_1970(moment)?
    };
    u64::try_from(since.as_micros()).map_err(|_| "too far in the future".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(size("2KiB"), Ok(2_048));
        assert_eq!(age("7d"), Ok(Duration::from_hours(7 * 24)));
        for bad in ["", "0", "-1", "much"] {
            assert!(size(bad).is_err(), "{bad}");
            assert!(rate(bad).is_err(), "{bad}");
        }
        for bad in ["", "0s", "7", "-1s", "1ns"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7_200);
        let read = |text| moment_before(text, now);
        assert_eq!(read("1970-01-01T00:00:01.5Z"), Ok(1_500_000));
        assert_eq!(read("1970-01-01 00:00:02"), Ok(2_000_000));
        assert_eq!(read("@1.25"), Ok(1_250_000));
        assert_eq!(read("now-1h"), Ok(3_600_000_000));
        for bad in [
            "",
            "yesterday",
            "@",
            "@-1",
            "@1e300",
            "now-",
            "now-1y",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(read(bad).is_err(), "{bad}: {:?}", read(bad));
        }
    }
}
