//! Machines on real nodes: one order of commands, answers to whoever asked, snapshots that replace commands, nodes
//! that fall behind and come back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::time::Duration;

use drave_embed::testing::TestCluster;
use drave_embed::{
    Command, Machine, MachineError, MachineOptions, ProposeError, QueryError, RestoreError,
    StateMachine,
};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// No single step takes longer on any machine that is fit to run it.
const LIMIT: Duration = Duration::from_secs(120);

/// Everything that was ever proposed, in order, and a sum over it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Journal {
    count: u64,
    sum: u32,
    last_time_us: u64,
    bytes: Vec<u8>,
}

impl StateMachine for Journal {
    type Answer = (u64, u32);
    type Snapshot = Self;

    fn apply(&mut self, command: Command<'_>) -> (u64, u32) {
        assert!(command.payload != b"panic", "as it was told");
        assert_eq!(command.seq, self.count);
        assert!(command.append_time_us >= self.last_time_us);
        self.last_time_us = command.append_time_us;
        self.count += 1;
        self.bytes.extend_from_slice(command.payload);
        self.sum = crc32fast::hash(&[&self.sum.to_le_bytes()[..], command.payload].concat());
        (self.count, self.sum)
    }

    fn snapshot(&self) -> Self {
        self.clone()
    }

    fn write(snapshot: &Self, file: &mut dyn Write) -> io::Result<()> {
        file.write_all(&snapshot.count.to_le_bytes())?;
        file.write_all(&snapshot.sum.to_le_bytes())?;
        file.write_all(&snapshot.last_time_us.to_le_bytes())?;
        file.write_all(&snapshot.bytes)
    }

    fn restore(&mut self, file: &mut dyn Read) -> Result<(), RestoreError> {
        let mut number = [0; 8];
        file.read_exact(&mut number)?;
        self.count = u64::from_le_bytes(number);
        let mut sum = [0; 4];
        file.read_exact(&mut sum)?;
        self.sum = u32::from_le_bytes(sum);
        file.read_exact(&mut number)?;
        self.last_time_us = u64::from_le_bytes(number);
        self.bytes.clear();
        file.read_to_end(&mut self.bytes)?;
        Ok(())
    }
}

fn options() -> MachineOptions {
    let mut options = MachineOptions::new("journal");
    options.timeout = LIMIT;
    options
}

async fn machine(cluster: &TestCluster, node_id: u64, options: MachineOptions) -> Machine<Journal> {
    let node = cluster.node(node_id).unwrap();
    Machine::start(node, options, Journal::default())
        .await
        .unwrap()
}

