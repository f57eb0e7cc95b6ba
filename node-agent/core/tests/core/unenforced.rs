//! What cannot be enforced at L4, sentence by sentence: never opened, and said in the policy's status.

mod targets;

use tramline_core::authz::{
    Action, AuthorizationPolicy, Condition, ConditionMatch, Connection, Decision, DeniedBy, MatchList,
    Operation, PolicyReason, PolicyStatus, Rule, Source, StringMatch, Target, TargetKind, decide, dry_run,
    explain,
};
use tramline_core::identity::SpiffeId;
use tramline_core::mesh::Mesh;
use tramline_core::object::{EndpointSlice, Kind, Meta, Objects, SliceEndpoint, SlicePort};
use tramline_core::plaintext::{PlaintextVerdict, verdict};
use tramline_core::service::{Hints, Readiness};

use crate::explain::assert_consistent;
use crate::make::{any, build, id, ip, none, pod, policy, service, workload};

fn mesh(policies: Vec<AuthorizationPolicy>) -> Mesh {
    build(Objects {
        pods: vec![
            pod("demo", "web", &["10.0.0.1"]),
            pod("demo", "db", &["10.0.0.2"]),
        ],
        services: vec![service("demo", "web", &["10.96.0.1"], "web")],
        authorization_policies: policies,
        ..Objects::default()
    })
}

fn ask(mesh: &Mesh, uid: &str, source: Option<&SpiffeId>, port: u16) -> Decision {
    let destination = workload(mesh, uid);
    let connection = Connection {
        source,
        source_address: ip("10.9.0.1"),
        destination,
        destination_address: (destination.addresses[0], port).into(),
    };
    let decision = decide(mesh, &connection);
    assert_consistent(&explain(mesh, &connection), &decision);
    decision
}

fn reasons(status: &PolicyStatus) -> Vec<PolicyReason> {
    status
        .conditions
        .iter()
        .map(|condition| condition.reason)
        .collect()
}

fn status(mesh: &Mesh) -> PolicyStatus {
    mesh.policy_statuses().next().unwrap()
}

fn from_namespace(name: &str) -> Source {
    Source {
        namespaces: any(vec![StringMatch::namespace(name).unwrap()]),
        ..Source::default()
    }
}

fn from_jwt() -> Source {
    Source {
        http: vec!["requestPrincipals"],
        ..Source::default()
    }
}

