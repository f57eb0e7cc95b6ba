//! The standard's sentences about PeerAuthentication, from the manifest to the decision. `docs/POLICY.md` names the row of
//! each.

use tramline_core::authz::{Connection, decide};
use tramline_core::identity::{SpiffeId, TrustDomain};
use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::peer_authentication::Mode;
use tramline_core::plaintext::{PlaintextVerdict, verdict};
use tramline_core::reason::Reason;
use tramline_core::workload::WorkloadUid;

use super::super::tests::{bad, good};

/// Two pods in one namespace, one in another, one in the root namespace; each has `app` of its own name.
const PODS: &[(&str, &str)] = &[
    ("demo", "web"),
    ("demo", "db"),
    ("other", "web"),
    ("istio-system", "web"),
];

/// What became of a connection to `demo/web` or another pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    In,
    /// Refused for want of mTLS.
    Mtls,
    /// Refused by an AuthorizationPolicy.
    Policy,
}
use Got::{In, Mtls, Policy};

fn manifest(kind: &str, namespace: &str, name: &str, more: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\nspec: {spec}\n"
    )
}

fn pa(namespace: &str, name: &str, spec: &str) -> String {
    manifest("PeerAuthentication", namespace, name, "", spec)
}

fn aged(name: &str, created: &str, spec: &str) -> String {
    let more = format!(", creationTimestamp: \"{created}\"");
    manifest("PeerAuthentication", "demo", name, &more, spec)
}

fn authz(spec: &str) -> String {
    manifest("AuthorizationPolicy", "demo", "authz", "", spec)
}

fn mesh(policies: &[String]) -> Mesh {
    let mut text = String::new();
    for (index, (namespace, name)) in PODS.iter().enumerate() {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n\
             spec: {{nodeName: n1, containers: [{{name: c}}]}}\n\
             status: {{phase: Running, podIP: 10.0.0.{index}}}\n"
        );
    }
    text += &policies.concat();
    Mesh::build(good(&text), &settings()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn settings() -> MeshSettings {
    MeshSettings::new(TrustDomain::new("cluster.local").unwrap(), "n1")
}

fn ask(mesh: &Mesh, pod: &str, port: u16, source: Option<&SpiffeId>) -> Got {
    let destination = mesh.workload(&WorkloadUid::new(pod)).unwrap();
    let decision = decide(
        mesh,
        &Connection {
            source,
            source_address: "10.9.0.1".parse().unwrap(),
            destination,
            destination_address: (destination.addresses[0], port).into(),
        },
    );
    if source.is_none() {
        // What the kernel does without asking must be the same.
        match verdict(mesh, destination, port) {
            PlaintextVerdict::Pass => assert!(decision.is_allow(), "{decision}"),
            PlaintextVerdict::Drop => assert!(!decision.is_allow(), "{decision}"),
            PlaintextVerdict::Ask => {}
        }
    }
    match decision.reason() {
        Reason::Ok => In,
        Reason::MtlsRequired => Mtls,
        Reason::PolicyDenied => Policy,
        other => panic!("{other:?}"),
    }
}

fn friend() -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("cluster.local").unwrap(), "demo", "friend").unwrap()
}

/// One sentence, its policies, and what plaintext meets at these pods and ports.
type Row<'a> = (&'a str, Vec<String>, &'a [(&'a str, u16, Got)]);

#[track_caller]
fn assert_rows(rows: &[Row<'_>]) {
    for (sentence, policies, plaintext) in rows {
        let mesh = mesh(policies);
        for (pod, port, expected) in *plaintext {
            assert_eq!(
                ask(&mesh, pod, *port, None),
                *expected,
                "{sentence}: {pod} {port}"
            );
            let mtls = ask(&mesh, pod, *port, Some(&friend()));
            assert_eq!(mtls, In, "{sentence}: mTLS is never refused for being mTLS");
        }
    }
}

const STRICT: &str = "{mtls: {mode: STRICT}}";
const PERMISSIVE: &str = "{mtls: {mode: PERMISSIVE}}";
const DISABLE: &str = "{mtls: {mode: DISABLE}}";
const UNSET: &str = "{mtls: {mode: UNSET}}";
const WEB_STRICT: &str = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}";
const WEB_PERMISSIVE: &str = "{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}}";
const WEB_DISABLE: &str = "{selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}}";
const WEB_UNSET: &str = "{selector: {matchLabels: {app: web}}, mtls: {mode: UNSET}}";
const ROOT: &str = "istio-system";

