//! Changes lead to the snapshot that a whole build leads to, and errors to none.

use std::sync::Arc;

use proptest::prelude::*;
use tramline_core::authz::{Action, PolicyName, Target, TargetKind};
use tramline_core::mesh::{Change, Mesh};
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;
use tramline_core::service::Service;

use crate::make::{build, ip, labels, namespace, peer_authentication, pod, policy, service};
use crate::oracle::{decisions, two_moments};

/// What leads from the policies of one moment to those of another, with some changes that change nothing.
fn changes(from: &Objects, to: &Objects) -> Vec<Change> {
    let mut changes = Vec::new();
    let of = |object: &tramline_core::object::ObjectRef| (object.namespace.clone(), object.name.clone());
    for object in from
        .pods
        .iter()
        .filter(|pod| !to.pods.contains(pod))
        .map(|pod| &pod.meta.object)
    {
        let (namespace, name) = of(object);
        changes.push(Change::RemovePod(namespace, name));
    }
    for service in from
        .services
        .iter()
        .filter(|service| !to.services.contains(service))
    {
        let (namespace, name) = of(&service.meta.object);
        changes.push(Change::RemoveService(namespace, name));
    }
    let pods = to.pods.iter().filter(|pod| !from.pods.contains(pod));
    changes.extend(pods.cloned().map(Box::new).map(Change::SetPod));
    let services = to
        .services
        .iter()
        .filter(|service| !from.services.contains(service));
    changes.extend(services.cloned().map(Box::new).map(Change::SetService));
    for policy in &from.authorization_policies {
        changes.push(Change::RemoveAuthorizationPolicy(PolicyName::clone(&policy.name)));
    }
    for policy in &to.authorization_policies {
        changes.push(Change::SetAuthorizationPolicy(Box::new(policy.clone())));
    }
    for policy in &to.peer_authentications {
        changes.push(Change::SetPeerAuthentication(Box::new(policy.clone())));
    }
    for policy in &from.peer_authentications {
        let name = PolicyName::of(&policy.meta);
        if to
            .peer_authentications
            .iter()
            .all(|other| PolicyName::of(&other.meta) != name)
        {
            changes.push(Change::RemovePeerAuthentication(name));
        }
    }
    changes
}

fn everything(mesh: &Mesh, decisions: Vec<String>) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut workloads: Vec<_> = mesh.workloads().cloned().collect();
    workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut local: Vec<_> = mesh.local_workloads().map(|w| w.uid.clone()).collect();
    local.sort();
    // A whole build keeps the order of the objects, which a change does not know.
    let sorted = |service: &Arc<Service>| {
        let mut service = Service::clone(service);
        service.endpoints.sort_by_key(|endpoint| endpoint.address);
        service
    };
    let addresses = (0..8).flat_map(|n| [ip(&format!("10.0.0.{n}")), ip(&format!("10.96.0.{n}"))]);
    let found: Vec<_> = addresses
        .map(|address| {
            (
                mesh.workload_by_address(address).cloned(),
                mesh.service_by_vip(address).map(sorted),
            )
        })
        .collect();
    (
        (workloads, local, found),
        mesh.services().map(sorted).collect::<Vec<_>>(),
        mesh.policies().cloned().collect::<Vec<_>>(),
        mesh.peer_authentications().cloned().collect::<Vec<_>>(),
        mesh.policy_statuses().collect::<Vec<_>>(),
        decisions,
    )
}

const PODS: &[(&str, &str)] = &[
    ("demo", "web"),
    ("demo", "db"),
    ("demo", "cache"),
    ("demo-2", "web"),
    ("demo-2", "db"),
    ("demo-2", "cache"),
];

