//! The endpoint that the kernel chose: taken where the agent could have chosen it too.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::route::{Alike, Balance, Dialled, Target, outbound};
use tramline_core::service::Service;
use tramline_core::verdict::service_verdict;

use crate::make::{build, ip, pod, service, workload};

/// Endpoints that others are preferred to.
struct Avoiding(&'static str);

impl Balance for Avoiding {
    fn load(&self, _: SocketAddr) -> u64 {
        0
    }

    fn is_avoided(&self, endpoint: SocketAddr) -> bool {
        endpoint.ip() == ip(self.0)
    }

    fn pinned(&self, _: IpAddr, _: &Service, _: u16) -> Option<SocketAddr> {
        None
    }
}

/// Three endpoints of Service 10.96.0.1, the last one not ready.
fn objects() -> Objects {
    let mut pods = vec![pod("demo", "client", &["10.0.0.9"])];
    for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        let mut one = pod("demo", name, &[address]);
        one.meta.labels.insert("app".into(), "web".into());
        one.ready = name != "c";
        pods.push(one);
    }
    Objects {
        pods,
        services: vec![service("demo", "web", &["10.96.0.1"], "web")],
        ..Objects::default()
    }
}

fn dial(mesh: &Mesh, balance: &dyn Balance, draw: u64, tried: &[&str], picked: Option<&str>) -> String {
    let at = |address: &str| SocketAddr::new(ip(address), 8080);
    let tried: Vec<_> = tried.iter().map(|address| at(address)).collect();
    let dialled = Dialled {
        source: workload(mesh, "demo/client"),
        client: ip("10.0.0.9"),
        destination: "10.96.0.1:80".parse().unwrap(),
        draws: [draw, 0],
        tried: &tried,
        picked: picked.map(at),
    };
    let route = outbound(mesh, &dialled, balance).unwrap();
    assert!(matches!(route.target, Target::Workload { .. }));
    route.target.address().ip().to_string()
}

#[test]
fn the_choice_is_taken_whatever_chance_says() {
    let mesh = build(objects());
    for draw in [0, u64::MAX] {
        for picked in ["10.0.0.1", "10.0.0.2"] {
            assert_eq!(dial(&mesh, &Alike, draw, &[], Some(picked)), picked);
        }
    }
}

#[test]
fn what_speaks_against_an_endpoint_speaks_against_the_choice() {
    let mesh = build(objects());
    for (picked, balance, tried) in [
        // Not ready; no endpoint; tried in vain; failed just now.
        ("10.0.0.3", &Alike as &dyn Balance, [].as_slice()),
        ("10.0.0.4", &Alike, &[]),
        ("10.0.0.1", &Alike, &["10.0.0.1"]),
        ("10.0.0.1", &Avoiding("10.0.0.1"), &[]),
    ] {
        assert_eq!(
            dial(&mesh, balance, u64::MAX, tried, Some(picked)),
            "10.0.0.2",
            "{picked}"
        );
    }
}

#[test]
fn a_client_with_affinity_stays_where_it_is() {
    let mut all = objects();
    all.services[0].session_affinity = Some(Duration::from_secs(60));
    let mesh = build(all);
    let home = dial(&mesh, &Alike, 0, &[], None);
    for picked in ["10.0.0.1", "10.0.0.2"] {
        assert_eq!(dial(&mesh, &Alike, 0, &[], Some(picked)), home);
    }
}

#[test]
fn the_kernel_chooses_from_what_the_agent_would() {
    let mesh = build(objects());
    let source = workload(&mesh, "demo/client");
    let verdict = service_verdict(&mesh, source, "10.96.0.1:80".parse().unwrap()).unwrap();
    let kernel: BTreeSet<_> = verdict
        .endpoints
        .iter()
        .map(|(address, _)| address.ip().to_string())
        .collect();
    let agent: BTreeSet<_> = (0..=16)
        .map(|step| dial(&mesh, &Alike, step * (u64::MAX / 16), &[], None))
        .collect();
    assert_eq!(kernel, agent);
}
