//! The task of one producer: it moves batches between the window, the clock and a connection.
//!
//! `select` waits, `apply` changes state, and neither does the other's work. What may be sent, and what
//! an answer means, is the window's to say.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drave_batch::wire::{Append, Appended, ErrorReply, MessageKind, ProducerOpen, ProducerOpened};
use drave_net::frame::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::window::{Advice, Answer, ProducerId, Ready, Refused, Sending, Window};
use super::{Batch, ProducerOptions};
use crate::call::{Call, Route, Target, attempt_timeout};
use crate::cluster::Cluster;
use crate::connection::{AttemptReply, Connection, LinkError, Refusal, ReserveError};
use crate::retry::Backoff;
use crate::task::{Task, finish};
use crate::{Ack, ClientError};

/// A node that is to be left has this long to answer what it took: an answer is worth more than the
/// unknown outcome of a batch.
const LEAVE_GRACE: Duration = Duration::from_millis(250);

/// Sequences that a node may grant to be unsettled at most.
const IN_FLIGHT_LIMIT: u32 = 65_536;

/// Attempts on one connection, from the first to the last.
struct Session {
    connection: Connection,
    sender: mpsc::Sender<AttemptReply>,
    replies: mpsc::Receiver<AttemptReply>,
    /// Nothing more is sent, and it ends at this time or when everything is answered.
    leave_at: Option<Instant>,
    /// When the last answer came, or the first attempt went out.
    progress_at: Instant,
}

struct Driver {
    cluster: Arc<Cluster>,
    options: ProducerOptions,
    submissions: mpsc::Receiver<Batch>,
    /// All producers are dropped: end when the window is empty.
    closing: bool,
    failure: Arc<Mutex<Option<ClientError>>>,
    window: Window<Batch>,
    session: Option<Session>,
    /// Home when it is not under way.
    route: Option<Route>,
    connecting: Option<Task<(Route, Result<Connection, LinkError>)>>,
    registering: Option<Task<Result<ProducerId, ClientError>>>,
    backoff: Backoff,
    /// Nothing is sent before this time.
    paused_until: Option<Instant>,
    /// The earliest deadline in the window, or earlier.
    deadline: Option<Instant>,
    /// What went wrong last, for errors at the deadline.
    cause: String,
}

enum Event {
    Submitted(Option<Batch>),
    Replied(AttemptReply),
    Connected(Route, Result<Connection, LinkError>),
    Registered(Result<ProducerId, ClientError>),
    /// Time passed, or there is credit again.
    Woken,
}