/// Pods and Services of one moment. Addresses turn among the pods from moment to moment.
fn moment() -> impl Strategy<Value = Objects> {
    let pod = (
        prop::sample::select(vec!["web", "db"]),
        prop::bool::ANY,
        prop::bool::weighted(0.1),
        prop::sample::select(vec!["n1", "n2"]),
    );
    let pods = prop::collection::vec(prop::option::weighted(0.8, pod), PODS.len());
    let one = (prop::sample::select(vec!["web", "db"]), prop::bool::ANY);
    let services = prop::collection::vec(prop::option::weighted(0.7, one), 4);
    let closed = prop::bool::weighted(0.3);
    (pods, services, 0..PODS.len(), closed).prop_map(|(pods, services, turn, closed)| {
        let pods = pods.into_iter().enumerate().filter_map(|(index, made)| {
            let ((namespace, name), (app, ready, ended, node)) = (PODS.get(index)?, made?);
            let address = format!("10.0.0.{}", (index + turn) % PODS.len() + 1);
            let mut pod = pod_of(namespace, name, &address);
            pod.meta.labels = labels(&[("app", app)]);
            (pod.ready, pod.ended, pod.node) = (ready, ended, node.into());
            Some(pod)
        });
        let services = services.into_iter().enumerate().filter_map(|(index, made)| {
            let (app, publish_not_ready) = made?;
            let namespace = if index < 2 { "demo" } else { "demo-2" };
            let vip = format!("10.96.0.{}", (index + turn) % 4 + 1);
            let mut service = service(namespace, &format!("s{index}"), &[&vip], app);
            service.publish_not_ready = publish_not_ready;
            Some(service)
        });
        let mut targeting = policy("demo", "target", Action::Deny, None, vec![]);
        targeting.targets = vec![Target {
            kind: TargetKind::Service,
            name: "s0".into(),
            alone: false,
        }];
        let slice = tramline_core::object::EndpointSlice {
            meta: tramline_core::object::Meta::new(
                tramline_core::object::Kind::EndpointSlice,
                "demo",
                "s1-x",
            ),
            service: "s1".into(),
            ports: vec![tramline_core::object::SlicePort {
                name: "web".into(),
                port: 8080,
            }],
            endpoints: ["10.0.0.2", "10.0.0.5"]
                .map(|address| tramline_core::object::SliceEndpoint {
                    addresses: vec![ip(address)],
                    readiness: tramline_core::service::Readiness::Ready,
                    node: None,
                    zone: None,
                    hints: tramline_core::service::Hints::default(),
                })
                .into(),
        };
        Objects {
            namespaces: vec![namespace("demo", &[("istio.io/dataplane-mode", "tramline")])],
            pods: pods.collect(),
            services: services.collect(),
            endpoint_slices: vec![slice],
            authorization_policies: closed
                .then_some(targeting)
                .into_iter()
                .chain([policy(
                    "demo",
                    "no-web",
                    Action::Deny,
                    Some("web"),
                    vec![tramline_core::authz::Rule::default()],
                )])
                .collect(),
            ..Objects::default()
        }
    })
}

fn pod_of(namespace: &str, name: &str, address: &str) -> tramline_core::object::Pod {
    pod(namespace, name, &[address])
}

/// Who may connect from nowhere in particular to each workload, whether this node's or another's.
fn open_to_all(mesh: &Mesh) -> Vec<String> {
    let mut answers: Vec<_> = mesh
        .workloads()
        .filter_map(|destination| {
            let connection = tramline_core::authz::Connection {
                source: None,
                source_address: ip("10.9.0.1"),
                destination,
                destination_address: (*destination.addresses.first()?, 80).into(),
            };
            let decision = tramline_core::authz::decide(mesh, &connection);
            Some(format!("{} {decision}", destination.uid))
        })
        .collect();
    answers.sort();
    answers
}

fn set_name(change: &Change) -> Option<(bool, Arc<str>, Arc<str>)> {
    let (is_pod, object) = match change {
        Change::SetPod(pod) => (true, &pod.meta.object),
        Change::SetService(service) => (false, &service.meta.object),
        _ => return None,
    };
    Some((is_pod, object.namespace.clone(), object.name.clone()))
}

