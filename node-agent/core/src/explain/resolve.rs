//! What a destination's name means.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{QuestionError, Source};
use crate::mesh::Mesh;
use crate::service::Service;
use crate::workload::Workload;

/// Ends of a Service's host name that may be left out, the longest first.
const SUFFIXES: &[&str] = &[".svc.cluster.local", ".svc"];

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// One address, or for a headless Service those of its ready pods.
    pub addresses: Vec<SocketAddr>,
    /// The Service that was named or whose address it is.
    pub service: Option<Arc<Service>>,
}

/// Reads `HOST:PORT`, as the source would resolve it: an IP address, `NAMESPACE/POD`, or a Service as
/// `NAME.NAMESPACE[.svc[.cluster.local]]` or `NAME` in the source's namespace.
///
/// # Errors
/// Anything else, and names that the snapshot does not hold.
pub fn resolve(mesh: &Mesh, source: &Source, text: &str) -> Result<Destination, QuestionError> {
    let wrong = || QuestionError::NotADestination(text.into());
    if let Ok(address) = text.parse::<SocketAddr>() {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if address.port() == 0 {
            return Err(wrong());
        }
        return Ok(Destination {
            service: mesh.service_by_vip(address.ip()).cloned(),
            addresses: vec![address],
        });
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = crate::authz::Operation::port(port).map_err(|_| wrong())?;
    if host.is_empty() || host.contains([':', '[', ']']) {
        return Err(wrong());
    }
    if let Some((namespace, name)) = host.split_once('/') {
        let pod = pod(mesh, namespace, name)?;
        let address = preferred(source, &pod.addresses)
            .ok_or_else(|| QuestionError::NoAddress(super::name_of(&pod)))?;
        return Ok(Destination {
            addresses: vec![SocketAddr::new(address, port)],
            service: None,
        });
    }
    let service = service(mesh, source, host)?;
    let addresses = match preferred(source, &service.vips) {
        Some(vip) => vec![SocketAddr::new(vip, port)],
        // A headless name resolves to the pods themselves: no port is translated.
        None => headless(source, &service)
            .map(|address| SocketAddr::new(address, port))
            .collect(),
    };
    Ok(Destination {
        addresses,
        service: Some(service),
    })
}

/// The pod of that name.
pub(super) fn pod(mesh: &Mesh, namespace: &str, name: &str) -> Result<Arc<Workload>, QuestionError> {
    mesh.workloads()
        .find(|workload| &*workload.namespace == namespace && &*workload.name == name)
        .cloned()
        .ok_or_else(|| QuestionError::NoPod(format!("{namespace}/{name}")))
}

fn service(mesh: &Mesh, source: &Source, host: &str) -> Result<Arc<Service>, QuestionError> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let short = SUFFIXES
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))
        .unwrap_or(host);
    let (name, namespace) = match (short.split_once('.'), source.pod()) {
        (Some((name, namespace)), _) => (name, namespace),
        (None, Some(pod)) => (short, &*pod.namespace),
        (None, None) => return Err(QuestionError::NoNamespace(host.into())),
    };
    mesh.services()
        .find(|service| &*service.namespace == namespace && &*service.name == name)
        .cloned()
        .ok_or_else(|| QuestionError::NoService(format!("{namespace}/{name}")))
}

/// The first address of a family that the source has; else the first.
fn preferred(source: &Source, addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses
        .iter()
        .copied()
        .find(|address| source.address_towards(*address).is_some())
        .or_else(|| addresses.first().copied())
}

fn headless<'a>(source: &'a Source, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
    service
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.is_ready())
        .map(|endpoint| endpoint.address)
        .filter(|address| source.address_towards(*address).is_some())
}
