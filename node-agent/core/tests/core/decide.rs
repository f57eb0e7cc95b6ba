//! AuthorizationPolicy, sentence by sentence.

use tramline_core::authz::{
    Action, AllowedBy, AuthorizationPolicy, Condition, ConditionMatch, Connection, Decision, DeniedBy,
    IpMatch, MatchList, Rule, ServiceAccountMatch, Source, StringMatch, decide,
};
use tramline_core::identity::SpiffeId;
use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::reason::Reason;

use crate::make::{any, build, id, ip, none, pod, policy, ports, workload};

fn mesh(policies: Vec<AuthorizationPolicy>) -> Mesh {
    build(Objects {
        pods: vec![
            pod("demo", "web", &["10.0.0.1", "fd00::1"]),
            pod("other", "web", &["10.0.0.2"]),
        ],
        authorization_policies: policies,
        ..Objects::default()
    })
}

fn ask(mesh: &Mesh, uid: &str, source: Option<&SpiffeId>, from: &str, to: &str) -> Decision {
    let destination = workload(mesh, uid);
    let connection = Connection {
        source,
        source_address: ip(from),
        destination,
        destination_address: to.parse().unwrap(),
    };
    decide(mesh, &connection)
}

fn allows(policies: Vec<AuthorizationPolicy>, source: Option<&SpiffeId>) -> bool {
    ask(&mesh(policies), "demo/web", source, "10.9.0.1", "10.0.0.1:8080").is_allow()
}

fn principals(list: MatchList<StringMatch>) -> Rule {
    Rule {
        from: vec![Source {
            principals: list,
            ..Source::default()
        }],
        ..Rule::default()
    }
}

fn principal(text: &str) -> StringMatch {
    StringMatch::principal(text).unwrap()
}

fn from_principal(text: &str) -> Rule {
    principals(any(vec![principal(text)]))
}

#[test]
fn without_an_allow_policy_everybody_is_let_in() {
    let decision = ask(&mesh(vec![]), "demo/web", None, "10.9.0.1", "10.0.0.1:8080");
    assert_eq!(
        decision,
        Decision::Allow {
            by: AllowedBy::Default
        }
    );
    assert_eq!(decision.reason(), Reason::Ok);
}

#[test]
fn an_allow_policy_without_rules_denies_all() {
    let policies = vec![policy("demo", "none", Action::Allow, None, vec![])];
    assert!(!allows(policies, Some(&id("demo", "a"))));
}

#[test]
fn one_empty_rule_matches_everything() {
    assert!(allows(
        vec![policy("demo", "all", Action::Allow, None, vec![Rule::default()])],
        None
    ));
    assert!(!allows(
        vec![policy("demo", "all", Action::Deny, None, vec![Rule::default()])],
        Some(&id("demo", "a"))
    ));
}

#[test]
fn a_deny_policy_without_rules_denies_nobody() {
    assert!(allows(
        vec![policy("demo", "none", Action::Deny, None, vec![])],
        None
    ));
}

#[test]
fn deny_comes_before_allow_and_names_its_rule() {
    let policies = vec![
        policy("demo", "a-allow", Action::Allow, None, vec![Rule::default()]),
        policy(
            "demo",
            "deny",
            Action::Deny,
            None,
            vec![ports(any(vec![1])), from_principal("*/sa/b")],
        ),
    ];
    let mesh = mesh(policies);
    let denied = ask(
        &mesh,
        "demo/web",
        Some(&id("x", "b")),
        "10.9.0.1",
        "10.0.0.1:8080",
    );
    assert_eq!(
        denied.to_string(),
        "denied by AuthorizationPolicy demo/deny rule 1"
    );
    assert_eq!(
        (denied.reason(), denied.policy().unwrap().to_string()),
        (Reason::PolicyDenied, "demo/deny".into())
    );
    let allowed = ask(
        &mesh,
        "demo/web",
        Some(&id("x", "c")),
        "10.9.0.1",
        "10.0.0.1:8080",
    );
    assert_eq!(
        allowed.to_string(),
        "allowed by AuthorizationPolicy demo/a-allow rule 0"
    );
}

