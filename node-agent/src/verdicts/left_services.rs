//! The agent's own list of the Services that it lets the kernel resolve for one pod.

use crate::broker::KernelVerdict;
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};
use tramline_common::PodId;
use tramline_core::verdict::ServiceVerdict;

/// Endpoints of all Services of one pod, at most.
const MAX_ENDPOINTS_PER_POD: usize = 8_192;
/// Services of one pod that are remembered, at most.
const MAX_PER_POD: usize = 4_096;

/// One Service.
pub(super) struct LeftService {
    /// What the core said.
    pub(super) choice: ServiceVerdict,
    /// What the kernel has of it, in its order; empty where it has nothing, because it could do nothing by itself.
    pub(super) endpoints: Vec<LeftEndpoint>,
    /// Endpoints that are the agent's because they failed, until it reaches them.
    pub(super) left_out: Vec<SocketAddr>,
}

/// One endpoint as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftEndpoint {
    pub(super) address: SocketAddr,
    pub(super) verdict: Option<KernelVerdict>,
    pub(super) load: u32,
}

impl LeftService {
    fn leads_to(&self, pod: PodId) -> bool {
        let there = |verdict: &KernelVerdict| matches!(verdict, KernelVerdict::Direct(to) | KernelVerdict::Deny(to) if *to == pod);
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.verdict.as_ref().is_some_and(there))
    }

    /// Whether the core would say something else as soon as a pod of this node changes, whichever it is.
    fn is_nothing(&self) -> bool {
        self.endpoints.is_empty()
    }
}

/// Those of one pod, by what is dialled.
#[derive(Default)]
pub(super) struct LeftServices {
    services: HashMap<SocketAddr, LeftService>,
}

impl LeftServices {
    pub(super) fn contains(&self, dialled: SocketAddr) -> bool {
        self.services.contains_key(&dialled)
    }

    /// Notes a Service; answers with those that have to make room for it.
    pub(super) fn insert(&mut self, dialled: SocketAddr, service: LeftService) -> Vec<SocketAddr> {
        self.services.remove(&dialled);
        let mut free = MAX_ENDPOINTS_PER_POD.saturating_sub(self.endpoints().count());
        let mut evicted = Vec::new();
        while free < service.endpoints.len() || self.services.len() >= MAX_PER_POD {
            let Some(one) = self.services.keys().next().copied() else {
                break;
            };
            free += self.services.remove(&one).map_or(0, |gone| gone.endpoints.len());
            evicted.push(one);
        }
        self.services.insert(dialled, service);
        evicted
    }

    pub(super) fn remove(&mut self, dialled: SocketAddr) {
        self.services.remove(&dialled);
    }

    /// Whether a Service was left without this endpoint.
    pub(super) fn is_left_out(&self, dialled: SocketAddr, endpoint: SocketAddr) -> bool {
        let service = self.services.get(&dialled);
        service.is_some_and(|service| service.left_out.contains(&endpoint))
    }

    /// The endpoint that the kernel chose.
    pub(super) fn picked(&self, dialled: SocketAddr, index: u32) -> Option<SocketAddr> {
        let service = self.services.get(&dialled)?;
        let endpoint = service.endpoints.get(usize::try_from(index).ok()?)?;
        Some(endpoint.address)
    }

    /// Removes and answers with those that lead to a pod. Those of which the kernel has nothing go too: it may be able to do
    /// something now.
    pub(super) fn forget(&mut self, pod: PodId) -> Vec<SocketAddr> {
        self.extract(|_, service| service.leads_to(pod) || service.is_nothing())
    }

    /// Removes and answers with those that have an endpoint, those of which the kernel has nothing too.
    pub(super) fn with_endpoint(&mut self, address: SocketAddr) -> Vec<SocketAddr> {
        self.extract(|_, service| {
            let mut endpoints = service.choice.endpoints.iter();
            endpoints.any(|(endpoint, _)| *endpoint == address)
        })
    }

    /// Removes and answers with those that are not as they were.
    pub(super) fn sweep(&mut self, still: impl Fn(SocketAddr, &LeftService) -> bool) -> Vec<SocketAddr> {
        self.extract(|dialled, service| !still(dialled, service))
    }

    fn extract(&mut self, goes: impl Fn(SocketAddr, &LeftService) -> bool) -> Vec<SocketAddr> {
        let gone = self
            .services
            .extract_if(|dialled, service| goes(*dialled, service));
        gone.map(|(dialled, _)| dialled).collect()
    }

    /// All of them.
    pub(super) fn into_dialled(self) -> impl Iterator<Item = SocketAddr> {
        self.services.into_keys()
    }

