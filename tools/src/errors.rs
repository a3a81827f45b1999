//! What a failed command says: what happened, why, what effect it had, what to do next.
//!
//! One form for all commands. Errors of the other crates are turned into it here or where they are met;
//! nothing here prints or exits.

use std::fmt;
use std::io;
use std::ops::Deref;

use drave_batch::wire::ErrorCode;

use crate::exit::Exit;

/// Why a command failed, ready to be shown. Boxed, so that a `Result` stays small.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CliError(Box<ErrorParts>);

/// The parts of a [`CliError`].
///
/// An empty `summary` shows nothing: the process only ends with the exit code.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ErrorParts {
    /// The stable code, where there is one.
    pub code: Option<ErrorCode>,
    /// One line: what happened.
    pub summary: String,
    /// Named circumstances, such as the log.
    pub context: Vec<(&'static str, String)>,
    /// The cause; may have several lines.
    pub why: String,
    /// What was written, what was not, what is unknown; may have several lines.
    pub effect: String,
    /// What to do; may have several lines.
    pub next: String,
    /// How the process ends.
    pub exit: Exit,
}

impl Deref for CliError {
    type Target = ErrorParts;

    fn deref(&self) -> &ErrorParts {
        &self.0
    }
}

impl CliError {
    /// An error with only a summary.
    #[must_use]
    pub fn new(exit: Exit, summary: impl Into<String>) -> Self {
        Self(Box::new(ErrorParts {
            code: None,
            summary: summary.into(),
            context: Vec::new(),
            why: String::new(),
            effect: String::new(),
            next: String::new(),
            exit,
        }))
    }

    /// Ends the process without a word.
    #[must_use]
    pub fn quiet(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// With its stable code.
    #[must_use]
    pub fn code(mut self, code: ErrorCode) -> Self {
        self.0.code = Some(code);
        self
    }

    /// With a named circumstance.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// With the cause.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.0.why = why.into();
        self
    }

    /// With the effect.
    #[must_use]
    pub fn effect(mut self, effect: impl Into<String>) -> Self {
        self.0.effect = effect.into();
        self
    }

    /// With advice.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = next.into();
        self
    }

    /// With other advice for the case that the outcome is unknown: what to do depends on what was asked.
    #[must_use]
    pub fn next_if_unknown(self, next: impl Into<String>) -> Self {
        if self.code == Some(ErrorCode::OutcomeUnknown) {
            self.next(next)
        } else {
            self
        }
    }

    /// Standard output cannot be written. A reader that went away (`| head`) is no failure of ours.
    #[must_use]
    pub fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(Exit::Success);
        }
        Self::new(Exit::Failure, "cannot write to standard output")
            .why(error.to_string())
            .effect("what was printed before stands; the rest was not printed")
            .next("check where the output goes, for instance whether its disk is full")
    }

    /// The whole text, each line ended, with `error` in red when `colour` is on.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        if self.summary.is_empty() {
            return String::new();
        }
        let (red, bold, reset) = if colour {
            ("\x1b[1;31m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let code = self
            .code
            .map(|code| format!("[{code}]"))
            .unwrap_or_default();
        let mut text = format!("{red}error{code}{reset}{bold}: {}{reset}\n", self.summary);
        let mut row = |name: &str, value: &str| {
            let mut name = name;
            for line in value.lines() {
                text.push_str(format!("  {name:<7} {line}").trim_end());
                text.push('\n');
                name = "";
            }
        };
        for (name, value) in &self.context {
            row(name, value);
        }
        row("why", &self.why);
        row("effect", &self.effect);
        row("next", &self.next);
        text
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_stable() {
        let error = CliError::new(
            Exit::Precondition,
            "append refused: expected seq 42, the log is at 57",
        )
        .code(ErrorCode::ExpectSeq)
        .with("log", "orders")
        .why("another writer appended 15 records\nsince you read the tail")
        .effect("nothing was written")
        .next("read from 42 and retry");
        let expected = "\
error[DRV-0104]: append refused: expected seq 42, the log is at 57
  log     orders
  why     another writer appended 15 records
          since you read the tail
  effect  nothing was written
  next    read from 42 and retry
";
        assert_eq!(error.to_string(), expected);
        assert!(
            error
                .render(true)
                .starts_with("\x1b[1;31merror[DRV-0104]\x1b[0m")
        );
    }

    #[test]
    fn absent_parts_leave_no_line() {
        assert_eq!(
            CliError::new(Exit::Failure, "no").to_string(),
            "error: no\n"
        );
        assert_eq!(CliError::quiet(Exit::Success).to_string(), "");
    }

    #[test]
    fn a_reader_that_went_away_is_quiet() {
        let gone = CliError::stdout(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((gone.exit, gone.summary.as_str()), (Exit::Success, ""));
        let full = CliError::stdout(&io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit, Exit::Failure);
    }
}
