//! The TCP counters by pair of workloads, for people: the same numbers as the metrics, with fewer labels.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Metrics;
use super::labels::{TCP_LABELS, TcpLabels};

/// Between which workloads, as one side of the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Istio's `reporter`: `source` or `destination`.
    pub reporter: String,
    /// `NAMESPACE/WORKLOAD`, or `unknown`.
    pub source: String,
    /// The same; the Service where no workload is known.
    pub destination: String,
}

/// What went between them since the agent's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections established.
    pub opened: u64,
    /// Of those, ended.
    pub closed: u64,
    /// Connections never established.
    pub failed: u64,
    /// Bytes towards the destination.
    pub to_destination: u64,
    /// Bytes towards the source.
    pub to_source: u64,
}

impl Metrics {
    /// Sums the label sets; their number is bounded, so is this.
    pub(in crate::observe) fn traffic(&self) -> BTreeMap<Pair, Traffic> {
        let mut pairs = BTreeMap::<Pair, Traffic>::new();
        for series in self.series.all() {
            let sum = pairs.entry(pair(&series.labels)).or_default();
            let add = |to: &mut u64, from: &std::sync::atomic::AtomicU64| {
                *to = to.saturating_add(from.load(Ordering::Relaxed));
            };
            add(&mut sum.opened, &series.opened);
            add(&mut sum.closed, &series.closed);
            add(&mut sum.failed, &series.failed);
            add(&mut sum.to_destination, &series.received);
            add(&mut sum.to_source, &series.sent);
        }
        // The two sets for what found no room are always there.
        pairs.retain(|_, traffic| *traffic != Traffic::default());
        pairs
    }
}

fn pair(labels: &TcpLabels) -> Pair {
    let label = |name: &str| {
        let at = TCP_LABELS.iter().position(|label| *label == name);
        at.and_then(|at| labels.0.get(at))
            .map_or("unknown", |label| label.as_str())
    };
    let named = |namespace: &str, name: &str| match (label(namespace), label(name)) {
        (_, "unknown") => None,
        ("unknown" | "other", name) => Some(name.to_owned()),
        (namespace, name) => Some(format!("{namespace}/{name}")),
    };
    let unknown = || "unknown".to_owned();
    Pair {
        reporter: label("reporter").to_owned(),
        source: named("source_workload_namespace", "source_workload").unwrap_or_else(unknown),
        destination: named("destination_workload_namespace", "destination_workload")
            .or_else(|| named("destination_service_namespace", "destination_service_name"))
            .unwrap_or_else(unknown),
    }
}
