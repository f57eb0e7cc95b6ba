use super::Balancer;
use crate::observe::Reporter;
use crate::observe::test_support::connection;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tramline_core::{route::Balance as _, service::Service, workload::WorkloadUid};

fn endpoint(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

fn service(affinity: Option<u64>) -> Service {
    let service: Arc<Service> = connection(Reporter::Source).service.unwrap();
    Service {
        session_affinity: affinity.map(Duration::from_secs),
        ..(*service).clone()
    }
}

#[test]
fn connections_count_while_they_live_and_leave_nothing_behind() {
    let balancer = Arc::new(Balancer::default());
    let pod = WorkloadUid::new("pod");
    let load = |port| balancer.seen_by(&pod).load(endpoint(port));
    let first = balancer.count(endpoint(1));
    let second = balancer.count(endpoint(1));
    let other = balancer.count(endpoint(2));
    assert_eq!((load(1), load(2), load(3)), (2, 1, 0));
    drop(first);
    assert_eq!(load(1), 1);
    drop((second, other));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let balancer = balancer.clone();
            std::thread::spawn(move || {
                let held: Vec<_> = (0..2000)
                    .map(|port| balancer.count(endpoint(port % 500)))
                    .collect();
                drop(held);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((load(1), balancer.loads.len()), (0, 0));
}

#[test]
fn what_a_pod_failed_to_reach_is_avoided_by_that_pod_until_it_is_reached() {
    let balancer = Balancer::default();
    let (pod, neighbour) = (WorkloadUid::new("pod"), WorkloadUid::new("neighbour"));
    balancer.failed(&pod, endpoint(1));
    assert!(balancer.seen_by(&pod).is_avoided(endpoint(1)));
    assert!(!balancer.seen_by(&pod).is_avoided(endpoint(2)));
    assert!(!balancer.seen_by(&neighbour).is_avoided(endpoint(1)));
    balancer.reached(&pod, endpoint(1));
    assert!(!balancer.seen_by(&pod).is_avoided(endpoint(1)));
}

#[test]
fn clients_are_pinned_to_services_with_affinity_only() {
    let balancer = Balancer::default();
    let (pod, client) = (WorkloadUid::new("pod"), "10.0.0.9".parse().unwrap());
    for (affinity, expected) in [(None, None), (Some(60), Some(endpoint(1)))] {
        let service = service(affinity);
        balancer.chosen(client, &service, 80, endpoint(1));
        assert_eq!(balancer.seen_by(&pod).pinned(client, &service, 80), expected);
        assert_eq!(balancer.seen_by(&pod).pinned(client, &service, 81), None);
    }
}

#[test]
fn retries_are_counted_by_what_the_budget_said() {
    let balancer = Balancer::default();
    let service = service(None);
    let made = (0..300).filter(|_| balancer.take_retry(&service)).count() as u64;
    assert!((100..200).contains(&made), "{made}");
    assert_eq!(
        balancer.retries(),
        [("made", made), ("out_of_budget", 300 - made)]
    );
}
