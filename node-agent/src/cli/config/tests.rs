use std::fs;
use std::path::Path;

use clap::Parser as _;

use super::super::Cli;
use super::super::exit::Exit;
use crate::discover::files::offline;
use tramline_core::identity::TrustDomain;
use tramline_core::mesh::MeshSettings;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: a, namespace: demo, labels: {app: a}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.1}
";

fn settings() -> MeshSettings {
    MeshSettings::new(TrustDomain::new("cluster.local").unwrap(), "")
}

fn exit(arguments: &[&str], dir: &Path) -> Result<(), Exit> {
    let dir = dir.display().to_string();
    let arguments = ["tramline", "config"]
        .into_iter()
        .chain(arguments.iter().copied());
    let cli = Cli::try_parse_from(arguments.chain([dir.as_str()])).unwrap();
    let super::super::Command::Config(args) = cli.command else {
        panic!("another command")
    };
    super::run(Path::new("/nowhere"), &args).map_err(|failure| failure.exit)
}

#[test]
fn a_good_directory_ends_with_0_and_a_bad_one_with_1() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), POD).unwrap();
    for output in ["table", "wide", "json", "yaml"] {
        assert_eq!(exit(&["validate", "-o", output], dir.path()), Ok(()));
    }
    for output in ["json", "yaml"] {
        assert_eq!(exit(&["print", "-o", output], dir.path()), Ok(()));
    }
    fs::write(dir.path().join("b.yaml"), "kind: [").unwrap();
    assert_eq!(exit(&["validate"], dir.path()), Err(Exit::Failure));
    assert_eq!(exit(&["validate", "-o", "json"], dir.path()), Err(Exit::Failure));
    assert_eq!(exit(&["print"], dir.path()), Err(Exit::Failure));
    assert_eq!(exit(&["validate"], &dir.path().join("none")), Err(Exit::Failure));
}

#[test]
fn a_directory_without_a_manifest_is_not_valid() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(exit(&["validate"], dir.path()), Err(Exit::Failure));
    assert_eq!(exit(&["print"], dir.path()), Err(Exit::Failure));
    assert_eq!(
        super::text(&offline::validate(dir.path(), &settings())),
        format!(
            "{}: holds no manifest (*.yaml, *.yml, *.json); to have nothing in the mesh on purpose, put a manifest \
             there that has no object, such as an empty file none.yaml\n\
             not valid: 0 files, 1 error; an agent would refuse all of it\n",
            dir.path().display()
        )
    );
    fs::write(dir.path().join("none.yaml"), "").unwrap();
    assert_eq!(exit(&["validate"], dir.path()), Ok(()));
    assert_eq!(
        super::text(&offline::validate(dir.path(), &settings())),
        "valid: 1 file, nothing in it\n"
    );
}

#[test]
fn a_validation_says_everything_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), POD).unwrap();
    let policy = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: demo}
spec:
  rules:
  - to:
    - operation: {methods: [GET]}
";
    fs::write(dir.path().join("p.yaml"), policy).unwrap();
    let text = super::text(&offline::validate(dir.path(), &settings()));
    assert!(
        text.starts_with("warning: p.yaml:6: AuthorizationPolicy demo/p (line 1): spec.rules[0]: "),
        "{text}"
    );
    assert!(
        text.ends_with("valid: 2 files, 1 AuthorizationPolicy, 1 Pod\n"),
        "{text}"
    );
    fs::write(
        dir.path().join("b.yaml"),
        POD.replace("name: a", "name: b").replace("spec:", "spce:"),
    )
    .unwrap();
    fs::write(dir.path().join("p.yaml"), policy.replace("methods", "method")).unwrap();
    assert_eq!(
        super::text(&offline::validate(dir.path(), &settings())),
        "b.yaml:4: Pod demo/b (line 1): spce: is not a field; did you mean `spec`?\n\
         p.yaml:7: AuthorizationPolicy demo/p (line 1): spec.rules[0].to[0].operation.method: is not a field; \
         did you mean `methods`?\n\
         not valid: 3 files, 2 errors; an agent would refuse all of it\n"
    );
}

