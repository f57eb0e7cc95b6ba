//! Which endpoint of a Service a client gets: readiness, place, affinity, load; and never one that is not eligible.

mod affinity;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tramline_core::mesh::Mesh;
use tramline_core::object::{
    EndpointSlice, Kind, Meta, Node, Objects, ServiceObject, ServiceObjectPort, SliceEndpoint, SlicePort,
    TargetPort,
};
use tramline_core::reason::Reason;
use tramline_core::route::affinity::Pins;
use tramline_core::route::retry_budget::RetryBudgets;
use tramline_core::route::{Alike, Balance, Dialled, outbound};
use tramline_core::service::Readiness::{self, Draining, NotReady, Ready};
use tramline_core::service::{Distribution, Hints, Service};

use crate::make::{build, ip, labels, pod, service, workload};

const VIP: &str = "10.96.0.1";
const CLIENT: &str = "10.0.0.9";

/// One endpoint as a slice has it: address, readiness, node, zone, hints for zones, hints for nodes.
type Row = (
    &'static str,
    Readiness,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

fn endpoint((address, readiness, node, zone, zones, nodes): Row) -> SliceEndpoint {
    let some = |text: &str| (!text.is_empty()).then(|| text.into());
    SliceEndpoint {
        addresses: vec![ip(address)],
        readiness,
        node: some(node),
        zone: some(zone),
        hints: Hints {
            zones: zones.iter().map(|zone| (*zone).into()).collect(),
            nodes: nodes.iter().map(|node| (*node).into()).collect(),
        },
    }
}

/// Service `web` with these endpoints, dialled by pod `client` on node `n1`.
fn objects(rows: &[Row], change: impl FnOnce(&mut ServiceObject)) -> Objects {
    let mut web = service("demo", "web", &[VIP, "fd00:96::1"], "web");
    change(&mut web);
    Objects {
        pods: vec![pod("demo", "client", &[CLIENT])],
        services: vec![web],
        endpoint_slices: vec![EndpointSlice {
            meta: Meta::new(Kind::EndpointSlice, "demo", "web"),
            service: "web".into(),
            ports: vec![SlicePort {
                name: "web".into(),
                port: 8080,
            }],
            endpoints: rows.iter().map(|row| endpoint(*row)).collect(),
        }],
        ..Objects::default()
    }
}

fn node(name: &str, zone: &str) -> Node {
    let mut meta = Meta::new(Kind::Node, "", name);
    meta.labels = labels(&[("topology.kubernetes.io/zone", zone)]);
    Node { meta }
}

/// What an agent would know, written down.
#[derive(Default)]
struct Known {
    loads: BTreeMap<SocketAddr, u64>,
    avoided: BTreeSet<SocketAddr>,
    pins: Pins,
    now: Duration,
}

impl Balance for Known {
    fn load(&self, endpoint: SocketAddr) -> u64 {
        self.loads.get(&endpoint).copied().unwrap_or_default()
    }

    fn is_avoided(&self, endpoint: SocketAddr) -> bool {
        self.avoided.contains(&endpoint)
    }

    fn pinned(&self, client: IpAddr, service: &Service, port: u16) -> Option<SocketAddr> {
        self.pins.get(client, service, port, self.now)
    }
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), 8080)
}

fn dial(
    mesh: &Mesh,
    balance: &dyn Balance,
    draws: [u64; 2],
    tried: &[SocketAddr],
) -> Result<SocketAddr, Reason> {
    let dialled = Dialled {
        source: workload(mesh, "demo/client"),
        client: ip(CLIENT),
        destination: SocketAddr::new(ip(VIP), 80),
        draws,
        tried,
        picked: None,
    };
    match outbound(mesh, &dialled, balance) {
        Ok(route) => Ok(route.target.address()),
        Err(error) => Err(error.reason()),
    }
}

/// Every endpoint that some draw leads to.
fn reachable(mesh: &Mesh, balance: &dyn Balance, tried: &[SocketAddr]) -> BTreeSet<String> {
    let step = u64::MAX / 16;
    (0..=16)
        .flat_map(|first| [0, u64::MAX].map(|second| [first * step, second]))
        .filter_map(|draws| dial(mesh, balance, draws, tried).ok())
        .map(|address| address.ip().to_string())
        .collect()
}