fn changed(before: &Mesh, changes: Vec<Change>, at_once: bool) -> Mesh {
    if at_once {
        let set: Vec<_> = changes.iter().filter_map(set_name).collect();
        // What is set need not be removed first.
        let needed = |change: &Change| match change {
            Change::RemovePod(namespace, name) => !set.contains(&(true, namespace.clone(), name.clone())),
            Change::RemoveService(namespace, name) => {
                !set.contains(&(false, namespace.clone(), name.clone()))
            }
            _ => true,
        };
        return before
            .apply(changes.into_iter().filter(needed).collect())
            .unwrap();
    }
    changes
        .into_iter()
        .fold(before.clone(), |mesh, change| mesh.apply(vec![change]).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn changed_policies_lead_where_a_whole_build_leads((first, second) in two_moments(), at_once: bool) {
        let before = build(first.clone());
        let unchanged = everything(&before, decisions(&before));
        let mut changes = changes(&first, &second);
        // The pods are the same.
        changes.retain(|change| !matches!(change, Change::SetPod(_) | Change::RemovePod(..)));
        let after = changed(&before, changes, at_once);
        let built = build(second);
        prop_assert_eq!(everything(&after, decisions(&after)), everything(&built, decisions(&built)));
        prop_assert_eq!(everything(&before, decisions(&before)), unchanged, "the snapshot before stays what it was");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn changed_pods_and_services_lead_where_a_whole_build_leads(first in moment(), second in moment(), at_once: bool) {
        let before = build(first.clone());
        let unchanged = everything(&before, open_to_all(&before));
        let after = changed(&before, changes(&first, &second), at_once);
        let built = build(second);
        prop_assert_eq!(everything(&after, open_to_all(&after)), everything(&built, open_to_all(&built)));
        prop_assert_eq!(everything(&before, open_to_all(&before)), unchanged, "the snapshot before stays what it was");
    }
}

#[test]
fn what_two_objects_cannot_both_have_is_refused_in_changes_too() {
    let mut first = pod("demo", "a", &["10.0.0.1"]);
    first.meta.annotations = labels(&[("tramline.dev/netns", "/run/netns/a")]);
    let mesh = build(Objects {
        pods: vec![first.clone()],
        services: vec![service("demo", "web", &["10.96.0.1"], "web")],
        ..Objects::default()
    });
    let with = |name: &str, address: &str| pod("demo", name, &[address]);
    let mut twin = with("b", "10.0.0.2");
    twin.meta.uid = Some("demo/a".into());
    let mut same_netns = with("b", "10.0.0.2");
    same_netns.meta.annotations = first.meta.annotations.clone();
    let mut bad = with("b", "10.0.0.2");
    bad.meta.annotations = labels(&[("tramline.dev/exclude-outbound-ports", "http")]);
    for (change, part) in [
        (
            Change::SetPod(Box::new(with("b", "10.0.0.1"))),
            "Pod demo/b: status.podIPs: 10.0.0.1 is also an address of Pod demo/a",
        ),
        (
            Change::SetPod(Box::new(with("b", "10.96.0.1"))),
            "10.96.0.1 is also an address of Service demo/web",
        ),
        (
            Change::SetPod(Box::new(with("b", "127.0.0.1"))),
            "is a loopback address",
        ),
        (
            Change::SetPod(Box::new(twin)),
            "metadata.uid: Pod demo/a has the same UID",
        ),
        (
            Change::SetPod(Box::new(same_netns)),
            "Pod demo/a has the same network namespace",
        ),
        (Change::SetPod(Box::new(bad)), "exclude-outbound-ports: `http`"),
        (
            Change::SetService(Box::new(service("demo", "other", &["10.96.0.1"], "web"))),
            "Service demo/other: spec.clusterIPs: 10.96.0.1 is also the address of Service demo/web",
        ),
        (
            Change::SetService(Box::new(service("demo", "other", &["10.0.0.1"], "web"))),
            "10.0.0.1 is also an address of Pod demo/a",
        ),
    ] {
        let errors: Vec<_> = mesh
            .apply(vec![change])
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            errors.len() == 1 && errors[0].contains(part),
            "{part}: {errors:?}"
        );
    }
    // The same within one batch of changes, and what is no conflict once the batch is done.
    let moved = mesh.apply(vec![
        Change::SetPod(Box::new(with("b", "10.0.0.1"))),
        Change::SetPod(Box::new(with("a", "10.0.0.2"))),
    ]);
    assert!(moved.is_ok(), "{moved:?}");
    let both = mesh.apply(vec![
        Change::SetPod(Box::new(with("b", "10.0.0.2"))),
        Change::SetPod(Box::new(with("c", "10.0.0.2"))),
    ]);
    assert!(both.is_err());
}

#[test]
fn what_is_wrong_with_a_change_is_named_and_changes_nothing() {
    let mesh = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        ..Objects::default()
    });
    let errors = mesh
        .apply(vec![
            Change::SetAuthorizationPolicy(Box::new(policy("Bad_NS", "p", Action::Deny, None, vec![]))),
            Change::SetPeerAuthentication(Box::new(peer_authentication(
                "istio-system",
                "root",
                Some("web"),
                Mode::Strict,
                &[],
            ))),
        ])
        .unwrap_err();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(
        errors[0].contains("PeerAuthentication istio-system/root: spec.selector"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("`Bad_NS` is not a namespace name"),
        "{errors:?}"
    );
    assert_eq!((errors.len(), mesh.policies().count()), (2, 0));
}

