//! Objects with as little in them as a test needs.

use std::net::IpAddr;
use std::sync::Arc;

use tramline_core::authz::{Action, AuthorizationPolicy, MatchList, Operation, Rule};
use tramline_core::identity::{SpiffeId, TrustDomain};
use tramline_core::labels::{Labels, Selector};
use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::object::{
    Kind, Meta, Namespace, Objects, Pod, ServiceObject, ServiceObjectPort, TargetPort,
};
use tramline_core::peer_authentication::{Mode, PeerAuthentication};
use tramline_core::service::Distribution;
use tramline_core::workload::{ContainerPort, Workload, WorkloadUid};

pub(crate) const TRUST_DOMAIN: &str = "td.example";

pub(crate) fn settings() -> MeshSettings {
    MeshSettings::new(TrustDomain::new(TRUST_DOMAIN).unwrap(), "n1")
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn id(namespace: &str, service_account: &str) -> SpiffeId {
    SpiffeId::new(
        &TrustDomain::new(TRUST_DOMAIN).unwrap(),
        namespace,
        service_account,
    )
    .unwrap()
}

pub(crate) fn namespace(name: &str, pairs: &[(&str, &str)]) -> Namespace {
    let mut meta = Meta::new(Kind::Namespace, "", name);
    meta.labels = labels(pairs);
    Namespace { meta }
}

/// A ready pod on node `n1` with label `app` of its own name and a port called `http`.
pub(crate) fn pod(namespace: &str, name: &str, addresses: &[&str]) -> Pod {
    let mut meta = Meta::new(Kind::Pod, namespace, name);
    meta.labels = labels(&[("app", name)]);
    Pod {
        meta,
        deleting: false,
        owner: None,
        node: "n1".into(),
        service_account: None,
        host_network: false,
        ports: vec![ContainerPort {
            name: Some("http".into()),
            port: 8080,
        }],
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ended: false,
        ready: true,
    }
}

pub(crate) fn service(namespace: &str, name: &str, vips: &[&str], app: &str) -> ServiceObject {
    ServiceObject {
        meta: Meta::new(Kind::Service, namespace, name),
        vips: vips.iter().map(|text| ip(text)).collect(),
        ports: vec![ServiceObjectPort {
            name: "web".into(),
            port: 80,
            target: TargetPort::Name("http".into()),
            app_protocol: None,
        }],
        selector: labels(&[("app", app)]),
        publish_not_ready: false,
        node_local: false,
        session_affinity: None,
        distribution: Distribution::Anywhere,
    }
}

pub(crate) fn any<T>(values: Vec<T>) -> MatchList<T> {
    MatchList {
        any: values,
        none: Vec::new(),
    }
}

pub(crate) fn none<T>(values: Vec<T>) -> MatchList<T> {
    MatchList {
        any: Vec::new(),
        none: values,
    }
}

/// A rule for nothing but ports.
pub(crate) fn ports(list: MatchList<u16>) -> Rule {
    Rule {
        to: vec![Operation {
            ports: list,
            ..Operation::default()
        }],
        ..Rule::default()
    }
}

pub(crate) fn policy(
    namespace: &str,
    name: &str,
    action: Action,
    selector: Option<&str>,
    rules: Vec<Rule>,
) -> AuthorizationPolicy {
    let selector = selector.and_then(|app| Selector::new(labels(&[("app", app)])));
    AuthorizationPolicy::new(
        Meta::new(Kind::AuthorizationPolicy, namespace, name),
        selector,
        action,
        rules,
    )
}

pub(crate) fn peer_authentication(
    namespace: &str,
    name: &str,
    selector: Option<&str>,
    mode: Mode,
    ports: &[(u16, Mode)],
) -> PeerAuthentication {
    PeerAuthentication {
        meta: Meta::new(Kind::PeerAuthentication, namespace, name),
        selector: selector.and_then(|app| Selector::new(labels(&[("app", app)]))),
        mode,
        ports: ports.iter().copied().collect(),
    }
}

pub(crate) fn build(objects: Objects) -> Mesh {
    Mesh::build(objects, &settings()).unwrap()
}

pub(crate) fn errors(objects: Objects) -> Vec<String> {
    Mesh::build(objects, &settings())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

pub(crate) fn workload<'a>(mesh: &'a Mesh, uid: &str) -> &'a Arc<Workload> {
    mesh.workload(&WorkloadUid::new(uid)).unwrap()
}