/// Starts the task. It ends when `submissions` is closed and everything is settled.
pub(super) fn spawn(
    cluster: Arc<Cluster>,
    options: ProducerOptions,
    submissions: mpsc::Receiver<Batch>,
    failure: Arc<Mutex<Option<ClientError>>>,
) {
    let driver = Driver {
        cluster,
        options,
        submissions,
        closing: false,
        failure,
        window: Window::new(),
        session: None,
        route: Some(Route::new(true)),
        connecting: None,
        registering: None,
        backoff: Backoff::new(),
        paused_until: None,
        deadline: None,
        cause: "no leader was found".to_owned(),
    };
    tokio::spawn(driver.run());
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.pass_time(Instant::now());
            self.deliver();
            if self.closing && self.window.is_empty() {
                return;
            }
            self.prepare();
            let credit_bytes = self.send();
            // A connection that broke while nothing was under way is only noticed by sending.
            self.prepare();
            self.deliver();
            let event = self.select(credit_bytes).await;
            self.apply(event);
            // What else has come in the meantime is one round's work.
            while let Ok(batch) = self.submissions.try_recv() {
                self.apply(Event::Submitted(Some(batch)));
            }
            while let Some(reply) = self
                .session
                .as_mut()
                .and_then(|s| s.replies.try_recv().ok())
            {
                self.apply(Event::Replied(reply));
            }
        }
    }

    /// What the clock alone brings about.
    fn pass_time(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let answers_due = self.window.expire(now.into_std(), &self.cause);
            self.deadline = self.window.deadline_min().map(Instant::from_std);
            if answers_due {
                // The replies' channel has room for the attempts of the window only.
                self.end_session("the deadline passed without an answer".to_owned());
            }
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let Some(session) = &self.session else {
            return;
        };
        let outstanding = self.window.outstanding();
        if let Some(leave_at) = session.leave_at
            && (outstanding == 0 || leave_at <= now)
        {
            self.end_session(self.cause.clone());
        } else if outstanding > 0 && self.answer_deadline(session) <= now {
            let address = session.connection.address().to_owned();
            self.end_session(format!("{address} took appends and did not answer"));
        }
    }

    fn answer_deadline(&self, session: &Session) -> Instant {
        session.progress_at + attempt_timeout(self.cluster.settings.request_timeout)
    }

    /// Gives outcomes to those who wait for them.
    fn deliver(&mut self) {
        for settled in self.window.take_settled() {
            if let Err(error) = &settled.outcome {
                let mut failure = self.failure.lock().expect("held for an assignment only");
                failure.get_or_insert_with(|| error.clone());
            }
            // A ticket that was dropped asks for nothing.
            drop(settled.content.reply.send(settled.outcome));
        }
    }

    /// Starts to register or to connect if that is what is missing.
    fn prepare(&mut self) {
        if self.window.is_empty() {
            return;
        }
        if self.window.needs_producer() {
            if self.registering.is_none() {
                let cluster = Arc::clone(&self.cluster);
                let name = self.options.name.clone();
                self.registering = Some(Box::pin(register(cluster, name)));
            }
            return;
        }
        if self.session.is_none()
            && let Some(mut route) = self.route.take()
        {
            let cluster = Arc::clone(&self.cluster);
            self.connecting = Some(Box::pin(async move {
                let connection = route.next(&cluster).await;
                (route, connection)
            }));
        }
    }

    /// Sends what is ready. Gives the payload bytes that it lacks credit for, if that is what it lacks.
    fn send(&mut self) -> Option<usize> {
        if self.paused_until.is_some() {
            return None;
        }
        loop {
            let session = self.session.as_mut().filter(|s| s.leave_at.is_none())?;
            let ready = self.window.ready()?;
            let payload_bytes = self.window.content(ready).body.len();
            let connection = session.connection.clone();
            let reservation = match connection.try_reserve(payload_bytes) {
                Ok(reservation) => reservation,
                Err(ReserveError::Full) => return Some(payload_bytes),
                Err(ReserveError::TooLarge { limit, found }) => {
                    let what = "request bytes";
                    let error = ClientError::TooLarge { what, limit, found };
                    self.window.refuse_ready(ready, error);
                    continue;
                }
                Err(ReserveError::Closed(error)) => {
                    self.end_session(error.to_string());
                    return None;
                }
            };
            if self.window.outstanding() == 0 {
                session.progress_at = Instant::now();
            }
            let (append, body, sending) = begin(&mut self.window, ready);
            let sender = session.sender.clone();
            let attempt = sending.attempt;
            let sent = connection.send_attempt(reservation, &append, body, attempt, sender);
            if let Err(error) = sent {
                self.window.not_sent(attempt);
                self.end_session(error.to_string());
                return None;
            }
        }
    }

    async fn select(&mut self, credit_bytes: Option<usize>) -> Event {
        let wake_at = self.wake_at();
        let connection = self.session.as_ref().map(|s| s.connection.clone());
        let Self {
            submissions,
            closing,
            session,
            connecting,
            registering,
            ..
        } = self;
        tokio::select! {
            batch = submissions.recv(), if !*closing => Event::Submitted(batch),
            reply = next_reply(session) => Event::Replied(reply),
            (route, connection) = finish(connecting) => Event::Connected(route, connection),
            producer = finish(registering) => Event::Registered(producer),
            () = has_credit(connection, credit_bytes) => Event::Woken,
            () = wake(wake_at) => Event::Woken,
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let session = self.session.as_ref();
        let answer_due = session
            .filter(|_| self.window.outstanding() > 0)
            .map(|session| self.answer_deadline(session));
        let leave_at = session.and_then(|session| session.leave_at);
        let times = [self.deadline, self.paused_until, answer_due, leave_at];
        times.into_iter().flatten().min()
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Submitted(Some(batch)) => {
                let deadline = batch.deadline;
                self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
                self.window.submit(batch, deadline.into_std());
            }
            Event::Submitted(None) => self.closing = true,
            Event::Replied(reply) => self.replied(reply),
            Event::Connected(route, Ok(connection)) => {
                self.route = Some(route);
                let (sender, replies) = mpsc::channel(self.options.in_flight_max as usize);
                self.session = Some(Session {
                    connection,
                    sender,
                    replies,
                    leave_at: None,
                    progress_at: Instant::now(),
                });
            }
            Event::Connected(route, Err(error)) => {
                self.cause = error.to_string();
                if route.is_hopeless(&self.cluster) {
                    self.window.refuse_queue(&error.unavailable(route.attempts));
                }
                self.route = Some(route);
            }
            Event::Registered(Ok(producer)) => self.window.registered(producer),
            Event::Registered(Err(error)) => {
                self.cause = error.to_string();
                if !error.is_retryable() {
                    self.window.refuse_queue(&error);
                }
            }
            Event::Woken => {}
        }
    }

    fn replied(&mut self, reply: AttemptReply) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.progress_at = Instant::now();
        let connection = session.connection.clone();
        let address = connection.address();
        let answer = reply.answer.and_then(|frame| read_answer(address, &frame));
        let answer = match answer {
            Ok(answer) => answer,
            // The connection is gone, or what the node says makes no sense: none of its answers counts.
            Err(error) => return self.end_session(error.to_string()),
        };
        let acked = matches!(answer, Reply::Acked(_));
        let answer = match answer {
            Reply::Acked(appended) => match self.check_ack(reply.attempt, &appended) {
                Ok(()) => Answer::Acked(ack(&appended)),
                Err(error) => return self.end_session(error),
            },
            Reply::Refused(refusal) => self.refusal(*refusal),
        };
        let advice = self.window.answer(reply.attempt, answer);
        match advice {
            Advice::Continue if acked => {
                self.cluster.confirm_leader(address);
                self.backoff.reset();
                if let Some(route) = &mut self.route {
                    route.succeeded();
                }
            }
            Advice::Continue => {}
            Advice::Pause => {
                let pause = self.backoff.pause();
                self.paused_until.get_or_insert(Instant::now() + pause);
            }
            Advice::Leave => self.leave(),
        }
    }

    /// An acknowledgement must be of the batch that was sent.
    fn check_ack(&self, attempt: u64, appended: &Appended) -> Result<(), String> {
        let Some((sequence, batch)) = self.window.outstanding_attempt(attempt) else {
            return Ok(());
        };
        let expected = (sequence, batch.log_id, batch.header.record_count);
        let found = (
            appended.producer_seq,
            appended.log_id,
            appended.record_count,
        );
        if expected == found {
            return Ok(());
        }
        tracing::error!(?expected, ?found, "an acknowledgement of another batch");
        Err(format!(
            "an acknowledgement of another batch: expected sequence, log, records {expected:?}, \
             found {found:?}"
        ))
    }

    fn refusal(&mut self, refusal: Refusal) -> Answer {
        self.cause = format!("{} says: {}", refusal.address, refusal.message);
        if let Some(leader) = &refusal.leader {
            self.cluster.hint_leader(&leader.address, leader.node_id);
        }
        Answer::Refused(Refused {
            code: refusal.code,
            error: refusal.into_error(),
        })
    }

    /// Sends nothing more to this node; what it owes may still come.
    fn leave(&mut self) {
        if let Some(session) = &mut self.session {
            session.leave_at.get_or_insert(Instant::now() + LEAVE_GRACE);
        }
    }

    fn end_session(&mut self, cause: String) {
        let Some(session) = self.session.take() else {
            return;
        };
        let address = session.connection.address();
        tracing::debug!(address, cause, "producer leaves a node");
        if let Some(route) = &mut self.route {
            route.failed(&self.cluster, address);
        }
        self.cause = cause;
        self.window.lost();
    }
}

