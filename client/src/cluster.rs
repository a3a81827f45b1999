//! The nodes that a client knows, one connection to each in use, and the best guess at the leader.
//!
//! The guess is only a guess: it comes from answers and hints, expires when it is not confirmed, and is
//! dropped when it turns out wrong. Decides where to ask next; what to ask, and whether to ask again, is
//! for the callers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use drave_batch::RECORD_BYTES_MAX;
use drave_batch::wire::{ClusterId, Status, StatusReply};

use crate::connection::{Connection, DialOptions, LinkError, dial};

/// Nodes known at most: configured endpoints first, learned ones as far as there is room.
pub(crate) const NODES_MAX: usize = 64;

/// A hint that no success confirmed is forgotten after this.
const HINT_LIFETIME: Duration = Duration::from_secs(2);

/// Bytes of a HOST:PORT at most.
const ADDRESS_BYTES_MAX: usize = 262;

/// Whether `address` has the form HOST:PORT.
pub(crate) fn is_address(address: &str) -> bool {
    address.len() <= ADDRESS_BYTES_MAX
        && address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
        })
}

/// What the builder was told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) cluster_id: Option<ClusterId>,
}

/// One node, known by an address.
pub(crate) struct Node {
    pub(crate) address: String,
    configured: bool,
    /// Held while dialling, so that many callers make one connection.
    slot: tokio::sync::Mutex<Slot>,
    /// Learned from a handshake or a member list.
    node_id: OnceLock<u64>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    failed: Option<(Instant, LinkError)>,
}

impl Node {
    /// The node's id, once it is known.
    pub(crate) fn node_id(&self) -> Option<u64> {
        self.node_id.get().copied()
    }
}

struct LeaderGuess {
    address: String,
    /// `None` once an answer confirmed it.
    expires_at: Option<Instant>,
}

#[derive(Default)]
struct Directory {
    /// The front is asked next; at most [`NODES_MAX`].
    nodes: VecDeque<Arc<Node>>,
    leader: Option<LeaderGuess>,
}

/// Shared by everything that one client does.
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    directory: Mutex<Directory>,
    /// Set by the first handshake; every later one must agree.
    cluster_id: OnceLock<ClusterId>,
    /// The lowest limit that a node named.
    record_bytes_max: AtomicU32,
}

