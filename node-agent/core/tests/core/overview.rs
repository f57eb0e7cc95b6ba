//! Every policy at a glance.

use tramline_core::authz::{Action, Operation, Rule, Source, StringMatch, overview};
use tramline_core::labels::Selector;
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;

use crate::make::{any, build, labels, peer_authentication, pod, policy};

fn objects() -> Objects {
    let rule = Rule {
        from: vec![
            Source {
                principals: any(vec![StringMatch::parse("td/ns/a/sa/x").unwrap()]),
                ..Source::default()
            },
            Source {
                namespaces: any(vec![StringMatch::parse("b*").unwrap()]),
                ..Source::default()
            },
        ],
        to: vec![Operation {
            ports: any(vec![80, 81]),
            ..Operation::default()
        }],
        when: Vec::new(),
    };
    Objects {
        pods: vec![
            pod("a", "web", &["10.0.0.1"]),
            pod("a", "cli", &["10.0.0.2"]),
            pod("b", "web", &["10.0.0.3"]),
        ],
        authorization_policies: vec![
            policy("a", "web-only", Action::Allow, Some("web"), vec![rule]),
            policy("a", "all-of-a", Action::Deny, None, vec![]),
            policy(
                "istio-system",
                "everywhere",
                Action::Deny,
                None,
                vec![Rule::default()],
            ),
        ],
        peer_authentications: vec![
            peer_authentication("istio-system", "mesh", None, Mode::Strict, &[]),
            peer_authentication("a", "ns", None, Mode::Permissive, &[]),
            peer_authentication("a", "web", Some("web"), Mode::Unset, &[(80, Mode::Strict)]),
        ],
        ..Objects::default()
    }
}

#[test]
fn scope_action_rules_and_workloads_of_every_policy() {
    let found: Vec<_> = overview(&build(objects()))
        .into_iter()
        .map(|policy| {
            (
                format!("{}/{}", policy.namespace, policy.name),
                policy.scope,
                policy.action,
                policy.rules,
                policy.workloads.join(" "),
                policy.accepted,
            )
        })
        .collect();
    let row = |name: &str, scope: &str, action: &str, rules: &[&str], workloads: &str| {
        let rules: Vec<_> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        (
            name.into(),
            scope.into(),
            action.into(),
            rules,
            workloads.to_owned(),
            true,
        )
    };
    let rule = "from principals one of td/ns/a/sa/x or namespaces one of b*; to ports one of 80, 81";
    assert_eq!(
        found,
        [
            row("a/all-of-a", "namespace", "DENY", &[], "a/cli a/web"),
            row("a/web-only", "workloads", "ALLOW", &[rule], "a/web"),
            row(
                "istio-system/everywhere",
                "mesh",
                "DENY",
                &["anything"],
                "a/cli a/web b/web"
            ),
            // Both inherit from the namespace, and the one's port 80 is decided by its own policy.
            row("a/ns", "namespace", "PERMISSIVE", &[], "a/cli a/web"),
            row("a/web", "workloads", "UNSET", &["port 80: STRICT"], "a/web"),
            row("istio-system/mesh", "mesh", "STRICT", &[], "b/web"),
        ]
    );
}

#[test]
fn a_policy_that_is_not_enforced_as_written_says_why() {
    let mut objects = objects();
    objects.authorization_policies = vec![policy("a", "custom", Action::Custom, None, vec![Rule::default()])];
    let found = &overview(&build(objects))[0];
    assert!(!found.accepted);
    assert_eq!(found.conditions[0].reason, "no_authorizer");
    assert_eq!(found.conditions[0].field, "spec.action");
}

#[test]
fn ten_thousand_workloads_are_counted_and_a_hundred_named() {
    let mut objects = objects();
    objects.authorization_policies = vec![policy("a", "more", Action::Deny, None, vec![])];
    objects.authorization_policies[0].selector = Selector::new(labels(&[("more", "yes")]));
    for index in 0..10_000_u32 {
        let mut more = pod(
            "a",
            &format!("more-{index}"),
            &[&format!("10.{}.{}.1", 1 + index / 250, index % 250)],
        );
        more.meta.labels = labels(&[("more", "yes")]);
        objects.pods.push(more);
    }
    let found = &overview(&build(objects))[0];
    assert_eq!((found.workloads.len(), found.workloads_total), (100, 10_000));
    assert_eq!(found.selects.as_deref(), Some("more=yes"));
}