async fn next_reply(session: &mut Option<Session>) -> AttemptReply {
    match session {
        // The session holds a sender itself: the channel does not close.
        Some(session) => match session.replies.recv().await {
            Some(reply) => reply,
            None => pending().await,
        },
        None => pending().await,
    }
}

async fn has_credit(connection: Option<Connection>, payload_bytes: Option<usize>) {
    match (connection, payload_bytes) {
        // The credit is taken when it is used: this only waits until there is some.
        (Some(connection), Some(bytes)) => drop(connection.reserve(bytes).await),
        _ => pending().await,
    }
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

async fn register(cluster: Arc<Cluster>, name: String) -> Result<ProducerId, ClientError> {
    let call = Call {
        cluster: &cluster,
        target: &Target::Leader,
        deadline: Instant::now() + cluster.settings.request_timeout,
        // An id that was registered for nothing is never used: that is no effect to speak of.
        writes: false,
    };
    let answer = call
        .run::<_, ProducerOpened>(&ProducerOpen { name })
        .await?;
    let opened = answer.message;
    Ok(ProducerId {
        id: opened.producer_id,
        epoch: opened.producer_epoch,
        in_flight_max: opened.in_flight_max.clamp(1, IN_FLIGHT_LIMIT),
    })
}

/// Begins the attempt and lays out its request.
fn begin(window: &mut Window<Batch>, ready: Ready) -> (Append, bytes::Bytes, Sending) {
    let batch = window.content(ready);
    let mut header = batch.header.clone();
    let (conditions, body) = (batch.conditions, batch.body.clone());
    let sending = window.begin(ready);
    header.producer_id = sending.producer.id;
    header.producer_epoch = sending.producer.epoch;
    header.producer_seq = sending.sequence;
    header.producer_unacked = sending.unacked;
    let append = Append {
        header,
        expect_seq: conditions.expect_seq,
        fence: conditions.fence,
    };
    (append, body, sending)
}

enum Reply {
    Acked(Appended),
    Refused(Box<Refusal>),
}

fn read_answer(address: &str, frame: &Frame) -> Result<Reply, LinkError> {
    let reply = match frame.header.kind {
        MessageKind::ErrorReply => frame.decode::<ErrorReply>().map(|reply| {
            let refusal = Refusal::new(address, reply);
            Reply::Refused(Box::new(refusal))
        }),
        _ => frame.decode::<Appended>().map(Reply::Acked),
    };
    reply.map_err(|source| LinkError::Damaged {
        address: address.to_owned(),
        source,
    })
}

fn ack(appended: &Appended) -> Ack {
    Ack {
        first_seq: appended.first_seq,
        record_count: appended.record_count,
        term: appended.term,
        index: appended.index,
        duplicate: appended.duplicate,
    }
}