impl Cluster {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let nodes = settings.endpoints.iter().map(|address| {
            Arc::new(Node {
                address: address.clone(),
                configured: true,
                slot: tokio::sync::Mutex::default(),
                node_id: OnceLock::new(),
            })
        });
        let directory = Directory {
            nodes: nodes.collect(),
            leader: None,
        };
        let cluster_id = OnceLock::new();
        if let Some(known) = &settings.cluster_id {
            let _ = cluster_id.set(known.clone());
        }
        Arc::new(Self {
            settings,
            directory: Mutex::new(directory),
            cluster_id,
            record_bytes_max: AtomicU32::new(RECORD_BYTES_MAX),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.directory
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Every known node.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.lock().nodes.iter().cloned().collect()
    }

    pub(crate) fn cluster_id(&self) -> Option<&ClusterId> {
        self.cluster_id.get()
    }

    /// Bytes of one record at most, as far as nodes said.
    pub(crate) fn record_bytes_max(&self) -> u32 {
        self.record_bytes_max.load(Ordering::Relaxed)
    }

    /// Adds a node heard of from another one. Ignored when it is known, is no address, or there is no
    /// room: a lying node cannot make the list grow without limit.
    pub(crate) fn learn(&self, address: &str, node_id: u64) {
        if !is_address(address) {
            return;
        }
        let mut directory = self.lock();
        let known = directory.nodes.iter().find(|node| node.address == address);
        let node = match known {
            Some(node) => Arc::clone(node),
            None if directory.nodes.len() >= NODES_MAX => return,
            None => {
                let node = Arc::new(Node {
                    address: address.to_owned(),
                    configured: false,
                    slot: tokio::sync::Mutex::default(),
                    node_id: OnceLock::new(),
                });
                directory.nodes.push_back(Arc::clone(&node));
                node
            }
        };
        if node_id != 0 {
            let _ = node.node_id.set(node_id);
        }
    }

    /// Takes over the members that a node's status names; learned nodes that are members no more go.
    pub(crate) fn learn_members(&self, reply: &StatusReply) {
        for member in reply.members.iter().take(NODES_MAX) {
            self.learn(&member.address, member.node_id);
        }
        let is_member = |node: &Node| {
            reply
                .members
                .iter()
                .any(|member| member.address == node.address)
        };
        let mut directory = self.lock();
        if !reply.members.is_empty() {
            directory
                .nodes
                .retain(|node| node.configured || is_member(node));
        }
        let leader = reply
            .members
            .iter()
            .find(|member| reply.leader_id != 0 && member.node_id == reply.leader_id);
        if directory.leader.is_none()
            && let Some(leader) = leader
            && is_address(&leader.address)
        {
            directory.leader = Some(LeaderGuess {
                address: leader.address.clone(),
                expires_at: Some(Instant::now() + HINT_LIFETIME),
            });
        }
    }

    /// A node said who leads.
    pub(crate) fn hint_leader(&self, address: &str, node_id: u64) {
        self.learn(address, node_id);
        let expires_at = Some(Instant::now() + HINT_LIFETIME);
        let address = address.to_owned();
        self.lock().leader = Some(LeaderGuess {
            address,
            expires_at,
        });
    }

    /// The node at `address` answered what only a leader answers.
    pub(crate) fn confirm_leader(&self, address: &str) {
        let mut directory = self.lock();
        match &mut directory.leader {
            Some(guess) if guess.address == address => guess.expires_at = None,
            guess => {
                *guess = Some(LeaderGuess {
                    address: address.to_owned(),
                    expires_at: None,
                });
            }
        }
    }

    /// The node at `address` does not lead, or is not there.
    pub(crate) fn doubt_leader(&self, address: &str) {
        let mut directory = self.lock();
        if directory
            .leader
            .as_ref()
            .is_some_and(|guess| guess.address == address)
        {
            directory.leader = None;
        }
    }

    /// The leader's address, as far as is known now.
    pub(crate) fn leader_address(&self) -> Option<String> {
        let mut directory = self.lock();
        let expired = directory
            .leader
            .as_ref()
            .and_then(|guess| guess.expires_at)
            .is_some_and(|at| Instant::now() >= at);
        if expired {
            directory.leader = None;
        }
        directory.leader.as_ref().map(|guess| guess.address.clone())
    }

    /// The next node to ask that is not among `tried`: the likely leader if `prefer_leader`, else the
    /// one not asked for longest.
    pub(crate) fn next_node(&self, prefer_leader: bool, tried: &[String]) -> Option<Arc<Node>> {
        let untried = |address: &String| !tried.contains(address);
        if prefer_leader
            && let Some(leader) = self.leader_address().filter(untried)
            && let Some(node) = self.node_at(&leader)
        {
            return Some(node);
        }
        let mut directory = self.lock();
        let at = directory
            .nodes
            .iter()
            .position(|node| untried(&node.address))?;
        let node = directory.nodes.remove(at)?;
        directory.nodes.push_back(Arc::clone(&node));
        Some(node)
    }

    /// The node of this address, if it is known.
    pub(crate) fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        let directory = self.lock();
        let node = directory.nodes.iter().find(|node| node.address == address);
        node.cloned()
    }

    /// The node with this id, if it is known. An address that the cluster itself names comes first.
    pub(crate) fn node_with_id(&self, node_id: u64) -> Option<Arc<Node>> {
        let directory = self.lock();
        let with_id = || {
            let nodes = directory.nodes.iter();
            nodes.filter(|node| node.node_id() == Some(node_id))
        };
        let learned = with_id().find(|node| !node.configured);
        learned.or_else(|| with_id().next()).cloned()
    }

