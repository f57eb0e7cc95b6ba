//! Kinds of bad configuration: what is said of each, to the letter, and that the last good one stays in force.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::symlink;

use futures_util::future::join_all;
use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::time::timeout;
use tramline_core::identity::TrustDomain;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// What is put beside a good file.
enum Bad {
    /// `x.yaml` with this text.
    Yaml(&'static str),
    /// `x.json` with this text.
    Json(&'static str),
    /// `spec` of an AuthorizationPolicy that begins on line 2 of `x.yaml`.
    Policy(&'static str),
    /// Anything else.
    Do(fn(&Path)),
}

impl Bad {
    fn put(&self, dir: &Path) {
        match self {
            Self::Yaml(text) => write(dir, "x.yaml", text),
            Self::Json(text) => write(dir, "x.json", text),
            Self::Policy(spec) => write(
                dir,
                "x.yaml",
                format!(
                    "# about\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  \
                     namespace: demo\nspec:\n{spec}\n"
                ),
            ),
            Self::Do(make) => make(dir),
        }
    }
}

/// At once: on a busy machine the source would take a file that is still empty.
fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let draft = dir.join(".draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, dir.join(name)).unwrap();
}

const GOOD: &str = "apiVersion: v1
kind: Pod
metadata: {name: a, namespace: demo}
spec: {nodeName: n1}
status: {podIP: 10.0.0.1}
";

/// What is wrong, and everything that is said about it.
const ROWS: &[(&str, Bad, &str)] = &[
    (
        "not YAML",
        Bad::Yaml("apiVersion: v1\nkind: [\n"),
        "x.yaml:3: is not valid YAML: did not find expected node content",
    ),
    (
        "half-written",
        Bad::Yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: b, namesp"),
        "x.yaml:4: is not valid YAML: did not find expected ',' or '}'",
    ),
    (
        "half-written JSON",
        Bad::Json("{\"apiVersion\": \"v1\",\n\"kind\": \"Pod\", \"meta"),
        "x.json:2: is not valid JSON: EOF while parsing a string",
    ),
    (
        "just text",
        Bad::Yaml("hello\n"),
        "x.yaml:1: is \"hello\" where an object with fields belongs",
    ),
    (
        "no apiVersion",
        Bad::Yaml("kind: Pod\n"),
        "x.yaml:1: Pod: apiVersion: is required",
    ),
    (
        "wrong apiVersion",
        Bad::Yaml("# one\n---\nkind: Pod\napiVersion: v2\nmetadata: {name: b}\n"),
        "x.yaml:4: Pod default/b (line 3): apiVersion: `v2` of Pod is not read; write `v1`",
    ),
    (
        "unknown kind",
        Bad::Yaml("apiVersion: v1\nkind: Pods\nmetadata: {name: b}\n"),
        "x.yaml:2: Pods default/b (line 1): kind: `Pods` of v1 is not read; did you mean `Pod`?",
    ),
    (
        "kind that is not read",
        Bad::Yaml("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\n"),
        "x.yaml:2: Deployment default/b (line 1): kind: `Deployment` of apps/v1 is not read; those that are: Namespace, Node, Pod, Service, ServiceAccount, EndpointSlice, PeerAuthentication, AuthorizationPolicy",
    ),
    (
        "wrong type",
        Bad::Yaml("apiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n  labels: [app]\nspec: {}\n"),
        "x.yaml:5: Pod default/b (line 1): metadata.labels: is a list where an object with fields belongs",
    ),
    (
        "wrong type in a List",
        Bad::Yaml(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: c}\n  spec:\n    hostNetwork: maybe\n",
        ),
        "x.yaml:9: Pod default/c (line 5): spec.hostNetwork: is \"maybe\" where `true` or `false` belongs",
    ),
    (
        "no name",
        Bad::Yaml("apiVersion: v1\nkind: Namespace\nmetadata: {}\n"),
        "x.yaml:3: Namespace (line 1): metadata.name: is required",
    ),
    (
        "bad name",
        Bad::Yaml("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: A B\n"),
        "x.yaml:4: Namespace A B (line 1): metadata.name: `A B` is not a name (a-z, 0-9, `-`, `.`, not at the ends)",
    ),
    (
        "misspelt metadata",
        Bad::Yaml("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n  lables: {x: y}\n"),
        "x.yaml:5: Namespace b (line 1): metadata.lables: is not a field; did you mean `labels`?",
    ),
    (
        "a misspelt field of a core kind",
        Bad::Yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIP: 10.96.0.1\n  internalTraficPolicy: Local\n  ports: [{port: 80, appProtocol: http}]\n",
        ),
        "x.yaml:6: Service default/s (line 1): spec.internalTraficPolicy: is not a field; did you mean `internalTrafficPolicy`?",
    ),
    (
        "a network namespace of no node",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n  annotations: {tramline.dev/netns: /run/netns/b}\nspec:\n  containers: []\n",
        ),
        "x.yaml:6: Pod default/b (line 1): spec.nodeName: is required beside tramline.dev/netns: the path is one on the pod's own node",
    ),
    (
        "a pod without spec",
        Bad::Yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nstatus: {podIP: 10.0.0.2}\n"),
        "x.yaml:1: Pod default/b: spec: is required",
    ),
    (
        "two pods with one address",
        Bad::Yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {}\nstatus:\n  podIP: 10.0.0.1\n"),
        "x.yaml:6: Pod default/b (line 1): status.podIP: 10.0.0.1 is also an address of good.yaml:1: Pod demo/a",
    ),
    (
        "no address",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {}\nstatus:\n  podIPs:\n  - ip: 10.0.0.2\n  - ip: 10.0.0\n",
        ),
        "x.yaml:8: Pod default/b (line 1): status.podIPs[1].ip: `10.0.0` is not an IP address such as 10.0.0.1 or fd00::1",
    ),
    (
        "duplicate objects",
        Bad::Yaml("apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: demo\n  name: a\nspec: {}\n"),
        "x.yaml:5: Pod demo/a (line 1): metadata.name: defined twice; the other one is good.yaml:1: Pod demo/a",
    ),
    (
        "an enrolled pod without its namespace",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n  labels: {istio.io/dataplane-mode: tramline}\nspec: {nodeName: n1}\nstatus: {podIP: 10.0.0.2}\n",
        ),
        "x.yaml:3: Pod default/b (line 1): metadata.annotations.tramline.dev/netns: is required for an enrolled pod of this node: the path of its network namespace, such as /run/netns/NAME",
    ),
    (
        "an unknown annotation",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n  annotations:\n    tramline.dev/netn: /x\nspec: {nodeName: n1}\nstatus: {podIP: 10.0.0.2}\n",
        ),
        "x.yaml:6: Pod default/b (line 1): metadata.annotations.tramline.dev/netn: unknown annotation; those read are tramline.dev/netns, tramline.dev/exclude-outbound-ports, tramline.dev/exclude-inbound-ports, tramline.dev/exclude-outbound-cidrs",
    ),
    (
        "a bad port",
        Bad::Yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIP: None\n  ports:\n  - {port: 80}\n  - name: b\n    port: 70000\n",
        ),
        "x.yaml:9: Service default/s (line 1): spec.ports[1].port: is `70000` where a number from 0 to 65535 belongs",
    ),
    (
        "a Service without address",
        Bad::Yaml("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports: []\n"),
        "x.yaml:4: Service default/s (line 1): spec.clusterIP: is required: nothing allocates addresses here; give one, or None for a headless Service",
    ),
    (
        "ExternalName",
        Bad::Yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  externalName: x\n  type: ExternalName\n",
        ),
        "x.yaml:6: Service default/s (line 1): spec.type: ExternalName has no address to capture; leave the Service out: its name resolves to an address outside the mesh, which is dialled as it is",
    ),
    (
        "a slice of no Service",
        Bad::Yaml(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s\n  labels: {}\naddressType: IPv4\n",
        ),
        "x.yaml:5: EndpointSlice default/s (line 1): metadata.labels.kubernetes.io/service-name: is required: it names the Service whose endpoints these are",
    ),
    (
        "an unknown mode",
        Bad::Yaml(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec:\n  mtls:\n    mode: strict\n",
        ),
        "x.yaml:6: PeerAuthentication default/p (line 1): spec.mtls.mode: `strict` is none of UNSET, PERMISSIVE, STRICT, DISABLE",
    ),
    (
        "an unknown field",
        Bad::Policy("  rules:\n  - from:\n    - source:\n        namespaces: [x]\n        principal: [x]"),
        "x.yaml:12: AuthorizationPolicy demo/p (line 2): spec.rules[0].from[0].source.principal: is not a field; did you mean `principals`?",
    ),
    (
        "an unknown field, not like any",
        Bad::Policy("  rules:\n  - from:\n    - address: [x]"),
        "x.yaml:10: AuthorizationPolicy demo/p (line 2): spec.rules[0].from[0].address: is not a field; the only one is `source`",
    ),
    (
        "an unknown action",
        Bad::Policy("  action: REFUSE"),
        "x.yaml:8: AuthorizationPolicy demo/p (line 2): spec.action: `REFUSE` is none of ALLOW, DENY, AUDIT, CUSTOM",
    ),
    (
        "an unknown key",
        Bad::Policy("  rules:\n  - when:\n    - key: source.address\n      values: [x]"),
        "x.yaml:10: AuthorizationPolicy demo/p (line 2): spec.rules[0].when[0].key: `source.address` is not a key of the standard; the keys that are decided on: source.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain, destination.ip, destination.port",
    ),
    (
        "an empty principal",
        Bad::Policy(
            "  rules:\n  - from:\n    - source:\n        principals:\n        - cluster.local/ns/a/sa/b\n        - \"\"",
        ),
        "x.yaml:13: AuthorizationPolicy demo/p (line 2): spec.rules[0].from[0].source.principals[1]: is empty; use `*` for any value",
    ),
    (
        "a bad range",
        Bad::Policy(
            "  rules:\n  - from:\n    - source:\n        ipBlocks:\n          - 10.0.0.0/8\n          - 10.0.0.1/33",
        ),
        "x.yaml:13: AuthorizationPolicy demo/p (line 2): spec.rules[0].from[0].source.ipBlocks[1]: `10.0.0.1/33` is neither an IP address nor a CIDR range",
    ),
    (
        "bits beyond the prefix",
        Bad::Policy("  rules:\n  - from:\n    - source:\n        ipBlocks: [10.0.0.1/8]"),
        "x.yaml:11: AuthorizationPolicy demo/p (line 2): spec.rules[0].from[0].source.ipBlocks[0]: `10.0.0.1/8`: bits outside the prefix are set; did you mean `10.0.0.0/8`?",
    ),
    (
        "a bad port in a policy",
        Bad::Policy("  rules:\n  - to:\n    - operation:\n        ports: [\"80\", http]"),
        "x.yaml:11: AuthorizationPolicy demo/p (line 2): spec.rules[0].to[0].operation.ports[1]: `http` is not a port number from 1 to 65535",
    ),
    (
        "a rule that is null",
        Bad::Policy("  rules:\n  -\n"),
        "x.yaml:9: AuthorizationPolicy demo/p (line 2): spec.rules[0]: is null; remove it, or write what it should hold",
    ),
    (
        "a key twice",
        Bad::Policy("  action: DENY\n  rules: []\n  action: ALLOW"),
        "x.yaml:10: AuthorizationPolicy demo/p (line 2): spec.action: is given twice",
    ),
    (
        "a merge key",
        Bad::Yaml("apiVersion: v1\nkind: Namespace\nmetadata: &m\n  name: b\nother:\n  <<: *m\n"),
        "x.yaml:6: Namespace b (line 1): other.<<: merge keys are not read; write the fields out",
    ),
    (
        "two errors",
        Bad::Policy("  action: REFUSE\n  rules:\n  - from: []"),
        "x.yaml:8: AuthorizationPolicy demo/p (line 2): spec.action: `REFUSE` is none of ALLOW, DENY, AUDIT, CUSTOM\nx.yaml:10: AuthorizationPolicy demo/p (line 2): spec.rules[0].from: is empty; leave it out to mean any",
    ),
    (
        "no protocol",
        Bad::Yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIP: None\n  ports:\n  - port: 80\n    protocol: tcp\n",
        ),
        "x.yaml:8: Service default/s (line 1): spec.ports[0].protocol: `tcp` is none of TCP, UDP, SCTP",
    ),
    (
        "no protocol of a container",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec:\n  initContainers:\n  - ports:\n    - {containerPort: 80}\n    - containerPort: 81\n      protocol: Tcp\n",
        ),
        "x.yaml:9: Pod default/b (line 1): spec.initContainers[0].ports[1].protocol: `Tcp` is none of TCP, UDP, SCTP",
    ),
    (
        "no protocol of a slice",
        Bad::Yaml(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80, protocol: HTTP}]\n",
        ),
        "x.yaml:5: EndpointSlice default/s (line 1): ports[0].protocol: `HTTP` is none of TCP, UDP, SCTP",
    ),
    (
        "no port of a container",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec:\n  containers:\n  - ports:\n    - containerPort: 0\n",
        ),
        "x.yaml:7: Pod default/b (line 1): spec.containers[0].ports[0].containerPort: is 0; ports begin at 1",
    ),
    (
        "a number for a name",
        Bad::Yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIP: None\n  ports:\n  - port: 80\n    targetPort: \"8080\"\n",
        ),
        "x.yaml:8: Service default/s (line 1): spec.ports[0].targetPort: `8080` in quotes is the name of a port, and no name has digits alone; write the number without quotes",
    ),
    (
        "neither ready nor not",
        Bad::Yaml(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {}\nstatus:\n  conditions:\n  - {type: Initialized, status: x}\n  - type: Ready\n    status: false\n",
        ),
        "x.yaml:9: Pod default/b (line 1): status.conditions[1].status: `false` is none of True, False, Unknown",
    ),
    (
        "an unknown phase",
        Bad::Yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {}\nstatus:\n  phase: succeeded\n"),
        "x.yaml:6: Pod default/b (line 1): status.phase: `succeeded` is none of Pending, Running, Succeeded, Failed, Unknown",
    ),
    (
        "an address of the other family",
        Bad::Yaml(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints:\n- addresses:\n  - 10.0.0.7\n  - fd00::7\n",
        ),
        "x.yaml:8: EndpointSlice default/s (line 1): endpoints[0].addresses[1]: `fd00::7` is not of addressType IPv4; the other family needs a slice of its own",
    ),
    (
        "almost enrolled",
        Bad::Yaml(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n  labels:\n    istio.io/dataplane-mode: Tramline\n",
        ),
        "x.yaml:6: Namespace b (line 1): metadata.labels.istio.io/dataplane-mode: `Tramline` is no mode; did you mean `tramline`?",
    ),
    (
        "two answers to one question",
        Bad::Yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIPs: [10.96.0.1]\n  clusterIP: None\n  ports: []\n",
        ),
        "x.yaml:6: Service default/s (line 1): spec.clusterIP: `None` is not the first of spec.clusterIPs, `10.96.0.1`; leave one of the two out",
    ),
    (
        "part of a rule that is null",
        Bad::Policy("  rules:\n  - from:\n    to: [{operation: {ports: [\"80\"]}}]"),
        "x.yaml:9: AuthorizationPolicy demo/p (line 2): spec.rules[0].from: is null; leave the field out, or write what it should hold",
    ),
    (
        "a million open brackets",
        Bad::Do(|dir| write(dir, "x.yaml", format!("kind: Pod\nx: {}", "[".repeat(1 << 20)))),
        "x.yaml:2: values nest deeper than 48",
    ),
    (
        "not UTF-8",
        Bad::Do(|dir| write(dir, "x.yaml", b"# a\n# \xff\n")),
        "x.yaml:2: is not UTF-8: save it as UTF-8",
    ),
    (
        "deep nesting",
        Bad::Do(|dir| {
            let text = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: b}}\nx: {}{}\n",
                "[".repeat(49),
                "]".repeat(49)
            );
            write(dir, "x.yaml", text);
        }),
        "x.yaml:4: Namespace b (line 1): values nest deeper than 48",
    ),
    (
        "a YAML bomb",
        Bad::Do(|dir| {
            let mut text = String::from(
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\nl0: &l0 [x, x, x, x, x, x, x, x, x, x]\n",
            );
            for level in 1..=8 {
                let below = format!("*l{}", level - 1);
                writeln!(text, "l{level}: &l{level} [{}]", [below.as_str(); 10].join(", ")).unwrap();
            }
            write(dir, "x.yaml", text);
        }),
        "x.yaml:1: its aliases (`&`, `*`) unfold to far more than is written; write it out",
    ),
    // Sparse: whoever reads it before looking at its length takes a while.
    (
        "a file of 100 MB",
        Bad::Do(|dir| {
            let draft = dir.join(".draft");
            File::create(&draft).unwrap().set_len(100_000_000).unwrap();
            fs::rename(draft, dir.join("x.yaml")).unwrap();
        }),
        "x.yaml: is larger than 8 MiB; split it into several files",
    ),
    (
        "a named pipe",
        Bad::Do(|dir| nix::unistd::mkfifo(&dir.join("x.yaml"), Mode::S_IRUSR).unwrap()),
        "x.yaml: is a pipe or device, not a file; move it away or give it another name",
    ),
    (
        "a directory",
        Bad::Do(|dir| fs::create_dir(dir.join("x.yaml")).unwrap()),
        "x.yaml: is a directory, not a file; move it away or give it another name",
    ),
    (
        "a link to itself",
        Bad::Do(|dir| symlink("x.yaml", dir.join("x.yaml")).unwrap()),
        "x.yaml: is a link that leads to itself",
    ),
    (
        "a link to nothing",
        Bad::Do(|dir| symlink("nowhere", dir.join("x.yaml")).unwrap()),
        "x.yaml: is a link to a file that is not there",
    ),
    (
        "a projected volume swapped for a bad one",
        Bad::Do(|dir| {
            for (version, text) in [("..v1", GOOD), ("..v2", "kind: Pod\n")] {
                fs::create_dir(dir.join(version)).unwrap();
                fs::write(dir.join(version).join("x.yaml"), text).unwrap();
            }
            symlink("..v2", dir.join("..data_tmp")).unwrap();
            fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
            symlink("..data/x.yaml", dir.join("x.yaml")).unwrap();
        }),
        "x.yaml:1: Pod: apiVersion: is required",
    ),
];