#[test]
fn each_mode_at_each_level() {
    let refused: &[_] = &[("demo/web", 80, Mtls)];
    let taken: &[_] = &[("demo/web", 80, In)];
    let mut rows: Vec<Row<'_>> = vec![("without any policy the default is PERMISSIVE", vec![], taken)];
    for (mode, spec, of_web, outcome) in [
        ("STRICT", STRICT, WEB_STRICT, refused),
        ("PERMISSIVE", PERMISSIVE, WEB_PERMISSIVE, taken),
        (
            "DISABLE, read as PERMISSIVE in ambient mode",
            DISABLE,
            WEB_DISABLE,
            taken,
        ),
        ("UNSET everywhere is PERMISSIVE", UNSET, WEB_UNSET, taken),
        (
            "`spec: {}` is UNSET",
            "{}",
            "{selector: {matchLabels: {app: web}}}",
            taken,
        ),
        (
            "`mtls: {}` is UNSET",
            "{mtls: {}}",
            "{selector: {matchLabels: {app: web}}, mtls: {}}",
            taken,
        ),
    ] {
        rows.push((mode, vec![pa(ROOT, "p", spec)], outcome));
        rows.push((mode, vec![pa("demo", "p", spec)], outcome));
        rows.push((mode, vec![pa("demo", "p", of_web)], outcome));
    }
    assert_rows(&rows);
}

#[test]
fn the_narrower_level_wins_and_unset_inherits() {
    assert_rows(&[
        (
            "the root namespace's policy is for the whole mesh, that namespace included",
            vec![pa(ROOT, "p", STRICT)],
            &[
                ("demo/web", 80, Mtls),
                ("other/web", 80, Mtls),
                ("istio-system/web", 80, Mtls),
            ],
        ),
        (
            "a namespace's policy is for that namespace only",
            vec![pa("demo", "p", STRICT)],
            &[
                ("demo/web", 80, Mtls),
                ("demo/db", 80, Mtls),
                ("other/web", 80, In),
            ],
        ),
        (
            "a selector is for the pods with these labels, in its namespace only",
            vec![pa("demo", "p", WEB_STRICT)],
            &[("demo/web", 80, Mtls), ("demo/db", 80, In), ("other/web", 80, In)],
        ),
        (
            "an empty selector selects the namespace",
            vec![pa("demo", "p", "{selector: {}, mtls: {mode: STRICT}}")],
            &[
                ("demo/web", 80, Mtls),
                ("demo/db", 80, Mtls),
                ("other/web", 80, In),
            ],
        ),
        (
            "namespace beats mesh",
            vec![pa(ROOT, "p", STRICT), pa("demo", "p", PERMISSIVE)],
            &[("demo/web", 80, In), ("other/web", 80, Mtls)],
        ),
        (
            "namespace beats mesh, the other way round",
            vec![pa(ROOT, "p", PERMISSIVE), pa("demo", "p", STRICT)],
            &[("demo/web", 80, Mtls), ("other/web", 80, In)],
        ),
        (
            "workload beats namespace",
            vec![pa("demo", "p", STRICT), pa("demo", "w", WEB_PERMISSIVE)],
            &[("demo/web", 80, In), ("demo/db", 80, Mtls)],
        ),
        (
            "workload beats namespace, the other way round",
            vec![pa("demo", "p", PERMISSIVE), pa("demo", "w", WEB_STRICT)],
            &[("demo/web", 80, Mtls), ("demo/db", 80, In)],
        ),
        (
            "workload beats mesh",
            vec![pa(ROOT, "p", STRICT), pa("demo", "w", WEB_PERMISSIVE)],
            &[("demo/web", 80, In), ("demo/db", 80, Mtls)],
        ),
        (
            "DISABLE beats a wider STRICT, as PERMISSIVE does",
            vec![pa(ROOT, "p", STRICT), pa("demo", "p", DISABLE)],
            &[("demo/web", 80, In), ("other/web", 80, Mtls)],
        ),
        (
            "DISABLE of a workload beats STRICT of its namespace",
            vec![pa("demo", "p", STRICT), pa("demo", "w", WEB_DISABLE)],
            &[("demo/web", 80, In), ("demo/db", 80, Mtls)],
        ),
        (
            "UNSET of a namespace inherits the mesh's",
            vec![pa(ROOT, "p", STRICT), pa("demo", "p", UNSET)],
            &[("demo/web", 80, Mtls)],
        ),
        (
            "UNSET of a workload inherits the namespace's",
            vec![
                pa(ROOT, "p", PERMISSIVE),
                pa("demo", "p", STRICT),
                pa("demo", "w", WEB_UNSET),
            ],
            &[("demo/web", 80, Mtls), ("other/web", 80, In)],
        ),
        (
            "UNSET of workload and namespace inherits the mesh's",
            vec![
                pa(ROOT, "p", STRICT),
                pa("demo", "p", UNSET),
                pa("demo", "w", WEB_UNSET),
            ],
            &[("demo/web", 80, Mtls)],
        ),
        (
            "a policy of another namespace says nothing",
            vec![
                pa("other", "p", STRICT),
                pa(
                    "demo",
                    "db",
                    "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}}",
                ),
            ],
            &[("demo/web", 80, In), ("demo/db", 80, In)],
        ),
    ]);
}

