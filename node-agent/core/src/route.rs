//! Where an outbound connection goes.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::mesh::Mesh;
use crate::reason::Reason;
use crate::service::{Endpoint, Service};
use crate::workload::Workload;

/// The answer to a connection of a captured workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRoute {
    /// Where to connect.
    pub target: Target,
    /// The Service that was dialled, for telemetry.
    pub service: Option<Arc<Service>>,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A pod the mesh knows; [`Workload::protocol`] says whether through a tunnel.
    Workload {
        /// The pod.
        workload: Arc<Workload>,
        /// Its address with the port to deliver to (not 15008).
        address: SocketAddr,
    },
    /// An address the mesh does not know: connect as the application would have.
    Passthrough {
        /// The address as dialled, or the endpoint chosen for the Service.
        address: SocketAddr,
    },
}

impl Target {
    /// The address to connect or deliver to.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Workload { address, .. } | Self::Passthrough { address } => *address,
        }
    }
}

/// Why there is nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// The Service has no such TCP port.
    #[error("service {}/{} has no TCP port {port}", service.namespace, service.name)]
    UnknownServicePort {
        /// The Service that was dialled.
        service: Arc<Service>,
        /// The port that was dialled.
        port: u16,
    },
    /// No endpoint is ready, or all of them were tried.
    #[error("service {}/{} port {port}: no ready endpoint left after {tried} tried", service.namespace, service.name)]
    NoHealthyEndpoint {
        /// The Service that was dialled.
        service: Arc<Service>,
        /// The port that was dialled.
        port: u16,
        /// How many were tried before.
        tried: usize,
    },
}

impl RouteError {
    /// The code for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownServicePort { .. } => Reason::UnknownServicePort,
            Self::NoHealthyEndpoint { .. } => Reason::NoHealthyEndpoint,
        }
    }

    /// The Service that was dialled.
    pub fn service(&self) -> &Arc<Service> {
        match self {
            Self::UnknownServicePort { service, .. } | Self::NoHealthyEndpoint { service, .. } => service,
        }
    }
}

/// Where a connection of `source` to `destination` goes.
///
/// A Service address leads to one of its ready endpoints, chosen uniformly by `draw` (64 random bits) among those
/// not in `tried`; a pod's address leads to that pod, ready or not, as without a mesh; anything else passes through.
///
/// # Errors
/// A Service address that leads nowhere; passing it through would reach nothing but a time-out.
pub fn outbound(
    mesh: &Mesh,
    source: &Workload,
    destination: SocketAddr,
    draw: u64,
    tried: &[SocketAddr],
) -> Result<OutboundRoute, RouteError> {
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    if let Some(service) = mesh.service_by_vip(destination.ip()) {
        return to_service(mesh, source, service, destination, draw, tried);
    }
    let target = match mesh.workload_by_address(destination.ip()) {
        Some(workload) => Target::Workload {
            workload: workload.clone(),
            address: destination,
        },
        None => Target::Passthrough { address: destination },
    };
    Ok(OutboundRoute {
        target,
        service: None,
    })
}

fn to_service(
    mesh: &Mesh,
    source: &Workload,
    service: &Arc<Service>,
    destination: SocketAddr,
    draw: u64,
    tried: &[SocketAddr],
) -> Result<OutboundRoute, RouteError> {
    let port = destination.port();
    if service.port(port).is_none() {
        return Err(RouteError::UnknownServicePort {
            service: service.clone(),
            port,
        });
    }
    // A dual-stack Service answers a family with endpoints of that family: the application's socket can speak no other.
    let eligible = || {
        service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.ready && endpoint.address.is_ipv4() == destination.is_ipv4())
            .filter(|endpoint| !service.node_local || is_on_node(endpoint, source))
            .filter_map(|endpoint| Some((endpoint, endpoint.target_port(port)?)))
            .map(|(endpoint, target)| (endpoint, SocketAddr::new(endpoint.address, target)))
            .filter(|(_, address)| !tried.contains(address))
    };
    let chosen = pick(draw, eligible().count()).and_then(|index| eligible().nth(index));
    let Some((endpoint, address)) = chosen else {
        let (service, tried) = (service.clone(), tried.len());
        return Err(RouteError::NoHealthyEndpoint { service, port, tried });
    };
    let workload = endpoint.workload.as_ref().and_then(|uid| mesh.workload(uid));
    let target = match workload {
        Some(workload) => Target::Workload {
            workload: workload.clone(),
            address,
        },
        None => Target::Passthrough { address },
    };
    Ok(OutboundRoute {
        target,
        service: Some(service.clone()),
    })
}

fn is_on_node(endpoint: &Endpoint, source: &Workload) -> bool {
    endpoint.node.as_ref().is_some_and(|node| *node == source.node)
}

/// An index below `count` by the high half of a 128-bit product: uniform to within `count` / 2^64, no division.
fn pick(draw: u64, count: usize) -> Option<usize> {
    let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
    usize::try_from((u128::from(draw) * u128::from(count)) >> 64).ok()
}

#[cfg(test)]
mod tests;
