//! What the kernel may do by itself: one row per reason.

use tramline_core::authz::{Action, IpMatch, Rule, Source};
use tramline_core::mesh::Mesh;
use tramline_core::object::{Objects, Pod};
use tramline_core::peer_authentication::Mode;
use tramline_core::verdict::{KernelVerdict, kernel_verdict};

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
