//! Where an outbound connection goes.

pub mod affinity;
pub mod attempts;
mod choose;
mod expiring;
pub mod outlier;
pub mod retry_budget;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use self::choose::Nothing;
pub(crate) use self::choose::equals;
use crate::mesh::Mesh;
use crate::reason::Reason;
use crate::service::Service;
use crate::workload::Workload;

/// One connection that asks where it leads.
#[derive(Debug, Clone, Copy)]
pub struct Dialled<'a> {
    /// Who dials.
    pub source: &'a Workload,
    /// The address it dials from: `sessionAffinity` knows clients by it.
    pub client: IpAddr,
    /// What it dials.
    pub destination: SocketAddr,
    /// Randomness: 64 bits for each of two endpoints whose loads are compared.
    pub draws: [u64; 2],
    /// Endpoints that this connection has tried in vain.
    pub tried: &'a [SocketAddr],
    /// The endpoint that the kernel has chosen as we would have: taken where nothing speaks against it.
    pub picked: Option<SocketAddr>,
}

/// What the agent knows of endpoints beyond the configuration.
pub trait Balance {
    /// Connections to it that are open or being opened.
    fn load(&self, endpoint: SocketAddr) -> u64;

    /// Whether it failed just now, so that others are better tried first.
    fn is_avoided(&self, endpoint: SocketAddr) -> bool;

    /// The endpoint to which a client's earlier connection to a Service with `sessionAffinity` went.
    fn pinned(&self, client: IpAddr, service: &Service, port: u16) -> Option<SocketAddr>;
}

/// Knows nothing: all endpoints are alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alike;

impl Balance for Alike {
    fn load(&self, _: SocketAddr) -> u64 {
        0
    }

    fn is_avoided(&self, _: SocketAddr) -> bool {
        false
    }

    fn pinned(&self, _: IpAddr, _: &Service, _: u16) -> Option<SocketAddr> {
        None
    }
}

/// The answer to a connection of a captured workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRoute {
    /// Where to connect.
    pub target: Target,
    /// The Service that was dialled, for telemetry.
    pub service: Option<Arc<Service>>,
    /// How many other endpoints of the Service could be tried after this one.
    pub alternatives: usize,
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
    /// Endpoints are ready, but none on the client's node, and the Service keeps to it.
    #[error(
        "service {}/{} port {port}: no ready endpoint on node {node}, and internalTrafficPolicy is Local",
        service.namespace, service.name
    )]
    NoLocalEndpoint {
        /// The Service that was dialled.
        service: Arc<Service>,
        /// The port that was dialled.
        port: u16,
        /// The client's node.
        node: Arc<str>,
    },
}

impl RouteError {
    /// The code for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownServicePort { .. } => Reason::UnknownServicePort,
            Self::NoHealthyEndpoint { .. } => Reason::NoHealthyEndpoint,
            Self::NoLocalEndpoint { .. } => Reason::NoLocalEndpoint,
        }
    }

    /// The Service that was dialled.
    pub fn service(&self) -> &Arc<Service> {
        match self {
            Self::UnknownServicePort { service, .. }
            | Self::NoHealthyEndpoint { service, .. }
            | Self::NoLocalEndpoint { service, .. } => service,
        }
    }
}

/// Where a connection goes.
///
/// A Service address leads to one of its endpoints that take connections (see [`Service`]); a pod's address leads to
/// that pod, ready or not, as without a mesh; anything else passes through.
///
/// # Errors
/// A Service address that leads nowhere; passing it through would reach nothing but a time-out.
pub fn outbound(
    mesh: &Mesh,
    dialled: &Dialled<'_>,
    balance: &dyn Balance,
) -> Result<OutboundRoute, RouteError> {
    let destination = SocketAddr::new(
        dialled.destination.ip().to_canonical(),
        dialled.destination.port(),
    );
    if let Some(service) = mesh.service_by_vip(destination.ip()) {
        let dialled = Dialled {
            destination,
            ..*dialled
        };
        return to_service(mesh, &dialled, service, balance);
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
        alternatives: 0,
    })
}

fn to_service(
    mesh: &Mesh,
    dialled: &Dialled<'_>,
    service: &Arc<Service>,
    balance: &dyn Balance,
) -> Result<OutboundRoute, RouteError> {
    let port = dialled.destination.port();
    if service.port(port).is_none() {
        return Err(RouteError::UnknownServicePort {
            service: service.clone(),
            port,
        });
    }
    let chosen = choose::choose(mesh, dialled, service, balance).map_err(|nothing| {
        let service = service.clone();
        match nothing {
            Nothing::Ready => RouteError::NoHealthyEndpoint {
                service,
                port,
                tried: dialled.tried.len(),
            },
            Nothing::OnNode => RouteError::NoLocalEndpoint {
                service,
                port,
                node: dialled.source.node.clone(),
            },
        }
    })?;
    let address = chosen.address;
    let workload = chosen
        .endpoint
        .workload
        .as_ref()
        .and_then(|uid| mesh.workload(uid));
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
        alternatives: chosen.alternatives,
    })
}