#[test]
fn the_oldest_of_one_level_wins() {
    let (old, new) = ("2025-01-01T00:00:00Z", "2025-06-01T00:00:00Z");
    assert_rows(&[
        (
            "oldest of a namespace",
            vec![aged("a", new, PERMISSIVE), aged("b", old, STRICT)],
            &[("demo/web", 80, Mtls)],
        ),
        (
            "oldest of those that select the workload",
            vec![aged("a", new, WEB_STRICT), aged("b", old, WEB_PERMISSIVE)],
            &[("demo/web", 80, In)],
        ),
        (
            "age does not beat the level",
            vec![aged("a", old, PERMISSIVE), aged("b", new, WEB_STRICT)],
            &[("demo/web", 80, Mtls), ("demo/db", 80, In)],
        ),
        (
            "the oldest being UNSET, the next wider level decides and not the next in age",
            vec![aged("a", old, UNSET), aged("b", new, STRICT)],
            &[("demo/web", 80, In)],
        ),
        (
            "of one age, the first by name",
            vec![aged("b", old, STRICT), aged("a", old, PERMISSIVE)],
            &[("demo/web", 80, In)],
        ),
        (
            "the ports of a younger policy do not count",
            vec![
                aged("a", old, WEB_PERMISSIVE),
                aged(
                    "b",
                    new,
                    "{selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: STRICT}}}",
                ),
            ],
            &[("demo/web", 80, In)],
        ),
    ]);
}

#[test]
fn ports_are_the_pods_and_have_modes_of_their_own() {
    let ports = |mode: &str, ports: &str| {
        pa(
            "demo",
            "w",
            &format!(
                "{{selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: {mode}}}, portLevelMtls: {ports}}}"
            ),
        )
    };
    assert_rows(&[
        (
            "a strict port of a permissive workload",
            vec![ports("PERMISSIVE", "{80: {mode: STRICT}}")],
            &[
                ("demo/web", 80, Mtls),
                ("demo/web", 8080, In),
                ("demo/db", 80, In),
            ],
        ),
        (
            "a permissive port of a strict workload",
            vec![ports("STRICT", "{80: {mode: PERMISSIVE}}")],
            &[
                ("demo/web", 80, In),
                ("demo/web", 8080, Mtls),
                ("demo/db", 80, In),
            ],
        ),
        (
            "a disabled port of a strict workload is read as permissive",
            vec![ports("STRICT", "{80: {mode: DISABLE}}")],
            &[("demo/web", 80, In), ("demo/web", 8080, Mtls)],
        ),
        (
            "an unset port inherits the policy's mode",
            vec![ports("STRICT", "{80: {mode: UNSET}, 81: {}}")],
            &[("demo/web", 80, Mtls), ("demo/web", 81, Mtls)],
        ),
        (
            "an unset port of an unset policy inherits the namespace's",
            vec![
                ports("UNSET", "{80: {mode: UNSET}, 81: {mode: PERMISSIVE}}"),
                pa("demo", "p", STRICT),
            ],
            &[
                ("demo/web", 80, Mtls),
                ("demo/web", 81, In),
                ("demo/web", 82, Mtls),
            ],
        ),
        (
            "a strict port under a permissive mesh and an unset policy",
            vec![ports("UNSET", "{80: {mode: STRICT}}"), pa(ROOT, "p", PERMISSIVE)],
            &[("demo/web", 80, Mtls), ("demo/web", 81, In)],
        ),
        (
            "several ports, each its own",
            vec![ports(
                "STRICT",
                "{80: {mode: PERMISSIVE}, 81: {mode: STRICT}, 65535: {mode: DISABLE}}",
            )],
            &[
                ("demo/web", 80, In),
                ("demo/web", 81, Mtls),
                ("demo/web", 65535, In),
                ("demo/web", 82, Mtls),
            ],
        ),
    ]);
    // The key is the pod's port: a Service's port that maps to it says nothing, and no name stands for it.
    bad(
        &pa(
            "demo",
            "p",
            "{selector: {matchLabels: {app: a}}, portLevelMtls: {http: {mode: STRICT}}}",
        ),
        &["spec.portLevelMtls.http"],
    );
    bad(
        &pa(
            "demo",
            "p",
            "{selector: {matchLabels: {app: a}}, portLevelMtls: {0: {mode: STRICT}}}",
        ),
        &["spec.portLevelMtls.0"],
    );
}

