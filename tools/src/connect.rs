//! From the command line's connection options to a client, and from its errors to ours.

use std::time::Duration;

use drave_client::{Client, ClientError, Log, LogInfo, Reader, ReplicaLog, Tail, TailFrom};
use tokio::runtime::{Builder, Runtime};

use crate::cli::ConnectArgs;
use crate::errors::CliError;
use crate::exit::Exit;

/// How long a request may take unless the command or the user says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A runtime on the calling thread: what a client needs.
///
/// # Errors
/// [`CliError`] when the system refuses.
pub fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CliError::new(Exit::Failure, "cannot start the client")
                .why(error.to_string())
                .effect("nothing was sent")
                .next("raise the limit of open files (ulimit -n), or close what is not needed")
        })
}

/// A client that connects when it is used.
///
/// # Errors
/// [`CliError`] when the options make no sense.
pub fn client(arguments: &ConnectArgs, timeout_default: Duration) -> Result<Client, CliError> {
    let mut builder = Client::builder()
        .endpoints(arguments.endpoints.iter().cloned())
        .request_timeout(arguments.timeout.unwrap_or(timeout_default));
    if let Some(cluster_id) = &arguments.cluster_id {
        builder = builder.cluster_id(cluster_id.clone());
    }
    builder
        .build()
        .map_err(|error| client_error("cannot set up the client", &error))
}

/// A log to read: of the cluster, or as one replica alone knows it.
#[derive(Clone)]
pub enum ReadableLog {
    /// Read linearizably, from whoever leads.
    Cluster(Log),
    /// Read from one replica, what it knows to be committed.
    Replica(ReplicaLog),
}

impl ReadableLog {
    /// Opens a log by its name, on one node alone if that is given.
    ///
    /// # Errors
    /// [`CliError`], also when there is none of this name.
    pub async fn open(client: &Client, name: &str, node: Option<u64>) -> Result<Self, CliError> {
        let found = match node {
            None => client.log(name).await.map(Self::Cluster),
            Some(node_id) => client.replica(node_id).log(name).await.map(Self::Replica),
        };
        found.map_err(|error| client_error("cannot open the log", &error).with("log", name))
    }

    /// The log's bounds: as of now, or of a replica as of when it was opened.
    ///
    /// # Errors
    /// [`CliError`] without a leader.
    pub async fn info(&self) -> Result<LogInfo, CliError> {
        match self {
            Self::Cluster(log) => log
                .info()
                .await
                .map_err(|error| client_error("cannot look up the log", &error)),
            Self::Replica(log) => Ok(log.info().clone()),
        }
    }

    /// The seq to begin with: of the first record of a time, or so many before the end; none said, none given.
    ///
    /// # Errors
    /// [`CliError`] without a leader.
    pub async fn from_seq(
        &self,
        at: Option<u64>,
        last: Option<u64>,
    ) -> Result<Option<u64>, CliError> {
        if let Some(last) = last {
            let info = self.info().await?;
            return Ok(Some(info.next_seq.saturating_sub(last).max(info.first_seq)));
        }
        let Some(time_us) = at else { return Ok(None) };
        let found = match self {
            Self::Cluster(log) => log.seq_at(time_us).await,
            Self::Replica(log) => log.seq_at(time_us).await,
        };
        let found = found.map_err(|error| client_error("cannot find the time in the log", &error));
        found.map(Some)
    }

    /// Reads chunk by chunk up to the tail as of the first chunk.
    #[must_use]
    pub fn reader(&self, from_seq: u64) -> Reader {
        match self {
            Self::Cluster(log) => log.reader(from_seq),
            Self::Replica(log) => log.reader(from_seq),
        }
    }

    /// Follows the log.
    ///
    /// # Errors
    /// When the tail's start cannot be found.
    pub async fn tail(&self, from: TailFrom) -> Result<Tail, ClientError> {
        match self {
            Self::Cluster(log) => log.tail(from).await,
            Self::Replica(log) => log.tail(from).await,
        }
    }
}

/// The client's error, with what was being done in front.
#[must_use]
pub fn client_error(doing: &str, error: &ClientError) -> CliError {
    let exit = match (error, error.code()) {
        (ClientError::Argument { .. }, _) => Exit::Usage,
        (_, Some(code)) => Exit::of_error_code(code),
        (_, None) => Exit::Failure,
    };
    let shown = CliError::new(exit, format!("{doing}: {}", error.what()))
        .why(error.why())
        .effect(error.effect())
        .next(error.next());
    match error.code() {
        Some(code) => shown.code(code),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use drave_batch::wire::ErrorCode;

    use super::*;

    #[test]
    fn an_unknown_outcome_is_told_as_such() {
        let error = ClientError::Unknown {
            code: None,
            cause: "the connection broke".to_owned(),
            attempts: 2,
        };
        let shown = client_error("append", &error);
        assert_eq!(
            (shown.exit, shown.code),
            (Exit::Unavailable, Some(ErrorCode::OutcomeUnknown))
        );
        assert!(
            shown
                .to_string()
                .starts_with("error[DRV-0103]: append: the outcome is unknown\n"),
            "{shown}"
        );
        assert!(shown.effect.starts_with("unknown"));
    }

    #[test]
    fn bad_arguments_are_usage_errors() {
        let error = ClientError::Argument {
            what: "no endpoints".to_owned(),
        };
        assert_eq!(client_error("connect", &error).exit, Exit::Usage);
    }
}
