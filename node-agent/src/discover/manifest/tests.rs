mod policies;

use proptest::prelude::*;
use tramline_core::authz::Action;
use tramline_core::service::{Distribution, Readiness};

use super::*;

pub(super) fn read(text: &str) -> (Objects, Vec<String>) {
    read_as(text, Format::Yaml)
}

pub(super) fn read_as(text: &str, format: Format) -> (Objects, Vec<String>) {
    let (mut objects, mut errors) = (Objects::default(), Vec::new());
    parse(text.as_bytes(), "f.yaml", format, &mut objects, &mut errors);
    locate(&mut errors, |_| Some((text.as_bytes(), format)));
    (objects, errors.iter().map(ToString::to_string).collect())
}

#[track_caller]
pub(super) fn good(text: &str) -> Objects {
    let (objects, errors) = read(text);
    assert_eq!(errors, Vec::<String>::new());
    objects
}

/// One error, with each of these parts in it.
#[track_caller]
pub(super) fn bad(text: &str, parts: &[&str]) {
    let (_, errors) = read(text);
    let [error] = errors.as_slice() else {
        panic!("not one error: {errors:#?}")
    };
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

pub(super) fn policy(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: demo}}\nspec:\n{spec}"
    )
}

pub(super) const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: a
  namespace: demo
  uid: u-1
  labels: {app: a, pod-template-hash: abc}
  annotations: {tramline.dev/netns: /run/netns/a}
  creationTimestamp: null
  managedFields: [{anything: [1, 2]}]
  ownerReferences:
  - {apiVersion: apps/v1, kind: ReplicaSet, name: a-abc, controller: true, uid: x}
spec:
  nodeName: n1
  serviceAccountName: sleep
  dnsPolicy: ClusterFirst
  containers:
  - name: c
    image: example.com/c
    ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]
  conditions: [{type: Ready, status: "False"}]
"#;

#[test]
fn a_pod_is_read_and_what_is_not_needed_left_alone() {
    let objects = good(POD);
    let pod = &objects.pods[0];
    assert_eq!(pod.meta.object.to_string(), "f.yaml:2: Pod demo/a");
    assert_eq!(
        pod.addresses,
        [
            "10.0.0.1".parse::<std::net::IpAddr>().unwrap(),
            "fd00::1".parse().unwrap()
        ]
    );
    assert_eq!(
        (&*pod.node, pod.service_account.as_deref(), pod.ready),
        ("n1", Some("sleep"), false)
    );
    assert_eq!(pod.ports.len(), 1, "the UDP port is not the mesh's business");
    assert_eq!(pod.owner.as_ref().map(|owner| &*owner.name), Some("a-abc"));
    assert_eq!(pod.uid().as_str(), "u-1");
}

#[test]
fn a_pod_without_conditions_or_uid_is_ready_and_named() {
    let objects = good(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\nstatus: {podIP: \"::ffff:10.0.0.9\"}\n",
    );
    let pod = &objects.pods[0];
    assert!(pod.ready);
    assert_eq!(pod.uid().as_str(), "default/a");
    assert_eq!(pod.addresses, ["10.0.0.9".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn a_service_account_may_have_its_old_name() {
    let account = |spec: &str| {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        good(&text).pods[0].service_account.clone()
    };
    assert_eq!(account("{serviceAccount: bill}").as_deref(), Some("bill"));
    assert_eq!(
        account("{serviceAccount: old, serviceAccountName: new}").as_deref(),
        Some("new")
    );
    assert_eq!(
        account("{serviceAccount: bill, serviceAccountName: \"\"}").as_deref(),
        Some("bill")
    );
    assert_eq!(account("{}"), None);
}

#[test]
fn several_documents_keep_their_lines() {
    let text = "# about\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n--- # next\n\n# b\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n---\n";
    let objects = good(text);
    let names: Vec<_> = objects
        .namespaces
        .iter()
        .map(|namespace| namespace.meta.object.to_string())
        .collect();
    assert_eq!(names, ["f.yaml:3: Namespace a", "f.yaml:9: Namespace b"]);
    bad(
        &format!("{text}\napiVersion: v1\nkind: Namespace\nmetadata: {{name: [x]}}\n"),
        &["f.yaml:16: ", "metadata.name"],
    );
}

#[test]
fn a_marker_inside_a_block_text_ends_the_document() {
    assert_eq!(split("a: |\n  ---\n  x\n---\nb: 1\n").len(), 2);
    assert_eq!(split("a: 1\n---b\n").len(), 1);
    assert_eq!(split("---\n--- \n# x\n").len(), 0);
}

#[test]
fn lists_hold_any_kinds() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: s, namespace: a}}\nmetadata: {resourceVersion: \"\"}\n";
    let objects = good(text);
    assert_eq!((objects.namespaces.len(), objects.service_accounts.len()), (1, 1));
    bad(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n",
        &["f.yaml:4: Secret default/s: kind: `Secret` of v1 is not read; those that are: Namespace, Node"],
    );
    bad(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: [x]}}\n",
        &["f.yaml:4: ", "items[0].metadata.name"],
    );
}

