//! A kernel that refuses now and then: whatever it refuses, each row of it that counts is noted, and what is noted is there.

use super::{super::left_services::LeftEndpoint, Left, LeftService, NewService, Rows};
use crate::{
    balancer::Balancer,
    broker::{BrokerError, KernelVerdict, ServiceEndpoint, Versions},
    observe::{Reporter, test_support::connection},
};
use proptest::prelude::*;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};
use tramline_common::PodId;
use tramline_core::{verdict::ServiceVerdict, workload::WorkloadUid};

type Dial = (PodId, SocketAddr);

/// A verdict with the versions of both pods.
type Row = (KernelVerdict, u64, u64);

#[derive(Default)]
struct Kernel {
    versions: RefCell<HashMap<PodId, u64>>,
    last: Cell<u64>,
    verdicts: RefCell<HashMap<Dial, Row>>,
    services: RefCell<HashMap<Dial, (u64, Vec<Row>)>>,
    /// Which of the next calls fail, lowest bit first.
    fails: Cell<u32>,
}

fn destination(verdict: KernelVerdict) -> Option<PodId> {
    match verdict {
        KernelVerdict::Direct(pod) | KernelVerdict::Deny(pod) => Some(pod),
        KernelVerdict::Outside => None,
    }
}

impl Kernel {
    fn with_pods(pods: impl IntoIterator<Item = PodId>) -> Self {
        let kernel = Self::default();
        for pod in pods {
            kernel.renew_version(pod).unwrap();
        }
        kernel
    }

    fn version(&self, pod: PodId) -> u64 {
        self.versions.borrow().get(&pod).copied().unwrap_or(0)
    }

    fn call(&self) -> Result<(), BrokerError> {
        let fails = self.fails.get();
        self.fails.set(fails >> 1);
        match fails & 1 {
            0 => Ok(()),
            _ => Err(BrokerError::NotEnrolled(0)),
        }
    }

    fn row(&self, source: PodId, verdict: KernelVerdict) -> Row {
        let of_destination = destination(verdict).map_or(0, |pod| self.version(pod));
        (verdict, self.version(source), of_destination)
    }

    fn counts(&self, source: PodId, (verdict, of_source, of_destination): Row) -> bool {
        let destination = destination(verdict);
        of_source != 0
            && of_source == self.version(source)
            && destination.is_none_or(|pod| of_destination != 0 && of_destination == self.version(pod))
    }

    /// Verdicts that hold.
    fn verdicts(&self) -> BTreeSet<Dial> {
        let verdicts = self.verdicts.borrow();
        let hold = verdicts.iter().filter(|((pod, _), row)| self.counts(*pod, **row));
        hold.map(|(dial, _)| *dial).collect()
    }

    /// Services that it resolves, to whatever end.
    fn services(&self) -> BTreeSet<Dial> {
        let services = self.services.borrow();
        let hold = services.iter().filter(|((pod, _), (version, endpoints))| {
            *version != 0
                && *version == self.version(*pod)
                && endpoints.iter().any(|row| self.counts(*pod, *row))
        });
        hold.map(|(dial, _)| *dial).collect()
    }
}

impl Rows for Kernel {
    fn set_verdict(
        &self,
        source: PodId,
        dialled: SocketAddr,
        verdict: KernelVerdict,
        _: Versions,
    ) -> Result<(), BrokerError> {
        self.call()?;
        let row = self.row(source, verdict);
        self.verdicts.borrow_mut().insert((source, dialled), row);
        Ok(())
    }