#[test]
fn any_allow_rule_of_any_policy_suffices_and_none_denies() {
    let policies = vec![
        policy(
            "demo",
            "one",
            Action::Allow,
            None,
            vec![from_principal("td.example/ns/x/sa/a")],
        ),
        policy(
            "istio-system",
            "two",
            Action::Allow,
            None,
            vec![from_principal("td.example/ns/x/sa/b")],
        ),
    ];
    for (account, allowed) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(
            allows(policies.clone(), Some(&id("x", account))),
            allowed,
            "{account}"
        );
    }
    let decision = ask(
        &mesh(policies),
        "demo/web",
        Some(&id("x", "c")),
        "10.9.0.1",
        "10.0.0.1:8080",
    );
    assert_eq!(
        decision,
        Decision::Deny {
            by: DeniedBy::NoAllowRule
        }
    );
}

#[test]
fn scopes_are_mesh_namespace_and_selector() {
    // (namespace of the policy, selector, denied in demo, denied in other)
    for (namespace, selector, demo, other) in [
        ("istio-system", None, true, true),
        ("istio-system", Some("web"), true, true),
        ("istio-system", Some("db"), false, false),
        ("demo", None, true, false),
        ("demo", Some("web"), true, false),
        ("demo", Some("db"), false, false),
        ("other", None, false, true),
        ("third", None, false, false),
    ] {
        let mesh = mesh(vec![policy(
            namespace,
            "deny",
            Action::Deny,
            selector,
            vec![Rule::default()],
        )]);
        let denied = |uid: &str, to: &str| !ask(&mesh, uid, None, "10.9.0.1", to).is_allow();
        let got = (
            denied("demo/web", "10.0.0.1:80"),
            denied("other/web", "10.0.0.2:80"),
        );
        assert_eq!(got, (demo, other), "{namespace} {selector:?}");
    }
}

#[test]
fn principals_compare_the_whole_principal() {
    for (pattern, matches) in [
        ("td.example/ns/x/sa/a", true),
        ("td.example/ns/x/sa/ab", false),
        ("td.example/ns/x/*", true),
        ("td.example/ns/*", true),
        ("other.example/*", false),
        ("*/sa/a", true),
        ("*/a", true),
        ("*a", true),
        ("*/sa/b", false),
        ("*", true),
        // Istio: `cluster.local` points at the local trust domain, whatever that is.
        ("cluster.local/ns/x/sa/a", true),
        ("cluster.local/ns/x/*", true),
        ("cluster.localx/ns/x/*", false),
        // Never a regular expression.
        ("td.example/ns/./sa/a*", false),
        (".*", false),
    ] {
        let policies = vec![policy(
            "demo",
            "p",
            Action::Allow,
            None,
            vec![from_principal(pattern)],
        )];
        assert_eq!(allows(policies, Some(&id("x", "a"))), matches, "{pattern}");
    }
}

#[test]
fn a_peer_without_identity_matches_no_name_and_every_negation() {
    let positive: Vec<Source> = vec![
        Source {
            principals: any(vec![StringMatch::Present]),
            ..Source::default()
        },
        Source {
            namespaces: any(vec![StringMatch::Present]),
            ..Source::default()
        },
        Source {
            service_accounts: any(vec![ServiceAccountMatch::parse("x/a", "demo").unwrap()]),
            ..Source::default()
        },
    ];
    for source in positive {
        let rule = Rule {
            from: vec![source.clone()],
            ..Rule::default()
        };
        assert!(
            !allows(vec![policy("demo", "p", Action::Allow, None, vec![rule])], None),
            "{source:?}"
        );
    }
    // How STRICT is written as a policy: deny who has no principal.
    let strict = principals(none(vec![StringMatch::Present]));
    assert!(!allows(
        vec![policy("demo", "p", Action::Deny, None, vec![strict.clone()])],
        None
    ));
    assert!(allows(
        vec![policy("demo", "p", Action::Deny, None, vec![strict])],
        Some(&id("x", "a"))
    ));
}

#[test]
fn namespaces_compare_the_parsed_namespace() {
    for (pattern, matches) in [
        ("prod", true),
        ("pro*", true),
        ("*od", true),
        ("*", true),
        ("prod-2", false),
        ("pr", false),
        ("sa", false),
    ] {
        let source = Source {
            namespaces: any(vec![StringMatch::namespace(pattern).unwrap()]),
            ..Source::default()
        };
        let rule = Rule {
            from: vec![source],
            ..Rule::default()
        };
        let policies = vec![policy("demo", "p", Action::Allow, None, vec![rule])];
        assert_eq!(allows(policies, Some(&id("prod", "sa"))), matches, "{pattern}");
    }
}