async fn state(machine: &Machine<Journal>) -> Journal {
    timeout(LIMIT, machine.query(Clone::clone))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn all_nodes_apply_one_order_and_the_proposer_gets_the_answer() {
    let cluster = TestCluster::start(3).unwrap();
    let mut machines = Vec::new();
    for node_id in 1..=3 {
        machines.push(machine(&cluster, node_id, options()).await);
    }
    let mut proposing = JoinSet::new();
    for number in 0..300u64 {
        let machine = machines[number as usize % 3].clone();
        proposing.spawn(async move { machine.propose(number.to_le_bytes()).await.unwrap() });
    }
    let answers: BTreeSet<(u64, u32)> = proposing.join_all().await.into_iter().collect();
    let counts: Vec<u64> = answers.iter().map(|(count, _)| *count).collect();
    assert_eq!(counts, (1..=300).collect::<Vec<u64>>());
    let first = state(&machines[0]).await;
    assert!(answers.contains(&(300, first.sum)));
    for machine in &machines[1..] {
        assert_eq!(state(machine).await, first);
    }
    let once: BTreeSet<u64> = first
        .bytes
        .chunks(8)
        .map(|number| u64::from_le_bytes(number.try_into().unwrap()))
        .collect();
    assert_eq!(once, (0..300).collect());
}

#[tokio::test]
async fn a_query_knows_what_was_answered_elsewhere() {
    let cluster = TestCluster::start(3).unwrap();
    let mut machines = Vec::new();
    for node_id in 1..=3 {
        machines.push(machine(&cluster, node_id, options()).await);
    }
    for round in 0..100 {
        let (count, _) = machines[round % 3].propose(b"x").await.unwrap();
        let other = &machines[(round + 1) % 3];
        assert!(other.query(|journal| journal.count).await.unwrap() >= count);
    }
}

/// Waits for a number of snapshots on one of the machines.
async fn wait_for_snapshots(machines: &[Machine<Journal>], count: u64) {
    let written = async {
        while machines
            .iter()
            .map(|it| it.status().snapshots_written)
            .sum::<u64>()
            < count
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, written).await.unwrap();
}

/// Waits until the log of commands begins at `first_seq` or later.
async fn wait_for_trim(cluster: &TestCluster, first_seq: u64) {
    let client = cluster.client().unwrap();
    let log = client.log("journal.commands").await.unwrap();
    let trimmed = async {
        while log.info().await.unwrap().first_seq < first_seq {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, trimmed).await.unwrap();
}

#[tokio::test]
async fn snapshots_take_the_place_of_commands() {
    let mut cluster = TestCluster::start(3).unwrap();
    let mut options = options();
    options.snapshot_commands = 50;
    let mut machines = Vec::new();
    for node_id in 1..=3 {
        machines.push(machine(&cluster, node_id, options.clone()).await);
    }
    // Several batches of chunks in each snapshot, the last chunk not whole.
    let command = vec![b'c'; 20_001];
    for round in 1..=3 {
        for _ in 0..60 {
            machines[0].propose(&command).await.unwrap();
        }
        wait_for_snapshots(&machines, round).await;
    }
    let whole = state(&machines[0]).await;
    wait_for_trim(&cluster, 100).await;

    // A node that was away while commands were trimmed.
    machines.pop().unwrap().stop().await;
    cluster.stop_node(3).unwrap();
    let behind = whole.count;
    for _ in 0..120 {
        machines[0].propose(b"while 3 is away").await.unwrap();
    }
    wait_for_trim(&cluster, behind + 1).await;
    cluster.start_node(3).unwrap();
    machines.push(machine(&cluster, 3, options.clone()).await);
    assert_eq!(state(&machines[2]).await, state(&machines[0]).await);
    assert!(machines[2].status().restored > 0);

    // All of them again.
    let before = state(&machines[0]).await;
    for machine in machines.drain(..) {
        machine.stop().await;
    }
    for node_id in 1..=3 {
        cluster.stop_node(node_id).unwrap();
    }
    for node_id in 1..=3 {
        cluster.start_node(node_id).unwrap();
    }
    for node_id in 1..=3 {
        let machine = machine(&cluster, node_id, options.clone()).await;
        assert_eq!(state(&machine).await, before);
        assert_eq!(machine.status().restored, 1);
    }
}

#[tokio::test]
async fn a_machine_that_falls_behind_while_it_runs_is_restored() {
    let cluster = TestCluster::start(1).unwrap();
    let slow = machine(&cluster, 1, options()).await;
    slow.propose(b"first").await.unwrap();
    // Its thread waits inside a query while others snapshot and trim.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let held = tokio::spawn({
        let slow = slow.clone();
        async move { slow.query_local(move |_| wait.recv().unwrap()).await }
    });
    let mut eager = options();
    eager.snapshot_commands = 40;
    let other = machine(&cluster, 1, eager).await;
    // More than what may wait for the held one.
    let command = vec![b'c'; 200_000];
    for _ in 0..200 {
        other.propose(&command).await.unwrap();
    }
    wait_for_trim(&cluster, 160).await;
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    assert_eq!(state(&slow).await, state(&other).await);
    assert!(slow.status().restored > 0);
}

#[tokio::test]
async fn commands_are_applied_once_while_leaders_go() {
    let mut cluster = TestCluster::start(3).unwrap();
    let leader = cluster.leader().await.unwrap();
    let here = leader % 3 + 1;
    let machine = machine(&cluster, here, options()).await;
    let mut proposing = JoinSet::new();
    for worker in 0..8u64 {
        let machine = machine.clone();
        proposing.spawn(async move {
            for number in 0..100u64 {
                machine
                    .propose((worker << 32 | number).to_le_bytes())
                    .await
                    .unwrap();
            }
        });
    }
    machine.applied(100).await.unwrap();
    cluster.stop_node(leader).unwrap();
    machine.applied(400).await.unwrap();
    cluster.start_node(leader).unwrap();
    proposing.join_all().await;
    let journal = state(&machine).await;
    let numbers = journal
        .bytes
        .chunks(8)
        .map(|it| u64::from_le_bytes(it.try_into().unwrap()));
    let numbers: Vec<u64> = numbers.collect();
    let once: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!((numbers.len(), once.len()), (800, 800));
    for worker in 0..8 {
        let own: Vec<u64> = numbers
            .iter()
            .copied()
            .filter(|it| it >> 32 == worker)
            .collect();
        assert!(own.is_sorted(), "who waits for an answer comes later");
    }
}

