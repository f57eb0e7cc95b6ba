//! What is taken as changes is what a whole build makes of the same directory.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use proptest::prelude::*;
use tempfile::TempDir;
use tramline_core::authz::{Connection, decide, overview};
use tramline_core::identity::TrustDomain;
use tramline_core::service::Service;
use tramline_core::workload::WorkloadUid;

use super::*;
use crate::discover::files::accept::accept;
use crate::discover::files::difference::changes;

fn settings() -> MeshSettings {
    MeshSettings::new(TrustDomain::new("cluster.local").unwrap(), "n1")
}

/// One directory: which pods are there, with which address and label; Services, policies, a slice, a Node.
#[derive(Debug, Clone)]
struct Moment {
    pods: Vec<Option<(u8, bool, bool)>>,
    services: Vec<Option<bool>>,
    policies: Vec<Option<(bool, bool)>>,
    strict: Option<bool>,
    zone: Option<bool>,
    slice: Option<bool>,
    /// Comment lines above everything: they move what is below.
    moved: usize,
    /// In how many files it is: objects go from one to another.
    files: usize,
}

fn moment() -> impl Strategy<Value = Moment> {
    (
        prop::collection::vec(
            prop::option::weighted(0.8, (1_u8..8, any::<bool>(), any::<bool>())),
            4,
        ),
        prop::collection::vec(prop::option::weighted(0.7, any::<bool>()), 2),
        prop::collection::vec(prop::option::weighted(0.6, (any::<bool>(), any::<bool>())), 3),
        prop::option::of(any::<bool>()),
        // Rarely: a whole build would hide what changes do.
        prop::option::weighted(0.2, any::<bool>()),
        prop::option::weighted(0.2, any::<bool>()),
        0_usize..2,
        1_usize..4,
    )
        .prop_map(
            |(pods, services, policies, strict, zone, slice, moved, files)| Moment {
                pods,
                services,
                policies,
                strict,
                zone,
                slice,
                moved,
                files,
            },
        )
}

impl Moment {
    fn contents(&self) -> Contents {
        let mut texts = vec!["# moved\n".repeat(self.moved); self.files];
        let mut written = 0;
        let mut object = |yaml: String| {
            write!(texts[written % self.files], "---\n{yaml}\n").unwrap();
            written += 1;
        };
        let app = |first: bool| if first { "web" } else { "db" };
        object("apiVersion: v1\nkind: Namespace\nmetadata: {name: demo, labels: {istio.io/dataplane-mode: tramline}}".into());
        for (index, pod) in self.pods.iter().enumerate() {
            let Some((address, first, ready)) = pod else {
                continue;
            };
            let (node, app) = (index % 2 + 1, app(*first));
            object(format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}, namespace: demo, labels: {{app: {app}}}, annotations: {{tramline.dev/netns: /run/netns/p{index}}}}}\n\
                 spec: {{nodeName: n{node}}}\nstatus: {{podIP: 10.0.0.{address}, conditions: [{{type: Ready, status: \"{}\"}}]}}",
                if *ready { "True" } else { "False" }
            ));
        }
        for (index, service) in self.services.iter().enumerate() {
            let Some(first) = service else { continue };
            object(format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: demo}}\nspec: {{clusterIP: 10.96.0.{}, selector: {{app: {}}}, ports: [{{name: http, port: 80}}]}}",
                index + 1,
                app(*first)
            ));
        }
        for (index, policy) in self.policies.iter().enumerate() {
            let Some((deny, first)) = policy else { continue };
            let namespace = if index == 0 { "istio-system" } else { "demo" };
            object(format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a{index}, namespace: {namespace}}}\nspec: {{action: {}, selector: {{matchLabels: {{app: {}}}}}, rules: [{{to: [{{operation: {{ports: [\"80\"]}}}}]}}]}}",
                if *deny { "DENY" } else { "ALLOW" },
                app(*first)
            ));
        }
        if let Some(strict) = self.strict {
            let mode = if strict { "STRICT" } else { "PERMISSIVE" };
            object(format!(
                "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: d, namespace: demo}}\nspec: {{mtls: {{mode: {mode}}}}}"
            ));
        }
        if let Some(first) = self.zone {
            object(format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: n1, labels: {{topology.kubernetes.io/zone: z{}}}}}",
                u8::from(first)
            ));
        }
        if let Some(ready) = self.slice {
            object(format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s0-x, namespace: demo, labels: {{kubernetes.io/service-name: s0}}}}\naddressType: IPv4\nports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [10.0.0.1], conditions: {{ready: {ready}}}}}]"
            ));
        }
        let files = texts.into_iter().enumerate();
        Contents::new(
            files
                .map(|(index, text)| (format!("{index}.yaml"), text.into_bytes()))
                .collect(),
        )
    }
}

