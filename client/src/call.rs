//! One request until its answer or its deadline: where to ask, when to pause, when to give up.
//!
//! For requests that may be sent twice. Pipelined appends are not among them: `producer` has rules of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drave_batch::DecodeError;
use drave_batch::wire::{ErrorCode, ErrorReply, Message, MessageKind};
use drave_net::frame::Frame;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ClientError;
use crate::cluster::{Cluster, Node};
use crate::connection::{Connection, LinkError, Refusal, ReserveError};
use crate::replica::NodeName;
use crate::retry::Backoff;

/// Who may answer.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The leader, wherever it is.
    Leader,
    /// One node and no other.
    Node(NodeName),
}

/// The way to the next node to ask, over the failures of one operation.
pub(crate) struct Route {
    prefer_leader: bool,
    /// Asked in vain since the last pause.
    tried: Vec<String>,
    /// Nodes that refuse this client for good.
    rejected: Vec<String>,
    backoff: Backoff,
    /// Nodes asked so far.
    pub(crate) attempts: u32,
}

impl Route {
    /// To the leader, or with the leader as any other node.
    pub(crate) fn new(prefer_leader: bool) -> Self {
        Self {
            prefer_leader,
            tried: Vec::new(),
            rejected: Vec::new(),
            backoff: Backoff::new(),
            attempts: 0,
        }
    }

    /// The node at `address` is of no use now.
    pub(crate) fn failed(&mut self, cluster: &Cluster, address: &str) {
        cluster.doubt_leader(address);
        if !self.tried.iter().any(|tried| tried == address) {
            self.tried.push(address.to_owned());
        }
    }

    /// A node answered as it should.
    pub(crate) fn succeeded(&mut self) {
        self.tried.clear();
        self.rejected.clear();
        self.backoff.reset();
    }

    /// Pauses before the same or other nodes are asked again.
    pub(crate) async fn pause(&mut self) {
        self.tried.clear();
        sleep(self.backoff.pause()).await;
    }

    /// Connects to the next node, and pauses once all were tried: so hints that lead in a circle cost a
    /// pause per round instead of spinning. One call is one node asked; an error is that node's.
    pub(crate) async fn next(&mut self, cluster: &Arc<Cluster>) -> Result<Connection, LinkError> {
        let node = loop {
            match cluster.next_node(self.prefer_leader, &self.tried) {
                Some(node) => break node,
                None => self.pause().await,
            }
        };
        self.connect(cluster, &node).await
    }

    async fn connect(
        &mut self,
        cluster: &Arc<Cluster>,
        node: &Arc<Node>,
    ) -> Result<Connection, LinkError> {
        self.attempts += 1;
        let connection = cluster.connection(node).await;
        if let Err(error) = &connection {
            self.failed(cluster, &node.address);
            if error.is_final_rejection() && !self.rejected.contains(&node.address) {
                self.rejected.push(node.address.clone());
            }
        }
        connection
    }

    /// Whether every known node refuses this client for good.
    pub(crate) fn is_hopeless(&self, cluster: &Cluster) -> bool {
        let rejected = |node: &Arc<Node>| self.rejected.contains(&node.address);
        !self.rejected.is_empty() && cluster.nodes().iter().all(rejected)
    }
}

/// What one attempt came to.
enum Outcome {
    Answered(Frame),
    Refused(Refusal),
    /// The request was not sent.
    NotSent(LinkError),
    /// It was sent, and no answer came.
    Unanswered(LinkError),
    TooLarge {
        limit: u64,
        found: u64,
    },
}

/// An answer and where it came from.
pub(crate) struct Answer<R> {
    pub(crate) message: R,
    pub(crate) payload: Bytes,
    pub(crate) address: String,
}

/// How a request is made.
pub(crate) struct Call<'a> {
    pub(crate) cluster: &'a Arc<Cluster>,
    pub(crate) target: &'a Target,
    pub(crate) deadline: Instant,
    /// Sending it a second time can give another answer than the first would have been.
    pub(crate) writes: bool,
}

/// What a call knows when it ends without an answer.
#[derive(Default)]
struct Trail {
    attempts: u32,
    /// An attempt may have taken effect.
    unsettled: bool,
    /// What a node said last.
    refusal: Option<Refusal>,
    /// What kept the last attempt from a node's answer, unless it had one.
    link: Option<LinkError>,
}

