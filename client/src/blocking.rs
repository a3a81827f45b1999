//! The client for programs without an async runtime: the same operations, each of which blocks its thread.
//!
//! ```no_run
//! use drave_client::blocking::Client;
//! use drave_client::{ReadLimits, TailEvent, TailFrom};
//!
//! # fn example() -> Result<(), drave_client::ClientError> {
//! let client = Client::connect(drave_client::Client::builder().endpoints(["127.0.0.1:4436"]))?;
//! client.create_log("orders", true)?;
//! let log = client.log("orders")?;
//! let ack = log.append("hello")?;
//! assert_eq!(log.read(ack.first_seq, ReadLimits::default())?.records[0].payload, "hello");
//! for event in log.tail(TailFrom::Seq(0))? {
//!     if let TailEvent::Record(record) = event? {
//!         println!("{}: {} bytes", record.seq, record.payload.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A thread of the client's own drives its connections; it ends with the last handle. Every type here may be
//! sent to and used from several threads. Inside an async runtime these calls panic, as any blocking call of
//! tokio's does: use the crate's other half there.

use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::{
    Ack, ClientBuilder, ClientError, ClusterStatus, LogInfo, ReadChunk, ReadLimits, TailEvent,
    TailFrom,
};

/// The runtime that drives the connections, on a thread of its own.
struct Driver {
    handle: Handle,
    /// Dropped with the last handle of the client, which ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Driver {
    fn start() -> Result<Arc<Self>, ClientError> {
        let no_thread = |error: std::io::Error| ClientError::Argument {
            what: format!("no thread for the client: {error}"),
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("drave-client".to_owned())
            .spawn(move || runtime.block_on(stopped))
            .map_err(no_thread)?;
        Ok(Arc::new(Self {
            handle,
            _stop: stop,
        }))
    }
}

/// A client whose operations block. Cheap to clone; see [`crate::Client`] for what each does, and its errors.
#[derive(Clone)]
pub struct Client {
    driver: Arc<Driver>,
    client: crate::Client,
}

impl Client {
    /// Builds the client and connects to at least one node.
    ///
    /// # Errors
    /// The builder's; the last node's failure if none can be reached; an argument error if the system has no
    /// thread to give.
    pub fn connect(builder: ClientBuilder) -> Result<Self, ClientError> {
        let driver = Driver::start()?;
        let client = builder.build()?;
        driver.handle.block_on(client.connect())?;
        Ok(Self { driver, client })
    }

    /// See [`crate::Client::create_log`].
    ///
    /// # Errors
    /// As there.
    pub fn create_log(&self, name: &str, if_missing: bool) -> Result<LogInfo, ClientError> {
        let created = self.client.create_log(name, if_missing);
        self.driver.handle.block_on(created)
    }

    /// See [`crate::Client::logs`].
    ///
    /// # Errors
    /// As there.
    pub fn logs(&self) -> Result<Vec<LogInfo>, ClientError> {
        self.driver.handle.block_on(self.client.logs())
    }

    /// See [`crate::Client::log`].
    ///
    /// # Errors
    /// As there.
    pub fn log(&self, name: &str) -> Result<Log, ClientError> {
        let log = self.driver.handle.block_on(self.client.log(name))?;
        Ok(Log {
            driver: Arc::clone(&self.driver),
            log,
        })
    }

    /// See [`crate::Client::trim_log`].
    ///
    /// # Errors
    /// As there.
    pub fn trim_log(&self, name: &str, first_seq: u64) -> Result<LogInfo, ClientError> {
        let trimmed = self.client.trim_log(name, first_seq);
        self.driver.handle.block_on(trimmed)
    }

    /// See [`crate::Client::status`].
    ///
    /// # Errors
    /// As there.
    pub fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.driver.handle.block_on(self.client.status())
    }
}

/// A log whose operations block. See [`crate::Log`].
#[derive(Clone)]
pub struct Log {
    driver: Arc<Driver>,
    log: crate::Log,
}

impl Log {
    /// See [`crate::Log::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.log.id()
    }

    /// See [`crate::Log::info`].
    ///
    /// # Errors
    /// As there.
    pub fn info(&self) -> Result<LogInfo, ClientError> {
        self.driver.handle.block_on(self.log.info())
    }

    /// See [`crate::Log::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(&self, record: impl AsRef<[u8]>) -> Result<Ack, ClientError> {
        self.driver.handle.block_on(self.log.append(record))
    }

    /// See [`crate::Log::append_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn append_batch<R: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ack, ClientError> {
        let appended = self.log.append_batch(records);
        self.driver.handle.block_on(appended)
    }

    /// See [`crate::Log::append_if`].
    ///
    /// # Errors
    /// As there.
    pub fn append_if<R: AsRef<[u8]>>(
        &self,
        expect_seq: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ack, ClientError> {
        let appended = self.log.append_if(expect_seq, records);
        self.driver.handle.block_on(appended)
    }

    /// See [`crate::Log::fence`].
    ///
    /// # Errors
    /// As there.
    pub fn fence(&self) -> Result<Self, ClientError> {
        let log = self.driver.handle.block_on(self.log.fence())?;
        Ok(Self {
            driver: Arc::clone(&self.driver),
            log,
        })
    }

    /// See [`crate::Log::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, from_seq: u64, limits: ReadLimits) -> Result<ReadChunk, ClientError> {
        let read = self.log.read(from_seq, limits);
        self.driver.handle.block_on(read)
    }

    /// See [`crate::Log::tail`].
    ///
    /// # Errors
    /// As there.
    pub fn tail(&self, from: TailFrom) -> Result<Tail, ClientError> {
        let tail = self.driver.handle.block_on(self.log.tail(from))?;
        Ok(Tail {
            driver: Arc::clone(&self.driver),
            tail,
        })
    }
}

/// A tail as an iterator that never ends. See [`crate::Tail`]; after an error it goes on where it was.
pub struct Tail {
    driver: Arc<Driver>,
    tail: crate::Tail,
}

impl Iterator for Tail {
    type Item = Result<TailEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.driver.handle.block_on(self.tail.next()))
    }
}
