//! Services as the mesh routes to them: addresses resolved, ports numbered, endpoints bound to workloads.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::workload::WorkloadUid;

/// One TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty where a single port has none.
    pub name: Arc<str>,
    /// What clients dial.
    pub port: u16,
    /// `appProtocol`, for telemetry.
    pub app_protocol: Option<Arc<str>>,
}

/// Whether an endpoint takes new connections; of two answers about one address the later in this order holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Readiness {
    /// It takes none.
    NotReady,
    /// It is ending but still serves: it takes connections while no other endpoint is ready (KEP-1669), so that a
    /// rollout of a single pod loses none.
    Draining,
    /// It takes them.
    Ready,
}

impl Readiness {
    /// What an EndpointSlice's conditions mean; a missing one counts as the API says it does.
    pub fn of_conditions(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Self {
        match (
            ready.unwrap_or(true),
            serving.unwrap_or(true),
            terminating.unwrap_or(false),
        ) {
            (true, ..) => Self::Ready,
            (false, true, true) => Self::Draining,
            (false, ..) => Self::NotReady,
        }
    }
}

/// `spec.trafficDistribution`: which endpoints are preferred while any of them is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Not given: all the same.
    #[default]
    Anywhere,
    /// `PreferSameZone`, or `PreferClose` as it was called first.
    SameZone,
    /// `PreferSameNode`: this node, else its zone, else any.
    SameNode,
}

/// `hints` of an EndpointSlice's endpoint: for whom the control plane means it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones`.
    pub zones: Vec<Arc<str>>,
    /// `forNodes`.
    pub nodes: Vec<Arc<str>>,
}

/// One address behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: IpAddr,
    /// The workload with that address; `None` for an address outside the mesh.
    pub workload: Option<WorkloadUid>,
    /// The node it runs on, where known.
    pub node: Option<Arc<str>>,
    /// The zone it runs in, where known: its own, else its node's.
    pub zone: Option<Arc<str>>,
    /// For whom the control plane means it.
    pub hints: Hints,
    /// Whether new connections may go there.
    pub readiness: Readiness,
    /// Service port → port at this endpoint. A Service port may be absent: the endpoint does not serve it.
    pub ports: Vec<(u16, u16)>,
}

impl Endpoint {
    /// Whether new connections may go there whatever the others are.
    pub fn is_ready(&self) -> bool {
        self.readiness == Readiness::Ready
    }

    /// The port at this endpoint that serves a Service port.
    pub fn target_port(&self, service_port: u16) -> Option<u16> {
        self.ports
            .iter()
            .find(|(port, _)| *port == service_port)
            .map(|(_, target)| *target)
    }
}

/// One Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name of the Service.
    pub name: Arc<str>,
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// `NAME.NAMESPACE.svc.cluster.local`, as telemetry names it.
    pub hostname: Arc<str>,
    /// Cluster addresses; none for a headless Service.
    pub vips: Vec<IpAddr>,
    /// TCP ports; others are not the mesh's business.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`: only endpoints on the client's node.
    pub node_local: bool,
    /// `sessionAffinity: ClientIP`: a client stays with its endpoint until it has not connected for this long.
    pub session_affinity: Option<Duration>,
    /// Which endpoints are preferred.
    pub distribution: Distribution,
    /// Every endpoint, ready or not.
    pub endpoints: Vec<Endpoint>,
}

impl Service {
    /// The port that clients dial by this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}
