//! The explanation of a decision: complete, in order, and never another answer than the data path's.

use tramline_core::authz::{
    Action, Clause, Connection, Decision, DeniedBy, Explanation, Rule, RuleStep, Scope, Source, StringMatch,
    decide, explain,
};
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;
use tramline_core::reason::Reason;

use crate::make::{any, build, id, ip, peer_authentication, pod, policy, ports, workload};

/// What the steps alone lead to, without looking at the decision they come with: (allowed, policy, rule).
pub(crate) fn replay(explanation: &Explanation) -> (bool, Option<String>, Option<usize>) {
    let Some(mtls) = &explanation.mtls else {
        return (false, None, None);
    };
    if !mtls.passed {
        return (false, mtls.policy.clone(), None);
    }
    let policies = explanation.policies.iter().filter(|step| step.enforced);
    if let Some(step) = policies
        .clone()
        .find(|step| matches!(step.scope, Scope::Target(_)))
    {
        return (false, Some(step.policy.clone()), None);
    }
    let matching = |actions: &[&str]| {
        policies
            .clone()
            .filter(|step| actions.contains(&step.action))
            .find(|step| step.rules.iter().any(rule_matched))
    };
    let by = |allowed, step: &tramline_core::authz::PolicyStep| {
        let rule = step
            .rules
            .iter()
            .find(|rule| rule_matched(rule))
            .map(|rule| rule.rule);
        (allowed, Some(step.policy.clone()), rule)
    };
    if let Some(step) = matching(&["CUSTOM"]).or_else(|| matching(&["DENY"])) {
        return by(false, step);
    }
    if policies.clone().all(|step| step.action != "ALLOW") {
        return (true, None, None);
    }
    matching(&["ALLOW"]).map_or((false, None, None), |step| by(true, step))
}

/// A rule's answer out of the answers of its fields: any entry of `from`, any of `to`, all of `when`.
fn rule_matched(rule: &RuleStep) -> bool {
    let entries = |clause| {
        let mut entries = std::collections::BTreeMap::new();
        for field in rule.fields.iter().filter(|field| field.clause == clause) {
            *entries.entry(field.entry).or_insert(true) &= field.matched;
        }
        entries.into_values()
    };
    let any = |clause| entries(clause).len() == 0 || entries(clause).any(|matched| matched);
    // A rule that lets in and needs HTTP is dropped, whatever its fields say.
    let dropped = rule
        .note
        .as_ref()
        .is_some_and(|note| note.ends_with("lets nobody in"));
    let matched =
        !dropped && any(Clause::From) && any(Clause::To) && entries(Clause::When).all(|matched| matched);
    assert_eq!(matched, rule.matched, "{rule:?}");
    matched
}

pub(crate) fn assert_consistent(explanation: &Explanation, decision: &Decision) {
    assert_eq!(&explanation.decision, decision);
    let said = (
        decision.is_allow(),
        decision.policy().map(ToString::to_string),
        decision.rule().map(|rule| rule.rule),
    );
    assert_eq!(replay(explanation), said, "{explanation}");
    let deciding: Vec<_> = explanation.policies.iter().filter(|step| step.decides).collect();
    let by_policy = decision.rule().is_some()
        || matches!(
            decision,
            Decision::Deny {
                by: DeniedBy::TargetClosed(_)
            }
        );
    assert_eq!(deciding.len(), usize::from(by_policy), "{explanation}");
}

fn from(principal: &str) -> Vec<Source> {
    vec![Source {
        principals: any(vec![StringMatch::principal(principal).unwrap()]),
        ..Source::default()
    }]
}

#[test]
fn every_rule_is_told_with_the_field_that_decided() {
    let mesh = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        authorization_policies: vec![
            policy(
                "istio-system",
                "nobody-bad",
                Action::Deny,
                None,
                vec![Rule {
                    from: from("*/sa/bad"),
                    ..Rule::default()
                }],
            ),
            policy(
                "demo",
                "friends",
                Action::Allow,
                Some("web"),
                vec![
                    Rule {
                        from: from("td.example/ns/x/sa/other"),
                        ..Rule::default()
                    },
                    Rule {
                        from: from("td.example/ns/x/sa/a"),
                        to: ports(any(vec![8080])).to,
                        ..Rule::default()
                    },
                ],
            ),
        ],
        peer_authentications: vec![peer_authentication("demo", "default", None, Mode::Strict, &[])],
        ..Objects::default()
    });
    let peer = id("x", "a");
    let ask = |source, port| {
        let connection = Connection {
            source,
            source_address: ip("10.9.0.1"),
            destination: workload(&mesh, "demo/web"),
            destination_address: (ip("10.0.0.1"), port).into(),
        };
        let explanation = explain(&mesh, &connection);
        assert_consistent(&explanation, &decide(&mesh, &connection));
        explanation
    };
    let allowed = ask(Some(&peer), 8080);
    let scopes: Vec<_> = allowed.policies.iter().map(|step| step.scope.clone()).collect();
    assert_eq!(scopes, [Scope::Mesh, Scope::Selector("app=web".into())]);
    assert_eq!(
        allowed.to_string(),
        "PeerAuthentication demo/default: port 8080 requires mutual TLS; the peer is \
         spiffe://td.example/ns/x/sa/a: passes\n\
         DENY istio-system/nobody-bad for the whole mesh\n  \
           rule 0: does not match\n    \
             no: from[0] principals: td.example/ns/x/sa/a against one of */sa/bad\n\
         ALLOW demo/friends for app=web\n  \
           rule 0: does not match\n    \
             no: from[0] principals: td.example/ns/x/sa/a against one of td.example/ns/x/sa/other\n  \
           rule 1: matches, and decides\n    \
             yes: from[0] principals: td.example/ns/x/sa/a against one of td.example/ns/x/sa/a\n    \
             yes: to[0] ports: 8080 against one of 8080\n\
         allowed by AuthorizationPolicy demo/friends rule 1"
    );
    let denied = ask(Some(&peer), 9090);
    assert_eq!(
        denied.decision,
        Decision::Deny {
            by: DeniedBy::NoAllowRule
        }
    );
    let plaintext = ask(None, 8080);
    assert_eq!(plaintext.decision.reason(), Reason::MtlsRequired);
    assert!(plaintext.policies.iter().all(|step| !step.asked), "{plaintext}");
}

#[test]
fn an_unknown_destination_is_explained_too() {
    let with = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        ..Objects::default()
    });
    let without = build(Objects::default());
    let connection = Connection {
        source: None,
        source_address: ip("10.9.0.1"),
        destination: workload(&with, "demo/web"),
        destination_address: "10.0.0.1:80".parse().unwrap(),
    };
    let explanation = explain(&without, &connection);
    assert_consistent(&explanation, &decide(&without, &connection));
    assert_eq!(explanation.to_string(), "denied: the destination is not known");
}
