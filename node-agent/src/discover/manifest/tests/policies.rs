//! AuthorizationPolicies.

use super::*;

#[test]
fn policies_keep_absent_empty_and_match_all_rules_apart() {
    let read = |spec: &str| good(&policy(spec)).authorization_policies[0].clone();
    assert_eq!(read("{}").rules.len(), 0);
    assert_eq!(read("rules:").rules.len(), 0);
    assert_eq!(
        read("action: DENY\nrules: [{}]").rules,
        [tramline_core::authz::Rule::default()]
    );
    assert_eq!(read("action: DENY").action, Action::Deny);
    assert_eq!(read("selector: {}").selector, None);
    bad(&policy("rules:\n-"), &["spec.rules[0]", "is null"]);
}

#[test]
fn policies_refuse_what_they_would_not_enforce() {
    for (field, at) in [
        (
            "rules: [{when: [{key: request.header, values: [y]}]}]",
            "spec.rules[0].when[0].key: `request.header` is not a key of the standard",
        ),
        (
            "rules: [{when: [{key: \"request.headers[]\", values: [y]}]}]",
            "spec.rules[0].when[0].key",
        ),
        (
            "rules: [{when: [{key: \"request.headers[x]\"}]}]",
            "spec.rules[0].when[0]: needs values",
        ),
        (
            "rules: [{to: [{operation: {methods: [GET, null]}}]}]",
            "spec.rules[0].to[0].operation.methods[1]: is null",
        ),
        (
            "rules: [{to: [{operation: {paths: [\"\"]}}]}]",
            "spec.rules[0].to[0].operation.paths[0]: is empty",
        ),
        (
            "rules: [{to: [{operation: {methods: []}}]}]",
            "spec.rules[0].to[0].operation: needs at least one field",
        ),
        (
            "rules: [{from: [{source: {trustDomains: [UPPER]}}]}]",
            "source.trustDomains[0]: `UPPER` is not a trust domain",
        ),
        ("rules: [{when: [{key: source.ip}]}]", "spec.rules[0].when[0]"),
        ("rules: [{from: []}]", "spec.rules[0].from"),
        ("rules: [{from: [{}]}]", "spec.rules[0].from[0].source"),
        ("rules: [{from: [{source: {}}]}]", "spec.rules[0].from[0].source"),
        (
            "rules: [{from: [{source: {principals: []}}]}]",
            "spec.rules[0].from[0].source",
        ),
        (
            "rules: [{to: [{operation: {}}]}]",
            "spec.rules[0].to[0].operation",
        ),
        (
            "rules: [{from: [{source: {principals: [\"spiffe://td/ns/a/sa/b\"]}}]}]",
            "spec.rules[0].from[0].source.principals[0]",
        ),
        (
            "rules: [{from: [{source: {principals: [sleep]}}]}]",
            "source.principals[0]",
        ),
        (
            "rules: [{from: [{source: {principals: [\"a*b\"]}}]}]",
            "source.principals[0]",
        ),
        (
            "rules: [{from: [{source: {namespaces: [\"\"]}}]}]",
            "source.namespaces[0]",
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: [\"demo/*\"]}}]}]",
            "source.serviceAccounts[0]",
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]",
            "source.serviceAccounts",
        ),
        (
            "rules: [{from: [{source: {ipBlocks: [10.0.0.1/8]}}]}]",
            "did you mean `10.0.0.0/8`",
        ),
        (
            "rules: [{to: [{operation: {ports: [\"0\"]}}]}]",
            "operation.ports[0]",
        ),
        (
            "rules: [{to: [{operation: {ports: [http]}}]}]",
            "operation.ports[0]",
        ),
        ("action: CUSTOM", "spec.provider.name: is required"),
        ("{action: CUSTOM, provider: {name: x}}", "spec.rules: is required"),
        ("{action: DENY, provider: {name: x}}", "spec.provider: goes only"),
        ("action: allow", "spec.action"),
        (
            "rules: [{from: [{source: {namespaces: [null]}}]}]",
            "source.namespaces[0]: is null",
        ),
        ("selector: {matchLabels: {app: }}", "`app` is null"),
        (
            "targetRefs: [{kind: Pod, name: x}]",
            "spec.targetRefs[0].kind: `Pod` of group `` is no target",
        ),
        (
            "targetRef: {kind: Gateway, name: x}",
            "spec.targetRef.kind: `Gateway` of group ``",
        ),
        (
            "targetRefs: [{kind: Service, name: x, namespace: other}]",
            "spec.targetRefs[0].namespace",
        ),
        (
            "{targetRef: {kind: Service, name: x}, targetRefs: [{kind: Service, name: y}]}",
            "spec.targetRef: is given together",
        ),
        (
            "{selector: {matchLabels: {app: a}}, targetRefs: [{kind: Service, name: y}]}",
            "spec.selector: is given together with spec.targetRefs",
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: [a1, a2, a3, a4, a5, a6, a7, a8, a9, b1, b2, b3, b4, b5, b6, b7, b8]}}]}]",
            "source.serviceAccounts: has more than 16 entries",
        ),
        (
            "selector: {matchLabels: {app: \"*\"}}",
            "spec.selector.matchLabels",
        ),
        (
            "selector: {matchExpressions: []}",
            "spec.selector.matchExpressions: is not a field; the only one is `matchLabels`",
        ),
        (
            "rules: [{from: [{source: {principal: [x]}}]}]",
            "spec.rules[0].from[0].source.principal: is not a field; did you mean `principals`?",
        ),
        ("rule: []", "spec.rule: is not a field; did you mean `rules`?"),
    ] {
        bad(&policy(field), &["AuthorizationPolicy demo/p", at]);
    }
    let dry = policy("{}").replace(
        "namespace: demo",
        "namespace: demo, annotations: {istio.io/dry-run: \"yes\"}",
    );
    bad(&dry, &["istio.io/dry-run", "`yes` is neither"]);
    let targets: Vec<_> = (0..17)
        .map(|index| format!("{{kind: Service, name: s{index}}}"))
        .collect();
    bad(
        &policy(&format!("targetRefs: [{}]", targets.join(", "))),
        &["spec.targetRefs: has more than 16 entries"],
    );
}