#[test]
fn service_accounts_default_to_the_policys_namespace_and_ignore_the_trust_domain() {
    let source = |text: &str| Source {
        service_accounts: any(vec![ServiceAccountMatch::parse(text, "demo").unwrap()]),
        ..Source::default()
    };
    let foreign = SpiffeId::parse("spiffe://foreign/ns/demo/sa/a").unwrap();
    for (text, peer, matches) in [
        ("a", id("demo", "a"), true),
        ("a", id("x", "a"), false),
        ("x/a", id("x", "a"), true),
        ("x/a", id("demo", "a"), false),
        ("demo/a", foreign, true),
    ] {
        let rule = Rule {
            from: vec![source(text)],
            ..Rule::default()
        };
        let policies = vec![policy("demo", "p", Action::Allow, None, vec![rule])];
        assert_eq!(allows(policies, Some(&peer)), matches, "{text} {peer}");
    }
}

#[test]
fn inside_a_source_fields_are_and_values_or_and_nots_must_not_match() {
    let source = Source {
        principals: MatchList {
            any: vec![principal("*/sa/a"), principal("*/sa/b")],
            none: vec![principal("td.example/ns/bad/*")],
        },
        ip_blocks: MatchList {
            any: vec![IpMatch::parse("10.9.0.0/16").unwrap()],
            none: vec![IpMatch::parse("10.9.9.9").unwrap()],
        },
        ..Source::default()
    };
    let rule = Rule {
        from: vec![source],
        ..Rule::default()
    };
    let mesh = mesh(vec![policy("demo", "p", Action::Allow, None, vec![rule])]);
    for (namespace, account, from, allowed) in [
        ("x", "a", "10.9.0.1", true),
        ("x", "b", "10.9.0.1", true),
        ("x", "b", "::ffff:10.9.0.1", true),
        ("x", "c", "10.9.0.1", false),
        ("bad", "a", "10.9.0.1", false),
        ("x", "a", "10.8.0.1", false),
        ("x", "a", "10.9.9.9", false),
        ("x", "a", "fd00::9", false),
    ] {
        let decision = ask(
            &mesh,
            "demo/web",
            Some(&id(namespace, account)),
            from,
            "10.0.0.1:8080",
        );
        assert_eq!(decision.is_allow(), allowed, "{namespace}/{account} {from}");
    }
}

#[test]
fn ports_are_the_workloads_ports() {
    for (list, port, matches) in [
        (any(vec![80, 8080]), 8080, true),
        (any(vec![80]), 8080, false),
        (none(vec![8080]), 8080, false),
        (none(vec![80]), 8080, true),
    ] {
        let mesh = mesh(vec![policy(
            "demo",
            "p",
            Action::Allow,
            None,
            vec![ports(list.clone())],
        )]);
        let decision = ask(&mesh, "demo/web", None, "10.9.0.1", &format!("10.0.0.1:{port}"));
        assert_eq!(decision.is_allow(), matches, "{list:?} {port}");
    }
}

#[test]
fn ip_blocks_are_addresses_or_ranges_of_one_family() {
    let block = |text: &str| IpMatch::parse(text).unwrap();
    for (list, from, matches) in [
        (any(vec![block("10.9.0.0/16")]), "10.9.255.1", true),
        (any(vec![block("10.9.0.0/16")]), "10.10.0.1", false),
        (any(vec![block("10.9.0.1")]), "10.9.0.1", true),
        (any(vec![block("10.9.0.1")]), "10.9.0.2", false),
        (any(vec![block("10.9.0.1")]), "::ffff:10.9.0.1", true),
        (any(vec![block("::ffff:10.9.0.0/112")]), "10.9.255.1", true),
        (any(vec![block("::ffff:10.9.0.0/112")]), "10.10.0.1", false),
        (any(vec![block("::ffff:a09:0/112")]), "::ffff:10.9.0.1", true),
        (any(vec![block("::ffff:10.9.0.1/128")]), "10.9.0.1", true),
        (any(vec![block("::ffff:0:0/96")]), "10.9.0.1", true),
        (any(vec![block("::ffff:0:0/96")]), "fd00:9::7", false),
        (none(vec![block("::ffff:10.0.0.0/104")]), "10.9.0.1", false),
        // Wider than the mapped addresses: of IPv6, as Envoy and ztunnel compare.
        (any(vec![block("::/0")]), "fd00:9::7", true),
        (any(vec![block("::/0")]), "10.9.0.1", false),
        (any(vec![block("::/0")]), "::ffff:10.9.0.1", false),
        (any(vec![block("::/95")]), "10.9.0.1", false),
        (any(vec![block("fd00:9::/64")]), "fd00:9::7", true),
        (any(vec![block("0.0.0.0/0")]), "fd00:9::7", false),
        (
            any(vec![block("10.8.0.0/16"), block("10.9.0.0/16")]),
            "10.9.0.1",
            true,
        ),
        (none(vec![block("10.9.0.0/16")]), "10.9.0.1", false),
        (none(vec![block("10.9.0.0/16")]), "10.8.0.1", true),
    ] {
        let rule = Rule {
            from: vec![Source {
                ip_blocks: list.clone(),
                ..Source::default()
            }],
            ..Rule::default()
        };
        let mesh = mesh(vec![policy("demo", "p", Action::Allow, None, vec![rule])]);
        let decision = ask(&mesh, "demo/web", None, from, "10.0.0.1:8080");
        assert_eq!(decision.is_allow(), matches, "{list:?} {from}");
    }
}