#[tokio::test]
async fn a_snapshot_that_was_given_up_is_passed_over() {
    let cluster = TestCluster::start(1).unwrap();
    let first = machine(&cluster, 1, options()).await;
    first.propose(b"kept in the log").await.unwrap();
    // A begin of a snapshot of command 1, and no more.
    let client = cluster.client().unwrap();
    let log = client.log("journal.snapshots").await.unwrap();
    log.append(b"\x01\x01\0\0\x01\0\0\0\0\0\0\0").await.unwrap();
    let second = machine(&cluster, 1, options()).await;
    assert_eq!(state(&second).await, state(&first).await);
    assert_eq!(second.status().restored, 0);
}

#[tokio::test]
async fn what_no_machine_wrote_stops_it_by_name() {
    let cluster = TestCluster::start(1).unwrap();
    let machine = machine(&cluster, 1, options()).await;
    let client = cluster.client().unwrap();
    let log = client.log("journal.commands").await.unwrap();
    log.append(b"something else").await.unwrap();
    let error = timeout(LIMIT, machine.applied(1))
        .await
        .unwrap()
        .unwrap_err();
    let MachineError::Format { seq, what, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*seq, *what), (0, "bytes of a command's envelope"));
    let Err(ProposeError::Machine(MachineError::Format { .. })) = machine.propose(b"x").await
    else {
        panic!("it goes on");
    };
    let Err(QueryError::Machine(MachineError::Format { .. })) = machine.query(|_| ()).await else {
        panic!("it goes on");
    };
}

#[tokio::test]
async fn commands_without_their_snapshot_are_not_gone_on_from() {
    let cluster = TestCluster::start(1).unwrap();
    let first = machine(&cluster, 1, options()).await;
    for _ in 0..10 {
        first.propose(b"x").await.unwrap();
    }
    first.stop().await;
    let client = cluster.client().unwrap();
    client.trim_log("journal.commands", 5).await.unwrap();
    let second = machine(&cluster, 1, options()).await;
    let error = timeout(LIMIT, second.applied(10))
        .await
        .unwrap()
        .unwrap_err();
    let MachineError::Lost {
        first_seq, found, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((first_seq, found), (5, None));
}

#[tokio::test]
async fn a_closed_log_and_a_panic_end_a_machine() {
    let cluster = TestCluster::start(1).unwrap();
    let client = cluster.client().unwrap();
    let first = machine(&cluster, 1, options()).await;
    let mut other = options();
    other.name = "panics".to_owned();
    let panics = machine(&cluster, 1, other).await;
    client.close_log("journal.commands").await.unwrap();
    let error = timeout(LIMIT, first.applied(1)).await.unwrap().unwrap_err();
    assert!(matches!(error, MachineError::Closed { .. }), "{error}");
    let error = panics.propose(b"panic").await.unwrap_err();
    assert!(
        matches!(error, ProposeError::Machine(MachineError::Stopped)),
        "{error}"
    );
    assert!(!error.has_no_side_effects());
    let error = panics.query_local(|_| ()).await.unwrap_err();
    assert!(
        matches!(error, QueryError::Machine(MachineError::Stopped)),
        "{error}"
    );
}

#[tokio::test]
async fn a_machine_that_was_stopped_says_so_to_its_clones() {
    let cluster = TestCluster::start(1).unwrap();
    let machine = machine(&cluster, 1, options()).await;
    let clone = machine.clone();
    machine.stop().await;
    let error = clone.propose(b"x").await.unwrap_err();
    assert!(
        matches!(error, ProposeError::Machine(MachineError::Stopped)),
        "{error}"
    );
}

proptest! {
    #[test]
    fn a_journal_is_restored_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..100), count: u64, sum: u32) {
        let journal = Journal { count, sum, last_time_us: 7, bytes };
        let mut file = Vec::new();
        Journal::write(&journal.snapshot(), &mut file).unwrap();
        let mut restored = Journal::default();
        restored.restore(&mut file.as_slice()).unwrap();
        prop_assert_eq!(restored, journal);
    }
}
