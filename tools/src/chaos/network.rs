//! Partitions and redirections by nftables, inside a network namespace of our own.
//!
//! Node i listens on, and calls from, 127.0.0.(10 + i), so that a rule by address cuts two nodes apart;
//! clients call from 127.0.0.1, which no rule names. What the proxy passes on for node i comes from
//! 127.0.1.(10 + i): a rule cuts that too.

use std::io::Write;
use std::process::{Command, Stdio};

use super::plan::Link;
use crate::errors::CliError;
use crate::exit::Exit;

/// The address that a node listens on and calls from.
#[must_use]
pub fn node_host(node_id: u64) -> String {
    format!("127.0.0.{}", 10 + node_id)
}

/// The address that the proxy calls from on behalf of a node.
#[must_use]
pub fn alias_host(node_id: u64) -> String {
    format!("127.0.1.{}", 10 + node_id)
}

/// A connection of one node to another that goes to a port of ours instead.
#[derive(Clone, Copy, Debug)]
pub struct Redirect {
    /// Who calls whom.
    pub link: Link,
    /// The port that is called.
    pub port: u16,
    /// The port that answers, on 127.0.0.1.
    pub to_port: u16,
}

/// Cuts exactly these links, in one step; none heals all.
///
/// # Errors
/// [`CliError`] when `nft` refuses.
pub fn cut(links: &[Link]) -> Result<(), CliError> {
    nft(&cut_script(links))
}

/// Redirects new connections of these links from now on.
///
/// # Errors
/// [`CliError`] when `nft` refuses.
pub fn redirect(redirects: &[Redirect]) -> Result<(), CliError> {
    nft(&redirect_script(redirects))
}

/// The table is made anew as a whole: there is no moment between the old rules and the new ones.
fn cut_script(links: &[Link]) -> String {
    let mut script = String::from(
        "add table inet drave_cut\ndelete table inet drave_cut\ntable inet drave_cut {\n\
         chain out { type filter hook output priority 0; policy accept;\n",
    );
    for link in links {
        script.push_str(&format!(
            "ip saddr {{ {}, {} }} ip daddr {{ {}, {} }} drop\n",
            node_host(link.from),
            alias_host(link.from),
            node_host(link.to),
            alias_host(link.to)
        ));
    }
    script.push_str("}\n}\n");
    script
}

fn redirect_script(redirects: &[Redirect]) -> String {
    let mut script = String::from(
        "table inet drave_proxy {\nchain out { type nat hook output priority -100; policy accept;\n",
    );
    for redirect in redirects {
        script.push_str(&format!(
            "ip saddr {} ip daddr {} tcp dport {} dnat ip to 127.0.0.1:{}\n",
            node_host(redirect.link.from),
            node_host(redirect.link.to),
            redirect.port,
            redirect.to_port
        ));
    }
    script.push_str("}\n}\n");
    script
}

fn nft(script: &str) -> Result<(), CliError> {
    let failed = |why: String| {
        CliError::new(Exit::Failure, "the network's rules cannot be set")
            .why(why)
            .next("give --no-partitions to do without")
    };
    let child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| failed(format!("nft: {error}")))?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let written = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output();
    let output = output.map_err(|error| failed(format!("nft: {error}")))?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!(
        "nft ended with {}: {}",
        output.status,
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_nodes_and_their_aliases() {
        let link = Link { from: 1, to: 3 };
        let script = cut_script(&[link]);
        let rule = "ip saddr { 127.0.0.11, 127.0.1.11 } ip daddr { 127.0.0.13, 127.0.1.13 } drop\n";
        assert!(script.contains(rule), "{script}");
        assert!(!cut_script(&[]).contains("drop"));
        let script = redirect_script(&[Redirect {
            link,
            port: 4436,
            to_port: 9000,
        }]);
        let rule =
            "ip saddr 127.0.0.11 ip daddr 127.0.0.13 tcp dport 4436 dnat ip to 127.0.0.1:9000\n";
        assert!(script.contains(rule), "{script}");
    }
}
