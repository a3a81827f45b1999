//! `drave demo`: the promise, shown. The leader dies in the middle of the work, and nothing is lost.
//!
//! Tells what happens on standard error as it happens, prints a table on standard output, and ends. The
//! writer is in `load`, the comparison in `check`.

mod check;
mod load;
mod text;

use std::time::{Duration, Instant};

use bytes::Bytes;
use drave_client::Client;

use self::check::{Appended, Findings, compare};
use self::load::Load;
use super::append::ProducerAppender;
use super::dev::{Place, START_TIMEOUT, cluster_client, stop_signal, this_program};
use super::read::{ReadRange, for_each};
use crate::cli::DemoArgs;
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::connect::{self, ReadableLog, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::{
    Paint, brief, colour_on_stderr, per_second, plain_table, print, render_table, thousands,
};

const LOG: &str = "demo";
const NODES: u64 = 3;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the command.
///
/// # Errors
/// [`CliError`] unless everything was acknowledged, nothing lost and nothing duplicated.
pub fn run(arguments: DemoArgs) -> Result<(), CliError> {
    let story = Story {
        started: Instant::now(),
        paint: Paint {
            colour: colour_on_stderr(),
        },
    };
    let records = text::records(arguments.file.as_deref(), arguments.records).map_err(|error| {
        CliError::new(Exit::Failure, "no text to append")
            .why(error.to_string())
            .effect("nothing was started")
            .next("give --file a readable text file, or none")
    })?;
    let place = Place::new(arguments.data_dir)?;
    let options = ClusterOptions {
        node_count: NODES,
        io: arguments.io,
        cluster_id: "demo".to_owned(),
        ..ClusterOptions::new(this_program()?, place.dir())
    };
    story.tell(&format!(
        "starting three nodes, each a process of its own, in {}",
        place.dir().display()
    ));
    let mut cluster = Cluster::prepare(options)?;
    if cluster.was_there() {
        return Err(
            CliError::new(Exit::Precondition, "the directory holds an earlier demo")
                .effect("nothing was started or changed")
                .next("give an empty directory; `drave dev` can take up an existing one"),
        );
    }
    let outcome = connect::runtime()?.block_on(async {
        let stop = stop_signal()?;
        tokio::select! {
            biased;
            () = stop => Err(CliError::new(Exit::Interrupted, "interrupted")),
            outcome = show(&mut cluster, &records, &story) => outcome,
        }
    });
    let stopped = cluster.stop_all();
    let outcome = outcome?;
    stopped?;
    connect::runtime()?.block_on(print(&render(&outcome)))?;
    verdict(&outcome)
}

struct Story {
    started: Instant,
    paint: Paint,
}

impl Story {
    fn tell(&self, text: &str) {
        let time = format!("{:>6.2} s", self.started.elapsed().as_secs_f64());
        eprintln!("{}  {text}", self.paint.dim(&time));
    }
}

/// What the demo found out.
struct Outcome {
    records: u64,
    acknowledged: u64,
    killed_node: u64,
    new_leader: u64,
    election: Duration,
    writing: Duration,
    latency_us_p50: u64,
    latency_us_p99: u64,
    nodes: Vec<(u64, Findings)>,
    agree: bool,
    whole: Duration,
}

impl Outcome {
    fn lost(&self) -> u64 {
        self.nodes
            .iter()
            .map(|(_, findings)| findings.lost)
            .max()
            .unwrap_or(0)
    }

    fn duplicated(&self) -> u64 {
        self.nodes
            .iter()
            .map(|(_, findings)| findings.duplicated)
            .max()
            .unwrap_or(0)
    }

    fn good(&self) -> bool {
        self.acknowledged == self.records
            && self.agree
            && self.nodes.iter().all(|(_, findings)| findings.good())
    }
}

async fn show(
    cluster: &mut Cluster,
    records: &[Bytes],
    story: &Story,
) -> Result<Outcome, CliError> {
    cluster.start_all()?;
    let client = cluster_client(cluster, REQUEST_TIMEOUT)?;
    let leader = wait::leader(cluster, &client, START_TIMEOUT).await?;
    story.tell(&format!("node {leader} was elected leader"));
    let created = client.create_log(LOG, true).await;
    created.map_err(|error| client_error("cannot create the log", &error))?;
    let log = client
        .log(LOG)
        .await
        .map_err(|error| client_error("cannot open the log", &error))?;
    let appender = ProducerAppender::new(&client, &log, load::IN_FLIGHT_MAX);
    let mut load = Load::new(&appender, records);
    let story_of_writing = write(cluster, &client, &mut load, story).await?;
    let acknowledged = load.acknowledged;
    let total = records.len() as u64;
    if let Some(error) = &load.failure {
        story.tell(&format!(
            "{} records were not acknowledged: {error}",
            total - acknowledged
        ));
    }
    story.tell(&format!(
        "all written; waiting until node {} has caught up",
        story_of_writing.killed_node
    ));
    let node_ids = cluster.node_ids();
    wait::caught_up(cluster, &client, node_ids.len(), CATCH_UP_TIMEOUT).await?;
    story.tell("all three hold the same; reading everything back from each node alone");
    let mut nodes = Vec::new();
    let mut first: Option<Vec<Bytes>> = None;
    let mut agree = true;
    for node_id in node_ids {
        let held = read_back(&client, node_id).await?;
        let findings = compare(
            Appended {
                records,
                seqs: &load.seqs,
            },
            &held,
        );
        story.tell(&format!(
            "node {node_id}: {} records, {} lost, {} duplicated",
            thousands(findings.held),
            findings.lost,
            findings.duplicated
        ));
        nodes.push((node_id, findings));
        match &first {
            None => first = Some(held),
            Some(first) => agree &= *first == held,
        }
    }
    Ok(Outcome {
        records: total,
        acknowledged,
        killed_node: story_of_writing.killed_node,
        new_leader: story_of_writing.new_leader,
        election: story_of_writing.election,
        writing: story_of_writing.writing,
        latency_us_p50: load.latency_us.value_at_quantile(0.5),
        latency_us_p99: load.latency_us.value_at_quantile(0.99),
        nodes,
        agree,
        whole: story.started.elapsed(),
    })
}

struct Writing {
    killed_node: u64,
    new_leader: u64,
    election: Duration,
    writing: Duration,
}

/// Writes everything; kills the leader after a third, starts it again after two thirds.
async fn write(
    cluster: &mut Cluster,
    client: &Client,
    load: &mut Load<'_, ProducerAppender>,
    story: &Story,
) -> Result<Writing, CliError> {
    let no_room = |error| client_error("the cluster takes no records", &error);
    let total = load.seqs.len() as u64;
    story.tell(&format!("appending {} lines of text", thousands(total)));
    let started = Instant::now();
    while load.acknowledged < total / 3 {
        load.fill().await.map_err(no_room)?;
        if !load.settle_one().await || load.failure.is_some() {
            break;
        }
    }
    let killed_node = wait::leader(cluster, client, START_TIMEOUT).await?;
    // Asking took a moment: only a full window dies with the leader.
    load.fill().await.map_err(no_room)?;
    cluster.kill(killed_node)?;
    load.reset_pause();
    story.tell(&story.paint.bold(&format!(
        "killed node {killed_node}, the leader, with SIGKILL: {} records acknowledged, {} batches under way",
        thousands(load.acknowledged),
        load.in_flight()
    )));
    // Answers that the dead leader had sent already come first; the pause is behind them.
    while load.acknowledged < 2 * total / 3 {
        load.fill().await.map_err(no_room)?;
        if !load.settle_one().await {
            break;
        }
    }
    let election = load.longest_pause();
    let new_leader = wait::leader(cluster, client, START_TIMEOUT).await?;
    story.tell(&format!(
        "node {new_leader} leads now; the writer waited {} and went on by itself",
        brief(election)
    ));
    cluster.start(killed_node)?;
    story.tell(&format!(
        "started node {killed_node} again, while appending goes on"
    ));
    loop {
        load.fill().await.map_err(no_room)?;
        if !load.settle_one().await {
            break;
        }
    }
    Ok(Writing {
        killed_node,
        new_leader,
        election,
        writing: started.elapsed(),
    })
}

async fn read_back(client: &Client, node_id: u64) -> Result<Vec<Bytes>, CliError> {
    let log = ReadableLog::open(client, LOG, Some(node_id)).await?;
    let mut held = Vec::new();
    let range = ReadRange {
        from_seq: Some(0),
        count: None,
    };
    for_each(&log, range, async |record| {
        held.push(record.payload);
        Ok(())
    })
    .await?;
    Ok(held)
}

fn verdict(outcome: &Outcome) -> Result<(), CliError> {
    if outcome.good() {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, "the promise was not kept")
        .why(format!(
            "{:?}, replicas agree: {}",
            outcome.nodes, outcome.agree
        ))
        .next("run it again with --data-dir to keep the nodes' data and logs, and report it"))
}

