//! Where connections go.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tramline_core::mesh::Mesh;
use tramline_core::object::{EndpointSlice, Kind, Meta, Objects, SliceEndpoint, SlicePort};
use tramline_core::reason::Reason;
use tramline_core::route::{Alike, Dialled, OutboundRoute, RouteError, Target, outbound};
use tramline_core::service::{Hints, Readiness};

use crate::make::{build, ip, labels, pod, service, workload};

fn objects() -> Objects {
    let mut v1 = pod("demo", "v1", &["10.0.0.1", "fd00::1"]);
    let mut v2 = pod("demo", "v2", &["10.0.0.2", "fd00::2"]);
    let mut cold = pod("demo", "cold", &["10.0.0.3"]);
    let mut away = pod("demo", "away", &["10.0.0.4"]);
    for pod in [&mut v1, &mut v2, &mut cold, &mut away] {
        pod.meta.labels = labels(&[("app", "web")]);
    }
    v2.ports[0].port = 9090;
    v2.node = "n2".into();
    cold.ready = false;
    away.deleting = true;
    Objects {
        pods: vec![pod("demo", "client", &["10.0.0.9"]), v1, v2, cold, away],
        services: vec![service("demo", "web", &["10.96.0.1", "fd00:96::1"], "web")],
        ..Objects::default()
    }
}

fn objects_with_client_on(node: &str) -> Objects {
    let mut objects = objects();
    objects.pods[0].node = node.into();
    objects
}

fn go(mesh: &Mesh, to: &str, draw: u64, tried: &[SocketAddr]) -> Result<OutboundRoute, RouteError> {
    let dialled = Dialled {
        source: workload(mesh, "demo/client"),
        client: ip("10.0.0.9"),
        destination: to.parse().unwrap(),
        draws: [draw, 0],
        tried,
        picked: None,
    };
    outbound(mesh, &dialled, &Alike)
}

#[test]
fn a_service_leads_evenly_to_its_ready_endpoints_at_their_own_ports() {
    let mesh = build(objects());
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    for step in 0..1024 {
        let route = go(&mesh, "10.96.0.1:80", step << 54, &[]).unwrap();
        assert_eq!(
            route.service.unwrap().hostname.as_ref(),
            "web.demo.svc.cluster.local"
        );
        *hits.entry(route.target.address().to_string()).or_default() += 1;
    }
    assert_eq!(
        hits.into_iter().collect::<Vec<_>>(),
        [("10.0.0.1:8080".into(), 512), ("10.0.0.2:9090".into(), 512)]
    );
}

#[test]
fn a_family_leads_to_its_own_family() {
    let mesh = build(objects());
    let mapped = go(&mesh, "[::ffff:10.96.0.1]:80", 0, &[]).unwrap();
    assert_eq!(mapped.target.address().to_string(), "10.0.0.1:8080");
    let six = go(&mesh, "[fd00:96::1]:80", u64::MAX, &[]).unwrap();
    assert_eq!(six.target.address().to_string(), "[fd00::2]:9090");
}

#[test]
fn endpoints_that_were_tried_are_left_out_until_none_is_left() {
    let mesh = build(objects());
    let first = "10.0.0.1:8080".parse().unwrap();
    for draw in [0, u64::MAX / 2, u64::MAX] {
        let route = go(&mesh, "10.96.0.1:80", draw, &[first]).unwrap();
        assert_eq!(route.target.address().to_string(), "10.0.0.2:9090");
    }
    let error = go(
        &mesh,
        "10.96.0.1:80",
        0,
        &[first, "10.0.0.2:9090".parse().unwrap()],
    )
    .unwrap_err();
    assert_eq!(error.reason(), Reason::NoHealthyEndpoint);
    assert_eq!(
        error.to_string(),
        "service demo/web port 80: no ready endpoint left after 2 tried"
    );
}

#[test]
fn a_port_that_a_service_does_not_have_leads_nowhere() {
    let error = go(&build(objects()), "10.96.0.1:81", 0, &[]).unwrap_err();
    assert_eq!(error.reason(), Reason::UnknownServicePort);
    assert_eq!(error.service().name.as_ref(), "web");
}

