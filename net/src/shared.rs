//! What the tasks of one [`crate::Net`] share: its connections, its inbox of events, its counters.
//!
//! One thread, so cells and no locks. No borrow of a cell lives across an `await`.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use drave_batch::wire::ErrorCode;
use tokio::sync::{Notify, Semaphore};

use crate::config::{NetConfig, PeerPolicy};
use crate::connection::Conn;
use crate::dial::DialOrder;
use crate::event::{ConnId, DialId, NetEvent};
use crate::handshake::Acceptor;
use crate::log_limit::LogLimit;
use crate::outgoing::BufferPool;
use crate::runtime::NetEngine;
use crate::slots::{Slot, Slots};

/// Written buffers kept for the next frames, of all connections.
const POOLED_BUFFERS_MAX: usize = 64;

/// Memory for frames that are not complete is counted in pieces of this size.
pub(crate) const ASSEMBLY_UNIT_BYTES: usize = 1 << 10;

/// Waiting bytes of one connection, and what holds its reader.
#[derive(Default)]
pub(crate) struct Gate {
    /// Cost of this connection's frames in the inbox.
    pub(crate) waiting_bytes: Cell<usize>,
    /// The user asked not to read.
    pub(crate) paused: Cell<bool>,
    /// The user closed the connection: its frames in the inbox are of no interest any more.
    pub(crate) closed_locally: Cell<bool>,
    /// Counts to the total of all clients.
    pub(crate) is_client: bool,
    /// Told when the reader may look again.
    pub(crate) wake: Notify,
}

/// An event in the inbox, and what it holds until it is drained.
pub(crate) struct Queued {
    pub(crate) event: NetEvent,
    /// Bytes that count to the budgets.
    pub(crate) cost: usize,
    pub(crate) gate: Option<Rc<Gate>>,
    /// Given back when the event is drained.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) receipt: Receipt,
}

/// What stands for an event that was not drained yet: it bounds the events that one connection or one
/// dial can leave in the inbox.
pub(crate) enum Receipt {
    /// Nothing.
    None,
    /// The slot of an accepted connection, with its `Closed`.
    #[expect(dead_code, reason = "held for its drop")]
    Slot(Slot),
    /// A share of a dial's counter, with its `DialFailed` or the `Closed` of its connection.
    #[expect(dead_code, reason = "held for its drop")]
    Dial(Rc<()>),
}

impl Queued {
    pub(crate) fn plain(event: NetEvent) -> Self {
        Self::with_receipt(event, Receipt::None)
    }

    pub(crate) fn with_receipt(event: NetEvent, receipt: Receipt) -> Self {
        Self {
            event,
            cost: 0,
            gate: None,
            receipt,
        }
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) dialed_now: Cell<u32>,
    pub(crate) accepted: Cell<u64>,
    pub(crate) refused: Cell<u64>,
    pub(crate) accept_errors: Cell<u64>,
    pub(crate) frames_received: Cell<u64>,
    pub(crate) frames_sent: Cell<u64>,
    pub(crate) bytes_received: Cell<u64>,
    pub(crate) bytes_sent: Cell<u64>,
    pub(crate) closed_for_cause: Cell<u64>,
}

pub(crate) fn count(counter: &Cell<u64>, by: usize) {
    counter.set(counter.get() + by as u64);
}

pub(crate) struct Shared {
    pub(crate) config: NetConfig,
    pub(crate) engine: NetEngine,
    pub(crate) acceptor: Acceptor,
    pub(crate) policy: Box<dyn PeerPolicy>,
    pub(crate) slots: Rc<Slots>,
    pub(crate) conns: RefCell<HashMap<ConnId, Rc<Conn>>>,
    pub(crate) dials: RefCell<HashMap<DialId, Rc<DialOrder>>>,
    pub(crate) pool: RefCell<BufferPool>,
    pub(crate) counters: Counters,
    pub(crate) log: LogLimit,
    inbox: RefCell<VecDeque<Queued>>,
    inbox_filled: Notify,
    /// Since when the inbox has held something; nothing while it is empty.
    waiting_since: Cell<Option<Instant>>,
    /// Cost of all clients' frames in the inbox.
    clients_waiting_bytes: Cell<usize>,
    /// Told to all when that cost has fallen well below its limit.
    pub(crate) clients_wake: Notify,
    /// Memory for clients' frames that are not complete.
    pub(crate) assembly: Semaphore,
    next_id: Cell<u64>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) stop_accept: Notify,
    pub(crate) stop_sweep: Notify,
    tasks: Cell<usize>,
    tasks_ended: Notify,
    task_panicked: Cell<bool>,
}