    fn remove_verdict(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError> {
        self.call()?;
        self.verdicts.borrow_mut().remove(&(source, dialled));
        Ok(())
    }

    fn set_service(
        &self,
        source: PodId,
        dialled: SocketAddr,
        _: Versions,
        endpoints: &[ServiceEndpoint],
    ) -> Result<(), BrokerError> {
        self.call()?;
        let endpoints = endpoints.iter().filter_map(|endpoint| endpoint.verdict);
        let endpoints = endpoints.map(|(verdict, _)| self.row(source, verdict)).collect();
        let row = (self.version(source), endpoints);
        self.services.borrow_mut().insert((source, dialled), row);
        Ok(())
    }

    fn remove_service(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError> {
        self.call()?;
        self.services.borrow_mut().remove(&(source, dialled));
        Ok(())
    }

    fn renew_version(&self, pod: PodId) -> Result<(), BrokerError> {
        self.call()?;
        self.last.set(self.last.get() + 1);
        self.versions.borrow_mut().insert(pod, self.last.get());
        Ok(())
    }

    fn void_verdicts(&self, pod: PodId) -> Result<(), BrokerError> {
        self.versions.borrow_mut().remove(&pod);
        Ok(())
    }
}

fn at(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// A Service with these endpoints by port; the agent's are those without a verdict.
fn service(endpoints: &[(u16, Option<KernelVerdict>)]) -> (LeftService, Vec<ServiceEndpoint>) {
    let of = |(port, verdict): &(u16, Option<KernelVerdict>)| ServiceEndpoint {
        address: at(*port),
        verdict: verdict.map(|verdict| (verdict, Versions::NONE)),
        load: 1,
    };
    let noted = |(port, verdict): &(u16, Option<KernelVerdict>)| LeftEndpoint {
        address: at(*port),
        verdict: *verdict,
        load: 1,
    };
    let left = LeftService {
        choice: ServiceVerdict {
            service: connection(Reporter::Source).service.unwrap(),
            zone: None,
            endpoints: endpoints.iter().map(|(port, _)| (at(*port), None)).collect(),
        },
        endpoints: endpoints.iter().map(noted).collect(),
        left_out: Vec::new(),
    };
    (left, endpoints.iter().map(of).collect())
}

fn put_service(
    left: &mut Left,
    kernel: &Kernel,
    pod: PodId,
    dialled: SocketAddr,
    (noted, endpoints): (LeftService, Vec<ServiceEndpoint>),
) -> Result<(), BrokerError> {
    let service = NewService {
        noted,
        versions: Versions::NONE,
        endpoints: &endpoints,
    };
    left.put_service(kernel, pod, dialled, service)
}

#[derive(Clone, Debug)]
enum Act {
    Put(PodId, u16, KernelVerdict),
    PutService(PodId, u16, Vec<(u16, Option<KernelVerdict>)>),
    Renew(PodId),
    /// What leads out of the mesh does so no more.
    SweepOutside(u16),
    SweepServices(u16),
    Failed(PodId, u16),
}

const PODS: std::ops::Range<PodId> = 1..4;

fn verdicts() -> impl Strategy<Value = KernelVerdict> {
    prop_oneof![
        Just(KernelVerdict::Outside),
        PODS.prop_map(KernelVerdict::Direct),
        PODS.prop_map(KernelVerdict::Deny),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let ports = 1..5_u16;
    let endpoints = proptest::collection::vec((ports.clone(), proptest::option::of(verdicts())), 1..4);
    prop_oneof![
        4 => (PODS, ports.clone(), verdicts()).prop_map(|(pod, port, verdict)| Act::Put(pod, port, verdict)),
        4 => (PODS, ports.clone(), endpoints)
            .prop_map(|(pod, port, endpoints)| Act::PutService(pod, port, endpoints)),
        1 => PODS.prop_map(Act::Renew),
        1 => ports.clone().prop_map(Act::SweepOutside),
        1 => ports.clone().prop_map(Act::SweepServices),
        1 => (PODS, ports).prop_map(|(pod, port)| Act::Failed(pod, port)),
    ]
}

fn act(left: &mut Left, kernel: &Kernel, act: Act) {
    match act {
        // As in `leave`: nothing is left for a pod without a version, or about one.
        Act::Put(pod, port, verdict) => {
            let there = |pod| kernel.version(pod) != 0;
            if there(pod) && destination(verdict).is_none_or(there) {
                let _ = left.put(kernel, pod, at(port), verdict, Versions::NONE);
            }
        }
        Act::PutService(pod, port, endpoints) => {
            if kernel.version(pod) != 0 {
                let _ = put_service(left, kernel, pod, at(port), service(&endpoints));
            }
        }
        Act::Renew(pod) => left.renew(kernel, pod),
        Act::SweepOutside(port) => {
            let gone = left.sweep_outside(|_, dialled| dialled != at(port));
            left.take_back(kernel, &gone);
        }
        Act::SweepServices(port) => {
            let gone = left.sweep_services(|_, dialled, _| dialled != at(port));
            left.take_back_services(kernel, &gone);
        }
        Act::Failed(pod, port) => {
            let gone = left.with_endpoint(pod, at(port)).into_iter();
            let gone: Vec<_> = gone.map(|dialled| (pod, dialled)).collect();
            left.take_back_services(kernel, &gone);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_holds_in_the_kernel_is_noted_whatever_it_refuses(
        steps in proptest::collection::vec((acts(), any::<u32>(), any::<u32>()), 1..30)
    ) {
        let kernel = Kernel::with_pods(PODS);
        let mut left = Left::default();
        for (step, one, other) in steps {
            // One call of four.
            kernel.fails.set(one & other);
            let said = format!("{step:?}");
            act(&mut left, &kernel, step);
            kernel.fails.set(0);
            let noted = left.noted();
            let unknown: Vec<_> = kernel.verdicts().difference(&noted.verdicts).copied().collect();
            prop_assert!(unknown.is_empty(), "{} leaves verdicts that nobody sweeps: {:?}", said, unknown);
            let unknown: Vec<_> = kernel.services().difference(&noted.services).copied().collect();
            prop_assert!(unknown.is_empty(), "{} leaves Services that nobody sweeps: {:?}", said, unknown);
            // A Service that is noted is not left again.
            let rows: BTreeSet<_> = kernel.services.borrow().keys().copied().collect();
            let vain: Vec<_> = noted.services.difference(&rows).copied().collect();
            prop_assert!(vain.is_empty(), "{} keeps Services out of the kernel: {:?}", said, vain);
        }
    }
}

#[test]
fn a_verdict_that_the_kernel_refuses_takes_an_older_one_along() {
    let kernel = Kernel::with_pods(PODS);
    let mut left = Left::default();
    let put = |left: &mut Left, verdict| left.put(&kernel, 1, at(80), verdict, Versions::NONE);
    put(&mut left, KernelVerdict::Outside).unwrap();
    kernel.fails.set(0b1);
    put(&mut left, KernelVerdict::Direct(2)).unwrap_err();
    assert_eq!(kernel.verdicts(), [].into());
    // Nor can it be removed.
    put(&mut left, KernelVerdict::Outside).unwrap();
    kernel.fails.set(0b11);
    put(&mut left, KernelVerdict::Direct(2)).unwrap_err();
    assert_eq!(kernel.verdicts(), [].into());
    assert_ne!(kernel.version(1), 0, "others may be left");
}

#[test]
fn an_endpoint_that_was_left_out_comes_back_when_it_is_reached_though_nobody_doubts_it_any_more() {
    let kernel = Kernel::with_pods(PODS);
    let (mut left, balancer) = (Left::default(), Balancer::new(None));
    let uid = WorkloadUid::new("pod");
    balancer.failed(&uid, at(1));
    let (mut noted, endpoints) = service(&[(1, None), (2, Some(KernelVerdict::Outside))]);
    assert!(balancer.doubts(&uid, at(1)));
    noted.left_out.push(at(1));
    put_service(&mut left, &kernel, 1, at(80), (noted, endpoints)).unwrap();
    // So many failures later the first one is forgotten.
    for port in 0..5_000 {
        balancer.failed(&uid, ([10, 0, 0, 2], port).into());
    }
    assert!(
        !balancer.reached(&uid, at(1)),
        "that it was in doubt is forgotten"
    );

    left.reached(&kernel, 1, at(80), at(2));
    assert!(!left.begin_service(1, at(80)), "nothing has changed");
    left.reached(&kernel, 2, at(80), at(1));
    assert!(!left.begin_service(1, at(80)), "another pod reached it");
    left.reached(&kernel, 1, at(80), at(1));
    assert_eq!(kernel.services(), [].into());
    assert!(left.begin_service(1, at(80)), "it is left anew");
}

#[test]
fn an_agent_that_takes_the_kernel_back_leaves_everything_anew() {
    let kernel = Kernel::with_pods(PODS);
    let mut left = Left::default();
    put_service(
        &mut left,
        &kernel,
        1,
        at(80),
        service(&[(1, Some(KernelVerdict::Outside))]),
    )
    .unwrap();
    assert!(left.begin(1, at(81)));
    // What another agent makes void is not known here.
    kernel.renew_version(1).unwrap();
    assert!(!left.begin_service(1, at(80)));
    left.forget_all();
    assert!(left.begin_service(1, at(80)));
    assert!(left.begin(1, at(81)), "nobody is at it any more");
}
