//! Made-up connections for the tests of this stage.

use std::net::IpAddr;
use std::sync::Arc;

use tramline_core::authz::{Action, Decision, DeniedBy, PolicyName, PolicyRule};
use tramline_core::identity::{SpiffeId, TrustDomain};
use tramline_core::service::{Distribution, Service};
use tramline_core::trace::TraceId;
use tramline_core::workload::{CaptureExclusions, Protocol, Workload, WorkloadType, WorkloadUid};

use super::record::{ConnectionInfo, Path, Reporter, SecurityPolicy};

pub(crate) fn identity(service_account: &str) -> SpiffeId {
    let domain = TrustDomain::new("cluster.local").unwrap();
    SpiffeId::new(&domain, "default", service_account).unwrap()
}

pub(crate) fn workload(name: &str, address: &str) -> Arc<Workload> {
    Arc::new(Workload {
        uid: WorkloadUid::new(format!("uid-{name}")),
        name: format!("{name}-5d9c-x7").into(),
        namespace: "default".into(),
        service_account: name.into(),
        identity: identity(name),
        node: "node-a".into(),
        addresses: vec![address.parse::<IpAddr>().unwrap()],
        labels: Default::default(),
        protocol: Protocol::Hbone,
        ready: true,
        terminating: false,
        serving: true,
        host_network: false,
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        workload_name: name.into(),
        workload_type: WorkloadType::Deployment,
        ports: Vec::new(),
        capture: CaptureExclusions::default(),
        netns: None,
        enrolled: true,
    })
}

/// A denial by the first rule of a DENY policy.
pub(crate) fn denied_by(policy: &str) -> Decision {
    let policy = PolicyName {
        namespace: "default".into(),
        name: policy.into(),
    };
    let by = PolicyRule {
        policy: Arc::new(policy),
        action: Action::Deny,
        rule: 0,
    };
    Decision::Deny {
        by: DeniedBy::Rule(by),
    }
}

/// `sleep` dials Service `helloworld`, reported by `reporter`.
pub(crate) fn connection(reporter: Reporter) -> ConnectionInfo {
    let service = Service {
        name: "helloworld".into(),
        namespace: "default".into(),
        hostname: "helloworld.default.svc.cluster.local".into(),
        vips: vec!["10.96.0.9".parse().unwrap()],
        ports: Vec::new(),
        node_local: false,
        session_affinity: None,
        distribution: Distribution::default(),
        endpoints: Vec::new(),
    };
    ConnectionInfo {
        reporter,
        path: Path::Hbone,
        security_policy: SecurityPolicy::MutualTls,
        source: Some(workload("sleep", "10.0.1.2")),
        source_address: "10.0.1.2:40000".parse().unwrap(),
        source_identity: Some(identity("sleep")),
        destination: Some(workload("helloworld", "10.0.2.3")),
        destination_address: "10.0.2.3:15008".parse().unwrap(),
        hbone_address: Some("10.0.2.3:5000".parse().unwrap()),
        original_destination: "10.96.0.9:5000".parse().unwrap(),
        destination_identity: Some(identity("helloworld")),
        service: Some(Arc::new(service)),
        trace: Some(TraceId::new(0x4bf9_2f35_77b3_4da6, 0xa3ce_929d_0e0e_4737)),
        kernel: None,
        dry_run: None,
        claimed_cluster: None,
    }
}

/// Compares `docs/NAME` with what the code says now; `TRAMLINE_BLESS=1` writes it.
pub(crate) fn assert_document(name: &str, expected: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    if std::env::var_os("TRAMLINE_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/{name} is out of date; TRAMLINE_BLESS=1 cargo test writes it anew"
    );
}
