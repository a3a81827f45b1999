//! The executor: one thread, `!Send` tasks, over tokio-uring or over plain tokio.
//!
//! Inside [`Runtime::block_on`] the same things work on both engines: `tokio::task::spawn_local`, tokio's
//! timers, channels, `AsyncFd`, signals, `spawn_blocking`, and [`crate::Net`]. The choice is made once,
//! at start, and can be named in a log line.
//!
//! One limit comes with io_uring: operations are handed to the kernel when the thread comes to rest. A
//! task that is always ready (a loop around `yield_now`) keeps them back, and with them all network I/O,
//! until it rests. So no task may spin: bound the work of a turn, and wait for events, or [`rest`] while
//! there is more work.

use std::cell::Cell;
use std::future::Future;
use std::io;

use thiserror::Error;
use tokio::task::LocalSet;

/// Which engine to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else plain sockets.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Plain sockets and epoll.
    Posix,
}

/// The engine in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetEngine {
    /// Sockets on io_uring.
    Uring,
    /// Sockets on epoll.
    Posix,
}

impl std::fmt::Display for NetEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Posix => "posix",
        })
    }
}

/// A runtime that could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// io_uring was asked for, and the kernel or the container refuses it.
    #[error("io_uring is not available: {0}; choose `posix` or `auto` to run without it")]
    UringRefused(#[source] io::Error),
    /// Not even the plain executor could be made.
    #[error("the executor cannot be made: {0}")]
    Executor(#[source] io::Error),
}

thread_local! {
    static ENGINE: Cell<Option<NetEngine>> = const { Cell::new(None) };
}

/// The engine of the runtime that this code runs inside of, if any.
pub(crate) fn current_engine() -> Option<NetEngine> {
    ENGINE.get()
}

/// Brings the thread to rest for a moment: whatever tasks and I/O are ready go on before it returns, and
/// what was queued is with the kernel. For a task with more work than it does in one turn.
///
/// # Panics
/// If the ring does not take an operation; a ring that is full is emptied first.
pub async fn rest() {
    match current_engine() {
        // Its completion arrives like any other, so everything else is looked at on the way.
        Some(NetEngine::Uring) => {
            if let Err(error) = tokio_uring::no_op().await {
                tracing::error!(%error, "the ring does not answer");
            }
        }
        Some(NetEngine::Posix) | None => tokio::task::yield_now().await,
    }
}

enum Executor {
    Uring(tokio_uring::Runtime),
    // Dropped in this order: tasks first, then what drives them.
    Posix {
        tasks: LocalSet,
        tokio: tokio::runtime::Runtime,
    },
}

/// A current-thread executor. `!Send`; one per thread.
pub struct Runtime {
    executor: Executor,
    reason: String,
}

impl Runtime {
    /// Makes the executor, trying io_uring first unless told otherwise.
    ///
    /// # Errors
    /// [`RuntimeError::UringRefused`] only for [`IoChoice::Uring`]; with `Auto` a refusal leads to plain
    /// sockets, and [`Runtime::reason`] tells it.
    pub fn new(choice: IoChoice) -> Result<Self, RuntimeError> {
        let refused = match choice {
            IoChoice::Posix => "chosen".to_owned(),
            IoChoice::Auto | IoChoice::Uring => match uring() {
                Ok((runtime, reason)) => {
                    return Ok(Self {
                        executor: Executor::Uring(runtime),
                        reason: reason.to_owned(),
                    });
                }
                Err(error) if choice == IoChoice::Uring => {
                    return Err(RuntimeError::UringRefused(error));
                }
                Err(error) => format!("io_uring is not available: {error}"),
            },
        };
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RuntimeError::Executor)?;
        Ok(Self {
            executor: Executor::Posix {
                tasks: LocalSet::new(),
                tokio,
            },
            reason: refused,
        })
    }

    /// The engine that was found.
    #[must_use]
    pub fn engine(&self) -> NetEngine {
        match self.executor {
            Executor::Uring(_) => NetEngine::Uring,
            Executor::Posix { .. } => NetEngine::Posix,
        }
    }

    /// Why it is this engine, for the line that a node logs at start.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Runs `future` to its end, and the tasks it spawned as long as it runs. They go on in the next
    /// call.
    ///
    /// # Panics
    /// If called inside of another runtime, or if `future` panics.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _guard = EngineGuard::enter(self.engine());
        match &self.executor {
            Executor::Uring(runtime) => runtime.block_on(future),
            Executor::Posix { tasks, tokio } => tasks.block_on(tokio, future),
        }
    }
}

/// Names the engine to the code inside `block_on`, and takes the name back even when it panics.
struct EngineGuard(Option<NetEngine>);

impl EngineGuard {
    fn enter(engine: NetEngine) -> Self {
        Self(ENGINE.replace(Some(engine)))
    }
}

impl Drop for EngineGuard {
    fn drop(&mut self) {
        ENGINE.set(self.0);
    }
}

/// The io_uring executor. Cooperative task running saves an interrupt per completion; kernels before
/// 5.19 do not know it. (Deferred task running would never complete anything: the driver under us does
/// not ask for it.)
fn uring() -> io::Result<(tokio_uring::Runtime, &'static str)> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.uring_builder(&ring);
    match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => Ok((runtime, "available, with cooperative task running")),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
            Ok((runtime, "available"))
        }
        Err(error) => Err(error),
    }
}