#[test]
fn json_reads_like_yaml() {
    let text = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\",\"annotations\":{\"x\":\"\\ud83d\\ude00\"}}}]}";
    let (objects, errors) = read_as(text, Format::Json);
    assert_eq!((objects.namespaces.len(), errors), (1, Vec::new()));
    let (_, errors) = read_as("{\"apiVersion\":\"v1\",\n\"kind\":3}", Format::Json);
    assert!(errors[0].starts_with("f.yaml:2: "), "{errors:?}");
    let (_, errors) = read_as("{} {}", Format::Json);
    assert_eq!(errors.len(), 1);
}

#[test]
fn kinds_that_are_not_read_are_named() {
    bad(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
        &["Deployment default/d (line 1): kind: ", "those that are", "Pod"],
    );
    bad(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: d}\n",
        &["is not read"],
    );
    bad(
        "apiVersion: v2\nkind: Pod\nmetadata: {name: d}\n",
        &["write `v1`"],
    );
    bad("kind: Pod\n", &["f.yaml:1: Pod: apiVersion: is required"]);
    bad("apiVersion: v1\n", &["f.yaml:1: kind: is required"]);
    bad(
        "apiVersion: v1\nkind: Pods\n",
        &["f.yaml:2: Pods (line 1): kind: `Pods` of v1 is not read; did you mean `Pod`?"],
    );
    bad("just text\n", &["f.yaml:1: "]);
}

#[test]
fn services_are_read_and_what_would_be_done_wrong_is_refused() {
    let service = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: demo}}\nspec: {spec}\n")
    };
    let objects = good(&service(
        "{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, \"fd00::9\"], selector: {app: a}, ports: [{name: http, port: 80, targetPort: web}, {name: dns, port: 53, protocol: UDP}, {name: z, port: 81, targetPort: 0}]}",
    ));
    let read = &objects.services[0];
    assert_eq!((read.vips.len(), read.ports.len()), (2, 2));
    assert_eq!(
        read.ports[0].target,
        tramline_core::object::TargetPort::Name("web".into())
    );
    assert_eq!(
        read.ports[1].target,
        tramline_core::object::TargetPort::Number(81)
    );
    assert!(good(&service("{clusterIP: None}")).services[0].vips.is_empty());
    bad(
        &service("{type: ExternalName, clusterIP: None, externalName: x}"),
        &["Service demo/s", "spec.type", "ExternalName"],
    );
    let spec = |rest: &str| good(&service(&format!("{{clusterIP: 10.0.0.1, {rest}}}"))).services[0].clone();
    for (rest, seconds) in [
        ("sessionAffinity: None", None),
        ("sessionAffinity: ClientIP", Some(10_800)),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {}}",
            Some(10_800),
        ),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}",
            Some(1),
        ),
    ] {
        assert_eq!(
            spec(rest).session_affinity.map(|time| time.as_secs()),
            seconds,
            "{rest}"
        );
    }
    for (rest, distribution) in [
        ("ports: []", Distribution::Anywhere),
        ("trafficDistribution: PreferClose", Distribution::SameZone),
        ("trafficDistribution: PreferSameZone", Distribution::SameZone),
        ("trafficDistribution: PreferSameNode", Distribution::SameNode),
    ] {
        assert_eq!(spec(rest).distribution, distribution, "{rest}");
    }
    assert!(spec("internalTrafficPolicy: Local").node_local);
    let refused =
        |rest: &str, parts: &[&str]| bad(&service(&format!("{{clusterIP: 10.0.0.1, {rest}}}")), parts);
    refused(
        "sessionAffinity: Cookie",
        &["spec.sessionAffinity", "`Cookie`", "neither None nor ClientIP"],
    );
    for (seconds, affinity) in [
        (0, "ClientIP"),
        (-1, "ClientIP"),
        (86_401, "ClientIP"),
        (60, "None"),
    ] {
        refused(
            &format!(
                "sessionAffinity: {affinity}, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
            ),
            &["spec.sessionAffinityConfig.clientIP.timeoutSeconds"],
        );
    }
    refused(
        "trafficDistribution: PreferFar",
        &["spec.trafficDistribution", "`PreferFar`", "PreferSameZone"],
    );
    refused(
        "internalTrafficPolicy: Near",
        &["spec.internalTrafficPolicy", "neither Cluster nor Local"],
    );
    bad(&service("{ports: []}"), &["spec.clusterIP", "is required"]);
    bad(
        &service("{clusterIP: 10.0.0}"),
        &["spec.clusterIP: `10.0.0` is not an IP address"],
    );
    bad(
        &service("{clusterIP: None, ports: [{port: 70000}]}"),
        &["spec.ports[0].port"],
    );
}

