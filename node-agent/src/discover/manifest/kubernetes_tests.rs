//! What Kubernetes would refuse, or take for something else than its author meant.

use super::tests::{bad, good, read_as};
use super::*;
use tramline_core::identity::TrustDomain;
use tramline_core::mesh::{Mesh, MeshSettings};

fn pod(metadata: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  {metadata}\nspec: {{}}\n")
}

#[test]
fn almost_the_label_or_the_value_that_enrols_is_refused() {
    for (labels, said) in [
        (
            "istio.io/dataplane-mode: Tramline",
            "metadata.labels.istio.io/dataplane-mode: `Tramline` is no mode; did you mean `tramline`?",
        ),
        (
            "istio.io/dataplane-mode: tramlin",
            "`tramlin` is no mode; did you mean `tramline`?",
        ),
        (
            "istio.io/dataplane-mode: None",
            "`None` is no mode; did you mean `none`?",
        ),
        (
            "istio.io/dataplane_mode: tramline",
            "metadata.labels.istio.io/dataplane_mode: is not read; did you mean `istio.io/dataplane-mode`?",
        ),
        (
            "istio.io/dataplanemode: none",
            "metadata.labels.istio.io/dataplanemode: is not read; did you mean `istio.io/dataplane-mode`?",
        ),
        (
            "Istio.io/Dataplane-Mode: ambient",
            "metadata.labels.Istio.io/Dataplane-Mode: is not read; did you mean",
        ),
    ] {
        let text = pod(&format!("labels:\n    app: a\n    {labels}"));
        bad(&text, &["f.yaml:7: Pod default/a (line 1): ", said]);
        bad(
            &text.replace("kind: Pod", "kind: Namespace"),
            &["f.yaml:7: Namespace a (line 1): ", said],
        );
        // Nobody enrols these.
        good(
            &text
                .replace("kind: Pod", "kind: Service")
                .replace("{}", "{clusterIP: None}"),
        );
    }
    for label in [
        "istio.io/dataplane-mode: tramline",
        "istio.io/dataplane-mode: none",
        "istio.io/dataplane-mode: ambient",
        "istio.io/dataplane-mode: sidecar",
        "istio.io/dataplane-mode: \"\"",
        "istio.io/use-waypoint: none",
        "istio.io/rev: Tramline",
        "dataplane-mode: Tramline",
    ] {
        good(&pod(&format!("labels: {{{label}}}")));
    }
}

#[test]
fn an_address_that_is_written_twice_is_the_same_one() {
    let service = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  ports: []\n  {spec}\n")
    };
    let pod = |status: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{}}\nstatus:\n  {status}\n")
    };
    for (text, said) in [
        (
            service("clusterIPs: [10.0.0.1, \"fd00::1\"]\n  clusterIP: 10.0.0.2"),
            "f.yaml:7: Service default/s (line 1): spec.clusterIP: `10.0.0.2` is not the first of spec.clusterIPs, `10.0.0.1`",
        ),
        (
            service("clusterIP: None\n  clusterIPs: [10.0.0.1]"),
            "f.yaml:6: Service default/s (line 1): spec.clusterIP: `None` is not the first of spec.clusterIPs, `10.0.0.1`",
        ),
        (
            service("clusterIP: 10.0.0.1\n  clusterIPs: [None]"),
            "f.yaml:6: Service default/s (line 1): spec.clusterIP: `10.0.0.1` is not the first of spec.clusterIPs, `None`",
        ),
        (
            pod("podIP: 10.0.0.2\n  podIPs: [{ip: 10.0.0.1}]"),
            "f.yaml:6: Pod default/a (line 1): status.podIP: `10.0.0.2` is not the first of status.podIPs, `10.0.0.1`",
        ),
    ] {
        bad(&text, &[said]);
    }
    good(&service(
        "clusterIP: \"fd00:0::1\"\n  clusterIPs: [\"fd00::1\", 10.0.0.1]",
    ));
    good(&service("clusterIP: \"\"\n  clusterIPs: [\"fd00::1\", 10.0.0.1]"));
    good(&service("clusterIP: None\n  clusterIPs: [None]"));
    good(&pod("podIP: 10.0.0.1\n  podIPs: []"));
    good(&pod("podIP: \"\"\n  podIPs: [{ip: 10.0.0.1}]"));
    good(&pod(
        "podIP: 10.0.0.1\n  podIPs: [{ip: 10.0.0.1}, {ip: \"fd00::1\"}]",
    ));
}

