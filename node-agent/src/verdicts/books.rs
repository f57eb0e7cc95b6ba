//! What is noted of the kernel's rows and the rows themselves, changed together: a row that counts and is not noted would never
//! be swept, and a Service that is noted and is not there would never come back.
//!
//! So a row that can be neither written nor removed is one of which nobody knows whether it is there: then its pod's version
//! goes, and with it everything that was left for the pod.

use super::{
    left::{Forgotten, Left},
    left_services::LeftService,
};
use crate::broker::{Broker, BrokerError, KernelVerdict, ServiceEndpoint, Versions};
use std::{collections::BTreeSet, net::SocketAddr};
use tramline_common::PodId;

/// The kernel's rows.
pub(super) trait Rows {
    /// Leaves a verdict.
    fn set_verdict(
        &self,
        source: PodId,
        dialled: SocketAddr,
        verdict: KernelVerdict,
        versions: Versions,
    ) -> Result<(), BrokerError>;
    /// Takes a verdict back.
    fn remove_verdict(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError>;
    /// Leaves a Service.
    fn set_service(
        &self,
        source: PodId,
        dialled: SocketAddr,
        versions: Versions,
        endpoints: &[ServiceEndpoint],
    ) -> Result<(), BrokerError>;
    /// Takes a Service back.
    fn remove_service(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError>;
    /// Makes everything void that was left about a pod.
    fn renew_version(&self, pod: PodId) -> Result<(), BrokerError>;
    /// The same, and nothing can be left until it has a version again.
    fn void_verdicts(&self, pod: PodId) -> Result<(), BrokerError>;
}

impl Rows for Broker {
    fn set_verdict(
        &self,
        source: PodId,
        dialled: SocketAddr,
        verdict: KernelVerdict,
        versions: Versions,
    ) -> Result<(), BrokerError> {
        self.set_verdict(source, dialled, verdict, versions)
    }

    fn remove_verdict(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError> {
        self.remove_verdict(source, dialled)
    }

    fn set_service(
        &self,
        source: PodId,
        dialled: SocketAddr,
        versions: Versions,
        endpoints: &[ServiceEndpoint],
    ) -> Result<(), BrokerError> {
        self.set_service(source, dialled, versions, endpoints)
    }

    fn remove_service(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError> {
        self.remove_service(source, dialled)
    }

    fn renew_version(&self, pod: PodId) -> Result<(), BrokerError> {
        self.renew_version(pod)
    }

    fn void_verdicts(&self, pod: PodId) -> Result<(), BrokerError> {
        self.void_verdicts(pod)
    }
}

/// A Service as it is left.
pub(super) struct NewService<'a> {
    pub(super) noted: LeftService,
    pub(super) versions: Versions,
    /// None where the kernel can do nothing by itself.
    pub(super) endpoints: &'a [ServiceEndpoint],
}

impl Left {
    /// Leaves a verdict; one that has to make room for it goes.
    ///
    /// # Errors
    /// The kernel refuses it; then no verdict on it is there, an older one neither.
    pub(super) fn put(
        &mut self,
        rows: &impl Rows,
        pod: PodId,
        dialled: SocketAddr,
        verdict: KernelVerdict,
        versions: Versions,
    ) -> Result<(), BrokerError> {
        let evicted = self.insert(pod, dialled, verdict);
        let set = rows.set_verdict(pod, dialled, verdict, versions);
        let refused = set.is_err().then_some(dialled);
        for gone in refused.into_iter().chain(evicted) {
            self.remove(pod, gone);
            self.take_back(rows, &[(pod, gone)]);
        }
        set
    }

    /// Leaves a Service; those that have to make room for it go.
    ///
    /// # Errors
    /// The kernel refuses it; then nothing of it is there, of an older row neither.
    pub(super) fn put_service(
        &mut self,
        rows: &impl Rows,
        pod: PodId,
        dialled: SocketAddr,
        service: NewService<'_>,
    ) -> Result<(), BrokerError> {
        let evicted = self.insert_service(pod, dialled, service.noted);
        let set = match service.endpoints {
            [] => Ok(()),
            endpoints => rows.set_service(pod, dialled, service.versions, endpoints),
        };
        let refused = set.is_err().then_some(dialled);
        for gone in refused.into_iter().chain(evicted) {
            self.remove_service(pod, gone);
            self.take_back_services(rows, &[(pod, gone)]);
        }
        set
    }

    /// Removes verdicts from the kernel that are not noted any more.
    pub(super) fn take_back(&mut self, rows: &impl Rows, gone: &[(PodId, SocketAddr)]) {
        for (pod, dialled) in gone {
            if let Err(error) = rows.remove_verdict(*pod, *dialled) {
                tracing::error!(%error, "cannot take a verdict back");
                self.renew(rows, *pod);
            }
        }
    }

    /// Removes Services from the kernel that are not noted any more.
    pub(super) fn take_back_services(&mut self, rows: &impl Rows, gone: &[(PodId, SocketAddr)]) {
        for (pod, dialled) in gone {
            if let Err(error) = rows.remove_service(*pod, *dialled) {
                tracing::error!(%error, "cannot take a Service back from the kernel");
                self.renew(rows, *pod);
            }
        }
    }

    /// The pod reached an endpoint of what it dialled: a Service that was left without it, because it failed before, is to be
    /// left anew. Whoever doubted it may have forgotten that meanwhile.
    pub(super) fn reached(
        &mut self,
        rows: &impl Rows,
        pod: PodId,
        dialled: SocketAddr,
        endpoint: SocketAddr,
    ) {
        if self.is_left_out(pod, dialled, endpoint) {
            self.remove_service(pod, dialled);
            self.take_back_services(rows, &[(pod, dialled)]);
        }
    }

    /// Makes everything void that was left about a pod, and forgets it.
    pub(super) fn renew(&mut self, rows: &impl Rows, pod: PodId) {
        renew(rows, pod, |pod| self.forget(pod));
    }
}

/// Makes everything void that was left about a pod; `forget` has it noted no more.
pub(super) fn renew(rows: &impl Rows, pod: PodId, mut forget: impl FnMut(PodId) -> Forgotten) {
    let mut pods = BTreeSet::from([pod]);
    while let Some(pod) = pods.pop_first() {
        let forgotten = forget(pod);
        if let Err(error) = rows.renew_version(pod) {
            tracing::error!(%error, "cannot renew a pod's version; its connections are the agent's");
            if let Err(error) = rows.void_verdicts(pod) {
                tracing::error!(%error, "cannot take a pod's version away");
            }
        }
        // Void already, by the one or the other pod's version; what is removed only makes room.
        for (source, dialled) in forgotten.verdicts {
            if let Err(error) = rows.remove_verdict(source, dialled) {
                tracing::debug!(%error, "a void verdict stays");
            }
        }
        for (source, dialled) in forgotten.services {
            match rows.remove_service(source, dialled) {
                Ok(()) => {}
                Err(error) if source == pod => tracing::debug!(%error, "a void Service stays"),
                // Only its endpoint here is void; what it says of others holds.
                Err(error) => {
                    tracing::error!(%error, "cannot take a Service back from the kernel");
                    pods.insert(source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