#[test]
fn a_target_closes_and_opens_with_its_policy() {
    let mesh = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        services: vec![service("demo", "web", &["10.96.0.1"], "web")],
        ..Objects::default()
    });
    let mut targeting = policy("demo", "p", Action::Allow, None, vec![]);
    targeting.targets = vec![Target {
        kind: TargetKind::Service,
        name: "web".into(),
        alone: false,
    }];
    let name = PolicyName::clone(&targeting.name);
    let uid = tramline_core::workload::WorkloadUid::new("demo/web");
    let open = |mesh: &Mesh| {
        let connection = tramline_core::authz::Connection {
            source: None,
            source_address: crate::make::ip("10.9.0.1"),
            destination: mesh.workload(&uid).unwrap(),
            destination_address: "10.0.0.1:80".parse().unwrap(),
        };
        tramline_core::authz::decide(mesh, &connection).is_allow()
    };
    let closed = mesh
        .apply(vec![Change::SetAuthorizationPolicy(Box::new(targeting))])
        .unwrap();
    let opened = closed
        .apply(vec![Change::RemoveAuthorizationPolicy(name)])
        .unwrap();
    assert_eq!([open(&mesh), open(&closed), open(&opened)], [true, false, true]);
}

#[test]
fn a_pod_that_left_this_node_is_judged_by_what_selects_it_now() {
    let deny = policy(
        "demo",
        "no-web",
        Action::Deny,
        Some("web"),
        vec![tramline_core::authz::Rule::default()],
    );
    let before = pod("demo", "web", &["10.0.0.1"]);
    let mesh = build(Objects {
        pods: vec![before.clone()],
        authorization_policies: vec![deny],
        ..Objects::default()
    });
    let mut after = before;
    after.node = "n2".into();
    after.meta.labels = labels(&[("app", "db")]);
    let moved = mesh.apply(vec![Change::SetPod(Box::new(after))]).unwrap();
    assert!(
        open_to_all(&mesh)[0].contains("denied by"),
        "{:?}",
        open_to_all(&mesh)
    );
    assert!(
        open_to_all(&moved)[0].contains("allowed"),
        "{:?}",
        open_to_all(&moved)
    );
}
