//! core/v1 Service and discovery.k8s.io/v1 EndpointSlice.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tramline_core::labels::Labels;
use tramline_core::object::{
    EndpointSlice, Kind, ObjectError, ObjectRef, ServiceObject, ServiceObjectPort, SliceEndpoint, SlicePort,
    TargetPort,
};
use tramline_core::route::affinity;
use tramline_core::service::{Distribution, Hints, Readiness};

use super::meta::{METADATA, Metadata};
use super::misspelt::Level;
use super::pod::{address, is_first};
use super::port::{is_port, is_tcp};

#[derive(Debug, Deserialize)]
pub(super) struct ServiceManifest {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
    selector: Option<Labels>,
    publish_not_ready_addresses: Option<bool>,
    session_affinity: Option<String>,
    session_affinity_config: Option<SessionAffinityConfig>,
    internal_traffic_policy: Option<String>,
    traffic_distribution: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIpConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIpConfig {
    timeout_seconds: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<Arc<str>>,
    protocol: Option<String>,
    port: u16,
    target_port: Option<Target>,
    app_protocol: Option<Arc<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a port number or the name of a container's port"
)]
enum Target {
    Number(u16),
    Name(Arc<str>),
}

pub(super) static SERVICE: Level = Level::new::<ServiceManifest>(&[("metadata", &METADATA), ("spec", &SPEC)]);
static SPEC: Level = Level::among::<Spec>(
    &["externalTrafficPolicy"],
    &[
        ("ports", &PORT),
        ("sessionAffinityConfig", &SESSION_AFFINITY_CONFIG),
    ],
);
static PORT: Level = Level::new::<Port>(&[]);
static SESSION_AFFINITY_CONFIG: Level = Level::new::<SessionAffinityConfig>(&[("clientIP", &CLIENT_IP)]);
static CLIENT_IP: Level = Level::new::<ClientIpConfig>(&[]);

