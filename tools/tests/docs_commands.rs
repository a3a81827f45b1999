//! The commands of README and docs do what the pages say: each block of them is run against real nodes, or says in a
//! comment of the page why it is not.
//!
//! A block runs as one script of `sh -e`, in one directory: `drave` is found, `DRAVE_ENDPOINTS` names
//! the nodes, `/var/lib/drave` is the first one's, and the logs that the pages speak of are there. What is meant to
//! go on (a tail, say) runs beside the rest and must still do so at its end.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{DRAVE, TestCluster, numbered_lines, path_text};

/// What begins a comment that says why the next block is not run.
const NOT_RUN: &str = "<!-- not run: ";

/// Commands that do not end by themselves.
const ENDLESS: [&str; 2] = ["tail greetings --follow", "wal tail "];

/// A block of commands of a page.
struct Block {
    place: String,
    text: String,
    /// Why it is not run.
    not_run: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Every page below a directory, in order of their paths.
fn pages(dir: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().display().to_string());
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages.append(&mut self::pages(&path));
        } else if name.ends_with(".md") {
            pages.push(path);
        }
    }
    pages.sort();
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let is_commands = |line: &&str| ["```sh", "```console", "```bash"].contains(line);
    let starts = (0..lines.len()).filter(|at| is_commands(&lines[*at]));
    starts
        .map(|at| {
            let end = lines[at + 1..].iter().position(|line| *line == "```");
            let end = at + 1 + end.unwrap();
            let before = at.checked_sub(1).map_or("", |before| lines[before]);
            let not_run = before.strip_prefix(NOT_RUN);
            Block {
                place: format!("{}:{}", page.file_name().unwrap().display(), at + 1),
                text: lines[at + 1..end].join("\n"),
                not_run: not_run.map(|why| why.trim_end_matches(" -->").to_owned()),
            }
        })
        .collect()
}

/// The block as one script, whose endless commands are looked at, and ended, when the others are done.
fn script(block: &Block, data_dir: &Path) -> String {
    let mut script = String::from("set -u\nendless=\n");
    let text = block.text.replace("\\\n", " ");
    for line in text.lines() {
        let line = line.replace("/var/lib/drave", &path_text(data_dir));
        if ENDLESS.iter().any(|command| line.contains(command)) {
            let command = line.split(" #").next().unwrap();
            writeln!(script, "{command} & endless=\"$endless $!\"").unwrap();
        } else {
            writeln!(script, "{line}").unwrap();
        }
    }
    script + "for process in $endless; do kill $process; done\n"
}

/// What the pages take to be there.
fn prepare(test: &TestCluster, dir: &Path) {
    fs::create_dir_all(dir.join("target/release")).unwrap();
    for place in ["drave", "target/release/drave"] {
        symlink(DRAVE, dir.join(place)).unwrap();
    }
    fs::write(dir.join("jobs.txt"), numbered_lines(3)).unwrap();
    for (log, count) in [("orders", 1_500), ("jobs", 10), ("metrics", 10)] {
        let append = ["append", log, "--create", "--summary", "--batch", "1"];
        test.run(&append, &numbered_lines(count)).assert_code(0);
    }
}

#[test]
fn every_block_of_commands_runs_or_says_why_not() {
    let test = TestCluster::start(3);
    let dir = tempfile::tempdir().unwrap();
    prepare(&test, dir.path());
    let path = format!("{}:{}", path_text(dir.path()), env!("PATH"));
    let mut ran = Vec::new();
    for block in pages(&root()).iter().flat_map(|page| blocks(page)) {
        if let Some(why) = &block.not_run {
            assert!(why.len() > 20, "{}: a reason, not {why:?}", block.place);
            continue;
        }
        let script = script(&block, &test.cluster.data_dir(1));
        let ended = Command::new("sh")
            .args(["-e", "-c", &script])
            .current_dir(dir.path())
            .env("PATH", &path)
            .env("DRAVE_ENDPOINTS", test.cluster.endpoints().join(","))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.success(),
            "{}: {:?}\n{script}\n{said}",
            block.place,
            ended.status
        );
        ran.push((block, String::from_utf8(ended.stdout).unwrap()));
    }
    // The first thing that a reader tries says what the page says.
    let first = ran
        .iter()
        .find(|(block, _)| block.place.starts_with("README"));
    let (block, printed) = first.unwrap();
    assert!(block.text.contains("# hello, drave"), "{}", block.text);
    assert!(printed.contains("\n0\nhello, drave\n"), "{printed}");
    assert!(ran.len() >= 6, "{} blocks ran", ran.len());
}
