//! What the kernel may do with connections to a Service: between which endpoints it may choose, and what it may do with each.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{KernelVerdict, kernel_verdict};
use crate::mesh::Mesh;
use crate::route;
use crate::service::{Endpoint, Service};
use crate::workload::Workload;

/// What holds for every connection of one workload to one port of a Service, as long as no endpoint of it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceVerdict {
    /// The Service.
    pub service: Arc<Service>,
    /// The zone of the one who dials: the nearest endpoints are those of this place.
    pub zone: Option<Arc<str>>,
    /// The endpoints between which only their load decides, and the verdict on each; `None` where the agent connects.
    pub endpoints: Vec<(SocketAddr, Option<KernelVerdict>)>,
}

impl ServiceVerdict {
    /// Whether the kernel may do anything by itself.
    pub fn is_useful(&self) -> bool {
        self.endpoints.iter().any(|(_, verdict)| verdict.is_some())
    }
}

/// The verdict on a Service's address that `source`, an enrolled workload of this node, dials; `None` where the agent has to
/// choose each time: with `sessionAffinity`, or where there is nothing to choose from.
pub fn service_verdict(mesh: &Mesh, source: &Workload, dialled: SocketAddr) -> Option<ServiceVerdict> {
    let dialled = SocketAddr::new(dialled.ip().to_canonical(), dialled.port());
    let service = mesh.service_by_vip(dialled.ip())?;
    if service.session_affinity.is_some() {
        return None;
    }
    let endpoints: Vec<_> = route::equals(mesh, source, dialled, service)
        .into_iter()
        .map(|(endpoint, address)| (address, verdict(mesh, source, endpoint, address)))
        .collect();
    (!endpoints.is_empty()).then(|| ServiceVerdict {
        service: service.clone(),
        zone: mesh.zone_of(&source.node).cloned(),
        endpoints,
    })
}

/// An endpoint is the workload that the Service bound it to; where its address leads to another one, the agent looks.
fn verdict(
    mesh: &Mesh,
    source: &Workload,
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Option<KernelVerdict> {
    let at = mesh
        .workload_by_address(address.ip())
        .map(|workload| &workload.uid);
    if at != endpoint.workload.as_ref() {
        return None;
    }
    kernel_verdict(mesh, source, address)
}