impl ServiceManifest {
    pub(super) fn into_service(
        self,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<ServiceObject> {
        let meta = self.metadata.into_meta(Kind::Service, origin, errors)?;
        let spec = self.spec.unwrap_or_default();
        let object = &meta.object;
        let session_affinity = session_affinity(&spec, object, errors);
        let mut refuse = |field: &str, problem: String| errors.push(ObjectError::new(object, field, problem));
        let kind = spec.kind.as_deref();
        match kind {
            None | Some("ClusterIP" | "NodePort" | "LoadBalancer") => {}
            Some("ExternalName") => {
                refuse(
                    "spec.type",
                    "ExternalName has no address to capture; leave the Service out: its name resolves to an address \
                     outside the mesh, which is dialled as it is"
                        .into(),
                );
                return None;
            }
            Some(other) => refuse(
                "spec.type",
                format!("`{other}` is none of ClusterIP, NodePort, LoadBalancer"),
            ),
        }
        let node_local = match spec.internal_traffic_policy.as_deref() {
            None | Some("Cluster" | "") => false,
            Some("Local") => true,
            Some(other) => {
                refuse(
                    "spec.internalTrafficPolicy",
                    format!("`{other}` is neither Cluster nor Local"),
                );
                false
            }
        };
        let distribution = match spec.traffic_distribution.as_deref() {
            None | Some("") => Distribution::Anywhere,
            Some("PreferSameZone" | "PreferClose") => Distribution::SameZone,
            Some("PreferSameNode") => Distribution::SameNode,
            Some(other) => {
                refuse(
                    "spec.trafficDistribution",
                    format!("`{other}` is none of PreferSameZone, PreferSameNode, PreferClose"),
                );
                Distribution::Anywhere
            }
        };
        let vips = vips(spec.cluster_ip, spec.cluster_ips, object, errors);
        let ports = spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .filter_map(|(index, port)| service_port(index, port, object, errors))
            .collect();
        Some(ServiceObject {
            vips,
            ports,
            selector: spec.selector.unwrap_or_default(),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            node_local,
            session_affinity,
            distribution,
            meta,
        })
    }
}

/// How long a client stays with its endpoint; `None` without affinity.
fn session_affinity(spec: &Spec, object: &ObjectRef, errors: &mut Vec<ObjectError>) -> Option<Duration> {
    const TIMEOUT: &str = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let mut refuse = |field: &str, problem: String| errors.push(ObjectError::new(object, field, problem));
    let given = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    match (spec.session_affinity.as_deref(), given) {
        (None | Some("None" | ""), None) => None,
        (None | Some("None" | ""), Some(_)) => {
            refuse(
                TIMEOUT,
                "has no effect without spec.sessionAffinity: ClientIP".into(),
            );
            None
        }
        (Some("ClientIP"), None) => Some(affinity::DEFAULT_TIMEOUT),
        (Some("ClientIP"), Some(seconds)) => {
            let timeout = u64::try_from(seconds).map(Duration::from_secs);
            let timeout = timeout
                .ok()
                .filter(|timeout| !timeout.is_zero() && *timeout <= affinity::MAX_TIMEOUT);
            if timeout.is_none() {
                let most = affinity::MAX_TIMEOUT.as_secs();
                refuse(TIMEOUT, format!("is {seconds}; it is from 1 to {most}"));
            }
            timeout
        }
        (Some(other), _) => {
            refuse(
                "spec.sessionAffinity",
                format!("`{other}` is neither None nor ClientIP"),
            );
            None
        }
    }
}

fn vips(
    one: Option<String>,
    all: Option<Vec<String>>,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> Vec<IpAddr> {
    let all: Vec<String> = all.unwrap_or_default();
    if !is_first(
        one.as_deref(),
        all.first().map(String::as_str),
        ["spec.clusterIP", "spec.clusterIPs"],
        object,
        errors,
    ) {
        return Vec::new();
    }
    let alone = all.is_empty();
    let texts: Vec<String> = if alone { one.into_iter().collect() } else { all };
    match texts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["None"] => return Vec::new(),
        [] | [""] => {
            let problem =
                "is required: nothing allocates addresses here; give one, or None for a headless Service";
            errors.push(ObjectError::new(object, "spec.clusterIP", problem));
            return Vec::new();
        }
        _ => {}
    }
    let mut vips = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let field = if alone {
            "spec.clusterIP".to_owned()
        } else {
            format!("spec.clusterIPs[{index}]")
        };
        vips.extend(address(text, &field, object, errors));
    }
    vips
}

