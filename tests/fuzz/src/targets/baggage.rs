//! `baggage`. What the agent sends: whatever names the configuration holds, a reader of the standard gets exactly them,
//! and nothing ends a member or the header early. What it reads of it: a cluster, which is one bounded, visible word
//! whatever the header holds.

use std::sync::Arc;

use http::HeaderValue;
use tramline_core::baggage;
use tramline_core::cluster::ClusterName;
use tramline_core::object::Objects;
use tramline_core::workload::{Workload, WorkloadType};

use crate::Target;
use crate::make::{build, pod, workload};

pub(super) const TARGET: Target = Target {
    name: "baggage",
    check,
    words: &[
        ",",
        ";",
        "=",
        "%",
        "\"",
        "\\",
        "k8s.namespace.name=",
        "k8s.cluster.name=",
        "%2C",
        "\u{e9}",
        "\r\n",
        "\0",
    ],
    mutations: 20_000,
    memory: (1 << 20, 256),
};

/// Cluster, namespace, workload, canonical name and revision, one per line.
fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(name) = baggage::cluster(&text) {
        let word = name.as_str();
        assert!(
            word.len() <= 200 && word.bytes().all(|byte| byte.is_ascii_graphic()),
            "{word:?}"
        );
        assert!(text.contains("k8s.cluster.name"), "{text:?}");
    }
    let mut lines = text.splitn(5, '\n').map(str::to_owned);
    let mut line = || lines.next().unwrap_or_default();
    let (cluster, namespace, name, canonical, revision) = (line(), line(), line(), line(), line());
    // The setting takes no other; the rest may hold anything.
    let cluster = cluster.parse().unwrap_or_else(|_| ClusterName::default());
    let mesh = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        ..Objects::default()
    });
    let source = Workload {
        namespace: namespace.as_str().into(),
        workload_name: name.as_str().into(),
        canonical_name: canonical.as_str().into(),
        canonical_revision: revision.as_str().into(),
        workload_type: WorkloadType::Deployment,
        ..Workload::clone(&Arc::clone(workload(&mesh, "demo/web")))
    };
    let printed = baggage::of(&source, &cluster);
    let header = HeaderValue::from_str(&printed);
    assert!(header.is_ok_and(|value| value.to_str().is_ok()), "{printed:?}");
    assert!(printed.len() <= 3 * text.len() + 200, "{} bytes", printed.len());
    let expected: Vec<(&str, String)> = [
        ("k8s.cluster.name", cluster.to_string()),
        ("k8s.namespace.name", namespace),
        ("k8s.deployment.name", name),
        ("service.name", canonical),
        ("service.version", revision),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect();
    assert_eq!(members(&printed), expected, "{printed:?}");
    assert_eq!(baggage::cluster(&printed), Some(cluster), "{printed:?}");
}

/// As W3C Baggage 3.2 and 3.3 say: members between commas, properties behind a semicolon, percent-encoded UTF-8.
fn members(header: &str) -> Vec<(&str, String)> {
    header
        .split(',')
        .filter(|member| !member.trim().is_empty())
        .map(|member| {
            let pair = member.split(';').next().unwrap();
            let (key, value) = pair.split_once('=').unwrap();
            let octet = |b: &u8| matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
            assert!(value.as_bytes().iter().all(octet), "{value:?}");
            (key.trim(), decoded(value))
        })
        .collect()
}

fn decoded(value: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), value.as_bytes());
    while let [first, more @ ..] = rest {
        match (first, more) {
            (b'%', [high, low, more @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = more;
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