impl Trail {
    /// A node that answers knows more than the failure to reach another one: that comes first, and both are
    /// told.
    fn cause(&self) -> String {
        let said = |refusal: &Refusal| format!("{} says: {}", refusal.address, refusal.message);
        match (&self.refusal, &self.link) {
            (None, None) => "no node answered before the deadline".to_owned(),
            (Some(refusal), None) => said(refusal),
            (None, Some(link)) => link.to_string(),
            (Some(refusal), Some(link)) => format!("{}; then: {link}", said(refusal)),
        }
    }

    fn into_error(self, call: &Call<'_>) -> ClientError {
        let (cause, attempts) = (self.cause(), self.attempts);
        if self.unsettled && call.writes {
            return ClientError::Unknown {
                code: Some(ErrorCode::OutcomeUnknown),
                cause,
                attempts,
            };
        }
        match (self.refusal, self.link) {
            (None, Some(link)) => link.unavailable(attempts),
            (refusal, _) => ClientError::Unavailable {
                code: refusal.as_ref().and_then(|refusal| refusal.code),
                cause,
                attempts,
                leader: refusal.and_then(|refusal| refusal.leader).map(Box::new),
            },
        }
    }
}

impl Call<'_> {
    /// Asks until there is an answer, a refusal for good, or no time left.
    pub(crate) async fn run<M: Message, R: Message>(
        &self,
        message: &M,
    ) -> Result<Answer<R>, ClientError> {
        self.run_with(message, &[]).await
    }

    /// The same for a request with a payload.
    pub(crate) async fn run_with<M: Message, R: Message>(
        &self,
        message: &M,
        payload: &[Bytes],
    ) -> Result<Answer<R>, ClientError> {
        let mut trail = Trail::default();
        let mut route = Route::new(true);
        loop {
            let connection = match timeout_at(self.deadline, self.connect(&mut route)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    trail.attempts = route.attempts;
                    trail.link = Some(error);
                    if route.is_hopeless(self.cluster) {
                        return Err(trail.into_error(self));
                    }
                    self.pause_for_node(&mut route).await;
                    continue;
                }
                Err(_) => return Err(trail.into_error(self)),
            };
            trail.attempts = route.attempts;
            let outcome = attempt(&connection, message, payload, self.attempt_deadline()).await;
            let address = connection.address().to_owned();
            match outcome {
                Outcome::Answered(frame) => {
                    if matches!(self.target, Target::Leader) {
                        self.cluster.confirm_leader(&address);
                    }
                    return self.answer(frame, address, &trail);
                }
                Outcome::TooLarge { limit, found } => {
                    let what = "request bytes";
                    return Err(ClientError::TooLarge { what, limit, found });
                }
                Outcome::Refused(refusal) => {
                    let unsettling = effect_is_unknown(refusal.code);
                    trail.unsettled |= unsettling;
                    if is_last_word(refusal.code, trail.unsettled) {
                        return Err(self.refused(refusal, &trail));
                    }
                    route.failed(self.cluster, &address);
                    if let Some(leader) = &refusal.leader {
                        self.cluster.hint_leader(&leader.address, leader.node_id);
                    }
                    (trail.refusal, trail.link) = (Some(refusal), None);
                }
                Outcome::NotSent(error) => {
                    route.failed(self.cluster, &address);
                    trail.link = Some(error);
                }
                Outcome::Unanswered(error) => {
                    trail.unsettled = true;
                    route.failed(self.cluster, &address);
                    trail.link = Some(error);
                }
            }
            if Instant::now() >= self.deadline {
                return Err(trail.into_error(self));
            }
            self.pause_for_node(&mut route).await;
        }
    }

    async fn connect(&self, route: &mut Route) -> Result<Connection, LinkError> {
        match self.target {
            Target::Leader => route.next(self.cluster).await,
            Target::Node(name) => {
                let node = name.find(self.cluster).await?;
                route.connect(self.cluster, &node).await
            }
        }
    }

    /// With a single node there is nowhere else to go meanwhile.
    async fn pause_for_node(&self, route: &mut Route) {
        if matches!(self.target, Target::Node(_)) {
            let _ = timeout_at(self.deadline, route.pause()).await;
        }
    }

    /// A node that took a request and does not answer is given a part of the time, so that there is
    /// some left for another.
    fn attempt_deadline(&self) -> Instant {
        let share = attempt_timeout(self.cluster.settings.request_timeout);
        self.deadline.min(Instant::now() + share)
    }

    /// The last word of a node. It speaks of this attempt; earlier ones may have taken effect.
    fn refused(&self, refusal: Refusal, trail: &Trail) -> ClientError {
        if trail.unsettled && self.writes {
            return ClientError::Unknown {
                code: refusal.code,
                cause: format!("{} says: {}", refusal.address, refusal.message),
                attempts: trail.attempts,
            };
        }
        refusal.into_error()
    }

    fn answer<R: Message>(
        &self,
        frame: Frame,
        address: String,
        trail: &Trail,
    ) -> Result<Answer<R>, ClientError> {
        match frame.decode() {
            Ok(message) => Ok(Answer {
                message,
                payload: frame.payload,
                address,
            }),
            Err(source) if self.writes => Err(ClientError::Unknown {
                code: Some(ErrorCode::OutcomeUnknown),
                cause: ClientError::Damaged { address, source }.to_string(),
                attempts: trail.attempts,
            }),
            Err(source) => Err(ClientError::Damaged { address, source }),
        }
    }
}