#[test]
fn policies_keep_what_is_not_enforced_for_the_core_to_judge() {
    let read = |spec: &str| good(&policy(spec)).authorization_policies[0].clone();
    let rule = read(
        "rules: [{from: [{source: {requestPrincipals: [x], notRemoteIpBlocks: [10.0.0.0/8]}}], \
         to: [{operation: {methods: [GET], notPaths: [/x], hosts: [], ports: [\"80\"]}}], \
         when: [{key: \"request.auth.claims[a][b]\", values: [y]}, {key: connection.sni, notValues: [z]}, \
         {key: experimental.envoy.filters.x, values: [y]}]}]",
    )
    .rules
    .remove(0);
    let fields: Vec<_> = rule.http_fields().collect();
    assert_eq!(
        fields,
        [
            "from[0].source.requestPrincipals",
            "from[0].source.notRemoteIpBlocks",
            "to[0].operation.methods",
            "to[0].operation.notPaths",
            "when[0] request.auth.claims[a][b]",
            "when[1] connection.sni",
            "when[2] experimental.envoy.filters.x",
        ]
    );
    assert_eq!(rule.to[0].ports.any, [80]);
    let domains = read(
        "rules: [{from: [{source: {trustDomains: [a.example], notTrustDomains: [b*]}}], \
         when: [{key: source.trustDomain, values: [\"*\"]}]}]",
    );
    assert_eq!(
        domains.rules[0].from[0].trust_domains.any[0].to_string(),
        "a.example"
    );
    assert!(!domains.rules[0].needs_http());
    assert_eq!(read("action: AUDIT").action, Action::Audit);
    assert_eq!(
        read("{action: CUSTOM, provider: {name: x}, rules: [{}]}").action,
        Action::Custom
    );
    let targets = read(
        "targetRefs: [{group: \"\", kind: Service, name: a}, \
         {group: gateway.networking.k8s.io, kind: Gateway, name: b, namespace: demo}]",
    )
    .targets;
    assert_eq!(
        targets
            .iter()
            .map(|t| format!("{} {}", t.kind, t.name))
            .collect::<Vec<_>>(),
        ["Service a", "Gateway b"]
    );
    for (value, dry_run) in [("true", true), ("false", false), ("1", true)] {
        let text = policy("{}").replace(
            "namespace: demo",
            &format!("namespace: demo, annotations: {{istio.io/dry-run: \"{value}\"}}"),
        );
        assert_eq!(good(&text).authorization_policies[0].dry_run, dry_run);
    }
}
