//! A counter that three nodes keep, inside one process: a command from each of them, the same state on all, one node
//! stopped in between.
//!
//! ```text
//! cargo run --release -p drave-embed --example counter
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, Read, Write};

use drave_embed::testing::TestCluster;
use drave_embed::{Command, Machine, MachineOptions, RestoreError, StateMachine};

/// How much was added so far.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Answer = u64;
    type Snapshot = u64;

    fn apply(&mut self, command: Command<'_>) -> u64 {
        // A command that is no number adds nothing: on every node alike.
        let more = str::from_utf8(command.payload)
            .ok()
            .and_then(|text| text.parse().ok());
        self.0 = self.0.wrapping_add(more.unwrap_or(0));
        self.0
    }

    fn snapshot(&self) -> u64 {
        self.0
    }

    fn write(snapshot: &u64, file: &mut dyn Write) -> io::Result<()> {
        file.write_all(&snapshot.to_le_bytes())
    }

    fn restore(&mut self, file: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A program of its own would format a directory and start one node: see examples/embed.rs of drave.
    let mut cluster = TestCluster::start(3)?;
    let mut counters = Vec::new();
    for node_id in 1..=3 {
        let node = cluster.node(node_id).ok_or("it was just started")?;
        let options = MachineOptions::new("counter");
        counters.push(Machine::start(node, options, Counter::default()).await?);
    }
    for (counter, more) in counters.iter().zip(["1", "20", "300"]) {
        println!("added {more}: {}", counter.propose(more).await?);
    }
    let leader = cluster.leader().await?;
    cluster.stop_node(leader)?;
    println!("the leader is gone");
    for (counter, node_id) in counters
        .iter()
        .zip(1..)
        .filter(|(_, node_id)| *node_id != leader)
    {
        println!(
            "node {node_id} has {}",
            counter.query(|counter| counter.0).await?
        );
    }
    Ok(())
}
