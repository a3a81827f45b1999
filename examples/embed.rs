//! A single node embedded in a program: format a directory, run the node on a thread of its own, append
//! to a log and read it back through the client.
//!
//! ```text
//! cargo run --release --example embed
//! ```

use std::error::Error;
use std::net::TcpListener;
use std::thread;

use drave::config::NodeConfig;
use drave::node::{self, IoChoice, NodeOptions};
use drave::store::{FormatRequest, format_store};
use drave_client::{Client, ReadLimits};
use tokio::sync::oneshot;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let data_dir = dir.path().join("n1");
    // A free port of this machine; a real program has an address of its own.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    format_store(&FormatRequest {
        data_dir: data_dir.clone(),
        cluster_id: "embedded".to_owned(),
        node_id: 1,
        members: vec![(1, address.clone())],
        join: false,
    })?;

    let (stop, stopped) = oneshot::channel::<()>();
    let options = NodeOptions {
        data_dir,
        config: NodeConfig::default(),
        io: IoChoice::Auto,
    };
    let node = thread::spawn(move || {
        node::run(options, async {
            // Also when the sender is gone: the node stops with the program.
            let _ = stopped.await;
        })
    });

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::builder().endpoints([address]).build()?;
        client.create_log("greetings", true).await?;
        let log = client.log("greetings").await?;
        let ack = log.append("hello, drave").await?;
        println!("acknowledged at seq {}", ack.first_seq);
        let chunk = log.read(0, ReadLimits::default()).await?;
        for record in chunk.records {
            println!(
                "{}: {}",
                record.seq,
                String::from_utf8_lossy(&record.payload)
            );
        }
        Ok::<(), Box<dyn Error>>(())
    })?;

    // An error would mean that the node is already gone; joining tells why.
    let _ = stop.send(());
    node.join().expect("the node does not panic")?;
    Ok(())
}
