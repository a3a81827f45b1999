//! The error catalogue is complete: every code has its row, and the row says what the code says.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use drave_batch::wire::{Effect, ErrorCode};

#[test]
fn every_code_is_documented_as_it_is() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| DRV-"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), ErrorCode::ALL.len(), "one row for each code");
    for (row, code) in rows.iter().zip(ErrorCode::ALL) {
        let [name, what, effect, retry, advice] = row[..] else {
            panic!("{row:?}")
        };
        assert_eq!(name, code.to_string(), "in order of the codes");
        let expected = match code.effect() {
            Effect::NotWritten => "not written",
            Effect::Unknown => "unknown",
        };
        assert_eq!(effect, expected, "{code}");
        assert_eq!(
            retry,
            if code.is_retryable() { "yes" } else { "no" },
            "{code}"
        );
        assert!(what.len() > 10 && advice.len() > 5, "{code}");
    }
}
