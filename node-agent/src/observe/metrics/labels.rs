//! Istio's standard labels of the TCP metrics, made once per connection.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tramline_core::identity::SpiffeId;
use tramline_core::workload::Workload;

use super::super::record::{ConnectionInfo, Reporter};

/// Names and order as in Istio's `istio_tcp_*` metrics (<https://istio.io/latest/docs/reference/config/metrics/>).
pub(super) const TCP_LABELS: [&str; 23] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];

/// Position of `response_flags`.
const RESPONSE_FLAGS: usize = 21;
/// Istio's `response_flags` of a connection with nothing to flag.
pub(super) const NO_FLAGS: &str = "-";
/// Istio's value for what is not known.
pub(super) const UNKNOWN: Label = Label::Fixed("unknown");
/// The value of every label that is not kept once the bound on label sets is reached.
pub(super) const OTHER: Label = Label::Fixed("other");

/// A label value that shares its text with the configuration where it can.
#[derive(Debug, Clone)]
pub(super) enum Label {
    Fixed(&'static str),
    Shared(Arc<str>),
}

impl Label {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Shared(text) => text,
        }
    }

    fn shared(text: &Arc<str>) -> Self {
        if text.is_empty() {
            UNKNOWN
        } else {
            Self::Shared(Arc::clone(text))
        }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// The values of [`TCP_LABELS`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TcpLabels(pub(super) [Label; 23]);

impl TcpLabels {
    /// The labels of a connection, with `response_flags` still `-`.
    pub(super) fn of(info: &ConnectionInfo, [source_cluster, destination_cluster]: [Label; 2]) -> Self {
        let source = Peer::of(info.source.as_deref(), info.source_identity.as_ref());
        let destination = Peer::of(info.destination.as_deref(), info.destination_identity.as_ref());
        let service = info.service.as_deref();
        Self([
            Label::Fixed(info.reporter.as_str()),
            source.workload,
            source.canonical_service,
            source.canonical_revision.clone(),
            source.namespace,
            source.principal,
            source.app,
            source.canonical_revision,
            source_cluster,
            service.map_or(UNKNOWN, |service| Label::shared(&service.hostname)),
            service.map_or(UNKNOWN, |service| Label::shared(&service.namespace)),
            service.map_or(UNKNOWN, |service| Label::shared(&service.name)),
            destination.workload,
            destination.canonical_service,
            destination.canonical_revision.clone(),
            destination.namespace,
            destination.principal,
            destination.app,
            destination.canonical_revision,
            destination_cluster,
            Label::Fixed("tcp"),
            Label::Fixed(NO_FLAGS),
            Label::Fixed(info.security_policy.as_str()),
        ])
    }

    /// What every further label set is counted under once there are too many.
    pub(super) fn other(reporter: Reporter) -> Self {
        let mut labels = [const { OTHER }; 23];
        labels[0] = Label::Fixed(reporter.as_str());
        Self(labels)
    }

    pub(super) fn with_response_flags(mut self, flags: &'static str) -> Self {
        self.0[RESPONSE_FLAGS] = Label::Fixed(flags);
        self
    }
}

/// The labels that both ends have.
struct Peer {
    workload: Label,
    canonical_service: Label,
    canonical_revision: Label,
    namespace: Label,
    principal: Label,
    app: Label,
}

impl Peer {
    fn of(workload: Option<&Workload>, identity: Option<&SpiffeId>) -> Self {
        let principal = identity.map_or(UNKNOWN, |identity| Label::shared(identity.uri()));
        let Some(workload) = workload else {
            return Self {
                workload: UNKNOWN,
                canonical_service: UNKNOWN,
                canonical_revision: UNKNOWN,
                namespace: UNKNOWN,
                principal,
                app: UNKNOWN,
            };
        };
        Self {
            workload: Label::shared(&workload.workload_name),
            canonical_service: Label::shared(&workload.canonical_name),
            canonical_revision: Label::shared(&workload.canonical_revision),
            namespace: Label::shared(&workload.namespace),
            principal,
            // As ztunnel: app and version repeat the canonical name and revision.
            app: Label::shared(&workload.canonical_name),
        }
    }
}
