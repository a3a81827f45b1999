//! Latency and memory over time, beside what was done to the nodes meanwhile.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use plotters::prelude::*;
use serde::Serialize;

use super::load::Interval;
use super::report::{Ground, Latency, Usages};

const SIZE: (u32, u32) = (1_200, 760);
const LATENCY_HEIGHT: u32 = 480;

const COLOURS: [RGBColor; 3] = [
    RGBColor(20, 90, 200),
    RGBColor(210, 100, 20),
    RGBColor(120, 120, 120),
];

/// A piece of the time.
#[derive(Clone, Debug, Serialize)]
pub struct Piece {
    /// Where it ends, in seconds.
    pub at: f64,
    /// Records acknowledged in it.
    pub records: u64,
    /// Microseconds from when a record was due until its acknowledgement; half of them.
    pub p50_us: f64,
    /// All but one of a thousand.
    pub p999_us: f64,
    /// All.
    pub max_us: f64,
    /// Resident memory of each node that runs, in KiB.
    pub resident_kib: Vec<(u64, u64)>,
}

impl From<&Interval<Usages>> for Piece {
    fn from(interval: &Interval<Usages>) -> Self {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let resident = interval.usage.iter();
        Self {
            at: interval.end.as_secs_f64(),
            records: interval.batches,
            p50_us: us(interval.p50),
            p999_us: us(interval.p999),
            max_us: us(interval.max),
            resident_kib: resident
                .map(|(node, usage)| (*node, usage.resident_kib))
                .collect(),
        }
    }
}

/// What was done to a node.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    /// When, in seconds.
    pub at: f64,
    /// What.
    pub what: String,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    /// Records due per second.
    pub rate: u32,
    /// Bytes of a record.
    pub record_bytes: u32,
    /// Of the whole time.
    pub latency: Latency,
    /// The longest that a record took which was acknowledged before the leader was killed, in microseconds.
    pub longest_before_election_us: f64,
    /// Likewise after that: it has the election in it.
    pub longest_after_election_us: f64,
    /// The longest election timeout of the nodes, in microseconds.
    pub election_timeout_us: f64,
    /// Whether the node that was away longest got a snapshot.
    pub snapshot_received: bool,
    /// What was done.
    pub happenings: Vec<Happening>,
    /// The time, piece by piece.
    pub pieces: Vec<Piece>,
    /// Machine, file system, and what a flush costs.
    pub ground: Ground,
}

impl Timeline {
    /// The longest latency in the pieces that end in a range of seconds.
    #[must_use]
    pub fn longest_us(pieces: &[Piece], from: f64, to: f64) -> f64 {
        let within = pieces
            .iter()
            .filter(|piece| piece.at > from && piece.at <= to);
        within.map(|piece| piece.max_us).fold(0.0, f64::max)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let (mut text, place) = (String::new(), &self.ground.environment);
        let _ = writeln!(
            text,
            "{}, {} processors, {} ({})",
            place.kernel, place.processors, place.directory, place.file_system
        );
        let seconds = self.pieces.last().map_or(0.0, |piece| piece.at);
        let Latency {
            p50_us,
            p99_us,
            p999_us,
            max_us,
            ..
        } = self.latency;
        let _ = writeln!(
            text,
            "{} records of {} bytes due per second, for {seconds:.0} s\n\
             latency  p50 {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {p999_us:.0} us, longest {max_us:.0} us\n\
             longest  {:.1} ms before the leader was killed, {:.1} ms after (election timeout up to {:.0} ms)\n\
             snapshot {}",
            self.rate,
            self.record_bytes,
            self.longest_before_election_us / 1e3,
            self.longest_after_election_us / 1e3,
            self.election_timeout_us / 1e3,
            if self.snapshot_received {
                "received"
            } else {
                "not needed"
            },
        );
        for happening in &self.happenings {
            let _ = writeln!(text, "{:8.1} s  {}", happening.at, happening.what);
        }
        let nodes: std::collections::BTreeSet<u64> = self
            .pieces
            .iter()
            .flat_map(|piece| piece.resident_kib.iter().map(|it| it.0))
            .collect();
        for node in nodes {
            let kib: Vec<u64> = self.resident(node).map(|(_, kib)| kib).collect();
            let (first, last) = (kib.first().unwrap_or(&0), kib.last().unwrap_or(&0));
            let _ = writeln!(
                text,
                "node {node}: resident {} MiB at first, {} MiB at the end, {} MiB at most",
                first >> 10,
                last >> 10,
                kib.iter().max().unwrap_or(&0) >> 10,
            );
        }
        text
    }

    fn resident(&self, node: u64) -> impl Iterator<Item = (f64, u64)> {
        let pieces = self.pieces.iter();
        pieces.filter_map(move |piece| {
            let kib = piece.resident_kib.iter().find(|it| it.0 == node)?.1;
            Some((piece.at, kib))
        })
    }

