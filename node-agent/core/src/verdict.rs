//! What the kernel may do with connections by itself, once the agent has decided one like them.
//!
//! Only results, and only those whose every input is in the kernel's key: the pod that dials, the address and the port. A
//! decision that looks at the client's address is the agent's each time.

mod service;

pub use service::{ServiceVerdict, service_verdict};

use std::net::SocketAddr;
use std::sync::Arc;

use crate::admit;
use crate::authz;
use crate::mesh::Mesh;
use crate::workload::{Protocol, Workload};

/// What holds for every connection of one workload to one address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelVerdict {
    /// It leads to this enrolled workload of the same node, which takes it, from whatever address it comes.
    Direct(Arc<Workload>),
    /// It leads out of the mesh.
    Outside,
    /// It leads to this enrolled workload of the same node, which refuses it, from whatever address it comes.
    Deny(Arc<Workload>),
}

/// The verdict on what `source`, an enrolled workload of this node, dials; `None` where the agent has to look at each
/// connection: for another node, a policy that asks for the client's address. A Service has a [`service_verdict`].
pub fn kernel_verdict(mesh: &Mesh, source: &Workload, dialled: SocketAddr) -> Option<KernelVerdict> {
    let address = SocketAddr::new(dialled.ip().to_canonical(), dialled.port());
    if mesh.service_by_vip(address.ip()).is_some() {
        return None;
    }
    let Some(destination) = mesh.workload_by_address(address.ip()) else {
        return Some(KernelVerdict::Outside);
    };
    if destination.protocol == Protocol::Plaintext {
        return Some(KernelVerdict::Outside);
    }
    if destination.node != mesh.settings().node_name
        || !destination.enrolled
        || destination.uid == source.uid
        || admit::is_reserved(address.port())
    {
        return None;
    }
    match authz::decide_from_anywhere(mesh, &source.identity, destination, address)? {
        true => Some(KernelVerdict::Direct(destination.clone())),
        false => Some(KernelVerdict::Deny(destination.clone())),
    }
}
