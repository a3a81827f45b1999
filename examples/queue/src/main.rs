//! `drave-queue`: a queue from the command line. Prints JSON, a line each.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::{BufRead as _, stdin};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use drave_client::Client;
use drave_queue::{Message, Queue, QueueError, QueueOptions, Receipt, Settled};
use serde_json::{Value, json};

/// A reliable message queue on drave
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Addresses of the cluster
    #[arg(long, env = "DRAVE_ENDPOINTS", value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a queue
    Create {
        /// Its name
        queue: String,
        /// A message that was given out so often is put aside
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        attempts_max: u32,
    },
    /// Sends a message, or each line of the standard input
    Send {
        /// The queue
        queue: String,
        /// The message
        body: Option<String>,
        /// Keeps the messages of this key in order
        #[arg(long)]
        key: Option<String>,
    },
    /// Receives messages
    Receive {
        /// The queue
        queue: String,
        /// Messages at most
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
        limit: u32,
        /// How long nobody else gets them
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        visibility: Duration,
        /// How long to wait for the first one
        #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// Finishes them when they are printed
        #[arg(long)]
        ack: bool,
    },
    /// Finishes messages
    Ack {
        /// The queue
        queue: String,
        /// What `receive` gave
        #[arg(required = true)]
        receipts: Vec<Receipt>,
    },
    /// Makes messages visible again at once
    Release {
        /// The queue
        queue: String,
        /// What `receive` gave
        #[arg(required = true)]
        receipts: Vec<Receipt>,
    },
    /// Holds messages for longer
    Extend {
        /// The queue
        queue: String,
        /// What `receive` gave
        #[arg(required = true)]
        receipts: Vec<Receipt>,
        /// How long nobody else gets them, from now on
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        visibility: Duration,
    },
    /// How a queue stands
    Status {
        /// The queue
        queue: String,
    },
    /// Messages that were put aside
    Dead {
        /// The queue
        queue: String,
        /// The first one of them to show
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ran = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match ran {
        // A receipt that counts no more.
        Ok(false) => ExitCode::from(3),
        Ok(true) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drave-queue: {error}");
            match error.downcast_ref::<QueueError>() {
                Some(QueueError::Client(error)) if !error.has_no_side_effects() => {
                    ExitCode::from(5)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Whether all of it was done.
async fn run(arguments: Arguments) -> Result<bool, Box<dyn Error>> {
    let client = Client::builder().endpoints(arguments.endpoints).build()?;
    let open = async |queue: String| Queue::open(&client, &queue).await;
    match arguments.command {
        Verb::Create {
            queue,
            attempts_max,
        } => {
            let mut options = QueueOptions::default();
            options.attempts_max = attempts_max;
            Queue::create(&client, &queue, options).await?;
        }
        Verb::Send { queue, body, key } => {
            let queue = open(queue).await?;
            let bodies: Box<dyn Iterator<Item = std::io::Result<String>>> = match body {
                Some(body) => Box::new(std::iter::once(Ok(body))),
                None => Box::new(stdin().lock().lines()),
            };
            for body in bodies {
                let message = Message {
                    key: key.clone(),
                    body: body?.into_bytes(),
                };
                say(&json!({"message": queue.send(&message).await?}));
            }
        }
        Verb::Receive {
            queue,
            limit,
            visibility,
            wait,
            ack,
        } => {
            let mut consumer = open(queue).await?.consumer().await?;
            for delivery in consumer.receive(limit, visibility, wait).await? {
                say(&json!({
                    "message": delivery.receipt.message,
                    "receipt": delivery.receipt.to_string(),
                    "attempts": delivery.attempts,
                    "key": delivery.key,
                    "body": String::from_utf8_lossy(&delivery.body),
                }));
                if ack {
                    consumer.acknowledge(&[delivery.receipt]).await?;
                }
            }
        }
        Verb::Ack { queue, receipts } => {
            let mut consumer = open(queue).await?.consumer().await?;
            return Ok(told(&receipts, &consumer.acknowledge(&receipts).await?));
        }
        Verb::Release { queue, receipts } => {
            let mut consumer = open(queue).await?.consumer().await?;
            return Ok(told(&receipts, &consumer.release(&receipts).await?));
        }
        Verb::Extend {
            queue,
            receipts,
            visibility,
        } => {
            let mut consumer = open(queue).await?.consumer().await?;
            return Ok(told(
                &receipts,
                &consumer.extend(&receipts, visibility).await?,
            ));
        }
        Verb::Status { queue } => {
            let status = open(queue).await?.status().await?;
            say(&serde_json::to_value(status)?);
        }
        Verb::Dead { queue, from } => {
            for letter in open(queue).await?.dead_letters(from).await? {
                say(&json!({
                    "message": letter.message,
                    "attempts": letter.attempts,
                    "time_us": letter.time_us,
                    "key": letter.key,
                    "body": String::from_utf8_lossy(&letter.body),
                }));
            }
        }
    }
    Ok(true)
}

fn told(receipts: &[Receipt], settled: &Settled) -> bool {
    for (receipt, done) in receipts.iter().zip(&settled.done) {
        say(&json!({"receipt": receipt.to_string(), "done": done}));
    }
    settled.done.iter().all(|done| *done)
}

fn say(line: &Value) {
    println!("{line}");
}
