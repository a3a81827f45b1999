//! What can go wrong with a script: in the script itself, in what it expects, in the core.

use std::fmt;

/// Why a command did not do what it says.
#[derive(Debug)]
pub(super) enum Fault {
    /// The script makes no sense here: unknown command, bad argument, a message that is not there.
    Script(String),
    /// The core refused. Right if the next command is `expect error`.
    Refused(String),
    /// An expectation does not hold.
    Expectation {
        /// What the script says.
        expected: String,
        /// What is.
        found: String,
    },
    /// A broken invariant of one node or of the cluster.
    Invariant(String),
}

impl Fault {
    pub(super) fn script(text: impl Into<String>) -> Fault {
        Fault::Script(text.into())
    }

    pub(super) fn invariant(text: impl Into<String>) -> Fault {
        Fault::Invariant(text.into())
    }
}

/// Fails unless `found` is what was expected.
pub(super) fn expect_equal<T: PartialEq + fmt::Display>(
    what: &str,
    expected: T,
    found: T,
) -> Result<(), Fault> {
    if expected == found {
        return Ok(());
    }
    Err(Fault::Expectation {
        expected: format!("{what} {expected}"),
        found: format!("{found}"),
    })
}

/// A script that failed: where, what it expected, what was found, and how all nodes stood.
#[derive(Debug)]
pub struct Failure {
    /// The scenario's file.
    pub file: String,
    /// Line of the command, from 1.
    pub line: usize,
    /// The command.
    pub command: String,
    /// What should have been, or what kind of thing broke.
    pub expected: String,
    /// What was.
    pub found: String,
    /// All nodes and messages at that time.
    pub dump: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}:{}: {}", self.file, self.line, self.command)?;
        writeln!(formatter, "  expected: {}", self.expected)?;
        writeln!(formatter, "  found:    {}", self.found)?;
        write!(formatter, "{}", self.dump)
    }
}

impl std::error::Error for Failure {}
