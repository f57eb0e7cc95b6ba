//! Building a snapshot: enrolment, annotations, names, and everything that is refused.

use tramline_core::mesh::Mesh;
use tramline_core::object::{Objects, Owner, Pod};
use tramline_core::workload::{Protocol, WorkloadType, WorkloadUid};

use crate::make::{build, errors, ip, labels, namespace, pod, service, settings, workload};

const MODE: &str = "istio.io/dataplane-mode";

fn one(pod: Pod) -> Mesh {
    build(Objects {
        pods: vec![pod],
        ..Objects::default()
    })
}

#[test]
fn enrolment_is_by_label_and_the_pod_has_the_last_word() {
    for (on_namespace, on_pod, host_network, enrolled) in [
        (None, None, false, false),
        (Some("tramline"), None, false, true),
        (Some("ambient"), None, false, false),
        (None, Some("tramline"), false, true),
        (Some("tramline"), Some("none"), false, false),
        (Some("tramline"), Some("ambient"), false, false),
        (Some("ambient"), Some("tramline"), false, true),
        (Some("tramline"), Some("tramline"), true, false),
    ] {
        let mut pod = pod("demo", "a", &["10.0.0.1"]);
        pod.host_network = host_network;
        pod.meta
            .labels
            .extend(on_pod.map(|mode| (MODE.into(), mode.into())));
        let labels: Vec<_> = on_namespace.map(|mode| (MODE, mode)).into_iter().collect();
        let namespaces = vec![namespace("demo", &labels)];
        let mesh = build(Objects {
            namespaces,
            pods: vec![pod],
            ..Objects::default()
        });
        let workload = workload(&mesh, "demo/a");
        let expected = if enrolled {
            Protocol::Hbone
        } else {
            Protocol::Plaintext
        };
        assert_eq!(
            (workload.enrolled, workload.protocol),
            (enrolled, expected),
            "{on_namespace:?} {on_pod:?}"
        );
        assert_eq!(mesh.local_workloads().count(), usize::from(enrolled));
    }
}

#[test]
fn annotations_bind_and_exclude() {
    let mut a = pod("demo", "a", &["10.0.0.1"]);
    a.meta.annotations = labels(&[
        ("tramline.dev/netns", "/run/netns/a"),
        ("tramline.dev/exclude-outbound-ports", "53, 9100"),
        ("tramline.dev/exclude-inbound-ports", "9090"),
        (
            "tramline.dev/exclude-outbound-cidrs",
            "10.0.0.0/8,fd00::/8,::ffff:172.16.0.0/108",
        ),
        ("example.com/other", "x"),
    ]);
    let mesh = one(a.clone());
    let built = workload(&mesh, "demo/a");
    assert_eq!(built.netns.as_deref(), Some("/run/netns/a"));
    assert_eq!(
        (
            built.capture.outbound_ports.as_slice(),
            built.capture.inbound_ports.as_slice()
        ),
        ([53, 9100].as_slice(), [9090].as_slice())
    );
    let ranges = built.capture.outbound_ranges.iter();
    assert_eq!(
        ranges.map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "fd00::/8", "172.16.0.0/12"]
    );
    a.node = "n2".into();
    assert_eq!(
        workload(&one(a.clone()), "demo/a").netns,
        None,
        "a path on another node means nothing here"
    );
    a.node = "".into();
    let nowhere = errors(Objects {
        pods: vec![a],
        ..Objects::default()
    });
    assert!(
        nowhere.len() == 1
            && nowhere[0].contains("Pod demo/a: spec.nodeName: is required beside tramline.dev/netns"),
        "{nowhere:?}"
    );
}

#[test]
fn wrong_annotations_are_named() {
    for (key, value, part) in [
        ("tramline.dev/netns", "run/netns/a", "is not an absolute path"),
        (
            "tramline.dev/netns",
            "/run/netns/../../etc",
            "is not an absolute path",
        ),
        (
            "tramline.dev/exclude-outbound-ports",
            "80,http",
            "`http` is not a port number",
        ),
        (
            "tramline.dev/exclude-outbound-ports",
            "80,,81",
            "`` is not a port number",
        ),
        (
            "tramline.dev/exclude-outbound-cidrs",
            "10.0.0.1/8",
            "did you mean `10.0.0.0/8`",
        ),
        ("tramline.dev/exclude-outbound-port", "80", "unknown annotation"),
    ] {
        let mut pod = pod("demo", "a", &["10.0.0.1"]);
        pod.meta.annotations = labels(&[(key, value)]);
        let errors = errors(Objects {
            pods: vec![pod],
            ..Objects::default()
        });
        assert!(errors.len() == 1 && errors[0].contains(part), "{key}: {errors:?}");
        assert!(
            errors[0].contains(&format!("Pod demo/a: metadata.annotations.{key}")),
            "{errors:?}"
        );
    }
}

