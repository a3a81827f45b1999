//! House rules that a reviewer should not have to remember.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;

fn tracked(extensions: &[&str]) -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut dirs = vec![root];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') && name != "drave-dev" {
                    dirs.push(path);
                }
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 5, "the tree was found");
    files
}

fn each(extensions: &[&str], check: impl Fn(&Path, &str) -> Option<String>) {
    let problems: Vec<String> = tracked(extensions)
        .iter()
        .filter_map(|path| {
            let problem = check(path, &fs::read_to_string(path).unwrap())?;
            Some(format!("{}: {problem}", path.display()))
        })
        .collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    each(&[".rs"], |path, text| {
        // Unit tests beside their module are described by it.
        let test =
            path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
        (!test && !text.starts_with("//!")).then(|| "the first line is no //! comment".to_owned())
    });
}

#[test]
fn no_file_is_over_the_limit() {
    each(&[".rs"], |_, text| {
        let lines = text.lines().count();
        (lines > LINES_MAX)
            .then(|| format!("{lines} lines, at most {LINES_MAX}: split it by concern"))
    });
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "XXX", "HACK"].map(|mark| format!("{mark}:"));
    each(&[".rs", ".md", ".toml"], |_, text| {
        marks
            .iter()
            .find(|mark| text.contains(mark.as_str()))
            .map(|mark| format!("holds {mark}"))
    });
    each(&[".rs"], |path, text| {
        (!path.ends_with("tidy.rs") && text.contains("#[ignore"))
            .then(|| "an ignored test".to_owned())
    });
}

#[test]
fn lines_are_not_endless() {
    each(&[".rs"], |_, text| {
        let at = text.lines().position(|line| line.chars().count() > 120)?;
        Some(format!("line {} is over 120 characters", at + 1))
    });
}

#[test]
fn every_page_of_docs_has_one_title_and_working_links() {
    each(&[".md"], |path, text| {
        let mut fenced = false;
        let mut titles = 0;
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            }
            if !fenced && line.starts_with("# ") {
                titles += 1;
            }
        }
        if titles != 1 {
            return Some(format!("{titles} titles, expected 1"));
        }
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            if !path.parent().unwrap().join(file).exists() {
                return Some(format!("the link to {target} leads nowhere"));
            }
        }
        None
    });
}
