//! The agent's own list of what it left in the kernel: bounded by pod, so that one which dials everything takes no room
//! from the others.

use super::left_services::{LeftService, LeftServices};
use crate::broker::KernelVerdict;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};
use tramline_common::PodId;

/// Verdicts of one pod, at most. With 1,024 pods that all have so many the kernel's table is full, and then more are refused.
const MAX_PER_POD: usize = 4_096;
/// Destinations of one pod of which it is known that their way is not proven, at most.
const MAX_NOT_PROVEN: usize = 1_024;

#[derive(Default)]
pub(super) struct Left {
    pods: HashMap<PodId, OfPod>,
}

#[derive(Default)]
struct OfPod {
    verdicts: HashMap<SocketAddr, KernelVerdict>,
    services: LeftServices,
    /// Being decided.
    begun: HashSet<SocketAddr>,
    not_proven: HashSet<SocketAddr>,
}

impl Left {
    /// Whether nobody else is at it, and nothing is known that would make it vain.
    pub(super) fn begin(&mut self, pod: PodId, dialled: SocketAddr) -> bool {
        let of_pod = self.pods.entry(pod).or_default();
        !of_pod.not_proven.contains(&dialled)
            && of_pod.begun.len() < MAX_PER_POD
            && of_pod.begun.insert(dialled)
    }

    /// The same for a Service that is not there already.
    pub(super) fn begin_service(&mut self, pod: PodId, dialled: SocketAddr) -> bool {
        let of_pod = self.pods.entry(pod).or_default();
        !of_pod.services.contains(dialled) && of_pod.begun.len() < MAX_PER_POD && of_pod.begun.insert(dialled)
    }

    pub(super) fn done(&mut self, pod: PodId, dialled: SocketAddr) {
        if let Some(of_pod) = self.pods.get_mut(&pod) {
            of_pod.begun.remove(&dialled);
        }
    }

    pub(super) fn not_proven(&mut self, pod: PodId, dialled: SocketAddr) {
        let of_pod = self.pods.entry(pod).or_default();
        if of_pod.not_proven.len() >= MAX_NOT_PROVEN {
            of_pod.not_proven.clear();
        }
        of_pod.not_proven.insert(dialled);
    }

    /// Notes a verdict; answers with one that has to make room for it.
    pub(super) fn insert(
        &mut self,
        pod: PodId,
        dialled: SocketAddr,
        verdict: KernelVerdict,
    ) -> Option<SocketAddr> {
        let verdicts = &mut self.pods.entry(pod).or_default().verdicts;
        let full = verdicts.len() >= MAX_PER_POD && !verdicts.contains_key(&dialled);
        let evicted = full.then(|| verdicts.keys().next().copied()).flatten();
        if let Some(evicted) = evicted {
            verdicts.remove(&evicted);
        }
        verdicts.insert(dialled, verdict);
        evicted
    }

    pub(super) fn remove(&mut self, pod: PodId, dialled: SocketAddr) {
        if let Some(of_pod) = self.pods.get_mut(&pod) {
            of_pod.verdicts.remove(&dialled);
        }
    }

    /// Forgets everything about a pod, as source and as destination; what is proven of ways has to be proven again.
    pub(super) fn forget(&mut self, pod: PodId) -> Forgotten {
        let own = self.pods.remove(&pod).unwrap_or_default();
        let mut forgotten = Forgotten {
            verdicts: own.verdicts.into_keys().map(|dialled| (pod, dialled)).collect(),
            services: own
                .services
                .into_dialled()
                .map(|dialled| (pod, dialled))
                .collect(),
        };
        for (source, of_pod) in &mut self.pods {
            of_pod.not_proven.clear();
            let leads_there = |verdict: &KernelVerdict| matches!(verdict, KernelVerdict::Direct(to) | KernelVerdict::Deny(to) if *to == pod);
            let there = of_pod.verdicts.extract_if(|_, verdict| leads_there(verdict));
            forgotten
                .verdicts
                .extend(there.map(|(dialled, _)| (*source, dialled)));
            let there = of_pod.services.forget(pod).into_iter();
            forgotten.services.extend(there.map(|dialled| (*source, dialled)));
        }
        forgotten
    }

