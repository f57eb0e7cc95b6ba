use super::Balancer;
use crate::broker::EndpointLoads;
use crate::observe::Reporter;
use crate::observe::test_support::connection;
use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};
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
    let balancer = Arc::new(Balancer::new(None));
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
    let balancer = Balancer::new(None);
    let (pod, neighbour) = (WorkloadUid::new("pod"), WorkloadUid::new("neighbour"));
    balancer.failed(&pod, endpoint(1));
    assert!(balancer.seen_by(&pod).is_avoided(endpoint(1)));
    assert!(!balancer.seen_by(&pod).is_avoided(endpoint(2)));
    assert!(!balancer.seen_by(&neighbour).is_avoided(endpoint(1)));
    assert!(balancer.doubts(&pod, endpoint(1)) && !balancer.doubts(&neighbour, endpoint(1)));
    assert!(balancer.reached(&pod, endpoint(1)));
    assert!(!balancer.seen_by(&pod).is_avoided(endpoint(1)) && !balancer.doubts(&pod, endpoint(1)));
    assert!(!balancer.reached(&pod, endpoint(1)), "that is known already");
}

#[test]
fn clients_are_pinned_to_services_with_affinity_only() {
    let balancer = Balancer::new(None);
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
    let balancer = Balancer::new(None);
    let service = service(None);
    let made = (0..300).filter(|_| balancer.take_retry(&service)).count() as u64;
    assert!((100..200).contains(&made), "{made}");
    assert_eq!(
        balancer.retries(),
        [("made", made), ("out_of_budget", 300 - made)]
    );
}

fn nothing_in_use() -> HashSet<u32> {
    HashSet::new()
}

#[test]
fn the_kernel_and_the_agent_see_each_others_connections() {
    let rows = Arc::new(EndpointLoads::in_memory());
    let balancer = Balancer::new(Some(rows.clone()));
    let pod = WorkloadUid::new("pod");
    let before = balancer.count(endpoint(1));
    let row = balancer.row(endpoint(1), nothing_in_use).unwrap();
    assert_eq!(rows.owner(row), Some(endpoint(1)));
    assert_eq!(rows.agent(row), 1, "what was there before counts");
    let after = balancer.count(endpoint(1));
    assert_eq!(rows.agent(row), 2);
    rows.add_kernel(row, 3);
    assert_eq!(balancer.seen_by(&pod).load(endpoint(1)), 5);
    drop((before, after));
    assert_eq!(rows.agent(row), 0);
    assert_eq!(balancer.seen_by(&pod).load(endpoint(1)), 3);
    assert_eq!(
        balancer.row(endpoint(1), nothing_in_use),
        Some(row),
        "an endpoint keeps its row"
    );
    assert_ne!(balancer.row(endpoint(2), nothing_in_use), Some(row));
}

#[test]
fn the_next_agent_finds_what_the_kernel_counts_and_forgets_what_the_last_one_carried() {
    let rows = Arc::new(EndpointLoads::in_memory());
    let old = Balancer::new(Some(rows.clone()));
    let row = old.row(endpoint(1), nothing_in_use).unwrap();
    let carried = old.count(endpoint(1));
    rows.add_kernel(row, 2);
    old.detach();

    let new = Balancer::new(Some(rows.clone()));
    let pod = WorkloadUid::new("pod");
    assert_eq!(new.seen_by(&pod).load(endpoint(1)), 2);
    assert_eq!(new.row(endpoint(1), nothing_in_use), Some(row));
    drop(carried);
    let also = old.count(endpoint(1));
    assert_eq!(rows.agent(row), 0, "one that stepped aside tells nothing");

    // Should it come back, it counts what it has.
    drop(new);
    old.attach();
    assert_eq!(rows.agent(row), 1);
    drop(also);
}

#[test]
fn rows_without_connections_make_room() {
    let rows = Arc::new(EndpointLoads::in_memory());
    let balancer = Balancer::new(Some(rows.clone()));
    let all = rows.rows().count();
    let mut given = Vec::new();
    for port in 1..=all {
        let port = u16::try_from(port).unwrap();
        given.push(balancer.row(endpoint(port), nothing_in_use).unwrap());
    }
    rows.add_kernel(given[0], 1);
    let _carried = balancer.count(endpoint(2));
    let in_use = || {
        given
            .iter()
            .copied()
            .filter(|row| *row != given[2] && *row != given[1])
            .collect()
    };
    let row = balancer.row(([10, 0, 0, 2], 1).into(), in_use).unwrap();
    assert!(row == given[1] || row == given[2], "one that nobody uses");
    assert_eq!(
        rows.owner(given[0]),
        Some(endpoint(1)),
        "one with connections stays"
    );
    let pod = WorkloadUid::new("pod");
    assert_eq!(
        balancer.seen_by(&pod).load(endpoint(2)),
        1,
        "what the agent carries still counts"
    );
    let full = || given.iter().copied().collect();
    assert!(balancer.row(([10, 0, 0, 2], 2).into(), full).is_some());
    assert_eq!(balancer.row(([10, 0, 0, 2], 3).into(), full), None, "no room");
}
