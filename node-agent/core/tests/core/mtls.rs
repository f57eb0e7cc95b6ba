//! PeerAuthentication, and the kernel's projection of it and of policies.

use tramline_core::authz::{
    Action, Connection, IpMatch, MatchList, Operation, Rule, Source, StringMatch, decide,
};
use tramline_core::object::{Created, Objects};
use tramline_core::peer_authentication::{Mode, PeerAuthentication};
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};
use tramline_core::reason::Reason;
use tramline_core::route::{Alike, Dialled, outbound};

use crate::make::{build, errors, id, ip, peer_authentication as pa, pod, policy, service, workload};

/// Whether plaintext is refused at ports 80 and 8080 of `demo/web`.
fn strict(policies: Vec<PeerAuthentication>) -> (bool, bool) {
    let pods = vec![pod("demo", "web", &["10.0.0.1"])];
    let mesh = build(Objects {
        pods,
        peer_authentications: policies,
        ..Objects::default()
    });
    let ask = |port: u16| {
        let connection = Connection {
            source: None,
            source_address: ip("10.9.0.1"),
            destination: workload(&mesh, "demo/web"),
            destination_address: (ip("10.0.0.1"), port).into(),
        };
        let with_identity = Connection {
            source: Some(&id("x", "a")),
            ..connection
        };
        assert!(
            decide(&mesh, &with_identity).is_allow(),
            "mTLS is never refused for being mTLS"
        );
        let decision = decide(&mesh, &connection);
        assert!(decision.is_allow() || decision.reason() == Reason::MtlsRequired);
        let projected = verdict(&mesh, workload(&mesh, "demo/web"), port);
        assert_eq!(projected == PlaintextVerdict::Drop, !decision.is_allow());
        !decision.is_allow()
    };
    (ask(80), ask(8080))
}

#[test]
fn workload_beats_namespace_beats_mesh_and_unset_inherits() {
    use Mode::{Permissive, Strict, Unset};
    for (mesh, namespace, workload, refused) in [
        (Unset, Unset, Unset, false),
        (Strict, Unset, Unset, true),
        (Unset, Strict, Unset, true),
        (Unset, Unset, Strict, true),
        (Strict, Permissive, Unset, false),
        (Permissive, Strict, Unset, true),
        (Strict, Strict, Permissive, false),
        (Permissive, Permissive, Strict, true),
        (Strict, Permissive, Strict, true),
    ] {
        let policies = vec![
            pa("istio-system", "default", None, mesh, &[]),
            pa("demo", "default", None, namespace, &[]),
            pa("demo", "web", Some("web"), workload, &[]),
        ];
        assert_eq!(
            strict(policies),
            (refused, refused),
            "{mesh:?} {namespace:?} {workload:?}"
        );
    }
}

#[test]
fn without_any_policy_plaintext_is_taken() {
    assert_eq!(strict(vec![]), (false, false));
    assert_eq!(
        strict(vec![pa("other", "default", None, Mode::Strict, &[])]),
        (false, false)
    );
    assert_eq!(
        strict(vec![pa("demo", "db", Some("db"), Mode::Strict, &[])]),
        (false, false)
    );
}

#[test]
fn ports_have_their_own_mode() {
    use Mode::{Permissive, Strict, Unset};
    for (mode, port, refused) in [
        (Strict, Permissive, (false, true)),
        (Permissive, Strict, (true, false)),
        (Strict, Unset, (true, true)),
        (Unset, Strict, (true, false)),
    ] {
        assert_eq!(
            strict(vec![pa("demo", "web", Some("web"), mode, &[(80, port)])]),
            refused,
            "{mode:?} {port:?}"
        );
    }
    let inherits = vec![
        pa("demo", "web", Some("web"), Unset, &[(80, Permissive)]),
        pa("demo", "default", None, Strict, &[]),
    ];
    assert_eq!(strict(inherits), (false, true));
}