    /// Notes a Service; answers with those that have to make room for it.
    pub(super) fn insert_service(
        &mut self,
        pod: PodId,
        dialled: SocketAddr,
        service: LeftService,
    ) -> Vec<SocketAddr> {
        let of_pod = self.pods.entry(pod).or_default();
        of_pod.services.insert(dialled, service)
    }

    pub(super) fn remove_service(&mut self, pod: PodId, dialled: SocketAddr) {
        if let Some(of_pod) = self.pods.get_mut(&pod) {
            of_pod.services.remove(dialled);
        }
    }

    /// Whether a Service was left without this endpoint, because it failed before.
    pub(super) fn is_left_out(&self, pod: PodId, dialled: SocketAddr, endpoint: SocketAddr) -> bool {
        let of_pod = self.pods.get(&pod);
        of_pod.is_some_and(|of_pod| of_pod.services.is_left_out(dialled, endpoint))
    }

    /// The endpoint that the kernel chose for a connection of the pod.
    pub(super) fn picked(&self, pod: PodId, dialled: SocketAddr, index: u32) -> Option<SocketAddr> {
        self.pods.get(&pod)?.services.picked(dialled, index)
    }

    /// Removes and answers with the pod's Services that have an endpoint.
    pub(super) fn with_endpoint(&mut self, pod: PodId, endpoint: SocketAddr) -> Vec<SocketAddr> {
        let of_pod = self.pods.get_mut(&pod);
        of_pod.map_or_else(Vec::new, |of_pod| of_pod.services.with_endpoint(endpoint))
    }

    /// Removes and answers with the Services that are not as they were.
    pub(super) fn sweep_services(
        &mut self,
        still: impl Fn(PodId, SocketAddr, &LeftService) -> bool,
    ) -> Vec<(PodId, SocketAddr)> {
        let mut gone = Vec::new();
        for (pod, of_pod) in &mut self.pods {
            let swept = of_pod.services.sweep(|dialled, left| still(*pod, dialled, left));
            gone.extend(swept.into_iter().map(|dialled| (*pod, dialled)));
        }
        gone
    }

    /// Rows in which connections to endpoints of Services count.
    pub(super) fn loads(&self) -> HashSet<u32> {
        let services = self.pods.values().map(|of_pod| &of_pod.services);
        services.flat_map(LeftServices::loads).collect()
    }

    /// The ways to other pods that verdicts rest on, by the pod that dials.
    pub(super) fn ways(&self) -> Vec<Ways> {
        let of = |(source, of_pod): (&PodId, &OfPod)| Ways {
            source: *source,
            is_unsure: !of_pod.not_proven.is_empty() || !of_pod.begun.is_empty(),
            proven: of_pod
                .verdicts
                .iter()
                .filter_map(|(dialled, verdict)| match verdict {
                    KernelVerdict::Direct(to) => Some((*to, dialled.ip())),
                    _ => None,
                })
                .chain(of_pod.services.ways())
                .collect(),
        };
        let all = self.pods.iter().map(of);
        all.filter(|ways| ways.is_unsure || !ways.proven.is_empty())
            .collect()
    }

    /// Removes and answers with those that lead out of the mesh and no longer do.
    pub(super) fn sweep_outside(
        &mut self,
        still: impl Fn(PodId, SocketAddr) -> bool,
    ) -> Vec<(PodId, SocketAddr)> {
        let mut gone = Vec::new();
        for (pod, of_pod) in &mut self.pods {
            let ends = of_pod
                .verdicts
                .extract_if(|dialled, verdict| *verdict == KernelVerdict::Outside && !still(*pod, *dialled));
            gone.extend(ends.map(|(dialled, _)| (*pod, dialled)));
        }
        gone
    }

    /// Forgets everything: another agent has had the kernel since.
    pub(super) fn forget_all(&mut self) {
        self.pods.clear();
    }

    /// What is noted; of Services those of which the kernel has anything.
    #[cfg(test)]
    pub(super) fn noted(&self) -> Noted {
        let mut noted = Noted::default();
        for (pod, of_pod) in &self.pods {
            let verdicts = of_pod.verdicts.keys();
            noted.verdicts.extend(verdicts.map(|dialled| (*pod, *dialled)));
            let services = of_pod.services.in_kernel();
            noted.services.extend(services.map(|dialled| (*pod, dialled)));
        }
        noted
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pods.values().map(|of_pod| of_pod.verdicts.len()).sum()
    }
}

