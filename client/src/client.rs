//! The client: what is shared by all its logs, producers, readers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drave_batch::wire::ClusterId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call::{Call, Target};
use crate::catalogue;
use crate::cluster::{Cluster, NODES_MAX, Settings, is_address};
use crate::connection::LinkError;
use crate::latency::{self, NodeLatency};
use crate::log::Log;
use crate::members::{self, Leadership, Members, MembersChange};
use crate::producer::{Producer, ProducerOptions};
use crate::read::Source;
use crate::replica::{NodeName, Replica};
use crate::status::{self, ClusterStatus};
use crate::together::{Together, TogetherSequence};
use crate::{ClientError, LogDescription, LogInfo, Quota, Retention};
use drave_batch::LogChange;
use drave_batch::wire::ErrorCode;

/// Names whose numbers are remembered.
const LOG_IDS_MAX: usize = 4096;

/// How to make a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    request_timeout: Duration,
    connect_timeout: Duration,
    cluster_id: Option<String>,
}

impl ClientBuilder {
    /// HOST:PORT of any of the nodes; the others are learned from these. At least 1, at most 64.
    #[must_use]
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// How long one operation may take, all its retries included; 10 s if not said.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long connecting to one node may take, handshake included; 1 s if not said.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The cluster that must answer. If it is not said, the first node to answer decides, and every
    /// later one must be of its cluster.
    #[must_use]
    pub fn cluster_id(mut self, cluster_id: impl Into<String>) -> Self {
        self.cluster_id = Some(cluster_id.into());
        self
    }

    /// Checks the settings. Connects to nothing, and needs no runtime.
    ///
    /// # Errors
    /// [`ClientError::Argument`]
    pub fn build(self) -> Result<Client, ClientError> {
        let argument = |what: String| ClientError::Argument { what };
        let mut endpoints: Vec<String> = Vec::new();
        for endpoint in self.endpoints {
            if !is_address(&endpoint) {
                return Err(argument(format!("{endpoint:?} is not HOST:PORT")));
            }
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() || endpoints.len() > NODES_MAX {
            let found = endpoints.len();
            return Err(argument(format!(
                "1 to {NODES_MAX} endpoints are needed, found {found}"
            )));
        }
        if self.request_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(argument("a timeout must be above 0".to_owned()));
        }
        let cluster_id = match self.cluster_id {
            Some(name) => Some(ClusterId::new(&name).map_err(|error| argument(error.to_string()))?),
            None => None,
        };
        // Far enough for anyone, and near enough that times can be added to it.
        let timeout_max = Duration::from_secs(365 * 24 * 3600);
        let cluster = Cluster::new(Settings {
            endpoints,
            request_timeout: self.request_timeout.min(timeout_max),
            connect_timeout: self.connect_timeout.min(timeout_max),
            cluster_id,
        });
        let producer = |name: &str| {
            let name = name.to_owned();
            let options = ProducerOptions {
                name,
                ..ProducerOptions::default()
            };
            Producer::new(Arc::clone(&cluster), options)
        };
        Ok(Client {
            shared: Arc::new(Shared {
                together: TogetherSequence::default(),
                appends: producer("client"),
                conditional_appends: producer("client-if"),
                cluster,
                log_ids: Mutex::default(),
            }),
        })
    }
}

struct Shared {
    cluster: Arc<Cluster>,
    together: TogetherSequence,
    appends: Producer,
    conditional_appends: Producer,
    /// Numbers of logs by name: a log keeps its number until it is deleted.
    log_ids: Mutex<HashMap<String, u64>>,
}

