//! Exit codes: the one list, its text in `--help`, and which error ends with which.
//!
//! Programs decide by these numbers, so they never change their meaning.

use std::process::ExitCode;

use drave_batch::wire::ErrorCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Success = 0,
    /// Something not listed below.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No such log, record, node or data directory.
    NotFound = 3,
    /// Refused because of the state things are in, or because of a limit.
    Precondition = 4,
    /// Nobody answered in time, or the outcome is unknown.
    Unavailable = 5,
    /// Stored or received bytes are damaged.
    Corruption = 6,
    /// Another format version, another cluster, or a bad configuration.
    Mismatch = 7,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// Shown at the end of `drave --help`.
    pub const HELP: &'static str = "\
Exit codes:
  0    everything asked for was done
  1    another failure
  2    the command line makes no sense
  3    no such log, record, node or formatted directory
  4    refused: a precondition does not hold, or a limit was reached
  5    unavailable or timed out; whether something was written is then unknown, and said so
  6    stored or received bytes are damaged
  7    another format version, another cluster, or a bad configuration
  130  interrupted";

    /// The code for a number that another layer chose; an unknown one is a plain failure.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Success,
            2 => Self::Usage,
            3 => Self::NotFound,
            4 => Self::Precondition,
            5 => Self::Unavailable,
            6 => Self::Corruption,
            7 => Self::Mismatch,
            130 => Self::Interrupted,
            _ => Self::Failure,
        }
    }

    /// How a request that failed with this error ends the process.
    #[must_use]
    pub fn of_error_code(code: ErrorCode) -> Self {
        match code {
            ErrorCode::LogNotFound
            | ErrorCode::Trimmed
            | ErrorCode::BeyondTail
            | ErrorCode::MemberUnknown => Self::NotFound,
            ErrorCode::ExpectSeq
            | ErrorCode::Fenced
            | ErrorCode::LogClosed
            | ErrorCode::TooLarge
            | ErrorCode::StaleEpoch
            | ErrorCode::LogExists
            | ErrorCode::LogLimit
            | ErrorCode::TrimBeyondTail
            | ErrorCode::MembershipConflict
            | ErrorCode::MemberExists
            | ErrorCode::NodeIdUsed
            | ErrorCode::NotCaughtUp
            | ErrorCode::LastVoter
            | ErrorCode::WouldLoseQuorum
            | ErrorCode::NotEligible
            | ErrorCode::InvalidMembers => Self::Precondition,
            ErrorCode::LogName => Self::Usage,
            ErrorCode::Corruption | ErrorCode::LogCut => Self::Corruption,
            ErrorCode::ProtocolVersion
            | ErrorCode::WrongCluster
            | ErrorCode::WrongNode
            | ErrorCode::WrongIncarnation
            | ErrorCode::UnknownMember => Self::Mismatch,
            ErrorCode::NotLeader
            | ErrorCode::NoQuorum
            | ErrorCode::OutcomeUnknown
            | ErrorCode::UnknownProducer
            | ErrorCode::Busy
            | ErrorCode::QuotaExceeded
            | ErrorCode::DuplicateForgotten
            | ErrorCode::ReadUnconfirmed
            | ErrorCode::TransferFailed
            | ErrorCode::DiskFull
            | ErrorCode::Repairing
            | ErrorCode::HandshakeTimeout
            | ErrorCode::ConnectionLimit
            | ErrorCode::Stopping => Self::Unavailable,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in 0..=u8::MAX {
            let exit = Exit::from_number(number);
            assert!(exit as u8 == number || exit == Exit::Failure, "{number}");
        }
    }

    #[test]
    fn unknown_outcomes_never_look_like_refusals() {
        for code in ErrorCode::ALL {
            if code.effect() == drave_batch::wire::Effect::Unknown {
                assert_eq!(Exit::of_error_code(*code), Exit::Unavailable, "{code}");
            }
        }
    }

    #[test]
    fn help_lists_every_code() {
        for exit in [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::NotFound,
            Exit::Precondition,
            Exit::Unavailable,
            Exit::Corruption,
            Exit::Mismatch,
            Exit::Interrupted,
        ] {
            let start = format!("  {} ", exit as u8);
            assert!(
                Exit::HELP.lines().any(|line| line.starts_with(&start)),
                "{start}"
            );
        }
    }
}