/// What was left about a pod.
#[derive(Default)]
pub(super) struct Forgotten {
    /// Verdicts: who dials, and what.
    pub(super) verdicts: Vec<(PodId, SocketAddr)>,
    /// Services.
    pub(super) services: Vec<(PodId, SocketAddr)>,
}

/// Who dials, and what.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Noted {
    pub(super) verdicts: BTreeSet<(PodId, SocketAddr)>,
    pub(super) services: BTreeSet<(PodId, SocketAddr)>,
}

/// What is known of the ways of one pod.
pub(super) struct Ways {
    pub(super) source: PodId,
    /// Some could not be proven, or are being proven.
    pub(super) is_unsure: bool,
    /// The pods and their addresses.
    pub(super) proven: BTreeSet<(PodId, IpAddr)>,
}

#[cfg(test)]
mod tests {
    use super::{Left, MAX_PER_POD};
    use crate::broker::KernelVerdict;
    use std::net::SocketAddr;

    fn at(port: usize) -> SocketAddr {
        SocketAddr::new([10, 0, 0, 1].into(), u16::try_from(port).unwrap())
    }

    #[test]
    fn one_pod_takes_no_more_than_its_share() {
        let mut left = Left::default();
        for port in 0..MAX_PER_POD {
            assert_eq!(left.insert(1, at(port), KernelVerdict::Outside), None);
        }
        assert_eq!(
            left.insert(1, at(3), KernelVerdict::Direct(2)),
            None,
            "there already"
        );
        let evicted = left.insert(1, at(MAX_PER_POD), KernelVerdict::Outside).unwrap();
        assert_ne!(evicted, at(MAX_PER_POD));
        assert_eq!(left.len(), MAX_PER_POD);
        assert_eq!(
            left.insert(2, at(0), KernelVerdict::Outside),
            None,
            "another pod's"
        );
    }

    #[test]
    fn a_pod_is_forgotten_as_source_and_as_destination() {
        let mut left = Left::default();
        left.insert(1, at(1), KernelVerdict::Direct(2));
        left.insert(1, at(2), KernelVerdict::Outside);
        left.insert(2, at(3), KernelVerdict::Outside);
        left.insert(3, at(4), KernelVerdict::Deny(2));
        let mut forgotten = left.forget(2).verdicts;
        forgotten.sort_unstable();
        assert_eq!(forgotten, [(1, at(1)), (2, at(3)), (3, at(4))]);
        assert_eq!(left.len(), 1);
        assert_eq!(left.ways().len(), 0);
        left.insert(4, at(1), KernelVerdict::Direct(5));
        left.insert(4, at(2), KernelVerdict::Direct(5));
        let ways = left.ways();
        assert_eq!((ways[0].source, ways[0].is_unsure), (4, false));
        assert_eq!(
            ways[0].proven,
            [(5, at(1).ip())].into(),
            "one way, whatever the ports"
        );
        left.begin(4, at(3));
        assert!(
            left.ways()[0].is_unsure,
            "what is being proven may be proven already"
        );
        left.done(4, at(3));
        left.not_proven(4, at(3));
        assert!(left.ways()[0].is_unsure);
    }

    #[test]
    fn only_what_led_out_and_no_longer_does_is_swept() {
        let mut left = Left::default();
        left.insert(1, at(1), KernelVerdict::Outside);
        left.insert(1, at(2), KernelVerdict::Outside);
        left.insert(1, at(3), KernelVerdict::Direct(2));
        assert_eq!(left.sweep_outside(|_, dialled| dialled == at(1)), [(1, at(2))]);
        assert_eq!(left.len(), 2);
    }

    #[test]
    fn a_destination_is_considered_once_at_a_time_and_not_in_vain() {
        let mut left = Left::default();
        assert!(left.begin(1, at(1)));
        assert!(!left.begin(1, at(1)), "somebody is at it");
        left.not_proven(1, at(1));
        left.done(1, at(1));
        assert!(!left.begin(1, at(1)), "known to be in vain");
        left.forget(2);
        assert!(left.begin(1, at(1)), "something changed");
    }
}
