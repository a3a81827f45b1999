//! Clusters of nodes inside one process, for tests of what stands on drave.
//!
//! The nodes are real: they talk over sockets and write to disk, each on a thread of its own. They share the process,
//! so none of them can be killed by itself; [`TestCluster::stop_node`] ends one cleanly, and [`Links`] cut them off
//! from each other. The repository's own tests of crashes start processes instead.

mod links;
mod ports;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use drave::config::NodeConfig;
use drave::node::{IoChoice, NodeError, NodeOptions};
use drave::store::{FormatRequest, StoreError, format_store};
use drave_client::{Client, ClientError};
use tempfile::TempDir;
use thiserror::Error;
use tokio::time::Instant;

pub use links::Links;
pub use ports::{HeldPort, hold_port};

use crate::node::{Node, NodeStartError};

/// Between two looks at a cluster.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a cluster for a test cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TestClusterError {
    /// No directory or port.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A node's directory.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A node did not start.
    #[error("{0}")]
    Start(#[from] NodeStartError),
    /// A node did not end well.
    #[error("{0}")]
    Node(#[from] NodeError),
    /// A client.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(u64),
    /// It took too long.
    #[error("waited {waited:?} for {what}")]
    TooLong {
        /// For what.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
}

struct Place {
    address: String,
    /// Held while the node does not run.
    port: Option<HeldPort>,
    node: Option<Node>,
}

/// Nodes with data in a temporary directory, which goes with the value.
///
/// ```no_run
/// use drave_embed::testing::TestCluster;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut cluster = TestCluster::start(3)?;
/// let client = cluster.client()?;
/// client.create_log("orders", true).await?;
/// let leader = cluster.leader().await?;
/// cluster.stop_node(leader)?;
/// client.log("orders").await?.append("still taken").await?;
/// # Ok(())
/// # }
/// ```
pub struct TestCluster {
    nodes: BTreeMap<u64, Place>,
    config: NodeConfig,
    client: Option<Client>,
    links: Option<Links>,
    dir: TempDir,
}

impl TestCluster {
    /// Formats and starts `node_count` nodes, 1 and up, with the default configuration.
    ///
    /// # Errors
    /// [`TestClusterError`]
    pub fn start(node_count: u64) -> Result<Self, TestClusterError> {
        Self::start_with(node_count, NodeConfig::default())
    }

    /// As [`start`](Self::start), every node with this configuration.
    ///
    /// # Errors
    /// [`TestClusterError`]
    pub fn start_with(node_count: u64, config: NodeConfig) -> Result<Self, TestClusterError> {
        Self::start_nodes(node_count, config, false)
    }

    /// As [`start`](Self::start), with [`links`](Self::links) between the nodes that can be cut.
    ///
    /// # Errors
    /// [`TestClusterError`]
    pub fn start_linked(node_count: u64) -> Result<Self, TestClusterError> {
        Self::start_nodes(node_count, NodeConfig::default(), true)
    }

    fn start_nodes(
        node_count: u64,
        config: NodeConfig,
        has_links: bool,
    ) -> Result<Self, TestClusterError> {
        let mut nodes = BTreeMap::new();
        for node_id in 1..=node_count {
            let port = hold_port("127.0.0.1")?;
            let place = Place {
                address: port.address()?,
                port: Some(port),
                node: None,
            };
            nodes.insert(node_id, place);
        }
        let mut cluster = Self {
            nodes,
            config,
            client: None,
            links: None,
            dir: tempfile::tempdir()?,
        };
        let members = cluster.nodes.iter();
        let members: BTreeMap<_, _> = members
            .map(|(id, place)| (*id, place.address.clone()))
            .collect();
        if has_links {
            cluster.links = Some(Links::between(&members)?);
        }
        for node_id in 1..=node_count {
            format_store(&FormatRequest {
                data_dir: cluster.data_dir(node_id),
                cluster_id: "test".to_owned(),
                node_id,
                members: cluster.members_of(&members, node_id),
                join: false,
            })?;
            cluster.start_node(node_id)?;
        }
        Ok(cluster)
    }

    /// All members, each where this one is to find it.
    fn members_of(&self, members: &BTreeMap<u64, String>, node_id: u64) -> Vec<(u64, String)> {
        let links = self.links.as_ref();
        let place = |(id, address): (&u64, &String)| {
            let linked = links.and_then(|links| links.address(node_id, *id));
            (*id, linked.unwrap_or_else(|| address.clone()))
        };
        members.iter().map(place).collect()
    }

    /// The links between the nodes of a cluster that was [started with them](Self::start_linked); clients have none.
    #[must_use]
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    /// The nodes' addresses.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes
            .values()
            .map(|place| place.address.clone())
            .collect()
    }

    /// A node's directory.
    #[must_use]
    pub fn data_dir(&self, node_id: u64) -> PathBuf {
        self.dir.path().join(format!("n{node_id}"))
    }

    /// A client of all nodes.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::builder().endpoints(self.endpoints()).build()
    }

    /// A node that runs.
    #[must_use]
    pub fn node(&self, node_id: u64) -> Option<&Node> {
        self.nodes.get(&node_id)?.node.as_ref()
    }

    /// Starts a node that was stopped; nothing when it runs.
    ///
    /// # Errors
    /// [`TestClusterError`]
    pub fn start_node(&mut self, node_id: u64) -> Result<(), TestClusterError> {
        let options = NodeOptions {
            data_dir: self.data_dir(node_id),
            config: self.config.clone(),
            io: IoChoice::Auto,
        };
        let place = self.place(node_id)?;
        if place.node.is_none() {
            // Free for the node from here on.
            place.port = None;
            place.node = Some(Node::start(options)?);
        }
        Ok(())
    }

    /// Ends a node cleanly; nothing when it does not run.
    ///
    /// # Errors
    /// [`TestClusterError::Node`] when it had ended by itself.
    pub fn stop_node(&mut self, node_id: u64) -> Result<(), TestClusterError> {
        match self.place(node_id)?.node.take() {
            Some(node) => Ok(node.stop()?),
            None => Ok(()),
        }
    }

    /// Waits for a leader and gives its node id.
    ///
    /// # Errors
    /// [`TestClusterError::TooLong`] after 30 s.
    pub async fn leader(&mut self) -> Result<u64, TestClusterError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(self.client()?).clone(),
        };
        let waited = Duration::from_secs(30);
        let deadline = Instant::now() + waited;
        while Instant::now() < deadline {
            // An error: no node answers yet.
            if let Ok(status) = client.status().await {
                let mut nodes = status.nodes.iter();
                // Of a leader that has gone the others may still tell.
                let leads = nodes.find(|node| node.role.as_deref() == Some("leader"));
                if let Some(leader) = leads.and_then(|node| node.node_id)
                    && status.leader_id == Some(leader)
                {
                    return Ok(leader);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        let what = "a leader";
        Err(TestClusterError::TooLong { what, waited })
    }

    fn place(&mut self, node_id: u64) -> Result<&mut Place, TestClusterError> {
        let place = self.nodes.get_mut(&node_id);
        place.ok_or(TestClusterError::NoSuchNode(node_id))
    }
}