/// Whether no other node, and not this one a moment later, would say anything else. The leader's verdicts
/// on a change of members may change with time, and then it is for the caller to ask again.
fn is_last_word(code: Option<ErrorCode>, unsettled: bool) -> bool {
    match code {
        // The change that is under way may be the one that an earlier attempt began.
        Some(ErrorCode::MembershipConflict) => !unsettled,
        Some(ErrorCode::NotCaughtUp | ErrorCode::WouldLoseQuorum | ErrorCode::TransferFailed) => {
            true
        }
        Some(code) => !code.is_retryable(),
        None => true,
    }
}

/// Whether a refusal with this code leaves open what the request did.
pub(crate) fn effect_is_unknown(code: Option<ErrorCode>) -> bool {
    code.is_none_or(|code| code.effect() == drave_batch::wire::Effect::Unknown)
}

/// The part of an operation's time that one unanswered attempt may take.
pub(crate) fn attempt_timeout(request_timeout: Duration) -> Duration {
    (request_timeout / 3).clamp(Duration::from_millis(500), Duration::from_secs(5))
}

async fn attempt<M: Message>(
    connection: &Connection,
    message: &M,
    payload: &[Bytes],
    deadline: Instant,
) -> Outcome {
    let silent = || LinkError::Silent {
        address: connection.address().to_owned(),
        silence_ms: 0,
    };
    let payload_bytes = payload.iter().map(Bytes::len).sum();
    let reservation = match timeout_at(deadline, connection.reserve(payload_bytes)).await {
        Ok(Ok(reservation)) => reservation,
        Ok(Err(ReserveError::TooLarge { limit, found })) => {
            return Outcome::TooLarge { limit, found };
        }
        Ok(Err(ReserveError::Closed(error))) => return Outcome::NotSent(error),
        Ok(Err(ReserveError::Full)) | Err(_) => return Outcome::NotSent(silent()),
    };
    let started = Instant::now();
    let receiver = match connection.send(reservation, message, payload) {
        Ok(receiver) => receiver,
        Err(error) => return Outcome::NotSent(error),
    };
    match timeout_at(deadline, receiver).await {
        Ok(Ok(Ok(frame))) => read_answer(connection, frame),
        Ok(Ok(Err(error))) => Outcome::Unanswered(error),
        Ok(Err(_)) => Outcome::Unanswered(LinkError::Closed {
            address: connection.address().to_owned(),
        }),
        Err(_) => Outcome::Unanswered(LinkError::Silent {
            address: connection.address().to_owned(),
            silence_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }),
    }
}

fn read_answer(connection: &Connection, frame: Frame) -> Outcome {
    if frame.header.kind != MessageKind::ErrorReply {
        return Outcome::Answered(frame);
    }
    match frame.decode::<ErrorReply>() {
        Ok(reply) => Outcome::Refused(Refusal::new(connection.address(), reply)),
        Err(source) => Outcome::Unanswered(LinkError::Damaged {
            address: connection.address().to_owned(),
            source,
        }),
    }
}

/// The error for an answer whose payload does not decode.
pub(crate) fn damaged(address: &str, source: DecodeError) -> ClientError {
    ClientError::Damaged {
        address: address.to_owned(),
        source,
    }
}
