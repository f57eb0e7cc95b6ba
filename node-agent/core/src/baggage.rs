//! The `baggage` header of a CONNECT: who the source is, in the words of OpenTelemetry's resource attributes, as ztunnel
//! sends it (W3C Baggage).

use std::fmt::Write as _;

use crate::workload::Workload;

/// The baggage of a workload. Peers use it for telemetry only: identity comes from the certificate.
pub fn of(workload: &Workload, cluster: &str) -> String {
    let mut baggage = String::new();
    let kind = format!("k8s.{}.name", workload.workload_type.as_str());
    let members: [(&str, &str); 5] = [
        ("k8s.cluster.name", cluster),
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

#[cfg(test)]
mod tests {
    use super::of;
    use crate::identity::{SpiffeId, TrustDomain};
    use crate::labels::Labels;
    use crate::workload::{CaptureExclusions, Protocol, Workload, WorkloadType, WorkloadUid};

    #[test]
    fn names_the_source_and_escapes_what_would_end_a_member() {
        let domain = TrustDomain::new("cluster.local").unwrap();
        let source = Workload {
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
        };
        assert_eq!(
            of(&source, "Kubernetes"),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=sample,k8s.deployment.name=sleep,\
             service.name=a%2Cb%3Bc=%C3%A9%25"
        );
    }
}
