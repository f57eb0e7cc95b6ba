//! Services as the mesh routes to them: addresses resolved, ports numbered, endpoints bound to workloads.

use std::net::IpAddr;
use std::sync::Arc;

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

/// One address behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: IpAddr,
    /// The workload with that address; `None` for an address outside the mesh.
    pub workload: Option<WorkloadUid>,
    /// The node it runs on, where known (`internalTrafficPolicy: Local`).
    pub node: Option<Arc<str>>,
    /// Whether new connections may go there.
    pub ready: bool,
    /// Service port → port at this endpoint. A Service port may be absent: the endpoint does not serve it.
    pub ports: Vec<(u16, u16)>,
}

impl Endpoint {
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
    /// Every endpoint, ready or not.
    pub endpoints: Vec<Endpoint>,
}

impl Service {
    /// The port that clients dial by this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}
