//! Policies that target a Service, or something that is not there.

use super::*;

fn targeting(action: Action, kind: TargetKind, name: &str) -> AuthorizationPolicy {
    let mut policy = policy("demo", "p", action, None, vec![Rule::default()]);
    policy.targets = vec![Target {
        kind,
        name: name.into(),
        alone: false,
    }];
    policy
}

#[test]
fn a_policy_for_a_services_waypoint_closes_what_is_behind_the_service() {
    for action in [Action::Allow, Action::Deny, Action::Custom] {
        let mesh = mesh(vec![targeting(action, TargetKind::Service, "web")]);
        let denied = ask(&mesh, "demo/web", Some(&id("x", "a")), 8080);
        assert!(
            matches!(&denied, Decision::Deny { by: DeniedBy::TargetClosed(by) } if by.to_string() == "demo/p"),
            "{denied}"
        );
        assert_eq!(
            verdict(&mesh, workload(&mesh, "demo/web"), 8080),
            PlaintextVerdict::Drop
        );
        assert!(
            ask(&mesh, "demo/db", None, 8080).is_allow(),
            "not behind the Service"
        );
        assert!(!status(&mesh).accepted);
        assert_eq!(reasons(&status(&mesh)).last(), Some(&PolicyReason::TargetClosed));
    }
}

#[test]
fn endpoints_of_slices_are_behind_their_service_too() {
    let mut bare = service("demo", "any", &["10.96.0.2"], "web");
    bare.selector.clear();
    let slice = EndpointSlice {
        meta: Meta::new(Kind::EndpointSlice, "demo", "any-1"),
        service: "any".into(),
        ports: vec![SlicePort {
            name: "web".into(),
            port: 8080,
        }],
        endpoints: vec![SliceEndpoint {
            addresses: vec![ip("10.0.0.2")],
            readiness: Readiness::NotReady,
            zone: None,
            hints: Hints::default(),
            node: None,
        }],
    };
    let mesh = build(Objects {
        pods: vec![
            pod("demo", "web", &["10.0.0.1"]),
            pod("demo", "db", &["10.0.0.2"]),
        ],
        services: vec![bare],
        endpoint_slices: vec![slice],
        authorization_policies: vec![targeting(Action::Allow, TargetKind::Service, "any")],
        ..Objects::default()
    });
    assert!(ask(&mesh, "demo/web", None, 8080).is_allow());
    assert!(!ask(&mesh, "demo/db", None, 8080).is_allow(), "ready or not");
}

#[test]
fn a_target_that_is_not_there_protects_nothing_and_says_so() {
    for (kind, name) in [
        (TargetKind::Gateway, "web"),
        (TargetKind::GatewayClass, "web"),
        (TargetKind::ServiceEntry, "web"),
        (TargetKind::Service, "none"),
    ] {
        let mesh = mesh(vec![targeting(Action::Deny, kind, name)]);
        assert_eq!(let_in(&mesh), [true; 4]);
        let status = status(&mesh);
        assert_eq!(
            (status.accepted, reasons(&status)),
            (false, vec![PolicyReason::TargetUnknown])
        );
        assert!(
            status.conditions[0]
                .message
                .contains(&format!("no {kind} {name}")),
            "{status:?}"
        );
    }
    let mut trial = targeting(Action::Deny, TargetKind::Service, "web");
    trial.dry_run = true;
    assert_eq!(let_in(&mesh(vec![trial])), [true; 4], "a dry run closes nothing");
}
