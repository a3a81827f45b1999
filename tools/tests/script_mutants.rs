//! What docs/scripts.md says finds each planted bug finds it. In a binary of its own: a bug is planted in
//! the whole process.
#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used)]

use drave::raft::mutants::{Mutant, plant};
use drave_tools::script::{self, SCENARIOS};

const GUIDE: &str = include_str!("../../docs/scripts.md");

/// Rows of a table in the guide: the first two cells, without their ticks.
fn rows(title: &str) -> Vec<(&'static str, &'static str)> {
    let section = GUIDE.split(&format!("\n## {title}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = |line: &'static str| {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`'));
        Some((cells.nth(1)?, cells.next()?))
    };
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    lines.filter_map(cells).collect()
}

#[test]
fn what_the_guide_names_finds_each_planted_bug() {
    let found = rows("What finds which planted bug");
    let elsewhere = rows("Planted bugs that no script can show");
    for mutant in Mutant::ALL {
        let name = mutant.name();
        let Some((_, scenario)) = found.iter().find(|(row, _)| *row == name) else {
            let said = elsewhere.iter().any(|(row, _)| *row == name);
            assert!(said, "docs/scripts.md does not tell what finds {name}");
            continue;
        };
        let scenario = SCENARIOS
            .iter()
            .find(|known| known.name == *scenario)
            .unwrap();
        plant(Some(*mutant));
        let result = script::run(&scenario.file(), scenario.text);
        plant(None);
        let failure = result.expect_err(name);
        assert_ne!(
            failure.expected, "a script that makes sense",
            "{name}: {failure}"
        );
        script::run(&scenario.file(), scenario.text).unwrap();
    }
}
