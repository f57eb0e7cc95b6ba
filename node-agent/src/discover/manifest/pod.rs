//! core/v1 Pod.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use tramline_core::object::{Kind, ObjectError, ObjectRef, Pod};
use tramline_core::workload::ContainerPort;

use super::meta::{METADATA, Metadata};
use super::misspelt::Level;
use super::one_of;
use super::port::{is_port, is_tcp};

#[derive(Debug, Deserialize)]
pub(super) struct PodManifest {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Arc<str>>,
    service_account_name: Option<Arc<str>>,
    /// What it was called before; the API server fills in both.
    service_account: Option<Arc<str>>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    /// Among them sidecars (`restartPolicy: Always`), whose ports are a pod's like any other's.
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Deserialize)]
struct Container {
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<Arc<str>>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    name: String,
    status: String,
}

pub(super) static POD: Level =
    Level::new::<PodManifest>(&[("metadata", &METADATA), ("spec", &SPEC), ("status", &STATUS)]);
static SPEC: Level = Level::new::<Spec>(&[("containers", &CONTAINER), ("initContainers", &CONTAINER)]);
static CONTAINER: Level = Level::new::<Container>(&[("ports", &PORT)]);
static PORT: Level = Level::new::<Port>(&[]);
static STATUS: Level = Level::new::<Status>(&[("podIPs", &POD_IP), ("conditions", &CONDITION)]);
static POD_IP: Level = Level::new::<PodIp>(&[]);
static CONDITION: Level = Level::new::<Condition>(&[]);

impl PodManifest {
    pub(super) fn into_pod(self, origin: &Arc<str>, errors: &mut Vec<ObjectError>) -> Option<Pod> {
        let (deleting, owner) = (self.metadata.is_deleting(), self.metadata.controller());
        let meta = self.metadata.into_meta(Kind::Pod, origin, errors)?;
        let status = self.status.unwrap_or_default();
        // Without it nobody could tell on which node the pod is and who it speaks as.
        let Some(spec) = self.spec else {
            errors.push(ObjectError::new(&meta.object, "spec", "is required"));
            return None;
        };
        let mut ports = Vec::new();
        for (containers, field) in [
            (spec.containers, "spec.containers"),
            (spec.init_containers, "spec.initContainers"),
        ] {
            for (index, container) in containers.unwrap_or_default().into_iter().enumerate() {
                let field = format!("{field}[{index}]");
                ports.extend(container_ports(container, &field, &meta.object, errors));
            }
        }
        one_of(
            status.phase.as_deref().filter(|phase| !phase.is_empty()),
            &["Pending", "Running", "Succeeded", "Failed", "Unknown"],
            "status.phase",
            &meta.object,
            errors,
        );
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        // A file rarely carries conditions; who writes a pod down wants traffic to go there.
        let mut conditions = status.conditions.iter().flatten().enumerate();
        let ready = conditions
            .find(|(_, condition)| condition.name == "Ready")
            .is_none_or(|(index, condition)| {
                let field = format!("status.conditions[{index}].status");
                let known = &["True", "False", "Unknown"];
                one_of(Some(&condition.status), known, &field, &meta.object, errors);
                condition.status == "True"
            });
        Some(Pod {
            addresses: addresses(status.pod_ip, status.pod_ips, &meta.object, errors),
            meta,
            deleting,
            owner,
            node: spec.node_name.unwrap_or_default(),
            service_account: [spec.service_account_name, spec.service_account]
                .into_iter()
                .flatten()
                .find(|name| !name.is_empty()),
            host_network: spec.host_network.unwrap_or_default(),
            ports,
            ended,
            ready,
        })
    }
}

fn container_ports(
    container: Container,
    field: &str,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> Vec<ContainerPort> {
    let mut ports = Vec::new();
    for (index, port) in container.ports.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        let good = is_port(
            port.container_port,
            &format!("{field}.containerPort"),
            object,
            errors,
        );
        if is_tcp(port.protocol.as_deref(), &field, object, errors) && good {
            ports.push(ContainerPort {
                name: port.name,
                port: port.container_port,
            });
        }
    }
    ports
}

fn addresses(
    one: Option<String>,
    all: Option<Vec<PodIp>>,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> Vec<IpAddr> {
    let all = all.unwrap_or_default();
    if !is_first(
        one.as_deref(),
        all.first().map(|first| first.ip.as_str()),
        ["status.podIP", "status.podIPs"],
        object,
        errors,
    ) {
        return Vec::new();
    }
    let mut texts: Vec<(String, String)> = all
        .into_iter()
        .enumerate()
        .map(|(index, ip)| (format!("status.podIPs[{index}].ip"), ip.ip))
        .collect();
    if texts.is_empty() {
        texts.extend(one.map(|one| ("status.podIP".to_owned(), one)));
    }
    texts
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .filter_map(|(field, text)| address(&text, &field, object, errors))
        .collect()
}

/// Whether an address that is given alone is the first of those given as a list, as Kubernetes has it: of two answers one
/// would be dropped without a word.
pub(super) fn is_first(
    one: Option<&str>,
    first: Option<&str>,
    [field, list]: [&str; 2],
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> bool {
    let (Some(one), Some(first)) = (one.filter(|one| !one.is_empty()), first) else {
        return true;
    };
    let parsed = |text: &str| text.parse::<IpAddr>().map(|address| address.to_canonical()).ok();
    let same = one == first || parsed(one).is_some() && parsed(one) == parsed(first);
    if !same {
        let problem = format!("`{one}` is not the first of {list}, `{first}`; leave one of the two out");
        errors.push(ObjectError::new(object, field, problem));
    }
    same
}

/// One address of an object, unwrapped if it is IPv4-mapped.
pub(super) fn address(
    text: &str,
    field: &str,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            errors.push(ObjectError::new(
                object,
                field,
                format!("`{text}` is not an IP address such as 10.0.0.1 or fd00::1"),
            ));
            None
        }
    }
}
