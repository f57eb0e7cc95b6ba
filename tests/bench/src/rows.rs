//! From runs to rows: one per path, load and metric, with the raw numbers of every run.

use serde::Serialize;

use crate::load::Load;
use crate::pair::{Place, Side};
use crate::stage::Run;
use crate::statistics::{interval, median};

/// One metric of one load on one path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) path: &'static str,
    pub(crate) load: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// The median of `runs`.
    pub(crate) value: f64,
    /// The median of the ratios within the pairs; none for no mesh itself and for what no mesh does not have.
    pub(crate) ratio_to_no_mesh: Option<f64>,
    /// In which the median of the ratios is with 95 per cent certainty, whatever their distribution; none of fewer than six.
    pub(crate) ratio_interval: Option<[f64; 2]>,
    /// In the order of the rounds; the same round of the other path is the other half of the pair.
    pub(crate) runs: Vec<f64>,
}

/// One number of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    metric: &'static str,
    unit: &'static str,
    value: f64,
    /// Whether no mesh has it too.
    comparable: bool,
}

/// All rounds of one load in one place, by side in the order of [`Side::BOTH`].
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) place: Place,
    pub(crate) load: &'static str,
    pub(crate) sides: [Vec<Vec<Figure>>; 2],
}

impl Figure {
    /// What one run says.
    pub(crate) fn of(load: Load, run: &Run) -> Vec<Self> {
        let Run {
            outcome,
            cpu,
            captured,
        } = run;
        let new = |metric, unit, value| Self {
            metric,
            unit,
            value,
            comparable: true,
        };
        let rate = outcome.units as f64 / outcome.seconds;
        // `scale` makes seconds per byte cpu-seconds per GB, and seconds per other unit microseconds.
        let (first, scale, cpu_unit) = match load {
            Load::Stream { .. } => (
                Some(new("throughput", "Gbit/s", rate * 8.0 / 1e9)),
                1e9,
                "cpu-s/GB",
            ),
            Load::RoundTrips { .. } => (None, 1e6, "us/round trip"),
            Load::Connections { .. } => (Some(new("rate", "connections/s", rate)), 1e6, "us/connection"),
        };
        let per_unit = |seconds: f64| seconds / outcome.performed as f64 * scale;
        let mut figures: Vec<Self> = first.into_iter().collect();
        if let Some(latency) = outcome.latency {
            figures.push(new("latency_p50", "us", latency.p50));
            figures.push(new("latency_p99", "us", latency.p99));
        }
        figures.push(new("all_cpu", cpu_unit, per_unit(cpu.all)));
        figures.push(Self {
            comparable: false,
            ..new("agent_cpu", cpu_unit, per_unit(cpu.agents))
        });
        figures.push(Self {
            comparable: false,
            ..new("captured", "connections", *captured)
        });
        figures
    }
}

impl Rounds {
    pub(crate) fn new(place: Place, load: &'static str) -> Self {
        Self {
            place,
            load,
            sides: [Vec::new(), Vec::new()],
        }
    }

    /// The rows of both sides, metric by metric.
    pub(crate) fn rows(&self, control: bool) -> Vec<Row> {
        let [plain, _] = &self.sides;
        let Some(first) = plain.first() else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        for (index, kind) in first.iter().enumerate() {
            let [base, mesh] = self.sides.each_ref().map(|side| column(side, index));
            let ratios: Vec<f64> = base
                .iter()
                .zip(&mesh)
                .filter(|(base, _)| **base > 0.0)
                .map(|(base, mesh)| mesh / base)
                .collect();
            let between = interval(&ratios).map(|ends| ends.map(rounded));
            let row = |side, runs: &[f64], ratio: Option<f64>| {
                Some(Row {
                    path: self.place.path(side, control),
                    load: self.load,
                    metric: kind.metric,
                    unit: kind.unit,
                    value: rounded(median(runs)?),
                    ratio_to_no_mesh: ratio.map(rounded),
                    ratio_interval: ratio.and(between),
                    runs: runs.iter().copied().map(rounded).collect(),
                })
            };
            if kind.comparable {
                rows.extend(row(Side::NoMesh, &base, None));
                rows.extend(row(Side::Mesh, &mesh, median(&ratios)));
            } else {
                rows.extend(row(Side::Mesh, &mesh, None));
            }
        }
        rows
    }
}

fn column(side: &[Vec<Figure>], index: usize) -> Vec<f64> {
    side.iter()
        .filter_map(|run| run.get(index))
        .map(|figure| figure.value)
        .collect()
}

/// Five significant digits: more than the measurement has, and readable.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::load::{Latency, Outcome};

    fn run(seconds: f64, agents: f64) -> Vec<Figure> {
        let outcome = Outcome {
            seconds,
            units: 1_000_000_000,
            performed: 1_000_000_000,
            latency: None,
        };
        let load = Load::Stream {
            write: 1,
            millis: 1,
            streams: 1,
        };
        let run = Run {
            outcome,
            cpu: Cpu { all: 3.0, agents },
            captured: 2.0,
        };
        Figure::of(load, &run)
    }

    #[test]
    fn ratios_are_taken_within_pairs() {
        let mut rounds = Rounds::new(Place::CrossNode, "stream_64k");
        // The machine slows down by half between the rounds: the ratio does not.
        rounds.sides = [
            vec![run(1.0, 0.0), run(2.0, 0.0)],
            vec![run(2.0, 0.5), run(4.0, 0.7)],
        ];
        let rows = rounds.rows(false);
        let find = |path: &str, metric: &str| rows.iter().find(|r| r.path == path && r.metric == metric);
        let mesh = find("cross_node", "throughput").expect("a row");
        assert_eq!(mesh.runs, [4.0, 2.0]);
        assert_eq!((mesh.value, mesh.ratio_to_no_mesh), (3.0, Some(0.5)));
        let plain = find("no_mesh_cross_node", "throughput").expect("a row");
        assert_eq!((plain.value, plain.ratio_to_no_mesh), (6.0, None));
        let cpu = find("cross_node", "agent_cpu").expect("a row");
        assert_eq!(
            (cpu.value, cpu.unit, cpu.ratio_to_no_mesh),
            (0.6, "cpu-s/GB", None)
        );
        assert!(
            find("no_mesh_cross_node", "agent_cpu").is_none(),
            "no mesh has no agent"
        );
    }

    #[test]
    fn time_per_unit_counts_the_warm_up_too() {
        let outcome = Outcome {
            seconds: 1.0,
            units: 800,
            performed: 1_000,
            latency: Some(Latency { p50: 5.0, p99: 9.0 }),
        };
        let load = Load::RoundTrips {
            message: 64,
            millis: 1_000,
        };
        let run = Run {
            outcome,
            cpu: Cpu {
                all: 0.02,
                agents: 0.01,
            },
            captured: 1.0,
        };
        let figures = Figure::of(load, &run);
        let names: Vec<&str> = figures.iter().map(|figure| figure.metric).collect();
        assert_eq!(
            names,
            ["latency_p50", "latency_p99", "all_cpu", "agent_cpu", "captured"]
        );
        assert!((figures[3].value - 10.0).abs() < 1e-9, "{:?}", figures[3]);
    }
}