#[test]
fn a_pods_address_leads_to_the_pod_and_an_unknown_one_past_the_mesh() {
    let mesh = build(objects());
    for (to, uid) in [
        ("10.0.0.1:1234", "demo/v1"),
        ("10.0.0.3:1", "demo/cold"),
        ("[::ffff:10.0.0.1]:1234", "demo/v1"),
    ] {
        let Target::Workload { workload, address } = go(&mesh, to, 0, &[]).unwrap().target else {
            panic!("{to}")
        };
        assert_eq!((workload.uid.as_str(), address.is_ipv4()), (uid, true));
    }
    let out = go(&mesh, "192.0.2.1:443", 0, &[]).unwrap();
    assert_eq!(
        out.target,
        Target::Passthrough {
            address: "192.0.2.1:443".parse().unwrap()
        }
    );
    assert_eq!(out.service, None);
}

#[test]
fn pods_in_the_nodes_namespace_have_no_address_of_their_own() {
    let mut objects = objects();
    for name in ["h1", "h2"] {
        let mut host = pod("demo", name, &["172.16.0.1"]);
        host.host_network = true;
        host.meta.labels = labels(&[("app", "host"), ("istio.io/dataplane-mode", "tramline")]);
        objects.pods.push(host);
    }
    objects
        .services
        .push(service("demo", "host", &["10.96.0.2"], "host"));
    let mesh = build(objects);
    assert!(!workload(&mesh, "demo/h1").enrolled);
    let address = "172.16.0.1:8080".parse().unwrap();
    assert_eq!(
        go(&mesh, "172.16.0.1:8080", 0, &[]).unwrap().target,
        Target::Passthrough { address }
    );
    assert_eq!(
        go(&mesh, "10.96.0.2:80", 0, &[]).unwrap().target,
        Target::Passthrough { address }
    );
}

#[test]
fn internal_traffic_policy_local_stays_on_the_clients_node() {
    let mut objects = objects();
    objects.services[0].node_local = true;
    let mesh = build(objects);
    for draw in [0, u64::MAX] {
        assert_eq!(
            go(&mesh, "10.96.0.1:80", draw, &[]).unwrap().target.address(),
            "10.0.0.1:8080".parse().unwrap()
        );
    }
    let error = go(&mesh, "10.96.0.1:80", 0, &["10.0.0.1:8080".parse().unwrap()]).unwrap_err();
    assert_eq!(error.reason(), Reason::NoHealthyEndpoint);
    let mut objects = objects_with_client_on("n3");
    objects.services[0].node_local = true;
    let mesh = build(objects);
    let error = go(&mesh, "10.96.0.1:80", 0, &[]).unwrap_err();
    assert_eq!(error.reason(), Reason::NoLocalEndpoint);
    assert_eq!(
        error.to_string(),
        "service demo/web port 80: no ready endpoint on node n3, and internalTrafficPolicy is Local"
    );
}

#[test]
fn slices_replace_the_selector_and_merge() {
    let mut objects = objects();
    let slice = |name: &str, endpoints: &[(&str, bool)]| EndpointSlice {
        meta: Meta::new(Kind::EndpointSlice, "demo", name),
        service: "web".into(),
        ports: vec![SlicePort {
            name: "web".into(),
            port: 7000,
        }],
        endpoints: endpoints
            .iter()
            .map(|(address, ready)| SliceEndpoint {
                addresses: vec![ip(address)],
                readiness: if *ready {
                    Readiness::Ready
                } else {
                    Readiness::NotReady
                },
                node: None,
                zone: None,
                hints: Hints::default(),
            })
            .collect(),
    };
    objects.endpoint_slices = vec![
        slice("a", &[("10.0.0.1", false), ("192.0.2.9", true)]),
        slice("b", &[("10.0.0.1", true)]),
    ];
    let mesh = build(objects);
    let Target::Workload { workload, address } = go(&mesh, "10.96.0.1:80", 0, &[]).unwrap().target else {
        panic!()
    };
    assert_eq!(
        (workload.uid.as_str(), address.to_string().as_str()),
        ("demo/v1", "10.0.0.1:7000")
    );
    let outside = go(&mesh, "10.96.0.1:80", u64::MAX, &[]).unwrap().target;
    assert_eq!(
        outside,
        Target::Passthrough {
            address: "192.0.2.9:7000".parse().unwrap()
        }
    );
}
