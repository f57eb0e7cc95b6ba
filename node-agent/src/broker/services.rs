//! Services that the kernel resolves.

use super::{Broker, BrokerError, EndpointLoads, KernelVerdict, Versions, verdicts};
use std::{net::SocketAddr, sync::Arc};
use tramline_common::{
    PodId,
    service::{Endpoint, ServiceRow},
    verdict::Verdict,
};

/// An endpoint between which and others the kernel chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// What the kernel may do with a connection to it, and the versions that this was decided with; `None`: hand the connection
    /// to the agent.
    pub verdict: Option<(KernelVerdict, Versions)>,
    /// Its row of [`EndpointLoads`]; zero for none.
    pub load: u32,
}

impl Broker {
    /// Lets the kernel choose between the endpoints of a Service that `source` dials; `versions` are those that the choice
    /// was made with.
    ///
    /// # Errors
    /// The kernel has no room for it; then nothing of it is there, nor of what was there before.
    pub fn set_service(
        &self,
        source: PodId,
        dialled: SocketAddr,
        versions: Versions,
        endpoints: &[ServiceEndpoint],
    ) -> Result<(), BrokerError> {
        let row = ServiceRow {
            row: self.next_number(0),
            source_version: versions.source,
            endpoints: u32::try_from(endpoints.len()).unwrap_or(u32::MAX),
            reserved: 0,
        };
        let endpoints: Vec<_> = endpoints.iter().map(|endpoint| of(endpoint, versions)).collect();
        Ok(self
            .maps
            .services
            .set(verdicts::key(source, dialled), row, &endpoints)?)
    }

    /// Takes a Service back.
    pub fn remove_service(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError> {
        Ok(self.maps.services.remove(&verdicts::key(source, dialled))?)
    }

    /// Whether the kernel resolves what `source` dials, currently or not.
    pub fn has_service(&self, source: PodId, dialled: SocketAddr) -> bool {
        self.maps.services.get(&verdicts::key(source, dialled)).is_some()
    }

    /// The rows in which connections to endpoints count.
    pub fn endpoint_loads(&self) -> Arc<EndpointLoads> {
        self.maps.loads.clone()
    }
}

fn of(endpoint: &ServiceEndpoint, versions: Versions) -> Endpoint {
    let verdict = match endpoint.verdict {
        Some((verdict, versions)) => verdicts::row(verdict, versions, endpoint.load),
        None => Verdict {
            destination: 0,
            source_version: versions.source,
            destination_version: 0,
            kind: tramline_common::verdict::kind::NONE,
            load: endpoint.load,
        },
    };
    Endpoint {
        verdict,
        address: endpoint.address.ip().into(),
        port: endpoint.address.port(),
        reserved: [0; 3],
    }
}
