//! `drave dev`: a cluster of real processes on this machine, until Ctrl-C.
//!
//! Says how to talk to it and leaves it alone: a node that dies stays dead, so that one can see what the
//! others do. What the processes need is in `cluster`.

use std::path::PathBuf;
use std::time::Duration;

use drave_client::Client;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::DevArgs;
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::{Paint, colour_on_stderr, print};

/// How long the first election may take; making the first segments is part of it.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the command until Ctrl-C, SIGTERM, or the end of the last node.
///
/// # Errors
/// [`CliError`] when the cluster does not come up, or no node is left.
pub fn run(arguments: DevArgs) -> Result<(), CliError> {
    let place = Place::new(arguments.data_dir)?;
    let options = ClusterOptions {
        node_count: arguments.nodes,
        io: arguments.io,
        config: arguments.config,
        ..ClusterOptions::new(this_program()?, place.dir())
    };
    let mut cluster = Cluster::prepare(options)?;
    let outcome = connect::runtime()?.block_on(async {
        // Handlers first: a signal that comes while the nodes start must stop them too.
        let stop = stop_signal()?;
        let child_ended = signal(SignalKind::child()).map_err(|error| signal_error(&error))?;
        cluster.start_all()?;
        tokio::select! {
            biased;
            () = stop => Ok(()),
            ended = serve(&mut cluster, child_ended) => ended,
        }
    });
    eprintln!("stopping the nodes");
    let stopped = cluster.stop_all();
    outcome.and(stopped)
}

/// A folder of the user's, or one that goes when this is dropped.
pub struct Place {
    dir: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    /// The user's folder, or a new temporary one.
    ///
    /// # Errors
    /// [`CliError`] when no temporary folder can be made.
    pub fn new(dir: Option<PathBuf>) -> Result<Self, CliError> {
        if let Some(dir) = dir {
            return Ok(Self {
                dir,
                temporary: None,
            });
        }
        let temporary = tempfile::Builder::new()
            .prefix("drave-")
            .tempdir()
            .map_err(|error| {
                CliError::new(Exit::Failure, "cannot make a temporary folder")
                    .why(error.to_string())
                    .effect("nothing was started")
                    .next("set TMPDIR, or give --data-dir")
            })?;
        Ok(Self {
            dir: temporary.path().to_owned(),
            temporary: Some(temporary),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Whether it goes when this is dropped.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

/// The executable that runs, to start nodes from it.
///
/// # Errors
/// [`CliError`] when the system does not say.
pub fn this_program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|error| {
        CliError::new(
            Exit::Failure,
            "cannot find this executable to start nodes from it",
        )
        .why(error.to_string())
    })
}

/// A client of the cluster.
///
/// # Errors
/// [`CliError`] when it cannot be set up.
pub fn cluster_client(cluster: &Cluster, timeout: Duration) -> Result<Client, CliError> {
    let client = Client::builder()
        .endpoints(cluster.endpoints())
        .request_timeout(timeout)
        .build();
    client.map_err(|error| client_error("cannot set up the client", &error))
}

/// Resolves on Ctrl-C, SIGTERM and SIGHUP, once polled or not: the handlers are set at once.
///
/// # Errors
/// [`CliError`] when they cannot be set.
pub fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    let set = |kind| signal(kind).map_err(|error| signal_error(&error));
    let mut interrupt = set(SignalKind::interrupt())?;
    let mut terminate = set(SignalKind::terminate())?;
    let mut hang_up = set(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

fn signal_error(error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failure, "cannot set signal handlers").why(error.to_string())
}

async fn serve(cluster: &mut Cluster, mut child_ended: Signal) -> Result<(), CliError> {
    let client = cluster_client(cluster, START_TIMEOUT)?;
    let leader_id = wait::leader(cluster, &client, START_TIMEOUT).await?;
    print(&format!(
        "export DRAVE_ENDPOINTS={}\n",
        cluster.endpoints().join(",")
    ))
    .await?;
    eprint!(
        "{}",
        introduction(
            cluster,
            leader_id,
            Paint {
                colour: colour_on_stderr()
            }
        )
    );
    loop {
        for (node_id, status) in cluster.take_ended()? {
            eprintln!(
                "node {node_id} ended ({status}); again with: {} start --data-dir {}",
                this_program()?.display(),
                cluster.data_dir(node_id).display()
            );
        }
        if cluster.running_count() == 0 {
            return Err(CliError::new(Exit::Failure, "no node is left")
                .why("every node ended, by itself or killed from outside")
                .next("look at the nodes' logs"));
        }
        child_ended.recv().await;
    }
}

fn introduction(cluster: &Cluster, leader_id: u64, paint: Paint) -> String {
    let again = if cluster.was_there() {
        ", taken up again"
    } else {
        ""
    };
    let mut text = format!(
        "{}{again}\n",
        paint.bold(&format!("drave dev: {} nodes", cluster.node_ids().len()))
    );
    for node_id in cluster.node_ids() {
        let role = if node_id == leader_id {
            paint.green("leader")
        } else {
            "follower".to_owned()
        };
        let pid = cluster
            .pid(node_id)
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        text.push_str(&format!(
            "  node {node_id}  {}  pid {pid}  {role}\n          data {}\n          log  {}\n",
            cluster.address(node_id),
            cluster.data_dir(node_id).display(),
            cluster.log_path(node_id).display()
        ));
    }
    let (drave, endpoints) = (shown_program(), cluster.endpoints().join(","));
    let leader_pid = cluster.pid(leader_id).unwrap_or_default();
    text.push_str(&format!(
        "\n\
         try, in another terminal:\n  \
         export DRAVE_ENDPOINTS={endpoints}\n  \
         echo hello | {drave} append greetings --create\n  \
         {drave} tail greetings --follow\n  \
         {drave} status\n  \
         kill -9 {leader_pid}      the leader; then append on\n\n\
         Ctrl-C stops all nodes\n"
    ));
    text
}

/// How to call this executable from a shell: by its name if that is found, else by its path.
fn shown_program() -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join("drave").is_file());
    match std::env::current_exe() {
        Ok(program) if !found => program.display().to_string(),
        _ => "drave".to_owned(),
    }
}