#[test]
fn telemetry_names_follow_the_owner_and_the_labels() {
    for (kind, owner, more, name, kind_is) in [
        (
            "ReplicaSet",
            "web-abc12",
            vec![("pod-template-hash", "abc12")],
            "web",
            WorkloadType::Deployment,
        ),
        ("ReplicaSet", "web", vec![], "web", WorkloadType::ReplicaSet),
        ("StatefulSet", "db", vec![], "db", WorkloadType::StatefulSet),
        ("Job", "mail-28934567", vec![], "mail", WorkloadType::CronJob),
        ("Job", "mail-x", vec![], "mail-x", WorkloadType::Job),
        ("Rollout", "r", vec![], "a", WorkloadType::Pod),
    ] {
        let mut pod = pod("demo", "a", &["10.0.0.1"]);
        pod.meta.labels = labels(&more);
        pod.owner = Some(Owner {
            kind: kind.into(),
            name: owner.into(),
        });
        let mesh = one(pod);
        let built = workload(&mesh, "demo/a");
        assert_eq!((&*built.workload_name, built.workload_type), (name, kind_is));
        assert_eq!(
            (&*built.canonical_name, &*built.canonical_revision),
            (name, "latest")
        );
    }
    let mut named = pod("demo", "a", &["10.0.0.1"]);
    named.meta.labels = labels(&[("app", "x"), ("app.kubernetes.io/name", "y"), ("version", "v2")]);
    let mesh = one(named);
    let built = workload(&mesh, "demo/a");
    assert_eq!((&*built.canonical_name, &*built.canonical_revision), ("y", "v2"));
}

#[test]
fn an_ended_pod_has_left_its_address_to_others() {
    let mut gone = pod("demo", "gone", &["10.0.0.1"]);
    gone.ended = true;
    let mesh = build(Objects {
        pods: vec![gone, pod("demo", "new", &["10.0.0.1"])],
        ..Objects::default()
    });
    assert_eq!(
        mesh.workload_by_address(ip("10.0.0.1")).unwrap().uid,
        WorkloadUid::new("demo/new")
    );
    assert_eq!(mesh.workloads().count(), 1);
}

#[test]
fn conflicts_name_both_sides_and_come_all_at_once() {
    let mut twin = pod("other", "b", &["10.0.0.1"]);
    twin.meta.uid = Some("u".into());
    let mut same_uid = pod("other", "c", &["10.0.0.3"]);
    same_uid.meta.uid = Some("u".into());
    let mut netns = [pod("demo", "d", &["10.0.0.4"]), pod("demo", "e", &["10.0.0.5"])];
    for pod in &mut netns {
        pod.meta.annotations = labels(&[("tramline.dev/netns", "/run/netns/x")]);
    }
    let mut bad_account = pod("demo", "f", &[]);
    bad_account.service_account = Some("Upper".into());
    let mut doubled = service("demo", "ports", &["10.96.0.9"], "a");
    doubled.ports.push(doubled.ports[0].clone());
    let mut pods = vec![pod("demo", "a", &["10.0.0.1"]), twin, same_uid, bad_account];
    pods.extend(netns);
    pods.extend([
        pod("demo", "lo", &["127.0.0.1"]),
        pod("demo", "twice", &[]),
        pod("demo", "twice", &[]),
    ]);
    let mut named = pod("demo", "g", &[]);
    named.meta.uid = Some("demo/h".into());
    pods.extend([named, pod("demo", "h", &[])]);
    pods.push(pod("Bad_NS", "x", &[]));
    let services = vec![
        service("demo", "s1", &["10.96.0.1"], "a"),
        service("demo", "s2", &["10.96.0.1"], "a"),
        service("demo", "s3", &["10.0.0.3"], "a"),
        doubled,
    ];
    let errors = errors(Objects {
        pods,
        services,
        ..Objects::default()
    });
    for part in [
        "Pod other/b: status.podIPs: 10.0.0.1 is also an address of Pod demo/a",
        "Pod other/c: metadata.uid: Pod other/b has the same UID",
        "Pod demo/e: metadata.annotations.tramline.dev/netns: Pod demo/d has the same network namespace",
        "Pod demo/f: spec.serviceAccountName: service account must be",
        "Pod demo/lo: status.podIPs: 127.0.0.1 is a loopback address",
        "Pod demo/twice: metadata.name: defined twice",
        "Pod demo/h: metadata.name: stands for the UID, `demo/h`, which is also that of Pod demo/g",
        "Pod Bad_NS/x: metadata.namespace: `Bad_NS` is not a namespace name",
        "Service demo/s2: spec.clusterIPs: 10.96.0.1 is also the address of Service demo/s1",
        "Service demo/s3: spec.clusterIPs: 10.0.0.3 is also an address of Pod other/c",
        "Service demo/ports: spec.ports[1].port: 80 is given twice",
    ] {
        assert!(
            errors.iter().any(|error| error.contains(part)),
            "no {part:?} in {errors:#?}"
        );
    }
    assert!(
        !errors
            .iter()
            .any(|error| error.contains("demo/twice: metadata.uid")),
        "there is none: {errors:#?}"
    );
}

#[test]
fn an_empty_mesh_knows_nobody() {
    let mesh = Mesh::empty(&settings()).with_generation(7);
    assert_eq!(
        (
            mesh.generation(),
            mesh.workloads().count(),
            mesh.services().count()
        ),
        (7, 0, 0)
    );
}

#[test]
fn services_are_found_by_host_name() {
    let services = [("a", "z"), ("b", "a"), ("b", "b"), ("b-c", "a"), ("c", "a")];
    let mesh = build(Objects {
        namespaces: ["a", "b", "b-c", "c"].map(|name| namespace(name, &[])).into(),
        services: services
            .map(|(namespace, name)| service(namespace, name, &[], name))
            .into(),
        ..Objects::default()
    });
    for (namespace, name) in services {
        let host = format!("{name}.{namespace}.svc.cluster.local");
        let found = mesh.service_by_hostname(&host).unwrap();
        assert_eq!((&*found.namespace, &*found.name), (namespace, name));
    }
    for unknown in [
        "",
        "a",
        "a.b",
        "a.b.svc.cluster",
        "b.c.svc.cluster.local",
        "a.b.svc.cluster.local.",
    ] {
        assert!(mesh.service_by_hostname(unknown).is_none(), "{unknown}");
    }
}