fn to(ports: MatchList<u16>, http: &[&'static str]) -> Operation {
    Operation {
        ports,
        http: http.to_vec(),
    }
}

fn header() -> Condition {
    Condition {
        matches: ConditionMatch::Http("request.headers[x]".into()),
    }
}

fn account_in(namespace: &str) -> Condition {
    Condition {
        matches: ConditionMatch::SourceNamespace(any(vec![StringMatch::namespace(namespace).unwrap()])),
    }
}

/// Who of (x at 8080, x at 9090, y at 8080, plaintext at 8080) gets in.
fn let_in(mesh: &Mesh) -> [bool; 4] {
    let (x, y) = (id("x", "a"), id("y", "a"));
    [(Some(&x), 8080), (Some(&x), 9090), (Some(&y), 8080), (None, 8080)]
        .map(|(source, port)| ask(mesh, "demo/web", source, port).is_allow())
}

#[test]
fn deny_rules_lose_their_http_fields_and_keep_the_rest() {
    use PolicyReason::{RuleWidened, WorkloadClosed};
    let no_ports = || any(vec![]);
    for (sentence, from, to, when, allowed, reason) in [
        (
            "DENY {methods POST, ports 8080} denies all TCP to 8080",
            vec![],
            vec![to(any(vec![8080]), &["methods"])],
            vec![],
            [false, true, false, false],
            WorkloadClosed,
        ),
        (
            "the trap: DENY from ns x + methods POST; the empty `to` must not make it match nothing",
            vec![from_namespace("x")],
            vec![to(no_ports(), &["methods"])],
            vec![],
            [false, false, true, true],
            RuleWidened,
        ),
        (
            "the trap: nothing but HTTP closes the workload",
            vec![],
            vec![to(no_ports(), &["paths", "methods"])],
            vec![],
            [false; 4],
            WorkloadClosed,
        ),
        (
            "the trap: an empty `from` entry beside another one matches everybody",
            vec![from_namespace("x"), from_jwt()],
            vec![],
            vec![],
            [false; 4],
            WorkloadClosed,
        ),
        (
            "two `to` operations, one of HTTP only and one with ports: both are denied",
            vec![],
            vec![to(no_ports(), &["methods"]), to(any(vec![9090]), &[])],
            vec![],
            [false; 4],
            WorkloadClosed,
        ),
        (
            "a `when` of HTTP counts as fulfilled",
            vec![],
            vec![to(any(vec![8080]), &[])],
            vec![header()],
            [false, true, false, false],
            WorkloadClosed,
        ),
        (
            "a `when` of HTTP beside one of L4 leaves that one",
            vec![],
            vec![],
            vec![header(), account_in("x")],
            [false, false, true, true],
            RuleWidened,
        ),
        (
            "notPorts stay",
            vec![],
            vec![to(none(vec![8080]), &["notPaths"])],
            vec![],
            [true, false, true, true],
            WorkloadClosed,
        ),
    ] {
        for action in [Action::Deny, Action::Custom] {
            let rule = Rule {
                from: from.clone(),
                to: to.clone(),
                when: when.clone(),
            };
            let mesh = mesh(vec![policy("demo", "p", action, Some("web"), vec![rule])]);
            assert_eq!(let_in(&mesh), allowed, "{sentence}");
            assert!(ask(&mesh, "demo/db", None, 8080).is_allow(), "{sentence}: others");
            let status = status(&mesh);
            assert!(!status.accepted, "{sentence}");
            assert_eq!(reasons(&status).last(), Some(&reason), "{sentence}");
            let condition = status.conditions.last().unwrap();
            assert_eq!(condition.field, "spec.rules[0]");
            assert!(
                condition.message.contains("HTTP is not looked at ("),
                "{condition}"
            );
        }
    }
}

#[test]
fn allow_rules_with_http_fields_are_dropped_whole_and_the_policy_stays() {
    let l4 = Rule {
        from: vec![from_namespace("y")],
        ..Rule::default()
    };
    for (sentence, rule) in [
        (
            "methods beside a source",
            Rule {
                from: vec![from_namespace("x")],
                to: vec![to(any(vec![]), &["methods"])],
                ..Rule::default()
            },
        ),
        (
            "one `from` entry of HTTP drops the other one too",
            Rule {
                from: vec![from_namespace("x"), from_jwt()],
                ..Rule::default()
            },
        ),
        (
            "a `when` of HTTP",
            Rule {
                when: vec![header()],
                ..Rule::default()
            },
        ),
        (
            "hosts beside ports",
            Rule {
                to: vec![to(any(vec![8080]), &["hosts"])],
                ..Rule::default()
            },
        ),
    ] {
        let alone = mesh(vec![policy("demo", "p", Action::Allow, None, vec![rule.clone()])]);
        assert_eq!(let_in(&alone), [false; 4], "{sentence}: the policy denies all");
        let beside = mesh(vec![policy(
            "demo",
            "p",
            Action::Allow,
            None,
            vec![rule, l4.clone()],
        )]);
        assert_eq!(
            let_in(&beside),
            [false, false, true, false],
            "{sentence}: the other rule stays"
        );
        let status = status(&beside);
        assert_eq!(
            (status.accepted, reasons(&status)),
            (false, vec![PolicyReason::RuleDropped])
        );
        assert_eq!(
            verdict(&alone, workload(&alone, "demo/web"), 8080),
            PlaintextVerdict::Drop
        );
    }
}

#[test]
fn policies_of_l4_alone_are_accepted() {
    let rule = Rule {
        from: vec![from_namespace("x")],
        to: vec![to(any(vec![8080]), &[])],
        when: vec![account_in("x")],
    };
    for action in [Action::Allow, Action::Deny] {
        let mesh = mesh(vec![policy("demo", "p", action, None, vec![rule.clone()])]);
        let status = status(&mesh);
        assert_eq!(
            (status.accepted, status.conditions, status.policy.to_string()),
            (true, vec![], "demo/p".into())
        );
    }
}

#[test]
fn what_custom_matches_is_denied_before_anything_else() {
    let rule = Rule {
        from: vec![from_namespace("x")],
        ..Rule::default()
    };
    let custom = mesh(vec![
        policy("demo", "a-deny", Action::Deny, None, vec![Rule::default()]),
        policy("demo", "b-custom", Action::Custom, None, vec![rule.clone()]),
        policy("demo", "c-allow", Action::Allow, None, vec![Rule::default()]),
    ]);
    let denied = ask(&custom, "demo/web", Some(&id("x", "a")), 80);
    assert_eq!(
        denied.to_string(),
        "denied by AuthorizationPolicy demo/b-custom rule 0 (CUSTOM, and there is no external authorizer)"
    );
    let alone = mesh(vec![policy("demo", "p", Action::Custom, None, vec![rule])]);
    assert_eq!(
        let_in(&alone),
        [false, false, true, true],
        "what no rule matches passes"
    );
    assert_eq!(
        (status(&alone).accepted, reasons(&status(&alone))),
        (false, vec![PolicyReason::NoAuthorizer])
    );
}

#[test]
fn audit_only_marks() {
    let mesh = mesh(vec![policy(
        "demo",
        "p",
        Action::Audit,
        None,
        vec![Rule {
            to: vec![to(any(vec![]), &["methods"])],
            ..Rule::default()
        }],
    )]);
    assert_eq!(let_in(&mesh), [true; 4]);
    let status = status(&mesh);
    assert_eq!(
        (status.accepted, reasons(&status)),
        (true, vec![PolicyReason::AuditOnly])
    );
    let connection = Connection {
        source: None,
        source_address: ip("10.9.0.1"),
        destination: workload(&mesh, "demo/web"),
        destination_address: "10.0.0.1:80".parse().unwrap(),
    };
    let steps = explain(&mesh, &connection).policies;
    assert_eq!(
        (steps[0].action, steps[0].enforced, steps[0].matched),
        ("AUDIT", false, Some(0))
    );
}

#[test]
fn a_dry_run_policy_is_reported_and_never_enforced() {
    let trial = |action, rules| {
        let mut policy = policy("demo", "trial", action, None, rules);
        policy.dry_run = true;
        policy
    };
    let from_x = Rule {
        from: vec![from_namespace("x")],
        ..Rule::default()
    };
    let (x, y) = (id("x", "a"), id("y", "a"));
    for (sentence, policies, would) in [
        (
            "DENY would deny what it matches",
            vec![trial(Action::Deny, vec![from_x.clone()])],
            [false, true],
        ),
        (
            "ALLOW would deny the others",
            vec![trial(Action::Allow, vec![from_x.clone()])],
            [true, false],
        ),
        (
            "ALLOW without rules would deny all",
            vec![trial(Action::Allow, vec![])],
            [false, false],
        ),
        (
            "ALLOW would allow what an enforced ALLOW does not",
            vec![
                trial(Action::Allow, vec![from_x.clone()]),
                policy("demo", "real", Action::Allow, None, vec![]),
            ],
            [true, false],
        ),
    ] {
        let enforced = mesh(policies.iter().filter(|p| !p.dry_run).cloned().collect());
        let mesh = mesh(policies);
        for (peer, would) in [(&x, would[0]), (&y, would[1])] {
            let connection = Connection {
                source: Some(peer),
                source_address: ip("10.9.0.1"),
                destination: workload(&mesh, "demo/web"),
                destination_address: "10.0.0.1:80".parse().unwrap(),
            };
            assert_eq!(
                decide(&mesh, &connection),
                decide(&enforced, &connection),
                "{sentence}"
            );
            assert_eq!(dry_run(&enforced, &connection), None, "{sentence}");
            let reported = dry_run(&mesh, &connection).unwrap();
            assert_eq!(reported.is_allow(), would, "{sentence} {peer}");
            assert_eq!(explain(&mesh, &connection).dry_run, Some(reported), "{sentence}");
        }
    }
    let mesh = mesh(vec![trial(Action::Deny, vec![from_x])]);
    let status = status(&mesh);
    assert_eq!(
        (status.accepted, reasons(&status)),
        (true, vec![PolicyReason::DryRun])
    );
}

#[test]
fn trust_domains_compare_the_trust_domain_and_need_an_identity() {
    for (pattern, matches) in [
        ("td.example", true),
        ("cluster.local", true),
        ("td.*", true),
        ("*.example", true),
        ("*", true),
        ("other.example", false),
        ("td", false),
        ("tdxexample", false),
    ] {
        let list = any(vec![StringMatch::trust_domain(pattern).unwrap()]);
        let not = MatchList {
            any: vec![],
            none: list.any.clone(),
        };
        let field = |list: MatchList<StringMatch>| Rule {
            from: vec![Source {
                trust_domains: list,
                ..Source::default()
            }],
            ..Rule::default()
        };
        let when = |list| Rule {
            when: vec![Condition {
                matches: ConditionMatch::SourceTrustDomain(list),
            }],
            ..Rule::default()
        };
        for (rule, expected, plaintext) in [
            (field(list.clone()), matches, false),
            (when(list), matches, false),
            (field(not.clone()), !matches, true),
            (when(not), !matches, true),
        ] {
            let mesh = mesh(vec![policy("demo", "p", Action::Allow, None, vec![rule])]);
            let got = ask(&mesh, "demo/web", Some(&id("x", "a")), 80).is_allow();
            assert_eq!(got, expected, "{pattern}");
            assert_eq!(
                ask(&mesh, "demo/web", None, 80).is_allow(),
                plaintext,
                "{pattern}"
            );
        }
    }
}
