//! What appends cost while one thing grows, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::append::report::Ground;
use crate::output::{plain_table, render_table};

/// What a cluster has and what is appended to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Setup {
    /// Nodes.
    pub nodes: u32,
    /// Logs.
    pub logs: u32,
    /// Connections to the leader.
    pub connections: u32,
    /// Bytes of a record.
    pub record_bytes: u32,
    /// Appends unacknowledged at most.
    pub in_flight: u32,
}

/// What a point cost.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Appends acknowledged per second.
    pub acks_per_second: f64,
    /// Their records' MiB per second.
    pub mib_per_second: f64,
    /// Appends acknowledged per second of processor time of all nodes; none where that is less than can be told.
    pub acks_per_cpu_second: Option<f64>,
    /// Processors that all nodes kept busy.
    pub servers_cpu: f64,
    /// Processors that the load kept busy.
    pub load_cpu: f64,
    /// Resident memory of the largest node, at its most, MiB.
    pub peak_mib: f64,
    /// Until the acknowledgement, microseconds.
    pub p50_us: f64,
    /// See above.
    pub p99_us: f64,
}

/// One value of what grows.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// What grows.
    pub dimension: &'static str,
    /// All of it.
    pub setup: Setup,
    /// None if it was left out.
    pub cost: Option<Cost>,
    /// Why it was left out.
    pub left_out: Option<String>,
}

impl Point {
    /// Of that which grows.
    fn value(&self) -> u32 {
        match self.dimension {
            "nodes" => self.setup.nodes,
            "logs" => self.setup.logs,
            "connections" => self.setup.connections,
            _ => self.setup.record_bytes,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    /// Machine, file system, and what a flush costs.
    pub ground: Ground,
    /// Seconds for each point.
    pub seconds: f64,
    /// In the order in which they were measured.
    pub points: Vec<Point>,
}

impl Growth {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let (mut text, place) = (String::new(), &self.ground.environment);
        let _ = writeln!(
            text,
            "{}, {} processors, {} ({}), {} s each",
            place.kernel, place.processors, place.directory, place.file_system, self.seconds
        );
        let mut table = plain_table(&[
            "GROWS",
            "TO",
            "IN FLIGHT",
            "ACKS/S",
            "MiB/S",
            "ACKS/CPU S",
            "NODES' CPU",
            "LOAD'S CPU",
            "MAX RSS MiB",
            "P50 us",
            "P99 us",
        ]);
        for point in &self.points {
            let mut row = vec![
                point.dimension.to_owned(),
                point.value().to_string(),
                point.setup.in_flight.to_string(),
            ];
            match &point.cost {
                Some(cost) => {
                    let per_cpu = cost.acks_per_cpu_second.map(|acks| format!("{acks:.0}"));
                    row.extend([
                        format!("{:.0}", cost.acks_per_second),
                        format!("{:.1}", cost.mib_per_second),
                        per_cpu.unwrap_or_else(|| "-".to_owned()),
                        format!("{:.2}", cost.servers_cpu),
                        format!("{:.2}", cost.load_cpu),
                        format!("{:.0}", cost.peak_mib),
                        format!("{:.0}", cost.p50_us),
                        format!("{:.0}", cost.p99_us),
                    ]);
                }
                None => row.extend(vec!["-".to_owned(); 8]),
            }
            table.add_row(row);
        }
        text.push_str(&render_table(table));
        for point in &self.points {
            if let Some(why) = &point.left_out {
                let (what, value) = (point.dimension, point.value());
                let _ = writeln!(text, "left out: {what} {value}: {why}");
            }
        }
        text
    }
}