fn set(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn conditions_mean_what_the_api_says() {
    let some = [None, Some(true), Some(false)];
    for (ready, serving, terminating) in itertools(some) {
        let expected = if ready != Some(false) {
            Ready
        } else if serving != Some(false) && terminating == Some(true) {
            Draining
        } else {
            NotReady
        };
        assert_eq!(
            Readiness::of_conditions(ready, serving, terminating),
            expected,
            "{ready:?} {serving:?} {terminating:?}"
        );
    }
}

fn itertools(some: [Option<bool>; 3]) -> impl Iterator<Item = (Option<bool>, Option<bool>, Option<bool>)> {
    some.into_iter().flat_map(move |a| {
        some.into_iter()
            .flat_map(move |b| some.into_iter().map(move |c| (a, b, c)))
    })
}

#[test]
fn endpoints_that_are_ending_serve_only_while_none_is_ready() {
    let rows: &[Row] = &[
        ("192.0.2.1", Ready, "", "", &[], &[]),
        ("192.0.2.2", Draining, "", "", &[], &[]),
        ("192.0.2.3", NotReady, "", "", &[], &[]),
    ];
    let mesh = build(objects(rows, |_| ()));
    assert_eq!(reachable(&mesh, &Alike, &[]), set(&["192.0.2.1"]));
    // A ready one that fails does not make an ending one a good choice.
    assert_eq!(
        dial(&mesh, &Alike, [0, 0], &[at("192.0.2.1")]),
        Err(Reason::NoHealthyEndpoint)
    );
    let mesh = build(objects(&rows[1..], |_| ()));
    assert_eq!(reachable(&mesh, &Alike, &[]), set(&["192.0.2.2"]));
    let mesh = build(objects(&rows[2..], |_| ()));
    assert_eq!(dial(&mesh, &Alike, [0, 0], &[]), Err(Reason::NoHealthyEndpoint));
    let mesh = build(objects(rows, |web| web.publish_not_ready = true));
    assert_eq!(
        reachable(&mesh, &Alike, &[]),
        set(&["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    );
}

#[test]
fn pods_that_are_ending_serve_only_while_none_is_ready() {
    let with = |ready: bool, deleting: bool| {
        let mut web = pod("demo", "web", &["10.0.0.1"]);
        (web.ready, web.deleting) = (ready, deleting);
        let mut other = pod("demo", "other", &["10.0.0.2"]);
        other.meta.labels = labels(&[("app", "web")]);
        (other.ready, other.deleting) = (true, true);
        Objects {
            pods: vec![pod("demo", "client", &[CLIENT]), web, other],
            services: vec![service("demo", "web", &[VIP], "web")],
            ..Objects::default()
        }
    };
    for (ready, deleting, expected) in [
        (true, false, &["10.0.0.1"][..]),
        (true, true, &["10.0.0.1", "10.0.0.2"]),
        (false, true, &["10.0.0.2"]),
        (false, false, &["10.0.0.2"]),
    ] {
        let mesh = build(with(ready, deleting));
        assert_eq!(reachable(&mesh, &Alike, &[]), set(expected), "{ready} {deleting}");
    }
}

#[test]
fn traffic_distribution_prefers_what_is_close_and_widens_when_that_is_gone() {
    let rows: &[Row] = &[
        ("192.0.2.1", Ready, "n1", "", &[], &[]),
        ("192.0.2.2", Ready, "n2", "", &[], &[]),
        ("192.0.2.3", Ready, "", "z1", &[], &[]),
        ("192.0.2.4", Ready, "n3", "z2", &[], &[]),
    ];
    let all = &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"][..];
    let zone = &all[..3];
    for (distribution, gone, expected) in [
        (Distribution::Anywhere, &[][..], all),
        (Distribution::SameZone, &[], zone),
        (Distribution::SameZone, &all[..2], &all[2..3]),
        (Distribution::SameZone, zone, &all[3..]),
        (Distribution::SameNode, &[], &all[..1]),
        (Distribution::SameNode, &all[..1], &all[1..3]),
        (Distribution::SameNode, zone, &all[3..]),
    ] {
        let mut objects = objects(rows, |web| web.distribution = distribution);
        objects.nodes = vec![node("n1", "z1"), node("n2", "z1"), node("n3", "z2")];
        let mesh = build(objects);
        let gone: Vec<_> = gone.iter().map(|address| at(address)).collect();
        assert_eq!(
            reachable(&mesh, &Alike, &gone),
            set(expected),
            "{distribution:?} {gone:?}"
        );
        // What just failed is not preferred for being close.
        let known = Known {
            avoided: gone.iter().copied().collect(),
            ..Known::default()
        };
        assert_eq!(
            reachable(&mesh, &known, &[]),
            set(expected),
            "{distribution:?} avoiding {gone:?}"
        );
    }
}

#[test]
fn the_clients_zone_is_its_nodes_by_the_node_object_or_by_endpoints_on_it() {
    let rows: &[Row] = &[
        ("192.0.2.1", Ready, "n1", "z1", &[], &[]),
        ("192.0.2.2", Ready, "n2", "z1", &[], &[]),
        ("192.0.2.3", Ready, "n3", "z2", &[], &[]),
    ];
    let close = |web: &mut ServiceObject| web.distribution = Distribution::SameZone;
    let mesh = build(objects(rows, close));
    assert_eq!(mesh.zone_of("n1").map(AsRef::as_ref), Some("z1"));
    assert_eq!(reachable(&mesh, &Alike, &[]), set(&["192.0.2.1", "192.0.2.2"]));
    let mut moved = objects(rows, close);
    moved.nodes = vec![node("n1", "z2")];
    assert_eq!(reachable(&build(moved), &Alike, &[]), set(&["192.0.2.3"]));
    // Where the client's zone is unknown, nothing is close.
    let mesh = build(objects(&rows[1..], close));
    assert_eq!(reachable(&mesh, &Alike, &[]), set(&["192.0.2.2", "192.0.2.3"]));
}

#[test]
fn hints_count_where_every_endpoint_has_some_and_one_is_for_this_place() {
    const Z1: &[&str] = &["z1"];
    const Z2: &[&str] = &["z2"];
    const N1: &[&str] = &["n1"];
    const N2: &[&str] = &["n2"];
    let rows = |list: [(&'static [&'static str], &'static [&'static str]); 2]| {
        [
            ("192.0.2.1", Ready, "", "", list[0].0, list[0].1),
            ("192.0.2.2", Ready, "", "", list[1].0, list[1].1),
        ]
    };
    for (hints, expected) in [
        ([(Z1, &[][..]), (Z2, &[])], &["192.0.2.1"][..]),
        ([(Z1, &[]), (&[], &[])], &["192.0.2.1", "192.0.2.2"]),
        ([(Z2, &[]), (Z2, &[])], &["192.0.2.1", "192.0.2.2"]),
        ([(Z1, N2), (Z1, N1)], &["192.0.2.2"]),
        ([(Z1, N2), (Z2, N2)], &["192.0.2.1"]),
        ([(Z2, &[]), (Z1, N1)], &["192.0.2.2"]),
        ([(&[], N1), (Z1, &[])], &["192.0.2.1", "192.0.2.2"]),
    ] {
        let mut objects = objects(&rows(hints), |_| ());
        objects.nodes = vec![node("n1", "z1")];
        assert_eq!(
            reachable(&build(objects), &Alike, &[]),
            set(expected),
            "{hints:?}"
        );
    }
}

#[test]
fn a_local_service_is_widened_by_nothing_and_prefers_an_ending_pod_to_a_refusal() {
    let rows: &[Row] = &[
        ("192.0.2.1", Draining, "n1", "z1", &["z2"], &["n2"]),
        ("192.0.2.2", Ready, "n2", "z1", &["z1"], &["n1"]),
    ];
    let mesh = build(objects(rows, |web| {
        web.node_local = true;
        web.distribution = Distribution::SameZone;
    }));
    assert_eq!(reachable(&mesh, &Alike, &[]), set(&["192.0.2.1"]));
}

#[test]
fn the_less_busy_of_two_is_taken_and_a_failed_one_only_if_nothing_else_is_left() {
    let rows: &[Row] = &[
        ("192.0.2.1", Ready, "", "", &[], &[]),
        ("192.0.2.2", Ready, "", "", &[], &[]),
    ];
    let mesh = build(objects(rows, |_| ()));
    let mut known = Known::default();
    known.loads.insert(at("192.0.2.1"), 1);
    assert_eq!(reachable(&mesh, &known, &[]), set(&["192.0.2.2"]));
    known.avoided.insert(at("192.0.2.2"));
    assert_eq!(reachable(&mesh, &known, &[]), set(&["192.0.2.1"]));
    known.avoided.insert(at("192.0.2.1"));
    assert_eq!(reachable(&mesh, &known, &[]), set(&["192.0.2.2"]));
}

#[test]
fn a_dead_service_costs_a_fifth_more_connections_and_not_three_times_as_many() {
    let mesh = build(objects(&[("192.0.2.1", Ready, "", "", &[], &[])], |_| ()));
    let web = mesh.services().next().unwrap();
    let mut budgets = RetryBudgets::default();
    let mut retries = 0;
    // Ten thousand connections in ten seconds, each of which would like two retries.
    for step in 0..10_000_u64 {
        let now = Duration::from_millis(step);
        budgets.connection(web, now);
        retries += u32::from(budgets.take(web, now));
        retries += u32::from(budgets.take(web, now));
    }
    // Saved 100, one in five of 10,000, and 10 a second.
    assert!((2_190..=2_201).contains(&retries), "{retries}");
    // Nobody asked for a while: all of it is there again, and nothing is kept for it.
    let now = Duration::from_secs(20);
    assert_eq!(budgets.len(now), 0);
    let burst = (0..200).filter(|_| budgets.take(web, now)).count();
    assert_eq!((burst, budgets.len(now)), (100, 1));
    // A Service with few connections gets its ten a second.
    let slow = (0..50)
        .filter(|step| budgets.take(web, now + Duration::from_millis(100 * (step + 1))))
        .count();
    assert_eq!(slow, 50);
}

#[test]
fn ports_are_found_by_number_at_the_service_and_by_name_at_the_endpoint() {
    let mut old = pod("demo", "old", &["10.0.0.1"]);
    let mut new = pod("demo", "new", &["10.0.0.2"]);
    for pod in [&mut old, &mut new] {
        pod.meta.labels = labels(&[("app", "web")]);
    }
    new.ports[0].port = 9090;
    let mut web = service("demo", "web", &[VIP], "web");
    let port = |name: &str, port, target| ServiceObjectPort {
        name: name.into(),
        port,
        target,
        app_protocol: None,
    };
    web.ports = vec![
        port("named", 80, TargetPort::Name("http".into())),
        port("numbered", 81, TargetPort::Number(7000)),
        port("nobody", 82, TargetPort::Name("grpc".into())),
    ];
    let headless = service("demo", "headless", &[], "web");
    let mesh = build(Objects {
        pods: vec![pod("demo", "client", &[CLIENT]), old, new],
        services: vec![web, headless],
        ..Objects::default()
    });
    let go = |to: &str, draw| {
        let dialled = Dialled {
            source: workload(&mesh, "demo/client"),
            client: ip(CLIENT),
            destination: to.parse().unwrap(),
            draws: [draw, 0],
            tried: &[],
            picked: None,
        };
        outbound(&mesh, &dialled, &Alike)
            .map(|route| route.target.address().to_string())
            .map_err(|error| error.reason())
    };
    assert_eq!(go("10.96.0.1:80", 0), Ok("10.0.0.1:8080".into()));
    assert_eq!(go("10.96.0.1:80", u64::MAX), Ok("10.0.0.2:9090".into()));
    assert_eq!(go("10.96.0.1:81", 0), Ok("10.0.0.1:7000".into()));
    assert_eq!(go("10.96.0.1:82", 0), Err(Reason::NoHealthyEndpoint));
    assert_eq!(go("10.96.0.1:83", 0), Err(Reason::UnknownServicePort));
    // A headless Service has no address; its pods are dialled by theirs, at their own ports.
    assert_eq!(go("10.0.0.2:9090", 0), Ok("10.0.0.2:9090".into()));
    assert!(
        mesh.services()
            .any(|service| &*service.name == "headless" && service.endpoints.len() == 2)
    );
}

const ADDRESSES: &[&str] = &["192.0.2.1", "192.0.2.2", "192.0.2.3", "fd00::1", "fd00::2"];
const PLACES: &[&str] = &["", "n1", "n2"];
const NODES: &[&[&str]] = &[&[], &["n1"], &["n2"]];
const ZONES: &[&[&str]] = &[&[], &["z1"], &["z2"], &["z1", "z2"]];

fn any_row() -> impl Strategy<Value = Row> {
    (
        select(ADDRESSES),
        select(&[Ready, Draining, NotReady][..]),
        select(PLACES),
        select(&["", "z1", "z2"][..]),
        select(ZONES),
        select(NODES),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is preferred: a ready endpoint of the family while there is one, on the node where it must be, never
    /// one that was tried; and an answer wherever there is one to give.
    #[test]
    fn never_an_endpoint_that_is_not_eligible(
        rows in prop::collection::vec(any_row(), 0..6),
        (six, local, affinity, publish) in any::<(bool, bool, bool, bool)>(),
        distribution in select(&[Distribution::Anywhere, Distribution::SameZone, Distribution::SameNode][..]),
        draws in any::<[u64; 2]>(),
        loads in prop::collection::vec(0..4_u64, ADDRESSES.len()),
        avoided in subsequence(ADDRESSES, 0..=ADDRESSES.len()),
        tried in subsequence(ADDRESSES, 0..=2),
        pinned in prop::option::of(select(ADDRESSES)),
        zoned in any::<bool>(),
    ) {
        let mut objects = objects(&rows, |web| {
            web.node_local = local;
            web.session_affinity = affinity.then_some(Duration::from_secs(60));
            web.publish_not_ready = publish;
            web.distribution = distribution;
        });
        if zoned {
            objects.nodes = vec![node("n1", "z1"), node("n2", "z2")];
        }
        let mesh = build(objects);
        let mut known = Known {
            loads: ADDRESSES.iter().map(|address| at(address)).zip(loads).collect(),
            avoided: avoided.iter().map(|address| at(address)).collect(),
            ..Known::default()
        };
        if let (Some(pinned), Some(web)) = (pinned, mesh.services().next()) {
            known.pins.set(ip(CLIENT), web, 80, at(pinned), Duration::ZERO);
        }
        let tried: Vec<_> = tried.iter().map(|address| at(address)).collect();
        let dialled = Dialled {
            source: workload(&mesh, "demo/client"),
            client: ip(CLIENT),
            destination: SocketAddr::new(ip(if six { "fd00:96::1" } else { VIP }), 80),
            draws,
            tried: &tried,
            picked: None,
        };
        let answer = outbound(&mesh, &dialled, &known);

        // By hand: the best readiness of each address, then of the family, then of the node.
        let mut best: BTreeMap<&str, (Readiness, &str)> = BTreeMap::new();
        for (address, readiness, node, ..) in &rows {
            let readiness = if publish { Ready } else { *readiness };
            let entry = best.entry(address).or_insert((NotReady, node));
            entry.0 = entry.0.max(readiness);
        }
        let allowed: Vec<_> = best
            .iter()
            .filter(|(address, (_, node))| address.contains(':') == six && (!local || *node == "n1"))
            .collect();
        let class = allowed.iter().map(|(_, (readiness, _))| *readiness).max().unwrap_or(NotReady);
        let eligible: Vec<SocketAddr> = allowed
            .iter()
            .filter(|(_, (readiness, _))| *readiness == class && class != NotReady)
            .map(|(address, _)| at(address))
            .filter(|address| !tried.contains(address))
            .collect();
        match answer {
            Ok(route) => {
                prop_assert!(eligible.contains(&route.target.address()), "{route:?} is not in {eligible:?}");
                prop_assert_eq!(route.alternatives, eligible.len() - 1);
                if affinity && let Some(pinned) = pinned && eligible.contains(&at(pinned)) {
                    prop_assert_eq!(route.target.address(), at(pinned));
                }
            }
            Err(error) => prop_assert!(eligible.is_empty(), "{error} though {eligible:?} could be had"),
        }
    }
}