#[test]
fn without_a_node_the_agents_of_all_nodes_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let enrolled = POD.replace("app: a", "istio.io/dataplane-mode: tramline");
    fs::write(dir.path().join("a.yaml"), enrolled).unwrap();
    assert_eq!(exit(&["validate"], dir.path()), Err(Exit::Failure));
    assert_eq!(
        exit(&["validate", "--node", "n1"], dir.path()),
        Err(Exit::Failure)
    );
    assert_eq!(exit(&["validate", "--node", "n2"], dir.path()), Ok(()));
    // On two nodes the same path is another namespace; on one it is not.
    let pod = |name: &str, node: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{istio.io/dataplane-mode: tramline}}\n  \
             annotations: {{tramline.dev/netns: /run/netns/x}}\nspec: {{nodeName: {node}}}\nstatus: {{podIP: {ip}}}\n"
        )
    };
    let write = |text: String| fs::write(dir.path().join("a.yaml"), text).unwrap();
    write(format!(
        "{}---\n{}",
        pod("a", "n1", "10.0.0.1"),
        pod("b", "n2", "10.0.0.2")
    ));
    assert_eq!(exit(&["validate"], dir.path()), Ok(()));
    write(format!(
        "{}---\n{}",
        pod("a", "n1", "10.0.0.1"),
        pod("b", "n1", "10.0.0.2")
    ));
    assert_eq!(exit(&["validate"], dir.path()), Err(Exit::Failure));
}

#[test]
fn the_root_namespace_is_a_name_of_a_namespace() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), POD).unwrap();
    // Where a selector has no effect, it is refused: there only.
    let policy = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: mesh-policies}
spec: {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}
";
    fs::write(dir.path().join("p.yaml"), policy).unwrap();
    assert_eq!(exit(&["validate"], dir.path()), Ok(()));
    assert_eq!(
        exit(&["validate", "--root-namespace", "mesh-policies"], dir.path()),
        Err(Exit::Failure)
    );
    for wrong in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
        let option = format!("--root-namespace={wrong}");
        assert!(
            Cli::try_parse_from(["tramline", "config", "validate", &option, "d"]).is_err(),
            "{wrong:?} was taken"
        );
    }
}

#[test]
fn a_pod_that_nothing_enrols_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let pod = POD.replace(
        "labels: {app: a}",
        "annotations: {tramline.dev/netns: /run/netns/a}",
    );
    let said = |pod: &str, namespace: &str| {
        fs::write(dir.path().join("a.yaml"), format!("{pod}---\n{namespace}")).unwrap();
        super::text(&offline::validate(dir.path(), &settings()))
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n";
    let warning = "warning: a.yaml:3: Pod demo/a (line 1): metadata.annotations.tramline.dev/netns: has no effect: nothing enrols this \
                   pod; label it or its namespace istio.io/dataplane-mode: tramline, or the pod istio.io/dataplane-mode: none if it is \
                   to stay out\n";
    let valid = "valid: 1 file, 1 Namespace, 1 Pod\n";
    assert_eq!(said(&pod, namespace), format!("{warning}{valid}"));
    let on_host = pod.replace("nodeName: n1", "nodeName: n1, hostNetwork: true");
    assert!(said(&on_host, namespace).contains("a pod with hostNetwork is never enrolled"));
    let label = |mode: &str| format!("{{labels: {{istio.io/dataplane-mode: {mode}}}, ");
    assert_eq!(said(&pod, &namespace.replace('{', &label("tramline"))), valid);
    for mode in ["tramline", "none", "ambient"] {
        assert_eq!(
            said(&pod.replacen('{', &label(mode), 1), namespace),
            valid,
            "{mode}"
        );
    }
    let ended = pod.replace("podIP: 10.0.0.1", "podIP: 10.0.0.1, phase: Failed");
    assert_eq!(said(&ended, namespace), valid);
}