    /// The open connection to `node`, dialled if there is none. Concurrent callers share one dial, and
    /// its failure. Cancel-safe.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        node: &Arc<Node>,
    ) -> Result<Connection, LinkError> {
        let asked_at = Instant::now();
        let mut slot = node.slot.lock().await;
        if let Some(connection) = &slot.connection {
            if connection.closed().is_none() {
                return Ok(connection.clone());
            }
            slot.connection = None;
        }
        // Whoever held the slot while this caller waited has just tried.
        if let Some((failed_at, error)) = &slot.failed
            && *failed_at >= asked_at
        {
            return Err(error.clone());
        }
        let options = DialOptions {
            connect_timeout: self.settings.connect_timeout,
            cluster_id: self.cluster_id.get().cloned(),
        };
        match dial(&node.address, &options).await {
            Ok(connection) => {
                slot.connection = Some(connection.clone());
                slot.failed = None;
                drop(slot);
                self.connected(node, &connection)?;
                Ok(connection)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn connected(
        self: &Arc<Self>,
        node: &Arc<Node>,
        connection: &Connection,
    ) -> Result<(), LinkError> {
        let ack = connection.ack();
        let rejected = |message: String| LinkError::Rejected {
            address: node.address.clone(),
            code: drave_batch::wire::ErrorCode::WrongCluster,
            message,
        };
        let found = ClusterId::new(&ack.cluster_id).map_err(|error| rejected(error.to_string()))?;
        let expected = self.cluster_id.get_or_init(|| found.clone());
        if *expected != found {
            return Err(rejected(format!(
                "expected cluster {expected}, found {found}"
            )));
        }
        let _ = node.node_id.set(ack.node_id);
        if ack.record_bytes_max > 0 {
            self.record_bytes_max
                .fetch_min(ack.record_bytes_max, Ordering::Relaxed);
        }
        self.learn_from(connection.clone());
        Ok(())
    }

    /// Asks a newly connected node for the other members, so that its loss leaves somewhere to go.
    fn learn_from(self: &Arc<Self>, connection: Connection) {
        let cluster = Arc::downgrade(self);
        tokio::spawn(async move {
            let Ok(reservation) = connection.try_reserve(0) else {
                return;
            };
            let Ok(answer) = connection.send(reservation, &Status {}, &[]) else {
                return;
            };
            // The handle would keep the connection open for nobody while the answer is out.
            drop(connection);
            let Ok(Ok(frame)) = answer.await else {
                return;
            };
            if let (Ok(reply), Some(cluster)) = (frame.decode(), cluster.upgrade()) {
                cluster.learn_members(&reply);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drave_batch::wire::StatusMember;

    fn cluster(endpoints: &[&str]) -> Arc<Cluster> {
        Cluster::new(Settings {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            request_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            cluster_id: None,
        })
    }

    fn next(cluster: &Cluster, tried: &[String]) -> Option<String> {
        cluster
            .next_node(true, tried)
            .map(|node| node.address.clone())
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["a:1", "127.0.0.1:65535", "[::1]:80"] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}:1", "a".repeat(ADDRESS_BYTES_MAX));
        for bad in ["", "a", ":1", "a:", "a:0", "a:65536", "a:b", long.as_str()] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn the_likely_leader_first_then_round_robin_then_none() {
        let cluster = cluster(&["a:1", "b:1", "c:1"]);
        cluster.hint_leader("b:1", 2);
        let mut tried = Vec::new();
        while let Some(address) = next(&cluster, &tried) {
            tried.push(address);
        }
        assert_eq!(tried, ["b:1", "a:1", "c:1"]);
        cluster.doubt_leader("a:1");
        assert_eq!(cluster.leader_address().as_deref(), Some("b:1"));
        cluster.doubt_leader("b:1");
        assert_eq!(cluster.leader_address(), None);
    }

    #[test]
    fn learned_nodes_are_bounded_and_go_with_their_membership() {
        let cluster = cluster(&["a:1"]);
        for port in 1..200 {
            cluster.learn(&format!("x:{port}"), port);
        }
        assert_eq!(cluster.nodes().len(), NODES_MAX);
        let reply = StatusReply {
            leader_id: 9,
            members: vec![StatusMember {
                node_id: 9,
                address: "x:9".to_owned(),
            }],
            ..StatusReply::default()
        };
        cluster.learn_members(&reply);
        let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.address.clone()).collect();
        assert_eq!(addresses, ["a:1", "x:9"]);
        assert_eq!(cluster.leader_address().as_deref(), Some("x:9"));
        assert_eq!(cluster.node_with_id(9).unwrap().address, "x:9");
    }
}
