//! Manifests: each document is read or refused with a reason, twice the same, and what is read never leads to a panic
//! further on.

use tramline_core::authz::{Connection, decide, explain};
use tramline_core::identity::TrustDomain;
use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::object::Objects;
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};
use tramline_node_agent::discover::ConfigError;
use tramline_node_agent::discover::manifest::{Format, parse};

use crate::Target;
use crate::make::ip;

pub(super) const TARGET: Target = Target {
    name: "manifests",
    check,
    words: &[
        "\n---\n",
        "apiVersion: v1\n",
        "kind: ",
        "Pod",
        "Service",
        "List",
        "metadata:\n",
        "namespace: istio-system\n",
        "spec:",
        "&a ",
        "*a",
        "<<: *a",
        "{}",
        "[]",
        "[{}]",
        "null",
        "\"*\"",
        "!!binary ",
        "? ",
        "  ",
        "\"\\u0000\"",
        "rules: [{}]",
        "istio.io/dry-run: \"true\"",
        "tramline.dev/",
    ],
    mutations: 2_500,
    memory: (8 << 20, 64 << 10),
};

fn check(input: &[u8]) {
    for (format, file) in [(Format::Yaml, "fuzz.yaml"), (Format::Json, "fuzz.json")] {
        let (objects, errors) = read(input, file, format);
        let again = read(input, file, format);
        assert!(
            (&objects, &errors) == (&again.0, &again.1),
            "read twice, not the same"
        );
        for error in &errors {
            is_told(error, file);
        }
        assert!(
            format == Format::Yaml || !errors.is_empty() || count(&objects) > 0 || is_list(input),
            "a JSON document is neither read nor refused"
        );
        if errors.is_empty() {
            build(objects);
        }
    }
}

fn read(input: &[u8], file: &str, format: Format) -> (Objects, Vec<ConfigError>) {
    let (mut objects, mut errors) = (Objects::default(), Vec::new());
    parse(input, file, format, &mut objects, &mut errors);
    (objects, errors)
}

/// Where it is and what is wrong.
fn is_told(error: &ConfigError, file: &str) {
    assert_eq!(error.file, file, "{error:?}");
    assert!(error.line.is_none_or(|line| line > 0), "{error:?}");
    assert!(error.problem.chars().any(char::is_alphabetic), "{error:?}");
    assert!(error.problem.len() < 8 << 10, "{} bytes", error.problem.len());
}

fn count(objects: &Objects) -> usize {
    objects.namespaces.len()
        + objects.nodes.len()
        + objects.pods.len()
        + objects.services.len()
        + objects.endpoint_slices.len()
        + objects.service_accounts.len()
        + objects.peer_authentications.len()
        + objects.authorization_policies.len()
}

/// A `List` may be empty.
fn is_list(input: &[u8]) -> bool {
    input.windows(4).any(|word| word == b"List")
}

fn build(objects: Objects) {
    fn doubled<T: Clone>(list: &[T]) -> Vec<T> {
        [list, list].concat()
    }
    let twice = Objects {
        pods: doubled(&objects.pods),
        services: doubled(&objects.services),
        authorization_policies: doubled(&objects.authorization_policies),
        peer_authentications: doubled(&objects.peer_authentications),
        ..objects.clone()
    };
    let domain = TrustDomain::new("cluster.local").unwrap();
    let settings = MeshSettings::new(domain, "n1");
    assert!(
        twice == objects || Mesh::build(twice, &settings).is_err(),
        "an object that is there twice is taken"
    );
    let mesh = match Mesh::build(objects, &settings) {
        Ok(mesh) => mesh,
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.to_string().chars().any(char::is_alphabetic), "{error:?}");
            }
            return;
        }
    };
    for destination in mesh.workloads() {
        let table = table(&mesh, destination);
        let ports = table.ports.keys().copied().chain([1, 80]).take(64);
        for port in ports {
            let projected = verdict(&mesh, destination, port);
            assert_eq!(
                projected,
                table.ports.get(&port).copied().unwrap_or(table.default)
            );
            let Some(address) = destination.addresses.first() else {
                break;
            };
            let connection = Connection {
                source: None,
                source_address: ip("10.9.0.1"),
                destination,
                destination_address: (*address, port).into(),
            };
            let decision = decide(&mesh, &connection);
            match projected {
                PlaintextVerdict::Pass => assert!(decision.is_allow(), "{decision}"),
                PlaintextVerdict::Drop => assert!(!decision.is_allow(), "{decision}"),
                PlaintextVerdict::Ask => {}
            }
            assert_eq!(explain(&mesh, &connection).decision, decision);
        }
    }
}