    /// The ways to other pods that they rest on.
    pub(super) fn ways(&self) -> BTreeSet<(PodId, IpAddr)> {
        self.endpoints()
            .filter_map(|endpoint| match endpoint.verdict {
                Some(KernelVerdict::Direct(to)) => Some((to, endpoint.address.ip())),
                _ => None,
            })
            .collect()
    }

    /// Rows in which their connections count.
    pub(super) fn loads(&self) -> impl Iterator<Item = u32> {
        self.endpoints().map(|endpoint| endpoint.load)
    }

    /// Those of which the kernel has anything.
    #[cfg(test)]
    pub(super) fn in_kernel(&self) -> impl Iterator<Item = SocketAddr> {
        let services = self.services.iter();
        services
            .filter(|(_, service)| !service.is_nothing())
            .map(|(dialled, _)| *dialled)
    }

    fn endpoints(&self) -> impl Iterator<Item = &LeftEndpoint> {
        self.services.values().flat_map(|service| &service.endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::{LeftEndpoint, LeftService, LeftServices, MAX_ENDPOINTS_PER_POD, MAX_PER_POD};
    use crate::{
        broker::KernelVerdict,
        observe::{Reporter, test_support::connection},
    };
    use std::net::SocketAddr;
    use tramline_core::verdict::ServiceVerdict;

    fn at(port: usize) -> SocketAddr {
        SocketAddr::new([10, 0, 0, 1].into(), u16::try_from(port).unwrap())
    }

    fn service(endpoints: impl IntoIterator<Item = (usize, Option<KernelVerdict>)>) -> LeftService {
        let endpoints = endpoints.into_iter().map(|(port, verdict)| LeftEndpoint {
            address: at(port),
            verdict,
            load: 1,
        });
        let endpoints: Vec<_> = endpoints.collect();
        LeftService {
            choice: ServiceVerdict {
                service: connection(Reporter::Source).service.unwrap(),
                zone: None,
                endpoints: endpoints
                    .iter()
                    .map(|endpoint| (endpoint.address, None))
                    .collect(),
            },
            endpoints,
            left_out: Vec::new(),
        }
    }

    /// The kernel could do nothing of it by itself.
    fn nothing(port: usize) -> LeftService {
        LeftService {
            endpoints: Vec::new(),
            ..service([(port, None)])
        }
    }

    #[test]
    fn what_the_kernel_chose_is_found_by_its_number() {
        let mut left = LeftServices::default();
        left.insert(at(80), service([(1, None), (2, Some(KernelVerdict::Outside))]));
        assert_eq!(left.picked(at(80), 1), Some(at(2)));
        assert_eq!(left.picked(at(80), 2), None);
        assert_eq!(left.picked(at(81), 0), None);
    }

    #[test]
    fn a_pod_that_changes_takes_its_services_along_and_those_that_came_to_nothing() {
        let mut left = LeftServices::default();
        left.insert(at(80), service([(1, Some(KernelVerdict::Direct(7)))]));
        left.insert(at(81), service([(1, Some(KernelVerdict::Deny(7)))]));
        left.insert(at(82), service([(2, Some(KernelVerdict::Direct(8)))]));
        left.insert(at(83), service([]));
        assert_eq!(left.ways(), [(7, at(1).ip()), (8, at(2).ip())].into());
        let mut forgotten = left.forget(7);
        forgotten.sort_unstable();
        assert_eq!(forgotten, [at(80), at(81), at(83)]);
        assert_eq!(left.with_endpoint(at(1)), []);
        assert_eq!(left.with_endpoint(at(2)), [at(82)]);
        // An endpoint that is reached again may be what makes something of it.
        left.insert(at(84), nothing(3));
        assert_eq!(left.with_endpoint(at(3)), [at(84)]);
    }

    #[test]
    fn one_pod_takes_no_more_than_its_share() {
        let mut left = LeftServices::default();
        let half = || (0..MAX_ENDPOINTS_PER_POD / 2).map(|port| (port, None));
        assert_eq!(left.insert(at(80), service(half())), []);
        assert_eq!(left.insert(at(81), service(half())), []);
        assert_eq!(left.insert(at(81), service(half())), [], "in its own place");
        assert_eq!(left.insert(at(82), service([(1, None)])).len(), 1);
        let mut left = LeftServices::default();
        for port in 0..MAX_PER_POD {
            assert_eq!(left.insert(at(port), service([])), []);
        }
        assert_eq!(left.insert(at(MAX_PER_POD), service([])).len(), 1);
    }
}