/// Everything that can be seen of a snapshot.
fn everything(mesh: &Mesh) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut workloads: Vec<_> = mesh.workloads().cloned().collect();
    workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    let sorted = |service: &Arc<Service>| {
        let mut service = Service::clone(service);
        service.endpoints.sort_by_key(|endpoint| endpoint.address);
        service
    };
    let address = |n: u8| IpAddr::from([10, 0, 0, n]);
    let found: Vec<_> = (0..9)
        .map(|n| mesh.workload_by_address(address(n)).cloned())
        .collect();
    let verdicts: Vec<_> = workloads
        .iter()
        .flat_map(|workload| {
            [80, 81].map(|port| {
                let connection = Connection {
                    source: None,
                    source_address: IpAddr::from([10, 9, 0, 1]),
                    destination: workload,
                    destination_address: (workload.addresses[0], port).into(),
                };
                decide(mesh, &connection).to_string()
            })
        })
        .collect();
    (
        workloads,
        found,
        mesh.services().map(sorted).collect::<Vec<_>>(),
        mesh.zone_of("n1").cloned(),
        overview(mesh),
        verdicts,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_of_directories_leads_where_the_last_one_alone_leads(moments in prop::collection::vec(moment(), 2..5)) {
        let settings = settings();
        let mut before: Option<Accepted> = None;
        for moment in moments {
            let contents = moment.contents();
            let changed = accept(&contents, &settings, before.as_ref());
            let built = accept(&contents, &settings, None);
            match (changed, built) {
                (Ok(changed), Ok(built)) => {
                    prop_assert_eq!(everything(&changed.mesh), everything(&built.mesh));
                    prop_assert_eq!(changed.parsed.objects(), built.parsed.objects());
                    before = Some(changed);
                }
                // Two pods drew one address: nothing changes, and the errors are the same.
                (Err(changed), Err(built)) => prop_assert_eq!(changed, built),
                (changed, built) => prop_assert!(false, "{:?} {:?}", changed.err(), built.err()),
            }
        }
    }
}

fn taken(text: &str, before: Option<&Accepted>) -> Accepted {
    accept(
        &Contents::new(vec![("a.yaml".into(), text.into())]),
        &settings(),
        before,
    )
    .unwrap()
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: s, namespace: demo}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: demo, labels: {app: web}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.1}
";
const NODE: &str = "---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
";
const SLICE: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-x, namespace: demo, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.7]}]
";

#[test]
fn a_changed_node_changes_the_zones_of_its_endpoints() {
    let first = taken(&format!("{SERVICE}{NODE}"), None);
    let endpoint = |accepted: &Accepted| accepted.mesh.service("demo", "s").unwrap().endpoints[0].clone();
    assert_eq!(endpoint(&first).zone.as_deref(), Some("z1"));
    let second = taken(&format!("{SERVICE}{NODE}").replace("z1", "z2"), Some(&first));
    assert_eq!(endpoint(&second).zone.as_deref(), Some("z2"));
    assert_eq!(second.mesh.zone_of("n1").map(AsRef::as_ref), Some("z2"));
    let third = taken(SERVICE, Some(&second));
    assert_eq!(endpoint(&third).zone, None);
}

#[test]
fn a_changed_slice_changes_the_endpoints() {
    let addresses = |accepted: &Accepted| -> Vec<String> {
        let service = accepted.mesh.service("demo", "s").unwrap();
        service
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    };
    let first = taken(&format!("{SERVICE}{SLICE}"), None);
    assert_eq!(addresses(&first), ["10.0.0.7"]);
    let second = taken(&format!("{SERVICE}{SLICE}").replace("0.7", "0.8"), Some(&first));
    assert_eq!(addresses(&second), ["10.0.0.8"]);
    let third = taken(SERVICE, Some(&second));
    assert_eq!(addresses(&third), ["10.0.0.1"], "the selector again");
}

#[test]
fn what_did_not_change_is_shared_and_what_only_moved_is_found_where_it_is() {
    let policy = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: demo}
spec: {action: DENY, rules: [{}]}
";
    let first = taken(&format!("{SERVICE}{NODE}{SLICE}"), None);
    let added = taken(&format!("{SERVICE}{NODE}{SLICE}{policy}"), Some(&first));
    let uid = WorkloadUid::new("demo/a");
    let pod = |accepted: &Accepted| accepted.mesh.workload(&uid).unwrap().clone();
    assert!(Arc::ptr_eq(&pod(&first), &pod(&added)), "not built anew");
    assert_eq!(
        changes(&first.parsed.objects(), &added.parsed.objects()).map(|changes| changes.len()),
        Some(1)
    );

    let moved = taken(&format!("# about\n{SERVICE}{NODE}{SLICE}{policy}"), Some(&added));
    let at = |accepted: &Accepted| {
        accepted
            .mesh
            .policies()
            .next()
            .unwrap()
            .meta
            .object
            .origin
            .clone()
            .unwrap()
    };
    assert_eq!((&*at(&added), &*at(&moved)), ("a.yaml:23", "a.yaml:24"));
    assert_eq!(
        changes(&moved.parsed.objects(), &moved.parsed.objects()),
        Some(Vec::new())
    );
}

#[test]
fn the_source_takes_changes_as_a_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let write = |text: &str| fs::write(dir.path().join("a.yaml"), text).unwrap();
    let source = FilesSource::new(dir.path(), settings());
    write(SERVICE);
    let first = source.load_once().unwrap();
    // A good pod and one with the address of another.
    let pod = |name: &str, ip: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{}}\nstatus: {{podIP: {ip}}}\n"
        )
    };
    write(&format!(
        "{SERVICE}{}{}",
        pod("b", "10.0.0.2"),
        pod("c", "10.0.0.1")
    ));
    let errors = source.load_once().unwrap_err().to_string();
    assert_eq!(
        errors,
        "a.yaml:22: Pod demo/c (line 18): status.podIP: 10.0.0.1 is also an address of a.yaml:6: Pod demo/a"
    );
    assert!(Arc::ptr_eq(&source.last().unwrap().mesh, &first));
    write(&format!("{SERVICE}{}", pod("b", "10.0.0.2")));
    assert_eq!(source.load_once().unwrap().generation(), 2);
}
