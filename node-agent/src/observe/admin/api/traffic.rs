//! What `/traffic` answers.

use serde::{Deserialize, Serialize};

use crate::observe::metrics::{Pair, Traffic};
use crate::observe::record::Reporter;

/// `/traffic`: what went between workloads since the agent's start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// The agent's node.
    pub agent_node: String,
    /// Whether every readiness check passes.
    pub ready: bool,
    /// Connections the agent carries.
    pub connections: usize,
    /// The counters; a pair that was idle for long may leave the list.
    pub pairs: Vec<TrafficRow>,
}

/// One pair of workloads, as one side of the agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficRow {
    /// `outbound` for pods of this node that dial, `inbound` for those that are dialled.
    pub direction: String,
    /// `NAMESPACE/WORKLOAD`, or `unknown`.
    pub source: String,
    /// The same; the Service where no workload is known.
    pub destination: String,
    /// Connections established.
    pub opened: u64,
    /// Of those, ended.
    pub closed: u64,
    /// Connections never established, denied ones among them.
    pub failed: u64,
    /// Bytes towards the destination.
    pub to_destination: u64,
    /// Bytes towards the source.
    pub to_source: u64,
}

impl From<(Pair, Traffic)> for TrafficRow {
    fn from((pair, traffic): (Pair, Traffic)) -> Self {
        let reporter = Reporter::ALL
            .into_iter()
            .find(|reporter| reporter.as_str() == pair.reporter);
        Self {
            direction: reporter.map_or("unknown", Reporter::direction).to_owned(),
            source: pair.source,
            destination: pair.destination,
            opened: traffic.opened,
            closed: traffic.closed,
            failed: traffic.failed,
            to_destination: traffic.to_destination,
            to_source: traffic.to_source,
        }
    }
}
