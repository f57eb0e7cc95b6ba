//! The `baggage` header of a CONNECT: who the source is, in the words of OpenTelemetry's resource attributes, as ztunnel
//! sends it (W3C Baggage).

use std::fmt::Write as _;

use crate::cluster::ClusterName;
use crate::workload::Workload;

/// OpenTelemetry's name for the name of a cluster.
const CLUSTER: &str = "k8s.cluster.name";

/// The baggage of a workload. Peers use it for telemetry only: identity comes from the certificate.
pub fn of(workload: &Workload, cluster: &ClusterName) -> String {
    let mut baggage = String::new();
    let kind = format!("k8s.{}.name", workload.workload_type.as_str());
    let members: [(&str, &str); 5] = [
        (CLUSTER, cluster.as_str()),
        ("k8s.namespace.name", &workload.namespace),
        (&kind, &workload.workload_name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
    ];
    for (key, value) in members {
        if value.is_empty() {
            continue;
        }
        if !baggage.is_empty() {
            baggage.push(',');
        }
        baggage.push_str(key);
        baggage.push('=');
        for byte in value.bytes() {
            // baggage-octet (W3C Baggage 3.3.1.3): visible ASCII without quote, comma, semicolon, backslash; and
            // percent is the escape itself.
            if byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\' | b'%') {
                baggage.push(char::from(byte));
            } else {
                // Writing to a String does not fail.
                let _ = write!(baggage, "%{byte:02X}");
            }
        }
    }
    baggage
}

/// The cluster that a peer says it is in, if what it says is the name of one. For telemetry only: nothing proves it.
///
/// Of several members the last counts, as in ztunnel.
pub fn cluster(baggage: &str) -> Option<ClusterName> {
    let mut members = baggage.rsplit(',').filter_map(|member| {
        // Behind a semicolon are properties (W3C Baggage 3.2), which say nothing here.
        let pair = member.split(';').next()?;
        let (key, value) = pair.split_once('=')?;
        (key.trim() == CLUSTER).then(|| value.trim())
    });
    decoded(members.next()?)?.parse().ok()
}

/// Percent-decoded, if it was encoded soundly.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::{cluster, of};
    use crate::cluster::ClusterName;
    use crate::identity::{SpiffeId, TrustDomain};
    use crate::labels::Labels;
    use crate::workload::{CaptureExclusions, Protocol, Workload, WorkloadType, WorkloadUid};

    fn source() -> Workload {
        let domain = TrustDomain::new("cluster.local").unwrap();
        Workload {
            uid: WorkloadUid::new("1"),
            name: "sleep-0".into(),
            namespace: "sample".into(),
            service_account: "sleep".into(),
            identity: SpiffeId::new(&domain, "sample", "sleep").unwrap(),
            node: "n1".into(),
            addresses: Vec::new(),
            labels: Labels::default(),
            protocol: Protocol::Hbone,
            ready: true,
            terminating: false,
            serving: true,
            host_network: false,
            canonical_name: "a,b;c=\u{e9}%".into(),
            canonical_revision: "".into(),
            workload_name: "sleep".into(),
            workload_type: WorkloadType::Deployment,
            ports: Vec::new(),
            capture: CaptureExclusions::default(),
            netns: None,
            enrolled: true,
        }
    }

    #[test]
    fn names_the_source_and_escapes_what_would_end_a_member() {
        assert_eq!(
            of(&source(), &ClusterName::default()),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=sample,k8s.deployment.name=sleep,\
             service.name=a%2Cb%3Bc=%C3%A9%25"
        );
    }

    #[test]
    fn a_peers_cluster_is_a_name_or_nothing() {
        let named = |baggage: &str| cluster(baggage).map(|name| name.to_string());
        for (baggage, expected) in [
            ("k8s.cluster.name=east", Some("east")),
            ("service.name=a,k8s.cluster.name=east", Some("east")),
            (" k8s.cluster.name = east ;secret=1, service.name=a", Some("east")),
            ("k8s.cluster.name=a%2Cb%25", Some("a,b%")),
            ("k8s.cluster.name=west,k8s.cluster.name=east", Some("east")),
            ("k8s.cluster.name=east,k8s.cluster.name=", None),
            ("", None),
            ("k8s.cluster.name", None),
            ("k8s.cluster.name=", None),
            ("k8s.cluster.name=a%0Ab", None),
            ("k8s.cluster.name=a%2", None),
            ("k8s.cluster.name=a%zz", None),
            ("k8s.cluster.name=%FF", None),
            ("k8s.cluster.name=%C3%A9", None),
            ("k8s.cluster.names=east", None),
            ("K8S.CLUSTER.NAME=east", None),
        ] {
            assert_eq!(named(baggage).as_deref(), expected, "{baggage:?}");
        }
        assert_eq!(named(&format!("k8s.cluster.name={}", "x".repeat(10_000))), None);
    }

    #[test]
    fn every_name_that_is_sent_is_read_as_it_was() {
        let every: String = (0x21..=0x7e_u8).map(char::from).collect();
        for name in ["Kubernetes", "arn:aws:eks:eu-central-1:1:cluster/a", &every] {
            let name: ClusterName = name.parse().unwrap();
            assert_eq!(cluster(&of(&source(), &name)), Some(name));
        }
    }
}
