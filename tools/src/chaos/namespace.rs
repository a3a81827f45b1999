//! A user and network namespace of our own, so that rules for the network need no privileges and touch
//! nobody else.
//!
//! `unshare` replaces this process with itself and that with this executable again: the process id, the
//! standard streams and the exit code stay those that the caller knows.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::errors::CliError;
use crate::exit::Exit;

const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--net"];

/// What is needed inside: the loopback can be raised, and rules of both kinds are taken.
const PROBE: &str = "ip link set lo up && nft 'table inet drave_probe {
    chain cut { type filter hook output priority 0; }
    chain nat { type nat hook output priority -100; }
}'";

/// Whether a namespace with rules can be had; if not, why.
///
/// # Errors
/// The reason, in words.
pub fn probe() -> Result<(), String> {
    let output = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-c", PROBE])
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    Err(format!("{}: {said}", output.status))
}

/// Becomes `program` with `arguments` in a new namespace. Returns only when that fails.
#[must_use]
pub fn enter(program: &Path, arguments: &[OsString]) -> CliError {
    let error = Command::new("unshare")
        .args(UNSHARE)
        .arg(program)
        .args(arguments)
        .exec();
    CliError::new(Exit::Failure, "cannot enter a network namespace").why(error.to_string())
}

/// Raises the loopback of a new namespace.
///
/// # Errors
/// [`CliError`] when `ip` refuses.
pub fn raise_loopback() -> Result<(), CliError> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
    .map_err(|why| CliError::new(Exit::Failure, "cannot raise the loopback").why(why))
}
