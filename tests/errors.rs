//! The error catalogue is complete: every code has its row, and the row says what the code says.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use drave_batch::wire::{Effect, ErrorCode};

#[test]
fn every_code_is_documented_as_it_is() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| DRV-"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), ErrorCode::ALL.len(), "one row for each code");
    for (row, code) in rows.iter().zip(ErrorCode::ALL) {
        let [name, what, why, effect, retry, advice] = row[..] else {
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
        assert!(
            what.len() > 10 && why.len() > 10 && advice.len() > 5,
            "{code}"
        );
    }
}

/// The files of all packages' tests, those beside what they test too.
fn test_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            test_files(&path, files);
        } else if name.ends_with(".rs")
            && path.to_string_lossy().contains("tests")
            && !path.ends_with("tests/errors.rs")
        {
            files.push(path);
        }
    }
}

/// A code that no test expects from anybody is one that nobody has seen come. Tests name it as `ErrorCode::` and its
/// name, or by its number.
#[test]
fn every_code_is_expected_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    test_files(root, &mut files);
    let texts: Vec<String> = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let words: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| text.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == ':')))
        .map(|word| word.strip_prefix("wire::").unwrap_or(word))
        .collect();
    let is_expected = |code: &&ErrorCode| {
        let name = format!("ErrorCode::{code:?}");
        words.contains(&*name) || words.contains(&*code.to_string())
    };
    let missing: Vec<_> = ErrorCode::ALL
        .iter()
        .filter(|code| !is_expected(code))
        .collect();
    assert!(missing.is_empty(), "no test expects these: {missing:?}");
}
