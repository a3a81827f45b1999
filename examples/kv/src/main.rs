//! `drave-kv`: a node of the store. Formats its directory at the first start, runs the embedded node and its
//! machine, and serves HTTP until it is interrupted or the node ends.
#![allow(clippy::print_stdout, reason = "the first line says where it listens")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use drave::config::NodeConfig;
use drave::store::{FormatRequest, format_store};
use drave_embed::{IoChoice, Machine, MachineError, MachineOptions, Node, NodeOptions};
use drave_kv::{Kv, http};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Between two looks at whether the node still runs.
const LOOK: Duration = Duration::from_millis(200);

/// A linearizable key-value store on drave
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where the node keeps its data; formatted when it does not exist
    #[arg(long)]
    data_dir: PathBuf,
    /// This node's id among the members
    #[arg(long, default_value_t = 1)]
    node_id: u64,
    /// All members, the same list on every node
    #[arg(long, value_name = "ID=HOST:PORT,...", value_delimiter = ',', value_parser = member)]
    #[arg(default_value = "1=127.0.0.1:4437")]
    members: Vec<(u64, String)>,
    /// Where to serve HTTP; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    http: String,
    /// Commands between two snapshots
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_commands: u64,
    /// How long a request tries, in milliseconds
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

fn member(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    let id = id
        .parse()
        .map_err(|error| format!("the id {id:?}: {error}"))?;
    Ok((id, address.to_owned()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve(arguments)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "drave-kv ends");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    if !arguments.data_dir.exists() {
        format_store(&FormatRequest {
            data_dir: arguments.data_dir.clone(),
            cluster_id: "kv".to_owned(),
            node_id: arguments.node_id,
            members: arguments.members,
            join: false,
        })?;
    }
    let node = Node::start(NodeOptions {
        data_dir: arguments.data_dir.clone(),
        config: NodeConfig::default(),
        io: IoChoice::Auto,
    })?;
    let listener = TcpListener::bind(&arguments.http).await?;
    let mut options = MachineOptions::new("kv");
    options.snapshot_commands = arguments.snapshot_commands;
    options.timeout = Duration::from_millis(arguments.timeout_ms);
    options.temp_dir = arguments.data_dir;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = async {
        let machine = start_machine(&node, options).await?;
        println!("serving http://{}", listener.local_addr()?);
        let served = axum::serve(listener, http::router(Arc::new(machine.clone())));
        tokio::select! {
            served = async { served.await } => served.map_err(Into::into),
            () = machine_ended(&machine) => Err(why(&machine)),
        }
    };
    let outcome = tokio::select! {
        outcome = ended => outcome,
        () = node_ended(&node) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // Says why when it had ended by itself.
    node.stop()?;
    outcome
}

/// Tries until there is a leader: the other members may not have been started yet.
async fn start_machine(node: &Node, options: MachineOptions) -> Result<Machine<Kv>, MachineError> {
    loop {
        match Machine::start(node, options.clone(), Kv::default()).await {
            Err(MachineError::Client(error)) if error.is_retryable() => {
                tracing::info!(%error, "waiting for a leader");
            }
            started => return started,
        }
    }
}

async fn machine_ended(machine: &Machine<Kv>) {
    // An error: it has stopped.
    let _ = machine.applied(u64::MAX).await;
}

fn why(machine: &Machine<Kv>) -> Box<dyn Error> {
    machine
        .status()
        .failed
        .unwrap_or(MachineError::Stopped)
        .into()
}

async fn node_ended(node: &Node) {
    while !node.has_ended() {
        tokio::time::sleep(LOOK).await;
    }
}