fn render(outcome: &Outcome) -> String {
    let mut table = plain_table(&[]);
    let rate = per_second(outcome.acknowledged, outcome.writing) as u64;
    for (name, value) in [
        ("records", thousands(outcome.records)),
        ("acknowledged", thousands(outcome.acknowledged)),
        ("lost", outcome.lost().to_string()),
        ("duplicated", outcome.duplicated().to_string()),
        (
            "replicas alike",
            if outcome.agree { "yes" } else { "no" }.to_owned(),
        ),
        (
            "leader killed",
            format!(
                "node {}, then node {} led",
                outcome.killed_node, outcome.new_leader
            ),
        ),
        (
            "election time",
            format!("{} without an acknowledgement", brief(outcome.election)),
        ),
        (
            "throughput",
            format!("{} records/s, the election included", thousands(rate)),
        ),
        ("p50", brief(Duration::from_micros(outcome.latency_us_p50))),
        ("p99", brief(Duration::from_micros(outcome.latency_us_p99))),
        ("whole demo", brief(outcome.whole)),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    render_table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let findings = Findings {
            held: 40_000,
            ..Findings::default()
        };
        Outcome {
            records: 40_000,
            acknowledged: 40_000,
            killed_node: 2,
            new_leader: 3,
            election: Duration::from_millis(412),
            writing: Duration::from_secs(2),
            latency_us_p50: 9_400,
            latency_us_p99: 431_000,
            nodes: vec![(1, findings), (2, findings), (3, findings)],
            agree: true,
            whole: Duration::from_millis(4_500),
        }
    }

    #[test]
    fn the_table() {
        let expected = "\
records         40,000
acknowledged    40,000
lost            0
duplicated      0
replicas alike  yes
leader killed   node 2, then node 3 led
election time   412 ms without an acknowledgement
throughput      20,000 records/s, the election included
p50             9.4 ms
p99             431 ms
whole demo      4.50 s
";
        assert_eq!(render(&outcome()), expected);
        assert!(outcome().good());
    }

    #[test]
    fn any_fault_fails_the_demo() {
        let bad = Findings {
            lost: 1,
            duplicated: 2,
            ..Findings::default()
        };
        let mut lost = outcome();
        lost.nodes[1].1 = bad;
        assert_eq!((lost.lost(), lost.duplicated(), lost.good()), (1, 2, false));
        assert!(
            !Outcome {
                acknowledged: 39_999,
                ..outcome()
            }
            .good()
        );
        assert!(
            !Outcome {
                agree: false,
                ..outcome()
            }
            .good()
        );
        assert_eq!(verdict(&lost).unwrap_err().exit, Exit::Failure);
    }
}
