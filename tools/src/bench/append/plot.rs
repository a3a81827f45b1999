//! Latency by percentile as a picture.
//!
//! Across, percentiles by how many nines they have; up, the latency, both so that the slow few are seen. Of several
//! rounds a line is all their latencies together.

use std::collections::BTreeMap;
use std::error::Error;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::report::Report;

const SIZE: (u32, u32) = (960, 540);

/// Up to here, in nines: 99.999%.
const NINES_MAX: f64 = 5.0;
const STEPS: u32 = 200;

const COLOURS: [RGBColor; 4] = [
    RGBColor(20, 90, 200),
    RGBColor(120, 120, 120),
    RGBColor(210, 100, 20),
    RGBColor(150, 30, 110),
];

/// The runs' latencies, a line for each target, as SVG.
///
/// # Errors
/// What cannot be drawn: there is no latency at all.
pub fn svg(runs: &[Report]) -> Result<String, Box<dyn Error>> {
    let mut targets: BTreeMap<&str, Histogram<u64>> = BTreeMap::new();
    for run in runs {
        let all = targets
            .entry(run.target)
            .or_insert_with(|| Histogram::new_from(&run.histogram));
        *all += &run.histogram;
    }
    let lines: Vec<(&str, Vec<(f64, f64)>)> = targets
        .iter()
        .filter(|(_, all)| !all.is_empty())
        .map(|(target, all)| (*target, points(all)))
        .collect();
    let latencies = || {
        lines
            .iter()
            .flat_map(|(_, points)| points.iter().map(|point| point.1))
    };
    let lowest = latencies().fold(f64::INFINITY, f64::min);
    let highest = latencies().fold(0.0, f64::max);
    if highest <= 0.0 {
        return Err("nothing was acknowledged".into());
    }
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let title = runs.first().map(Report::load).unwrap_or_default();
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..NINES_MAX, (lowest * 0.8..highest * 1.2).log_scale())?;
        chart
            .configure_mesh()
            .x_labels(6)
            .x_label_formatter(&|nines| percentile_label(*nines))
            .x_desc("percentile")
            .y_label_formatter(&|us| latency_label(*us))
            .y_desc("latency until the acknowledgement")
            .draw()?;
        for ((target, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(*target)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
        root.present()?;
    }
    Ok(text)
}

/// Microseconds by nines, up to the last percentile that a single latency decides.
fn points(all: &Histogram<u64>) -> Vec<(f64, f64)> {
    let resolved = (all.len() as f64).log10().min(NINES_MAX);
    let nines = (0..=STEPS).map(|step| f64::from(step) * resolved / f64::from(STEPS));
    let point = |nines: f64| {
        let quantile = 1.0 - 10_f64.powf(-nines);
        (nines, all.value_at_quantile(quantile) as f64 / 1e3)
    };
    nines.map(point).collect()
}

fn percentile_label(nines: f64) -> String {
    let decimals = (nines - 2.0).max(0.0).round() as usize;
    format!("{:.decimals$}", 100.0 * (1.0 - 10_f64.powf(-nines)))
}

pub(super) fn latency_label(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", us / 1e6),
        us if us >= 1e3 => format!("{} ms", us / 1e3),
        us => format!("{us} us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::append::compare::tests::run;

    #[test]
    fn every_target_has_a_line_and_a_name() {
        let runs = [
            run("drave", 100.0),
            run("floor", 200.0),
            run("drave", 120.0),
        ];
        let svg = svg(&runs).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("drave").count(), 1, "{svg}");
        assert_eq!(svg.matches("floor").count(), 1);
    }

    #[test]
    fn labels_are_for_people() {
        let labels = [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile_label);
        assert_eq!(labels, ["0", "90", "99", "99.9", "99.99"]);
        let labels = [500.0, 2_000.0, 3e6].map(latency_label);
        assert_eq!(labels, ["500 us", "2 ms", "3 s"]);
    }

    #[test]
    fn nothing_is_no_picture() {
        assert!(svg(&[]).is_err());
    }
}
