//! What a run of appends showed, for people and for programs.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{Measured, Plan};
use super::servers::Usage;
use crate::bench::environment::Environment;
use crate::bench::us_at;

/// The file system under the nodes, and what it takes to make 4 KiB durable there.
#[derive(Clone, Debug, Serialize)]
pub struct Ground {
    /// Machine and file system.
    pub environment: Environment,
    /// Median of one `O_DIRECT|O_DSYNC` write of 4 KiB at a time, measured just before; none where refused.
    pub flush_us: Option<f64>,
}

/// What a node's process used in the time that counts.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Its id.
    pub node_id: u64,
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    /// Resident memory at the end.
    pub resident_kib: u64,
}

/// Latencies in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// See above.
    pub p90_us: f64,
    /// See above.
    pub p99_us: f64,
    /// See above.
    pub p999_us: f64,
    /// See above.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// How many.
    pub count: u64,
}

impl Latency {
    /// Of nanoseconds.
    #[must_use]
    pub fn of(all: &Histogram<u64>) -> Self {
        let at = |percentile| us_at(all, percentile);
        Self {
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            p9999_us: at(99.99),
            max_us: at(100.0),
            count: all.len(),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured.
    pub target: &'static str,
    /// What it calls itself.
    pub version: String,
    /// `closed` or `open`.
    pub r#loop: &'static str,
    /// Of an open loop.
    pub rate: Option<u32>,
    /// Batches unacknowledged at most.
    pub in_flight: u32,
    /// Clients.
    pub clients: u32,
    /// Logs.
    pub logs: u32,
    /// Bytes of a record.
    pub record_bytes: u32,
    /// Records of a batch.
    pub batch_records: u32,
    /// Seconds counted.
    pub seconds: f64,
    /// Batches acknowledged in them.
    pub batches: u64,
    /// Batches acknowledged per second.
    pub batches_per_second: f64,
    /// Records acknowledged per second.
    pub records_per_second: f64,
    /// Records' bytes acknowledged per second.
    pub bytes_per_second: f64,
    /// Of batches.
    pub latency: Latency,
    /// Processor time of all servers per million batches; none of servers elsewhere.
    pub cpu_seconds_per_million: Option<f64>,
    /// Of the own cluster; empty of servers elsewhere.
    pub servers: Vec<Server>,
    /// Of the own cluster.
    pub ground: Option<Ground>,
    /// Records read back and compared, if wanted.
    pub verified_records: Option<u64>,
    /// Every latency, nanoseconds.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// Processes by node id, with what they have used.
pub type Usages = Vec<(u64, Usage)>;

impl Report {
    /// Of one run.
    #[must_use]
    pub fn of(
        target: &'static str,
        plan: &Plan,
        clients: u32,
        logs: u32,
        measured: &Measured<Usages>,
    ) -> Self {
        let [before, after] = &measured.usage;
        let server = |(node_id, after): &(u64, Usage)| {
            let (_, before) = before.iter().find(|(id, _)| id == node_id)?;
            Some(Server {
                node_id: *node_id,
                cpu_seconds: after.seconds_since(*before),
                resident_kib: after.resident_kib,
            })
        };
        let servers: Vec<Server> = after.iter().filter_map(server).collect();
        let seconds = measured.elapsed.as_secs_f64();
        let batches_per_second = measured.batches as f64 / seconds;
        let records_per_second = batches_per_second * f64::from(plan.batch_records);
        let cpu: f64 = servers.iter().map(|server| server.cpu_seconds).sum();
        let is_known = !servers.is_empty() && measured.batches > 0;
        Self {
            target,
            version: String::new(),
            r#loop: if plan.rate.is_some() {
                "open"
            } else {
                "closed"
            },
            rate: plan.rate,
            in_flight: plan.in_flight,
            clients,
            logs,
            record_bytes: plan.record_bytes as u32,
            batch_records: plan.batch_records,
            seconds,
            batches: measured.batches,
            batches_per_second,
            records_per_second,
            bytes_per_second: records_per_second * plan.record_bytes as f64,
            latency: Latency::of(&measured.latency),
            cpu_seconds_per_million: is_known.then(|| cpu * 1e6 / measured.batches as f64),
            servers,
            ground: None,
            verified_records: None,
            histogram: measured.latency.clone(),
        }
    }

    /// What was asked for, in a line.
    #[must_use]
    pub fn load(&self) -> String {
        let rate = self.rate.map(|rate| format!(", {rate} batches/s due"));
        format!(
            "{} loop, {} in flight, {} clients, {} logs, {} x {} B{}",
            self.r#loop,
            self.in_flight,
            self.clients,
            self.logs,
            self.batch_records,
            self.record_bytes,
            rate.unwrap_or_default()
        )
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<18}{value}").expect("a string takes all");
        };
        line("target", format!("{} {}", self.target, self.version));
        if let Some(ground) = &self.ground {
            let place = &ground.environment;
            line(
                "kernel",
                format!("{}, {} processors", place.kernel, place.processors),
            );
            line(
                "files",
                format!("{} ({})", place.directory, place.file_system),
            );
            let flush = ground.flush_us.map(|us| format!("{us:.0} us"));
            line(
                "4 KiB flush p50",
                flush.unwrap_or_else(|| "refused".to_owned()),
            );
        }
        line("load", self.load());
        line(
            "acknowledged",
            format!(
                "{:.0} batches/s, {:.0} records/s, {:.1} MB/s over {:.1} s",
                self.batches_per_second,
                self.records_per_second,
                self.bytes_per_second / 1e6,
                self.seconds
            ),
        );
        let Latency {
            p50_us,
            p90_us,
            p99_us,
            p999_us,
            p9999_us,
            max_us,
            ..
        } = self.latency;
        line(
            "latency, us",
            format!(
                "p50 {p50_us:.0}  p90 {p90_us:.0}  p99 {p99_us:.0}  p99.9 {p999_us:.0}  \
                 p99.99 {p9999_us:.0}  max {max_us:.0}"
            ),
        );
        if let Some(cpu) = self.cpu_seconds_per_million {
            line("servers' CPU", format!("{cpu:.1} s per million batches"));
        }
        for server in &self.servers {
            let resident = server.resident_kib / 1024;
            let of = format!("{:.2} s CPU, {resident} MiB resident", server.cpu_seconds);
            line(&format!("node {}", server.node_id), of);
        }
        if let Some(records) = self.verified_records {
            line(
                "verified",
                format!("{records} records, all as acknowledged"),
            );
        }
        text
    }
}