#[test]
fn what_selects_nothing_is_refused() {
    let refused = |namespace: &str, spec: &str, field: &str| {
        let errors = Mesh::build(good(&pa(namespace, "p", spec)), &settings()).unwrap_err();
        let words: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(words.len() == 1 && words[0].contains(field), "{spec}: {words:?}");
    };
    refused(ROOT, WEB_STRICT, "spec.selector");
    for spec in [
        "{portLevelMtls: {80: {mode: STRICT}}}",
        "{selector: {}, portLevelMtls: {80: {mode: STRICT}}}",
        "{selector: {matchLabels: {}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: PERMISSIVE}}}",
    ] {
        refused("demo", spec, "spec.portLevelMtls");
    }
}

#[test]
fn authorization_policies_see_plaintext_without_identity() {
    let deny_nameless = "{action: DENY, rules: [{from: [{source: {notPrincipals: [\"*\"]}}]}]}";
    let named =
        "{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/friend]}}]}]}";
    let in_namespace = "{action: ALLOW, rules: [{from: [{source: {namespaces: [demo]}}]}]}";
    let by_address = "{action: ALLOW, rules: [{from: [{source: {ipBlocks: [10.9.0.0/16]}}]}]}";
    let by_port = "{action: ALLOW, rules: [{to: [{operation: {ports: [\"80\"]}}]}]}";
    for (sentence, mode, policy, plaintext, mtls) in [
        (
            "PERMISSIVE lets plaintext in, a principal is still needed where asked for",
            PERMISSIVE,
            named,
            Policy,
            In,
        ),
        ("the same for a namespace", PERMISSIVE, in_namespace, Policy, In),
        (
            "DISABLE too leaves identities to who has one",
            DISABLE,
            named,
            Policy,
            In,
        ),
        ("an address needs no identity", PERMISSIVE, by_address, In, In),
        ("a port needs no identity", PERMISSIVE, by_port, In, In),
        (
            "STRICT is asked first: what ALLOW lets in by address is refused",
            STRICT,
            by_address,
            Mtls,
            In,
        ),
        ("STRICT before ALLOW by port", STRICT, by_port, Mtls, In),
        ("STRICT before ALLOW by principal", STRICT, named, Mtls, In),
        (
            "STRICT before DENY: the reason is mTLS",
            STRICT,
            deny_nameless,
            Mtls,
            In,
        ),
        (
            "STRICT does not let in: an ALLOW without rules denies mTLS too",
            STRICT,
            "{}",
            Mtls,
            Policy,
        ),
        (
            "STRICT is as DENY notPrincipals `*`: this refuses and lets in the same",
            PERMISSIVE,
            deny_nameless,
            Policy,
            In,
        ),
    ] {
        let mesh = mesh(&[pa("demo", "p", mode), authz(policy)]);
        assert_eq!(ask(&mesh, "demo/web", 80, None), plaintext, "{sentence}");
        assert_eq!(ask(&mesh, "demo/web", 80, Some(&friend())), mtls, "{sentence}");
    }
}

#[test]
fn modes_and_fields_are_read() {
    let mode = |spec: &str| good(&pa("demo", "p", spec)).peer_authentications[0].mode;
    assert_eq!(
        [STRICT, PERMISSIVE, UNSET, DISABLE, "{}"].map(mode),
        [
            Mode::Strict,
            Mode::Permissive,
            Mode::Unset,
            Mode::Permissive,
            Mode::Unset
        ]
    );
    let ports = "{selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: STRICT}, \"9090\": {mode: PERMISSIVE}}}";
    let ports = &good(&pa("demo", "p", ports)).peer_authentications[0].ports;
    assert_eq!((ports[&8080], ports[&9090]), (Mode::Strict, Mode::Permissive));
    bad(
        &pa("demo", "p", "{mtls: {mode: strict}}"),
        &["spec.mtls.mode", "`strict`", "STRICT"],
    );
    bad(
        &pa("demo", "p", "{mtls: {modes: STRICT}}"),
        &["spec.mtls.modes: is not a field; did you mean `mode`?"],
    );
}
