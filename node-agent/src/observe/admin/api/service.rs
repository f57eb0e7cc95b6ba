//! What `/services` answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One row of `/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// `NAME.NAMESPACE.svc.cluster.local`.
    pub hostname: String,
    /// Its cluster addresses; none for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<ServicePortRow>,
    /// Endpoints that take new connections.
    pub endpoints_ready: usize,
    /// All endpoints.
    pub endpoints_total: usize,
    /// What it asks of the mesh beyond the default, such as `internalTrafficPolicy=Local`.
    pub flags: Vec<String>,
    /// Its endpoints, ready or not.
    pub endpoints: Vec<EndpointRow>,
}

/// One TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePortRow {
    /// Its name; empty where a single port has none.
    pub name: String,
    /// What clients dial.
    pub port: u16,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// One endpoint of a Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Where it listens.
    pub address: IpAddr,
    /// `NAMESPACE/NAME` of the pod with that address.
    pub workload: Option<String>,
    /// The node it runs on, where known.
    pub node: Option<String>,
    /// The zone it runs in, where known.
    pub zone: Option<String>,
    /// Whether new connections may go there.
    pub ready: bool,
    /// `ready`, `draining` (takes connections while no other one is ready) or `not_ready`.
    pub state: String,
    /// Connections of this agent that are open to it or being opened.
    pub connections: u64,
    /// Which of the Service's ports it serves.
    pub ports: Vec<EndpointPortRow>,
}

/// A Service's port at one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointPortRow {
    /// What clients dial.
    pub port: u16,
    /// Where the endpoint listens for it.
    pub target_port: u16,
}