#[test]
fn lines_end_where_yaml_says() {
    for end in ["\r", "\r\n", "\n", "\u{85}", "\u{2028}", "\u{2029}"] {
        let text = "# about\n\n---\n# a\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: [b]\n"
            .replace('\n', end);
        let (objects, errors) = super::tests::read(&text);
        assert_eq!(objects.namespaces.len(), 1, "{end:?}");
        assert_eq!(
            objects.namespaces[0].meta.object.to_string(),
            "f.yaml:5: Namespace a",
            "{end:?}"
        );
        assert_eq!(
            errors,
            ["f.yaml:13: metadata.name: is a list where a text belongs"],
            "{end:?}"
        );
        assert_eq!(
            split(&format!("# x{end}---{end}# y{end}--- {end}")).len(),
            0,
            "{end:?}"
        );
    }
    // Not UTF-8 on the third line.
    let mut errors = Vec::new();
    parse(
        b"# a\r# b\r\n# \xff\r",
        "f.yaml",
        Format::Yaml,
        &mut Objects::default(),
        &mut errors,
    );
    assert_eq!(errors[0].to_string(), "f.yaml:3: is not UTF-8: save it as UTF-8");
    // JSON knows no others than its own.
    let (_, errors) = read_as("{\"apiVersion\": \"v1\",\n\"kind\": 3}", Format::Json);
    assert!(errors[0].starts_with("f.yaml:2: "), "{errors:?}");
}

#[test]
fn an_error_names_the_field_that_is_written() {
    bad(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports: []\n  clusterIP: 10.0.0.300\n",
        &["f.yaml:6: Service default/s (line 1): spec.clusterIP: `10.0.0.300` is not an IP address"],
    );
    bad(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIPs:\n  - 10.0.0.1\n  - 10.0.0.300\n",
        &["f.yaml:7: Service default/s (line 1): spec.clusterIPs[1]: `10.0.0.300` is not an IP address"],
    );
}

#[test]
fn a_target_is_named_as_it_is_written() {
    let target = "group: \"\", kind: Service, name: s";
    let text = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec:\n  {spec}\n"
        )
    };
    bad(
        &text(&format!("targetRef: {{{target}}}\n  selector: {{}}")),
        &["spec.selector: is given together with spec.targetRef; one of them has to go"],
    );
    for (spec, field) in [
        (format!("targetRef: {{{target}}}"), "spec.targetRef"),
        (format!("targetRefs: [{{{target}}}]"), "spec.targetRefs[0]"),
    ] {
        let objects = good(&text(&spec));
        let printed = print::list(&objects).to_string();
        assert!(
            printed.contains(&format!("\"{}\":", &field[5..].replace("[0]", ""))),
            "{printed}"
        );
        let settings = MeshSettings::new(TrustDomain::new("cluster.local").unwrap(), "n1");
        let mesh = Mesh::build(objects, &settings).unwrap();
        let statuses: Vec<_> = mesh.policy_statuses().collect();
        assert_eq!(statuses[0].conditions[0].field, field);
    }
}

#[test]
fn items_of_a_list_of_one_kind_need_not_say_it() {
    let pods = "apiVersion: v1\nkind: PodList\nmetadata: {resourceVersion: \"1\"}\nitems:\n- metadata: {name: a}\n  spec: {}\n- metadata: {name: b}\n  spec: {nodname: x}\n";
    bad(
        pods,
        &["f.yaml:8: Pod default/b (line 7): spec.nodname: is not a field; did you mean `nodeName`?"],
    );
    let objects = good(&pods.replace("nodname", "nodeName"));
    assert_eq!(objects.pods.len(), 2);
    assert_eq!(&*objects.pods[1].node, "x");
    let policies = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems:\n- metadata: {name: p}\n  spec: {action: DENY}\n- apiVersion: security.istio.io/v1beta1\n  kind: AuthorizationPolicy\n  metadata: {name: q}\n  spec: {action: FORBID}\n";
    bad(
        policies,
        &["f.yaml:9: AuthorizationPolicy default/q (line 6): spec.action: `FORBID` is none of"],
    );
    assert_eq!(
        good(&policies.replace("FORBID", "DENY"))
            .authorization_policies
            .len(),
        2
    );
    let slices = "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSliceList\",\"items\":[{\"metadata\":{\"name\":\"s\",\"labels\":{\"kubernetes.io/service-name\":\"a\"}},\"addressType\":\"IPv4\",\"endpoints\":[]}]}";
    let (objects, errors) = read_as(slices, Format::Json);
    assert_eq!((objects.endpoint_slices.len(), errors), (1, Vec::new()));

    let item = |head: &str, item: &str| {
        format!(
            "{head}\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {{name: a}}\n- metadata: {{name: b}}\n  {item}\n"
        )
    };
    let list = "apiVersion: v1\nkind: List";
    bad(
        &item(list, "apiVersion: v1"),
        &["f.yaml:7: items[1].kind: is required"],
    );
    bad(
        &item(list, "kind: Namespace"),
        &["f.yaml:7: Namespace b: apiVersion: is required"],
    );
    bad(&item(list, "x: y"), &["f.yaml:7: items[1].kind: is required"]);
    bad(
        &item("apiVersion: v1\nkind: NamespaceList", "apiVersion: v2"),
        &["f.yaml:8: Namespace b (line 7): apiVersion: `v2` of Namespace is not read; write `v1`"],
    );
    // Of kinds that are not read, and of nothing.
    bad(
        "apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {name: d}\n",
        &["f.yaml:4: Deployment default/d: kind: `Deployment` of apps/v1 is not read"],
    );
    bad(
        "kind: PodList\nitems:\n- metadata: {name: d}\n",
        &["f.yaml:3: Pod default/d: apiVersion: is required"],
    );
    good("apiVersion: v1\nkind: PodList\nitems: []\n");
}