#[test]
fn a_deny_by_mapped_addresses_denies() {
    let denied = |text: &str, from: &str| {
        let rule = Rule {
            from: vec![Source {
                ip_blocks: any(vec![IpMatch::parse(text).unwrap()]),
                ..Source::default()
            }],
            ..Rule::default()
        };
        let mesh = mesh(vec![policy("demo", "p", Action::Deny, None, vec![rule])]);
        !ask(&mesh, "demo/web", None, from, "10.0.0.1:8080").is_allow()
    };
    assert!(denied("::ffff:10.0.0.0/104", "10.9.0.1"));
    assert!(!denied("::ffff:10.0.0.0/104", "11.0.0.1"));
    assert_eq!(
        IpMatch::parse("::ffff:10.0.0.0/104").unwrap().to_string(),
        "10.0.0.0/8"
    );
    assert_eq!(
        IpMatch::parse("::ffff:10.0.0.1/104").unwrap_err().to_string(),
        "`::ffff:10.0.0.1/104`: bits outside the prefix are set; did you mean `10.0.0.0/8`?"
    );
}

#[test]
fn a_rule_needs_one_from_one_to_and_every_when() {
    let when = |matches| Condition { matches };
    let rule = Rule {
        from: from_principal("*/sa/a").from,
        to: ports(any(vec![8080])).to,
        when: vec![
            when(ConditionMatch::SourceNamespace(any(vec![
                StringMatch::namespace("x").unwrap(),
            ]))),
            when(ConditionMatch::DestinationIp(any(vec![
                IpMatch::parse("10.0.0.1").unwrap(),
            ]))),
            when(ConditionMatch::SourceIp(none(vec![
                IpMatch::parse("10.8.0.0/16").unwrap(),
            ]))),
            when(ConditionMatch::DestinationPort(none(vec![9090]))),
            when(ConditionMatch::SourcePrincipal(any(vec![principal(
                "cluster.local/ns/x/*",
            )]))),
            when(ConditionMatch::SourceServiceAccount(any(vec![
                ServiceAccountMatch::parse("x/a", "y").unwrap(),
            ]))),
        ],
    };
    let mesh = mesh(vec![policy("demo", "p", Action::Allow, None, vec![rule])]);
    for (namespace, account, from, to, allowed) in [
        ("x", "a", "10.9.0.1", "10.0.0.1:8080", true),
        ("x", "b", "10.9.0.1", "10.0.0.1:8080", false),
        ("y", "a", "10.9.0.1", "10.0.0.1:8080", false),
        ("x", "a", "10.8.0.1", "10.0.0.1:8080", false),
        ("x", "a", "10.9.0.1", "10.0.0.1:8081", false),
        ("x", "a", "10.9.0.1", "[fd00::1]:8080", false),
    ] {
        let decision = ask(&mesh, "demo/web", Some(&id(namespace, account)), from, to);
        assert_eq!(decision.is_allow(), allowed, "{namespace}/{account} {from} {to}");
    }
}

#[test]
fn a_destination_that_the_snapshot_does_not_hold_is_denied() {
    let with = mesh(vec![]);
    let without = build(Objects::default());
    let connection = Connection {
        source: None,
        source_address: ip("10.9.0.1"),
        destination: workload(&with, "demo/web"),
        destination_address: "10.0.0.1:80".parse().unwrap(),
    };
    assert_eq!(decide(&without, &connection).reason(), Reason::UnknownWorkload);
}
