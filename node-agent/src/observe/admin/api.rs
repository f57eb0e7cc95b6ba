//! What the admin socket answers, as the agent writes it and the CLI reads it.

mod certificate;
mod explain;
mod service;
mod traffic;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::checks::CheckResult;
use super::super::connections::Live;
pub use certificate::{CertificateReport, CertificateRow, RevocationListRow, RootRow};
pub use explain::{
    CaptureAnswer, CaptureReport, Conclusion, Decision, Exclusions, ExplainDestination, ExplainEndpoint,
    ExplainReport, ExplainSource, Explanation, FieldStep, MtlsStep, PolicyExplanation, PolicyStep, RuleStep,
    Scope,
};
pub use tramline_core::authz::{ConditionOverview, PolicyOverview};

pub use service::{EndpointPortRow, EndpointRow, ServicePortRow, ServiceRow};
pub use traffic::{TrafficReport, TrafficRow};

/// `/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether every readiness check passes.
    pub ready: bool,
    /// The readiness checks.
    pub checks: Vec<CheckResult>,
    /// Connections it carries.
    pub connections: usize,
    /// The agent's log level.
    pub log_level: String,
    /// The rest, as the agent knows it.
    #[serde(flatten)]
    pub agent: AgentStatus,
}

/// The part of [`Status`] that the agent's wiring knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Name of the node.
    pub node: String,
    /// Name of the instance (`--instance`).
    pub instance: String,
    /// Trust domain of its identities.
    pub trust_domain: String,
    /// Generation of the configuration in use.
    pub generation: u64,
    /// Where it comes from: `directory`, `last_good` (the state directory), or `nothing` while none is in use.
    #[serde(default)]
    pub config_from: String,
    /// How many errors the latest configuration has.
    pub config_errors: usize,
    /// The first of them.
    #[serde(default)]
    pub config_problems: Vec<String>,
    /// Pods of this node that are enrolled.
    pub enrolled: usize,
    /// Further facts, such as kernel counters, by name.
    pub details: BTreeMap<String, String>,
}

/// One row of `/workloads`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadRow {
    /// UID of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Node it runs on.
    pub node: String,
    /// Its SPIFFE identity.
    pub identity: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `hbone` or `plaintext`: how others reach it.
    pub protocol: String,
    /// Whether Services send to it.
    pub ready: bool,
    /// `enrolled`, `remote`, `not enrolled`, or why enrolment failed.
    pub state: String,
}

/// `/connections`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionList {
    /// How many there are.
    pub total: usize,
    /// The first of them, the oldest first.
    pub connections: Vec<ConnectionRow>,
}

/// One live connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// Counts up from the agent's start.
    pub id: u64,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// The way the bytes take, as in the access log.
    pub path: String,
    /// `mutual_tls` or `unknown`.
    pub security: String,
    /// The client's address.
    pub source_address: SocketAddr,
    /// `NAMESPACE/NAME` of the client's pod.
    pub source: Option<String>,
    /// The client's identity.
    pub source_identity: Option<String>,
    /// What the client dialled.
    pub original_destination: SocketAddr,
    /// What the agent dialled.
    pub destination_address: SocketAddr,
    /// `NAMESPACE/NAME` of the server's pod.
    pub destination: Option<String>,
    /// The server's identity.
    pub destination_identity: Option<String>,
    /// Host name of the Service.
    pub service: Option<String>,
    /// Bytes towards the destination.
    pub to_destination: u64,
    /// Bytes towards the source.
    pub to_source: u64,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Whether it is up from end to end.
    pub established: bool,
}

impl ConnectionRow {
    pub(super) fn of(live: &Live, age: Duration) -> Self {
        let state = live.state();
        let info = &state.info;
        let pod = |workload: &std::sync::Arc<tramline_core::workload::Workload>| {
            format!("{}/{}", workload.namespace, workload.name)
        };
        let moved = live.counters.to_destination() + live.counters.to_source() > 0;
        Self {
            id: live.id,
            direction: info.reporter.direction().to_owned(),
            path: info.path.as_str().to_owned(),
            security: info.security_policy.as_str().to_owned(),
            source_address: info.source_address,
            source: info.source.as_ref().map(pod),
            source_identity: info.source_identity.as_ref().map(ToString::to_string),
            original_destination: info.original_destination,
            destination_address: info.destination_address,
            destination: info.destination.as_ref().map(pod),
            destination_identity: info.destination_identity.as_ref().map(ToString::to_string),
            service: info.service.as_ref().map(|service| service.hostname.to_string()),
            to_destination: live.counters.to_destination(),
            to_source: live.counters.to_source(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            established: state.series.is_some() || moved,
        }
    }
}

/// `/config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// Generation in use.
    pub generation: u64,
    /// `KIND NAMESPACE/NAME` of every object in use.
    pub objects: Vec<String>,
    /// Objects refused, and why.
    pub errors: Vec<String>,
}