fn service_port(
    index: usize,
    port: Port,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> Option<ServiceObjectPort> {
    let field = format!("spec.ports[{index}]");
    let good = is_port(port.port, &format!("{field}.port"), object, errors);
    if !is_tcp(port.protocol.as_deref(), &field, object, errors) {
        return None;
    }
    let target = match port.target_port {
        None => TargetPort::Number(port.port),
        // Kubernetes: 0 means the same as port, and so does no name.
        Some(Target::Number(0)) => TargetPort::Number(port.port),
        Some(Target::Name(name)) if name.is_empty() => TargetPort::Number(port.port),
        Some(Target::Number(number)) => TargetPort::Number(number),
        Some(Target::Name(name)) => {
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                let problem = format!(
                    "`{name}` in quotes is the name of a port, and no name has digits alone; write the number without quotes"
                );
                errors.push(ObjectError::new(object, format!("{field}.targetPort"), problem));
            }
            TargetPort::Name(name)
        }
    };
    good.then(|| ServiceObjectPort {
        name: port.name.unwrap_or_default(),
        port: port.port,
        target,
        app_protocol: port.app_protocol,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSliceManifest {
    #[serde(default)]
    metadata: Metadata,
    address_type: Option<String>,
    endpoints: Option<Vec<EndpointManifest>>,
    ports: Option<Vec<SlicePortManifest>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointManifest {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    node_name: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    hints: Option<HintsManifest>,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HintsManifest {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: Arc<str>,
}

#[derive(Debug, Deserialize)]
struct SlicePortManifest {
    name: Option<Arc<str>>,
    protocol: Option<String>,
    port: Option<u16>,
}

pub(super) static ENDPOINT_SLICE: Level = Level::new::<EndpointSliceManifest>(&[
    ("metadata", &METADATA),
    ("endpoints", &ENDPOINT),
    ("ports", &SLICE_PORT),
]);
static ENDPOINT: Level = Level::new::<EndpointManifest>(&[("conditions", &CONDITIONS), ("hints", &HINTS)]);
static CONDITIONS: Level = Level::new::<Conditions>(&[]);
static HINTS: Level = Level::new::<HintsManifest>(&[("forZones", &NAMED), ("forNodes", &NAMED)]);
static NAMED: Level = Level::new::<Named>(&[]);
static SLICE_PORT: Level = Level::new::<SlicePortManifest>(&[]);

impl EndpointSliceManifest {
    pub(super) fn into_slice(
        self,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<EndpointSlice> {
        const SERVICE_NAME: &str = "kubernetes.io/service-name";
        let meta = self.metadata.into_meta(Kind::EndpointSlice, origin, errors)?;
        let object = &meta.object;
        let is_v6 = match self.address_type.as_deref() {
            Some("IPv4") => false,
            Some("IPv6") => true,
            other => {
                let problem = format!("`{}` is neither IPv4 nor IPv6", other.unwrap_or_default());
                errors.push(ObjectError::new(object, "addressType", problem));
                return None;
            }
        };
        let Some(service) = meta.labels.get(SERVICE_NAME).cloned() else {
            let problem = "is required: it names the Service whose endpoints these are";
            errors.push(ObjectError::new(
                object,
                format!("metadata.labels.{SERVICE_NAME}"),
                problem,
            ));
            return None;
        };
        let mut ports = Vec::new();
        for (index, port) in self.ports.unwrap_or_default().into_iter().enumerate() {
            let field = format!("ports[{index}]");
            let is_tcp = is_tcp(port.protocol.as_deref(), &field, object, errors);
            match port.port {
                None if !is_tcp => {}
                Some(number) if number > 0 && !is_tcp => {}
                Some(number) if number > 0 => {
                    ports.push(SlicePort {
                        name: port.name.unwrap_or_default(),
                        port: number,
                    });
                }
                _ => {
                    let problem = "is required, from 1 to 65535; an absent port would mean all of them";
                    errors.push(ObjectError::new(object, format!("{field}.port"), problem));
                }
            }
        }
        let mut endpoints = Vec::new();
        for (index, endpoint) in self.endpoints.unwrap_or_default().into_iter().enumerate() {
            let conditions = endpoint.conditions.unwrap_or_default();
            let hints = endpoint.hints.unwrap_or_default();
            let names =
                |list: Option<Vec<Named>>| list.into_iter().flatten().map(|named| named.name).collect();
            let given = |text: &Arc<str>| !text.is_empty();
            endpoints.push(SliceEndpoint {
                addresses: addresses(&endpoint.addresses, index, is_v6, object, errors),
                readiness: Readiness::of_conditions(
                    conditions.ready,
                    conditions.serving,
                    conditions.terminating,
                ),
                node: endpoint.node_name.filter(given),
                zone: endpoint.zone.filter(given),
                hints: Hints {
                    zones: names(hints.for_zones),
                    nodes: names(hints.for_nodes),
                },
            });
        }
        Some(EndpointSlice {
            service,
            ports,
            endpoints,
            meta,
        })
    }
}

/// The addresses of an endpoint, all of one family.
fn addresses(
    texts: &[String],
    endpoint: usize,
    is_v6: bool,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let field = format!("endpoints[{endpoint}].addresses[{index}]");
        let Some(address) = address(text, &field, object, errors) else {
            continue;
        };
        if address.is_ipv6() != is_v6 {
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            let problem =
                format!("`{text}` is not of addressType {family}; the other family needs a slice of its own");
            errors.push(ObjectError::new(object, field, problem));
        }
        addresses.push(address);
    }
    addresses
}