/// A connection to a cluster: cheap to clone, safe to share between tasks and threads.
///
/// Connects when it is first used, follows the leader, and reconnects by itself. Every operation has a
/// deadline (see [`ClientBuilder::request_timeout`]).
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// A builder with the default timeouts and no endpoints.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            endpoints: Vec::new(),
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            cluster_id: None,
        }
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.shared.cluster
    }

    pub(crate) fn call(&self, writes: bool) -> Call<'_> {
        Call {
            cluster: self.cluster(),
            target: &Target::Leader,
            deadline: Instant::now() + self.cluster().settings.request_timeout,
            writes,
        }
    }

    /// Connects to at least one node, to find out early whether any can be reached. Optional.
    ///
    /// # Errors
    /// The last node's failure if all failed.
    pub async fn connect(&self) -> Result<(), ClientError> {
        let mut connecting = JoinSet::new();
        for node in self.cluster().nodes() {
            let cluster = Arc::clone(self.cluster());
            connecting.spawn(async move { cluster.connection(&node).await.map(drop) });
        }
        let mut attempts = 0;
        let mut failure: Option<LinkError> = None;
        while let Some(connected) = connecting.join_next().await {
            attempts += 1;
            match connected {
                Ok(Ok(())) => return Ok(()),
                // A refusal says more than a node that is not there.
                Ok(Err(error)) => match &failure {
                    Some(known) if known.is_final_rejection() => {}
                    _ => failure = Some(error),
                },
                Err(_) => {}
            }
        }
        Err(failure.map_or(ClientError::Closed, |error| error.unavailable(attempts)))
    }

    /// Creates a log, on stable storage on a majority. With `if_missing`, an existing log of this name
    /// is given instead of an error.
    ///
    /// # Errors
    /// [`ClientError::LogName`]; [`ClientError::Refused`] with `LogExists` or `LogLimit`;
    /// [`ClientError::Unknown`] when it may or may not have been created.
    pub async fn create_log(&self, name: &str, if_missing: bool) -> Result<LogInfo, ClientError> {
        // Asking twice whether it may be missing gives the same log.
        let info = catalogue::create(&self.call(!if_missing), name, if_missing).await?;
        self.remember(&info);
        Ok(info)
    }

    /// All logs, in order of their names.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] without a leader.
    pub async fn logs(&self) -> Result<Vec<LogInfo>, ClientError> {
        catalogue::list(&self.call(false)).await
    }

    /// A log by name. Its number is asked for once, then remembered.
    ///
    /// # Errors
    /// [`ClientError::LogName`]; [`ClientError::Refused`] with `LogNotFound`.
    pub async fn log(&self, name: &str) -> Result<Log, ClientError> {
        let known = self.log_ids().get(name).copied();
        let log_id = match known {
            Some(log_id) => log_id,
            None => self.look_up(name).await?.log_id,
        };
        let source = Source {
            cluster: Arc::clone(self.cluster()),
            target: Target::Leader,
            log_id,
        };
        Ok(Log::new(self.clone(), source, name.to_owned()))
    }

    fn log_ids(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.shared
            .log_ids
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// There may be another log of this name by now.
    pub(crate) fn forget_log(&self, name: &str) {
        self.log_ids().remove(name);
    }

    fn remember(&self, info: &LogInfo) {
        let mut log_ids = self.log_ids();
        if log_ids.len() >= LOG_IDS_MAX && !log_ids.contains_key(&info.name) {
            log_ids.clear();
        }
        log_ids.insert(info.name.clone(), info.log_id);
    }

    pub(crate) async fn look_up(&self, name: &str) -> Result<LogInfo, ClientError> {
        let info = catalogue::lookup(&self.call(false), name).await;
        match &info {
            Ok(info) => self.remember(info),
            Err(error) if error.code() == Some(ErrorCode::LogNotFound) => self.forget_log(name),
            Err(_) => {}
        }
        info
    }

    /// What every node says of itself, asked in parallel. Answers within 2 s whatever is dead.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no node answers.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        status::status(self.cluster()).await
    }

    /// Where each node's entries spent their time in the last 30 to 60 seconds, by node id, of the nodes that
    /// answer within 3 s.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no node answers.
    pub async fn latency(&self) -> Result<Vec<NodeLatency>, ClientError> {
        latency::latency(self.cluster()).await
    }

    /// The cluster's name: the one given to the builder, or that of the first node that answered.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster().cluster_id().map(ClusterId::as_str)
    }

    /// The members as the leader knows them, with how far each is.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] without a leader.
    pub async fn members(&self) -> Result<Members, ClientError> {
        members::list(&self.call(false)).await
    }

    /// Changes the members; answered when the configuration that the change ends with is committed. A
    /// change that is in effect already is answered at once, so asking again is safe.
    ///
    /// With `expected_configuration_index` (of [`Members::configuration_index`]) the change is refused
    /// with `MembershipConflict` when another came first.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the leader's reason, at once, also where a later try may succeed:
    /// `MembershipConflict`, `MemberExists`, `MemberUnknown`, `NodeIdUsed`, `NotCaughtUp`, `LastVoter`,
    /// `WouldLoseQuorum`, `InvalidMembers`. [`ClientError::Unknown`] when an attempt was not answered and
    /// no later one was done: [`members`](Self::members) tells.
    pub async fn change_members(
        &self,
        change: &MembersChange,
        expected_configuration_index: Option<u64>,
    ) -> Result<Members, ClientError> {
        members::change(&self.call(true), change, expected_configuration_index).await
    }

    /// Adds a new node, which receives the log without a vote.
    ///
    /// # Errors
    /// As [`change_members`](Self::change_members).
    pub async fn add_learner(
        &self,
        node_id: u64,
        address: impl Into<String>,
        incarnation: u128,
    ) -> Result<Members, ClientError> {
        let change = MembersChange::AddLearner {
            node_id,
            address: address.into(),
            incarnation,
        };
        self.change_members(&change, None).await
    }

    /// Gives a learner that has caught up a vote.
    ///
    /// # Errors
    /// As [`change_members`](Self::change_members).
    pub async fn promote(&self, node_id: u64) -> Result<Members, ClientError> {
        let change = MembersChange::Promote { node_id };
        self.change_members(&change, None).await
    }

    /// Lets a member leave.
    ///
    /// # Errors
    /// As [`change_members`](Self::change_members).
    pub async fn remove(&self, node_id: u64) -> Result<Members, ClientError> {
        let change = MembersChange::Remove { node_id };
        self.change_members(&change, None).await
    }

    /// Puts the learner `new`, which has caught up, in the place of `old`, in one joint change.
    ///
    /// # Errors
    /// As [`change_members`](Self::change_members).
    pub async fn replace(&self, old: u64, new: u64) -> Result<Members, ClientError> {
        let change = MembersChange::Replace { old, new };
        self.change_members(&change, None).await
    }

    /// Hands the lead to the voter `to`; answered when it leads.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `NotEligible`, or with `TransferFailed` when it was not taken over in
    /// time and the old leader goes on. [`ClientError::Unknown`] when no answer came.
    pub async fn transfer_leader(&self, to: u64) -> Result<Leadership, ClientError> {
        members::transfer(&self.call(true), to).await
    }

    /// A log in full: its ends, when its last record was appended, what it holds.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unavailable`] without a leader.
    pub async fn describe_log(&self, name: &str) -> Result<LogDescription, ClientError> {
        catalogue::describe(&self.call(false), name).await
    }

    /// Gives up a log's records below `first_seq`, on every replica. At or below the first seq held it
    /// changes nothing, so asking again is safe.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound` or `TrimBeyondTail` (`expected` is the log's next seq);
    /// [`ClientError::Unknown`] when no answer came.
    pub async fn trim_log(&self, name: &str, first_seq: u64) -> Result<LogInfo, ClientError> {
        let log = self.look_up(name).await?;
        catalogue::trim(&self.call(true), name, log.log_id, first_seq).await
    }

    /// Ends a log: it takes no append any more, and stays to be read. Tails hear [`TailEvent::Closed`] behind its last
    /// record. Closing it again changes nothing.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unknown`] when no answer came.
    ///
    /// [`TailEvent::Closed`]: crate::TailEvent::Closed
    pub async fn close_log(&self, name: &str) -> Result<LogDescription, ClientError> {
        let log = self.look_up(name).await?;
        self.change_log(name, log.log_id, LogChange::Close).await
    }

    /// Says how much of a log is kept, from now on; what was said before is replaced.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unknown`] when no answer came;
    /// [`ClientError::Argument`] for a limit of nothing: a log is emptied by a trim.
    pub async fn set_retention(
        &self,
        name: &str,
        retention: Retention,
    ) -> Result<LogDescription, ClientError> {
        if retention.bytes == Some(0) || retention.age.is_some_and(|age| age.as_micros() == 0) {
            let what = "a retention keeps at least 1 byte and 1 microsecond".to_owned();
            return Err(ClientError::Argument { what });
        }
        let log = self.look_up(name).await?;
        let change = LogChange::Retain(retention.into());
        self.change_log(name, log.log_id, change).await
    }

    /// Says how much may be appended to a log in a second, from now on; what was said before is replaced.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unknown`] when no answer came;
    /// [`ClientError::Argument`] for a limit of nothing: a log is ended by [`close_log`](Self::close_log).
    pub async fn set_quota(&self, name: &str, quota: Quota) -> Result<LogDescription, ClientError> {
        if [quota.bytes_per_second, quota.records_per_second].contains(&Some(0)) {
            let what = "a quota gives at least 1 byte and 1 record".to_owned();
            return Err(ClientError::Argument { what });
        }
        let log = self.look_up(name).await?;
        let change = LogChange::Limit(quota.into());
        self.change_log(name, log.log_id, change).await
    }

    /// Deletes a log, for good: its records are gone for every reader, and its name is free for another log, which has
    /// another number. Gives what the log was, none when somebody else deleted it meanwhile.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound` when there is none of this name; [`ClientError::Unknown`] when no
    /// answer came.
    pub async fn delete_log(&self, name: &str) -> Result<Option<LogDescription>, ClientError> {
        let log = self.look_up(name).await?;
        let deleted = self.change_log(name, log.log_id, LogChange::Delete).await;
        self.forget_log(name);
        match deleted {
            // Numbers are not given again: it is gone, perhaps by an attempt whose answer was lost.
            Err(
                ClientError::Refused {
                    code: ErrorCode::LogNotFound,
                    ..
                }
                | ClientError::Unknown {
                    code: Some(ErrorCode::LogNotFound),
                    ..
                },
            ) => Ok(None),
            deleted => deleted.map(Some),
        }
    }

    pub(crate) async fn change_log(
        &self,
        name: &str,
        log_id: u64,
        change: LogChange,
    ) -> Result<LogDescription, ClientError> {
        catalogue::change(&self.call(true), name, log_id, change).await
    }

    /// One node, to be read alone. It is looked up when it is used.
    #[must_use]
    pub fn replica(&self, node_id: u64) -> Replica {
        Replica::new(Arc::clone(self.cluster()), NodeName::Id(node_id))
    }

    /// The node at this HOST:PORT, to be read alone.
    #[must_use]
    pub fn replica_at(&self, address: impl Into<String>) -> Replica {
        Replica::new(
            Arc::clone(self.cluster()),
            NodeName::Address(address.into()),
        )
    }

    /// A producer of its own: pipelined appends in one order. Registers when it is first used.
    #[must_use]
    pub fn producer(&self, options: ProducerOptions) -> Producer {
        Producer::new(Arc::clone(self.cluster()), options)
    }

    /// An append to several logs at once: all or nothing.
    pub fn together(&self) -> Together {
        Together::new(self.clone())
    }

    pub(crate) fn together_sequence(&self) -> &TogetherSequence {
        &self.shared.together
    }

    pub(crate) fn shared_producer(&self) -> &Producer {
        &self.shared.appends
    }

    pub(crate) fn conditional_producer(&self) -> &Producer {
        &self.shared.conditional_appends
    }
}
