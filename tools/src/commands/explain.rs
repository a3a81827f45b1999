//! `drave explain`: what a code means, why it comes, what it did, what to do. From the page that users read,
//! `docs/errors.md`, which a test holds against the codes.

use drave_batch::wire::ErrorCode;
use serde::Serialize;

use crate::cli::ResultFormat;
use crate::cli::explain::ExplainArgs;
use crate::connect;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::{plain_table, print, render_table};

const PAGE: &str = include_str!("../../../docs/errors.md");

/// One code.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct Explanation {
    code: String,
    summary: &'static str,
    what: &'static str,
    why: &'static str,
    effect: &'static str,
    is_retryable: bool,
    next: &'static str,
    exit_code: u8,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`] when there is no such code.
pub fn run(arguments: &ExplainArgs) -> Result<(), CliError> {
    let text = match &arguments.code {
        Some(text) => {
            let code = code_of(text).ok_or_else(|| unknown(text))?;
            one(&explain(code), arguments.format)
        }
        None => all(arguments.format),
    };
    connect::runtime()?.block_on(print(&text))
}

/// The code of `DRV-0104`, `drv-104` or `104`.
fn code_of(text: &str) -> Option<ErrorCode> {
    let prefix = text
        .get(..4)
        .filter(|start| start.eq_ignore_ascii_case("DRV-"));
    let number = prefix.map_or(text, |prefix| &text[prefix.len()..]);
    ErrorCode::from_number(number.parse().ok()?)
}

fn unknown(text: &str) -> CliError {
    CliError::new(Exit::NotFound, format!("{text} is no error code of drave")).next(
        "`drave explain` lists all; a newer node may have codes that this program does not know",
    )
}

fn explain(code: ErrorCode) -> Explanation {
    let name = code.to_string();
    let row = PAGE
        .lines()
        .find_map(|line| {
            line.strip_prefix("| ")?
                .strip_prefix(&*name)?
                .strip_prefix(" | ")
        })
        .expect("the page has a row for each code");
    let mut cells = row.trim_end_matches(" |").split(" | ");
    let mut cell = || cells.next().expect("the page has six columns");
    let (what, why, effect) = (cell(), cell(), cell());
    let (_, next) = (cell(), cell());
    Explanation {
        code: name,
        summary: code.summary(),
        what,
        why,
        effect,
        is_retryable: code.is_retryable(),
        next,
        exit_code: Exit::of_error_code(code) as u8,
    }
}

fn one(found: &Explanation, format: ResultFormat) -> String {
    if format == ResultFormat::Json {
        return document(found);
    }
    let retry = if found.is_retryable { "yes" } else { "no" };
    format!(
        "{}  {}\n  what    {}\n  why     {}\n  effect  {}\n  retry   {retry}\n  next    {}\n  exit    {}\n",
        found.code, found.summary, found.what, found.why, found.effect, found.next, found.exit_code
    )
}

fn all(format: ResultFormat) -> String {
    let codes = ErrorCode::ALL.iter();
    let rows: Vec<Explanation> = codes.map(|code| explain(*code)).collect();
    if format == ResultFormat::Json {
        return document(&rows);
    }
    let mut table = plain_table(&["CODE", "EFFECT", "RETRY", "SUMMARY"]);
    for row in rows {
        let retry = if row.is_retryable { "yes" } else { "no" };
        table.add_row([row.code.as_str(), row.effect, retry, row.summary]);
    }
    render_table(table)
}

fn document(rows: &impl Serialize) -> String {
    serde_json::to_string_pretty(rows).expect("plain fields into memory cannot fail") + "\n"
}

#[cfg(test)]
mod tests;