impl Shared {
    pub(crate) fn new(
        config: NetConfig,
        engine: NetEngine,
        policy: Box<dyn PeerPolicy>,
    ) -> Rc<Self> {
        let acceptor = Acceptor::new(config.identity.clone(), config.limits);
        let slots = Slots::new(
            config.connections_max,
            config.peer_connections_reserved,
            config.connections_per_ip_max,
        );
        let assembly = Semaphore::new(config.receive_total_bytes_max / ASSEMBLY_UNIT_BYTES);
        Rc::new(Self {
            engine,
            acceptor,
            policy,
            slots,
            assembly,
            config,
            conns: RefCell::default(),
            dials: RefCell::default(),
            pool: RefCell::new(BufferPool::new(POOLED_BUFFERS_MAX)),
            counters: Counters::default(),
            log: LogLimit::new(Instant::now()),
            inbox: RefCell::default(),
            inbox_filled: Notify::new(),
            waiting_since: Cell::new(None),
            clients_waiting_bytes: Cell::new(0),
            clients_wake: Notify::new(),
            next_id: Cell::new(1),
            stopping: Cell::new(false),
            stop_accept: Notify::new(),
            stop_sweep: Notify::new(),
            tasks: Cell::new(0),
            tasks_ended: Notify::new(),
            task_panicked: Cell::new(false),
        })
    }

    /// A number never given before.
    pub(crate) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Runs `task`, counted, so that a shutdown can wait for it and a panic in it is not lost.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let guard = TaskGuard::new(self);
        tokio::task::spawn_local(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Waits until every task has ended.
    pub(crate) async fn tasks_ended(&self) {
        while self.tasks.get() > 0 {
            self.tasks_ended.notified().await;
        }
    }

    pub(crate) fn emit(&self, queued: Queued) {
        if let Some(gate) = &queued.gate {
            gate.waiting_bytes
                .set(gate.waiting_bytes.get() + queued.cost);
            if gate.is_client {
                let waiting = self.clients_waiting_bytes.get() + queued.cost;
                self.clients_waiting_bytes.set(waiting);
            }
        }
        let mut inbox = self.inbox.borrow_mut();
        inbox.push_back(queued);
        if inbox.len() == 1 {
            self.waiting_since.set(Some(Instant::now()));
            self.inbox_filled.notify_one();
        }
    }

    /// Whether the reader behind `gate` may deliver a frame.
    pub(crate) fn may_deliver(&self, gate: &Gate) -> bool {
        !gate.paused.get()
            && gate.waiting_bytes.get() < self.config.receive_budget_bytes
            && !(gate.is_client
                && self.clients_waiting_bytes.get() >= self.config.receive_total_bytes_max)
    }

    /// Resolves when the inbox holds something.
    pub(crate) async fn filled(&self) {
        self.assert_tasks_sound();
        while self.inbox.borrow().is_empty() {
            self.inbox_filled.notified().await;
            self.assert_tasks_sound();
        }
    }

    /// Since when events wait to be drained.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since.get()
    }

    pub(crate) fn drain(&self, out: &mut Vec<NetEvent>, max: usize) {
        self.assert_tasks_sound();
        let mut given = 0;
        while given < max {
            let Some(queued) = self.inbox.borrow_mut().pop_front() else {
                self.waiting_since.set(None);
                return;
            };
            let mut wanted = true;
            if let Some(gate) = &queued.gate {
                self.release(gate, queued.cost);
                wanted = !gate.closed_locally.get();
            }
            if wanted {
                out.push(queued.event);
                given += 1;
            }
        }
    }

    fn release(&self, gate: &Gate, cost: usize) {
        let before = gate.waiting_bytes.get();
        let after = before - cost;
        gate.waiting_bytes.set(after);
        let budget = self.config.receive_budget_bytes;
        if before >= budget && after < budget {
            gate.wake.notify_one();
        }
        if gate.is_client {
            let before = self.clients_waiting_bytes.get();
            let after = before - cost;
            self.clients_waiting_bytes.set(after);
            let low = self.config.receive_total_bytes_max / 2;
            if before > low && after <= low {
                self.clients_wake.notify_waiters();
            }
        }
    }

    pub(crate) fn conn(&self, id: ConnId) -> Option<Rc<Conn>> {
        self.conns.borrow().get(&id).cloned()
    }

    /// One line about a connection that was refused or closed for what it did, unless there were too
    /// many lately.
    pub(crate) fn log_refusal(&self, remote: SocketAddr, code: ErrorCode, why: &dyn Display) {
        if let Some(suppressed) = self.log.admit(Instant::now()) {
            tracing::warn!(%remote, %code, suppressed, "connection refused: {why}");
        }
    }

    /// A broken invariant in a task must not pass in silence: the executor swallows the panic, so it is
    /// raised again in the user's loop.
    fn assert_tasks_sound(&self) {
        assert!(!self.task_panicked.get(), "a connection's task panicked");
    }
}

/// Counts one task from its spawn to its end, however it ends.
struct TaskGuard(Rc<Shared>);

impl TaskGuard {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.tasks.set(shared.tasks.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
        if std::thread::panicking() {
            self.0.task_panicked.set(true);
            self.0.inbox_filled.notify_one();
        }
        self.0.tasks_ended.notify_one();
    }
}
