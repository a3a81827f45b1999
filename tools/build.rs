//! Tells the program which commit it was built from, so that a failing run names it.
//!
//! Without git, or outside a clone, the commit is unknown; `DRAVE_COMMIT` in the environment wins.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo:rerun-if-env-changed=DRAVE_COMMIT");
    // The log of HEAD grows with every commit and every checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo:rerun-if-changed={log}");
    }
    let commit = std::env::var("DRAVE_COMMIT")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .map_or_else(
            || "an unknown commit".to_owned(),
            |commit| format!("commit {commit}"),
        );
    println!("cargo:rustc-env=DRAVE_COMMIT={commit}");
}
