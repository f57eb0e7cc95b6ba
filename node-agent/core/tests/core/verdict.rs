//! What the kernel may do by itself: one row per reason.

use tramline_core::authz::{Action, IpMatch, Rule, Source};
use tramline_core::mesh::Mesh;
use tramline_core::object::{Objects, Pod};
use tramline_core::peer_authentication::Mode;
use tramline_core::verdict::{KernelVerdict, kernel_verdict, service_verdict};

use crate::make::{any, build, labels, peer_authentication, pod, policy, ports, service, workload};

fn enrolled(name: &str, addresses: &[&str]) -> Pod {
    let mut pod = pod("demo", name, addresses);
    let mode = labels(&[("app", name), ("istio.io/dataplane-mode", "tramline")]);
    pod.meta.labels = mode;
    pod
}

fn objects() -> Objects {
    let mut far = enrolled("far", &["10.0.1.1"]);
    far.node = "n2".into();
    Objects {
        pods: vec![
            enrolled("client", &["10.0.0.9", "fd00::9"]),
            enrolled("web", &["10.0.0.1", "fd00::1"]),
            far,
            pod("demo", "plain", &["10.0.0.7"]),
        ],
        services: vec![service("demo", "web", &["10.96.0.1"], "web")],
        ..Objects::default()
    }
}

fn verdict(mesh: &Mesh, to: &str) -> String {
    match kernel_verdict(mesh, workload(mesh, "demo/client"), to.parse().unwrap()) {
        Some(KernelVerdict::Direct(to)) => format!("direct {}", to.name),
        Some(KernelVerdict::Deny(to)) => format!("deny {}", to.name),
        Some(KernelVerdict::Outside) => "outside".into(),
        None => "agent".into(),
    }
}

#[test]
fn only_what_needs_no_agent_goes_without_one() {
    let mesh = build(objects());
    for (to, expected) in [
        ("10.0.0.1:80", "direct web"),
        ("[fd00::1]:80", "direct web"),
        ("[::ffff:10.0.0.1]:80", "direct web"),
        // Port 15008 is the agent's.
        ("10.0.0.1:15008", "agent"),
        // An endpoint has to be chosen.
        ("10.96.0.1:80", "agent"),
        ("10.96.0.1:81", "agent"),
        // Needs a tunnel.
        ("10.0.1.1:80", "agent"),
        // Itself.
        ("10.0.0.9:80", "agent"),
        // A pod that is not in the mesh, and an address of which nobody knows anything.
        ("10.0.0.7:80", "outside"),
        ("192.0.2.1:443", "outside"),
        ("[2001:db8::1]:443", "outside"),
    ] {
        assert_eq!(verdict(&mesh, to), expected, "{to}");
    }
}

#[test]
fn policies_count_and_one_that_asks_for_the_clients_address_is_the_agents() {
    let from = |blocks: Vec<IpMatch>| Rule {
        from: vec![Source {
            ip_blocks: any(blocks),
            ..Source::default()
        }],
        ..Rule::default()
    };
    let block = || vec![IpMatch::parse("10.0.0.0/24").unwrap()];
    for (action, rule, expected) in [
        (Action::Deny, ports(any(vec![80])), "deny web"),
        (Action::Deny, ports(any(vec![81])), "direct web"),
        (Action::Allow, ports(any(vec![80])), "direct web"),
        (Action::Allow, ports(any(vec![81])), "deny web"),
        (Action::Deny, from(block()), "agent"),
        (Action::Allow, from(block()), "agent"),
        (Action::Audit, from(block()), "direct web"),
    ] {
        let mesh = build(Objects {
            authorization_policies: vec![policy("demo", "p", action, Some("web"), vec![rule])],
            ..objects()
        });
        assert_eq!(verdict(&mesh, "10.0.0.1:80"), expected, "{action:?}");
    }
}

#[test]
fn mutual_tls_is_no_question_between_two_pods_of_a_node() {
    let mesh = build(Objects {
        peer_authentications: vec![peer_authentication("demo", "strict", None, Mode::Strict, &[])],
        ..objects()
    });
    assert_eq!(verdict(&mesh, "10.0.0.1:80"), "direct web");
}

/// What the kernel may do with each endpoint of a Service; `None` where the agent chooses each time.
fn endpoints(mesh: &Mesh, to: &str) -> Option<Vec<String>> {
    let verdict = service_verdict(mesh, workload(mesh, "demo/client"), to.parse().unwrap())?;
    let mut rows: Vec<_> = verdict
        .endpoints
        .iter()
        .map(|(address, verdict)| match verdict {
            Some(KernelVerdict::Direct(to)) => format!("{address} direct {}", to.name),
            Some(KernelVerdict::Deny(to)) => format!("{address} deny {}", to.name),
            Some(KernelVerdict::Outside) => format!("{address} outside"),
            None => format!("{address} agent"),
        })
        .collect();
    rows.sort();
    Some(rows)
}

/// Two endpoints of this node, one of another, one that is not in the mesh, and the client itself.
fn behind_a_service() -> Objects {
    let mut all = objects();
    for pod in &mut all.pods {
        pod.meta.labels.insert("app".into(), "web".into());
    }
    all
}

#[test]
fn the_kernel_chooses_between_all_endpoints_and_connects_where_it_may() {
    let mesh = build(behind_a_service());
    let expected = [
        "10.0.0.1:8080 direct web",
        // Itself.
        "10.0.0.9:8080 agent",
        "10.0.0.7:8080 outside",
        // Needs a tunnel.
        "10.0.1.1:8080 agent",
    ];
    let mut expected: Vec<String> = expected.map(str::to_owned).into();
    expected.sort();
    assert_eq!(endpoints(&mesh, "10.96.0.1:80"), Some(expected.clone()));
    assert_eq!(endpoints(&mesh, "[::ffff:10.96.0.1]:80"), Some(expected));
    for nothing in ["10.96.0.1:81", "10.0.0.1:80", "192.0.2.1:80"] {
        assert_eq!(endpoints(&mesh, nothing), None, "{nothing}");
    }
}

#[test]
fn a_clients_affinity_is_the_agents() {
    let mut all = behind_a_service();
    all.services[0].session_affinity = Some(std::time::Duration::from_secs(60));
    assert_eq!(endpoints(&build(all), "10.96.0.1:80"), None);
}

#[test]
fn only_the_nearest_and_ready_endpoints_are_chosen_from() {
    let mut all = behind_a_service();
    all.services[0].node_local = true;
    let local = endpoints(&build(all), "10.96.0.1:80").unwrap();
    assert!(!local.iter().any(|row| row.starts_with("10.0.1.1")), "{local:?}");

    let mut all = behind_a_service();
    for pod in &mut all.pods {
        pod.ready = pod.meta.object.name.as_ref() == "far";
    }
    assert_eq!(
        endpoints(&build(all), "10.96.0.1:80"),
        Some(vec!["10.0.1.1:8080 agent".to_owned()])
    );
}

#[test]
fn a_services_endpoints_are_judged_one_by_one() {
    let mesh = build(Objects {
        authorization_policies: vec![policy(
            "demo",
            "p",
            Action::Deny,
            None,
            vec![ports(any(vec![8080]))],
        )],
        ..behind_a_service()
    });
    let rows = endpoints(&mesh, "10.96.0.1:80").unwrap();
    assert!(rows.contains(&"10.0.0.1:8080 deny web".to_owned()), "{rows:?}");
    assert!(rows.contains(&"10.0.0.7:8080 outside".to_owned()), "{rows:?}");
}