    /// A picture: latency above, memory below, both over the same seconds.
    ///
    /// # Errors
    /// What cannot be drawn: there is nothing.
    pub fn svg(&self) -> Result<String, Box<dyn Error>> {
        let end = self.pieces.last().ok_or("nothing was measured")?.at;
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let (above, below) = root.split_vertically(LATENCY_HEIGHT);
            self.draw_latency(&above, end)?;
            self.draw_memory(&below, end)?;
            root.present()?;
        }
        Ok(text)
    }

    fn draw_latency(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        end: f64,
    ) -> Result<(), Box<dyn Error>> {
        let values = self
            .pieces
            .iter()
            .flat_map(|piece| [piece.p50_us, piece.max_us]);
        let values: Vec<f64> = values.filter(|us| *us > 0.0).collect();
        let lowest = values
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
            .min(1e3);
        let highest = values.iter().copied().fold(1e3, f64::max);
        let title = format!(
            "{} records of {} bytes due per second",
            self.rate, self.record_bytes
        );
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end, (lowest * 0.8..highest * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .y_label_formatter(&|us| super::plot::latency_label(*us))
            .y_desc("latency until the acknowledgement")
            .x_label_formatter(&|at| format!("{at:.0} s"))
            .draw()?;
        for happening in &self.happenings {
            let (low, high) = (lowest * 0.8, highest * 1.5);
            let line = [(happening.at, low), (happening.at, high)];
            chart.draw_series(LineSeries::new(line, RED.mix(0.4)))?;
            let style = ("sans-serif", 11)
                .into_font()
                .transform(FontTransform::Rotate90);
            let place = (happening.at + end / 300.0, high * 0.8);
            let label = Text::new(happening.what.clone(), place, style.color(&RED));
            chart.draw_series(std::iter::once(label))?;
        }
        for (at, (name, colour)) in ["p50", "p99.9", "longest"]
            .into_iter()
            .zip(COLOURS)
            .enumerate()
        {
            let points = self.pieces.iter().filter(|piece| piece.records > 0);
            let points = points.map(|it| (it.at, [it.p50_us, it.p999_us, it.max_us][at]));
            let style = colour.stroke_width(1);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        legend(&mut chart)?;
        Ok(())
    }

    fn draw_memory(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        end: f64,
    ) -> Result<(), Box<dyn Error>> {
        let all = self.pieces.iter().flat_map(|piece| &piece.resident_kib);
        let highest = all.map(|(_, kib)| *kib).max().unwrap_or(0) as f64 / 1024.0;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end, 0.0..(highest * 1.2).max(1.0))?;
        chart
            .configure_mesh()
            .y_desc("resident, MiB")
            .x_label_formatter(&|at| format!("{at:.0} s"))
            .draw()?;
        for (node, colour) in (1..=3).zip(COLOURS) {
            let points = self
                .resident(node)
                .map(|(at, kib)| (at, kib as f64 / 1024.0));
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(format!("node {node}"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        legend(&mut chart)?;
        Ok(())
    }
}

fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
) -> Result<(), Box<dyn Error>>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

/// How long a node is away when nobody says so.
#[must_use]
pub fn away_for(duration: Duration) -> Duration {
    (duration / 10).min(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::environment::Environment;
    use crate::bench::histogram;

    /// Of this machine, here.
    fn ground() -> Ground {
        let file = tempfile::NamedTempFile::new().unwrap();
        Ground {
            environment: Environment::of(&std::env::temp_dir(), file.path()).unwrap(),
            flush_us: None,
        }
    }

    fn timeline() -> Timeline {
        let piece = |at: u32| Piece {
            at: f64::from(at),
            records: u64::from(at),
            p50_us: 100.0,
            p999_us: 200.0,
            max_us: f64::from(at) * 1_000.0,
            resident_kib: vec![(1, 50 << 10), (2, u64::from(40 + at) << 10)],
        };
        Timeline {
            rate: 1_000,
            record_bytes: 512,
            latency: Latency::of(&histogram()),
            longest_before_election_us: 5_000.0,
            longest_after_election_us: 9_000.0,
            election_timeout_us: 600_000.0,
            snapshot_received: true,
            happenings: vec![Happening {
                at: 3.0,
                what: "node 2 (follower) killed".to_owned(),
            }],
            pieces: (1..=9).map(piece).collect(),
            ground: ground(),
        }
    }

    #[test]
    fn the_longest_is_of_the_seconds_asked_for() {
        let pieces = timeline().pieces;
        assert_eq!(Timeline::longest_us(&pieces, 0.0, 4.5), 4_000.0);
        assert_eq!(Timeline::longest_us(&pieces, 4.5, f64::INFINITY), 9_000.0);
        assert_eq!(Timeline::longest_us(&pieces, 100.0, 200.0), 0.0);
    }

    #[test]
    fn text_and_picture_tell_what_was_done_and_what_it_took() {
        let timeline = timeline();
        let text = timeline.text();
        assert!(
            text.contains("5.0 ms before the leader was killed, 9.0 ms after"),
            "{text}"
        );
        assert!(text.contains("snapshot received"), "{text}");
        assert!(text.contains("3.0 s  node 2 (follower) killed"), "{text}");
        assert!(
            text.contains("node 2: resident 41 MiB at first, 49 MiB at the end"),
            "{text}"
        );
        let svg = timeline.svg().unwrap();
        for part in ["p99.9", "longest", "node 1", "node 2 (follower) killed"] {
            assert!(svg.contains(part), "{part}");
        }
        let empty = Timeline {
            pieces: Vec::new(),
            ..timeline
        };
        assert!(empty.svg().is_err());
    }

    #[test]
    fn nodes_are_away_for_a_part_of_a_short_run() {
        assert_eq!(away_for(Duration::from_secs(20)), Duration::from_secs(2));
        assert_eq!(away_for(Duration::from_secs(900)), Duration::from_secs(10));
    }
}