#[test]
fn a_port_is_the_pods_and_not_that_of_a_service_before_it() {
    // Service port 80 leads to port 8080 of the pod.
    let at = |port| {
        let mesh = build(Objects {
            pods: vec![
                pod("demo", "client", &["10.0.0.9"]),
                pod("demo", "web", &["10.0.0.1"]),
            ],
            services: vec![service("demo", "web", &["10.96.0.1"], "web")],
            peer_authentications: vec![pa(
                "demo",
                "web",
                Some("web"),
                Mode::Permissive,
                &[(port, Mode::Strict)],
            )],
            ..Objects::default()
        });
        let dialled = Dialled {
            source: workload(&mesh, "demo/client"),
            client: ip("10.0.0.9"),
            destination: (ip("10.96.0.1"), 80).into(),
            draws: [0, 0],
            tried: &[],
            picked: None,
        };
        let led = outbound(&mesh, &dialled, &Alike).unwrap().target.address();
        assert_eq!(led.port(), 8080);
        verdict(&mesh, workload(&mesh, "demo/web"), led.port())
    };
    assert_eq!(at(80), PlaintextVerdict::Pass);
    assert_eq!(at(8080), PlaintextVerdict::Drop);
}

#[test]
fn among_equals_the_oldest_wins_then_the_name() {
    let aged = |name: &str, created: Option<&str>, mode| {
        let mut policy = pa("demo", name, None, mode, &[]);
        policy.meta.created = created.map_or_else(Created::default, |text| Created::parse(text).unwrap());
        policy
    };
    let (old, new) = (Some("2025-01-01T00:00:00Z"), Some("2025-01-01T00:00:01Z"));
    for (first, second, refused) in [
        (
            aged("a", new, Mode::Permissive),
            aged("b", old, Mode::Strict),
            true,
        ),
        (
            aged("a", old, Mode::Permissive),
            aged("b", new, Mode::Strict),
            false,
        ),
        (
            aged("a", None, Mode::Permissive),
            aged("b", None, Mode::Strict),
            false,
        ),
        (
            aged("b", None, Mode::Permissive),
            aged("a", None, Mode::Strict),
            true,
        ),
        (
            aged("a", None, Mode::Permissive),
            aged("b", old, Mode::Strict),
            true,
        ),
    ] {
        assert_eq!(strict(vec![first, second]).0, refused);
    }
    assert_eq!(Created::parse("2025-01-01T00:00:00+00:00"), None);
    assert_eq!(Created::parse("2025-01-01 00:00:00Z"), None);
}

#[test]
fn what_would_have_no_effect_is_refused() {
    let refused = |policy| {
        errors(Objects {
            peer_authentications: vec![policy],
            ..Objects::default()
        })
    };
    let in_root = refused(pa("istio-system", "p", Some("web"), Mode::Strict, &[]));
    assert!(
        in_root[0].contains("PeerAuthentication istio-system/p: spec.selector"),
        "{in_root:?}"
    );
    let everywhere = refused(pa("demo", "p", None, Mode::Strict, &[(80, Mode::Permissive)]));
    assert!(everywhere[0].contains("spec.portLevelMtls"), "{everywhere:?}");
}

#[test]
fn the_table_answers_only_what_no_peer_can_change() {
    use PlaintextVerdict::{Ask, Drop, Pass};
    let ports = |ports: &[u16]| {
        vec![Operation {
            ports: MatchList {
                any: ports.to_vec(),
                none: vec![],
            },
            ..Operation::default()
        }]
    };
    let from_ip = Source {
        ip_blocks: MatchList {
            any: vec![IpMatch::parse("10.1.0.0/16").unwrap()],
            none: vec![],
        },
        ..Source::default()
    };
    let named = Source {
        principals: MatchList {
            any: vec![StringMatch::Present],
            none: vec![],
        },
        ..Source::default()
    };
    let rules = vec![
        Rule {
            to: ports(&[80]),
            ..Rule::default()
        },
        Rule {
            to: ports(&[81]),
            from: vec![from_ip.clone()],
            ..Rule::default()
        },
        Rule {
            to: ports(&[82]),
            from: vec![named],
            ..Rule::default()
        },
        Rule {
            to: ports(&[83]),
            ..Rule::default()
        },
    ];
    let deny = vec![Rule {
        to: ports(&[83]),
        from: vec![from_ip],
        ..Rule::default()
    }];
    let mesh = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        authorization_policies: vec![
            policy("demo", "allow", Action::Allow, None, rules),
            policy("demo", "deny", Action::Deny, None, deny),
        ],
        ..Objects::default()
    });
    let table = table(&mesh, workload(&mesh, "demo/web"));
    assert_eq!(table.default, Drop);
    assert_eq!(
        table.ports.into_iter().collect::<Vec<_>>(),
        [(80, Pass), (81, Ask), (83, Ask)],
        "82 is for peers with a name only: no row of its own"
    );
}