#[test]
fn nodes_are_read_for_their_labels_and_have_no_namespace() {
    let objects = good(
        "apiVersion: v1\nkind: Node\nmetadata: {name: ip-10-0-0-1.ec2.internal, labels: {topology.kubernetes.io/zone: z1}}\nspec: {podCIDR: 10.0.0.0/24}\nstatus: {}\n",
    );
    let node = &objects.nodes[0].meta;
    assert_eq!(node.object.to_string(), "f.yaml:1: Node ip-10-0-0-1.ec2.internal");
    assert_eq!(node.labels["topology.kubernetes.io/zone"].as_ref(), "z1");
}

#[test]
fn slices_are_read() {
    let slice = |rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: demo, labels: {{kubernetes.io/service-name: svc}}}}\n{rest}\n"
        )
    };
    let objects = good(&slice(
        "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}, {addresses: [10.0.0.2], zone: z1, nodeName: n1, hints: {forZones: [{name: z1}, {name: z2}], forNodes: [{name: n1}]}}, {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}]",
    ));
    let read = &objects.endpoint_slices[0];
    assert_eq!(&*read.service, "svc");
    assert_eq!(
        read.endpoints
            .iter()
            .map(|endpoint| endpoint.readiness)
            .collect::<Vec<_>>(),
        [Readiness::NotReady, Readiness::Ready, Readiness::Draining]
    );
    let placed = &read.endpoints[1];
    assert_eq!(
        (placed.node.as_deref(), placed.zone.as_deref()),
        (Some("n1"), Some("z1"))
    );
    assert_eq!((placed.hints.zones.len(), placed.hints.nodes.len()), (2, 1));
    bad(
        &slice("addressType: FQDN\nendpoints: []"),
        &["addressType", "FQDN"],
    );
    bad(
        &slice("addressType: IPv4\nports: [{name: x}]"),
        &["ports[0].port"],
    );
}

#[test]
fn aliases_do_not_unfold_without_bound() {
    use std::fmt::Write;
    let mut text = String::from(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nbomb:\n  l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n",
    );
    for level in 1..=8 {
        let below = format!("*l{}", level - 1);
        writeln!(
            text,
            "  l{level}: &l{level} [{}]",
            [below.as_str(); 10].join(", ")
        )
        .unwrap();
    }
    let (objects, errors) = read(&text);
    assert!(objects.pods.is_empty());
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn nothing_is_dropped_without_a_word() {
    bad(
        "apiVersion: v1\nkind: Namespace\nmetadata: &m {name: a}\nother: {<<: *m}\n",
        &["f.yaml:4: Namespace a (line 1): other.<<: merge keys are not read"],
    );
    bad(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: a, x: b}}\n",
        &["f.yaml:3: Namespace a (line 1): metadata.labels.x: is given twice"],
    );
    let objects = good("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: 1.10}}\n");
    assert_eq!(
        objects.namespaces[0].meta.labels.get("x").map(AsRef::as_ref),
        Some("1.10"),
        "taken as written"
    );
    bad(
        "apiVersion: v1\nkind: Namespace\nmetadata: {}\n",
        &["metadata.name", "is required"],
    );
    let deep = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: a}}\nx: {}{}\n",
        "[".repeat(60),
        "]".repeat(60)
    );
    bad(&deep, &["nest deeper"]);
}

#[test]
fn one_function_reads_bytes_and_says_everything_that_is_wrong() {
    assert_eq!(
        super::read(POD.as_bytes(), "a.yaml", Format::Yaml)
            .unwrap()
            .pods
            .len(),
        1
    );
    let errors = super::read(b"kind: Pod\n---\napiVersion: v1\n", "a.yaml", Format::Yaml).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "a.yaml:1: Pod: apiVersion: is required\na.yaml:3: kind: is required"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), json: bool) {
        let _ = super::read(&bytes, "f", if json { Format::Json } else { Format::Yaml });
    }

    #[test]
    fn a_manifest_with_a_hole_does_not_panic(start in 0_usize..900, len in 0_usize..40) {
        let text: String = POD.chars().enumerate().filter(|(i, _)| !(start..start + len).contains(i)).map(|(_, c)| c).collect();
        let _ = read(&text);
    }
}
