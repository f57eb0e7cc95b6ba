use proptest::prelude::*;
use tramline_core::authz::Action;
use tramline_core::peer_authentication::Mode;

use super::*;

fn read(text: &str) -> (Objects, Vec<String>) {
    read_as(text, Format::Yaml)
}

fn read_as(text: &str, format: Format) -> (Objects, Vec<String>) {
    let (mut objects, mut errors) = (Objects::default(), Vec::new());
    parse(text.as_bytes(), "f.yaml", format, &mut objects, &mut errors);
    (objects, errors.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn good(text: &str) -> Objects {
    let (objects, errors) = read(text);
    assert_eq!(errors, Vec::<String>::new());
    objects
}

/// One error, with each of these parts in it.
#[track_caller]
fn bad(text: &str, parts: &[&str]) {
    let (_, errors) = read(text);
    let [error] = errors.as_slice() else {
        panic!("not one error: {errors:#?}")
    };
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

fn policy(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: demo}}\nspec:\n{spec}"
    )
}

const POD: &str = r#"
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
    let objects =
        good("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: \"::ffff:10.0.0.9\"}\n");
    let pod = &objects.pods[0];
    assert!(pod.ready);
    assert_eq!(pod.uid().as_str(), "default/a");
    assert_eq!(pod.addresses, ["10.0.0.9".parse::<std::net::IpAddr>().unwrap()]);
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
        &["f.yaml:1: ", "Secret s", "kind Secret (v1) is not read"],
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
        &["Deployment d", "the kinds that are", "Pod"],
    );
    bad(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: d}\n",
        &["is not read"],
    );
    bad(
        "apiVersion: v2\nkind: Pod\nmetadata: {name: d}\n",
        &["write `v1`"],
    );
    bad("kind: Pod\n", &["apiVersion and kind are required"]);
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
    bad(
        &service("{clusterIP: 10.0.0.1, sessionAffinity: ClientIP}"),
        &["spec.sessionAffinity"],
    );
    bad(&service("{ports: []}"), &["spec.clusterIP", "is required"]);
    bad(
        &service("{clusterIP: 10.0.0}"),
        &["spec.clusterIPs", "`10.0.0` is not an IP address"],
    );
    bad(
        &service("{clusterIP: None, ports: [{port: 70000}]}"),
        &["spec.ports[0].port"],
    );
}

#[test]
fn slices_are_read() {
    let slice = |rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: demo, labels: {{kubernetes.io/service-name: svc}}}}\n{rest}\n"
        )
    };
    let objects = good(&slice(
        "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}, {addresses: [10.0.0.2]}]",
    ));
    let read = &objects.endpoint_slices[0];
    assert_eq!(
        (&*read.service, read.endpoints[0].ready, read.endpoints[1].ready),
        ("svc", false, true)
    );
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
fn peer_authentication_modes() {
    let pa = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: demo}}\nspec: {spec}\n"
        )
    };
    let mode = |text: &str| good(&pa(&format!("{{mtls: {{mode: {text}}}}}"))).peer_authentications[0].mode;
    assert_eq!(
        [mode("STRICT"), mode("PERMISSIVE"), mode("UNSET"), mode("DISABLE")],
        [Mode::Strict, Mode::Permissive, Mode::Unset, Mode::Permissive]
    );
    assert_eq!(good(&pa("{}")).peer_authentications[0].mode, Mode::Unset);
    let ports = &good(&pa("{selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: STRICT}, \"9090\": {mode: PERMISSIVE}}}")).peer_authentications[0].ports;
    assert_eq!((ports[&8080], ports[&9090]), (Mode::Strict, Mode::Permissive));
    bad(
        &pa("{mtls: {mode: strict}}"),
        &["spec.mtls.mode", "`strict`", "STRICT"],
    );
    bad(
        &pa("{mtls: {modes: STRICT}}"),
        &["spec.mtls", "unknown field `modes`", "`mode`"],
    );
    bad(
        &pa("{portLevelMtls: {http: {mode: STRICT}}}"),
        &["spec.portLevelMtls.http"],
    );
}

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
            "rules: [{from: [{source: {requestPrincipals: [x]}}]}]",
            "spec.rules[0].from[0].source.requestPrincipals",
        ),
        (
            "rules: [{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]",
            "spec.rules[0].from[0].source.remoteIpBlocks",
        ),
        (
            "rules: [{to: [{operation: {methods: [GET], ports: [\"80\"]}}]}]",
            "spec.rules[0].to[0].operation.methods",
        ),
        (
            "rules: [{to: [{operation: {paths: [/x]}}]}]",
            "spec.rules[0].to[0].operation.paths",
        ),
        (
            "rules: [{when: [{key: \"request.headers[x]\", values: [y]}]}]",
            "spec.rules[0].when[0].key",
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
        ("action: AUDIT", "spec.action"),
        ("action: CUSTOM", "spec.action"),
        ("action: allow", "spec.action"),
        (
            "rules: [{from: [{source: {namespaces: [null]}}]}]",
            "source.namespaces[0]: is null",
        ),
        ("selector: {matchLabels: {app: }}", "`app` is null"),
        ("targetRefs: [{kind: Service, name: x}]", "spec.targetRefs"),
        (
            "selector: {matchLabels: {app: \"*\"}}",
            "spec.selector.matchLabels",
        ),
        (
            "selector: {matchExpressions: []}",
            "unknown field `matchExpressions`",
        ),
        (
            "rules: [{from: [{source: {principal: [x]}}]}]",
            "unknown field `principal`, expected one of `principals`",
        ),
        ("rule: []", "unknown field `rule`"),
    ] {
        bad(&policy(field), &["AuthorizationPolicy demo/p", at]);
    }
    let dry = policy("{}").replace(
        "namespace: demo",
        "namespace: demo, annotations: {istio.io/dry-run: \"true\"}",
    );
    bad(&dry, &["istio.io/dry-run"]);
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
        &["merge keys"],
    );
    bad(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: a, x: b}}\n",
        &["`x` is given twice"],
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

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), json: bool) {
        let (mut objects, mut errors) = (Objects::default(), Vec::new());
        let format = if json { Format::Json } else { Format::Yaml };
        parse(&bytes, "f", format, &mut objects, &mut errors);
    }

    #[test]
    fn a_manifest_with_a_hole_does_not_panic(start in 0_usize..900, len in 0_usize..40) {
        let text: String = POD.chars().enumerate().filter(|(i, _)| !(start..start + len).contains(i)).map(|(_, c)| c).collect();
        let _ = read(&text);
    }
}
