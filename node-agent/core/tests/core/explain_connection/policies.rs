//! Which policy and which rule decided.

use super::*;

#[test]
fn policies_decide_by_the_way_the_connection_takes() {
    let mut objects = objects();
    objects
        .peer_authentications
        .push(peer_authentication("a", "strict", None, Mode::Strict, &[]));
    let mesh = build(objects);
    assert_eq!(
        answer(&ask(&mesh, "a/cli", "web:80").conclusion),
        (Verdict::Allow, Reason::Ok)
    );
    for (from, fix) in [
        ("172.16.0.1", "enrol the source"),
        ("b/out", "label the pod or its namespace"),
        ("a/opted-out", "remove that label"),
    ] {
        let said = ask(&mesh, from, "a/web:80").conclusion;
        assert_eq!(answer(&said), (Verdict::Deny, Reason::MtlsRequired), "{from}");
        assert!(said.changes[0].contains(fix), "{from}: {said:?}");
        assert!(
            said.changes[1].contains("PeerAuthentication a/strict"),
            "{said:?}"
        );
    }
    let excluded = ask(&mesh, "a/picky", "a/web:9100");
    assert_eq!(
        answer(&excluded.conclusion),
        (Verdict::Deny, Reason::MtlsRequired)
    );
    assert!(
        excluded.conclusion.changes[0].contains("take 9100 out"),
        "{excluded:?}"
    );
    let past = ask(&mesh, "172.16.0.1", "a/picky:9000");
    assert_eq!(answer(&past.conclusion), (Verdict::Allow, Reason::Ok));
    assert!(
        past.conclusion.text.contains("exclude-inbound-ports has 9000"),
        "{past:?}"
    );
    let tls = ask(&mesh, "172.16.0.1", "a/web:15008");
    assert_eq!(answer(&tls.conclusion), (Verdict::Deny, Reason::TlsFailure));
}

#[test]
fn the_deciding_rule_is_named_and_so_is_what_would_change_it() {
    let mut objects = objects();
    objects.authorization_policies = vec![policy(
        "a",
        "nobody-to-far",
        Action::Deny,
        None,
        vec![Rule::default()],
    )];
    let said = ask(&build(objects.clone()), "a/cli", "a/web:80");
    assert_eq!(answer(&said.conclusion), (Verdict::Deny, Reason::PolicyDenied));
    assert!(
        said.conclusion.text.contains("a/nobody-to-far rule 0"),
        "{said:?}"
    );
    assert!(
        said.conclusion.changes[0].contains("rule 0 of DENY policy a/nobody-to-far"),
        "{said:?}"
    );
    let step = said.endpoints[0].policy.as_ref().unwrap();
    assert!(step.policies[0].decides && step.policies[0].asked);

    objects.authorization_policies = vec![policy(
        "a",
        "ask-somebody",
        Action::Custom,
        None,
        vec![Rule::default()],
    )];
    let change = ask(&build(objects.clone()), "a/cli", "a/web:80")
        .conclusion
        .changes;
    assert!(
        change[0].contains("rule 0 of CUSTOM policy a/ask-somebody"),
        "{change:?}"
    );

    let mut waypoint = policy("a", "for-a-waypoint", Action::Allow, None, vec![Rule::default()]);
    waypoint.targets = vec![Target {
        kind: TargetKind::Service,
        name: "web".into(),
        alone: false,
    }];
    objects.authorization_policies = vec![waypoint];
    let said = ask(&build(objects.clone()), "a/cli", "a/web:80").conclusion;
    assert_eq!(said.verdict, Verdict::Deny);
    assert!(
        said.changes[0].contains("a/for-a-waypoint with a selector"),
        "{said:?}"
    );

    objects.authorization_policies = vec![policy("a", "shut", Action::Allow, Some("web"), vec![])];
    let said = ask(&build(objects.clone()), "a/cli", "a/web:80");
    assert_eq!(answer(&said.conclusion), (Verdict::Deny, Reason::PolicyDenied));
    let change = &said.conclusion.changes[0];
    assert!(
        change.contains("principal td.example/ns/a/sa/default"),
        "{change}"
    );
    assert!(change.contains("a/shut"), "{change}");

    // One of two endpoints refuses: it depends on the balancer.
    let far = objects
        .pods
        .iter_mut()
        .find(|pod| &*pod.meta.object.name == "far")
        .unwrap();
    far.meta.labels = labels(&[("app", "web"), ("track", "canary")]);
    let mut shut = policy("a", "shut", Action::Allow, None, vec![]);
    shut.selector = tramline_core::labels::Selector::new(labels(&[("track", "canary")]));
    objects.authorization_policies = vec![shut];
    let said = ask(&build(objects), "a/cli", "web:80").conclusion;
    assert_eq!(answer(&said), (Verdict::Mixed, Reason::PolicyDenied));
    assert!(
        said.text.contains("1 of 2 endpoints of web.a.svc.cluster.local"),
        "{said:?}"
    );
}