#[tokio::test]
async fn each_is_named_and_the_last_good_configuration_stays() {
    assert!(ROWS.len() >= 20);
    let failures: Vec<String> = join_all(ROWS.iter().map(|(name, bad, said)| row(name, bad, said)))
        .await
        .into_iter()
        .flatten()
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// One row: good, bad, good again.
async fn row(name: &str, bad: &Bad, said: &str) -> Option<String> {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "good.yaml", GOOD);
    let settings = MeshSettings::new(TrustDomain::new("cluster.local").unwrap(), "n1");
    let source = FilesSource::new(dir.path(), settings)
        .with_timing(Duration::from_millis(20), Duration::from_millis(150));
    let source = Arc::new(source);
    let mut updates = watch::spawn(source.clone(), CancellationToken::new());
    let mut next = async || timeout(PATIENCE, updates.recv()).await.expect(name).expect(name);
    let Update::Accepted { accepted: good, .. } = next().await else {
        panic!("{name}: the good one is refused")
    };

    bad.put(dir.path());
    let Update::Refused { errors, .. } = next().await else {
        panic!("{name}: taken")
    };
    let last = source.last().expect(name).mesh;
    assert!(Arc::ptr_eq(&last, &good.mesh), "{name}: it does not stay");

    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let is_dir = path.symlink_metadata().unwrap().is_dir();
        if !path.ends_with("good.yaml") {
            if is_dir {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            }
            .unwrap();
        }
    }
    write(dir.path(), "good.yaml", GOOD.replace("10.0.0.1", "10.0.0.9"));
    loop {
        match next().await {
            Update::Accepted { accepted, .. }
                if accepted.mesh.workload_by_address([10, 0, 0, 9].into()).is_some() =>
            {
                break;
            }
            // Caught between the removal and the change.
            _ => {}
        }
    }
    let errors = errors.to_string();
    (errors != said).then(|| format!("{name}:\n  said:   {errors}\n  wanted: {said}"))
}
