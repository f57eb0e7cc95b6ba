//! Pods become workloads: enrolment, annotations, telemetry names.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::MeshSettings;
use crate::identity::SpiffeId;
use crate::labels::Labels;
use crate::object::{ObjectError, Pod};
use crate::workload::{CaptureExclusions, Protocol, Workload, WorkloadType};

/// Label on a namespace or pod that enrols it.
pub const MODE_LABEL: &str = "istio.io/dataplane-mode";
/// The value of [`MODE_LABEL`] that is ours; `none` on a pod opts out, other values belong to other meshes.
pub const MODE_TRAMLINE: &str = "tramline";
/// Opts a pod out.
pub const MODE_NONE: &str = "none";

/// Annotation with the path of a pod's network namespace on its node.
pub const NETNS: &str = "tramline.dev/netns";
const EXCLUDE_OUTBOUND_PORTS: &str = "tramline.dev/exclude-outbound-ports";
const EXCLUDE_INBOUND_PORTS: &str = "tramline.dev/exclude-inbound-ports";
const EXCLUDE_OUTBOUND_CIDRS: &str = "tramline.dev/exclude-outbound-cidrs";
const ANNOTATIONS: &[&str] = &[
    NETNS,
    EXCLUDE_OUTBOUND_PORTS,
    EXCLUDE_INBOUND_PORTS,
    EXCLUDE_OUTBOUND_CIDRS,
];
/// The prefix under which an unknown annotation is a mistake rather than somebody else's.
const PREFIX: &str = "tramline.dev/";
/// What one list of an annotation may hold; the kernel's maps are sized for it.
const MAX_EXCLUSIONS: usize = 64;

/// The workload of a pod, or what is wrong with the pod.
pub(super) fn workload(
    pod: &Pod,
    namespace_labels: Option<&Labels>,
    settings: &MeshSettings,
    errors: &mut Vec<ObjectError>,
) -> Option<Workload> {
    let before = errors.len();
    let object = &pod.meta.object;
    let service_account = pod.service_account.clone().unwrap_or_else(|| "default".into());
    let identity =
        SpiffeId::new(settings.trust_domains.own(), &object.namespace, &service_account).map_err(|error| {
            errors.push(ObjectError::new(
                object,
                "spec.serviceAccountName",
                error.to_string(),
            ))
        });
    let capture = exclusions(pod, errors);
    let netns = netns(pod, errors);
    for key in pod.meta.annotations.keys().filter(|key| key.starts_with(PREFIX)) {
        if !ANNOTATIONS.contains(&&**key) {
            let problem = format!("unknown annotation; those read are {}", ANNOTATIONS.join(", "));
            errors.push(ObjectError::new(
                object,
                format!("metadata.annotations.{key}"),
                problem,
            ));
        }
    }
    if errors.len() > before {
        return None;
    }
    let enrolled = is_enrolled(pod, namespace_labels);
    let (workload_name, workload_type) = owner(pod);
    let labels = &pod.meta.labels;
    Some(Workload {
        uid: pod.uid(),
        name: object.name.clone(),
        namespace: object.namespace.clone(),
        service_account,
        identity: identity.ok()?,
        node: pod.node.clone(),
        addresses: pod.addresses.iter().map(std::net::IpAddr::to_canonical).collect(),
        protocol: if enrolled {
            Protocol::Hbone
        } else {
            Protocol::Plaintext
        },
        ready: pod.ready && !pod.deleting,
        terminating: pod.deleting,
        serving: pod.ready,
        host_network: pod.host_network,
        canonical_name: first_label(
            labels,
            &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"],
        )
        .unwrap_or_else(|| workload_name.clone()),
        canonical_revision: first_label(
            labels,
            &[
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ],
        )
        .unwrap_or_else(|| "latest".into()),
        workload_name,
        workload_type,
        labels: labels.clone(),
        ports: pod.ports.clone(),
        capture,
        // Who asks for no node asks for all of them.
        netns: netns.filter(|_| settings.node_name.is_empty() || pod.node == settings.node_name),
        enrolled,
    })
}

/// Two pods of one UID; one that is not given is NAMESPACE/NAME, which another pod may give as its own.
pub(super) fn same_uid(pod: &Pod, other: &str) -> ObjectError {
    let (field, problem) = match &pod.meta.uid {
        Some(_) => ("metadata.uid", format!("{other} has the same UID")),
        None => (
            "metadata.name",
            format!(
                "stands for the UID, `{}`, which is also that of {other}",
                pod.uid().as_str()
            ),
        ),
    };
    ObjectError::new(&pod.meta.object, field, problem)
}

/// The namespaces' labels by name.
pub(super) fn namespace_labels(namespaces: &[crate::object::Namespace]) -> HashMap<Arc<str>, &Labels> {
    namespaces
        .iter()
        .map(|namespace| (namespace.meta.object.name.clone(), &namespace.meta.labels))
        .collect()
}

fn is_enrolled(pod: &Pod, namespace_labels: Option<&Labels>) -> bool {
    let on_pod = pod.meta.labels.get(MODE_LABEL).map(AsRef::as_ref);
    let on_namespace = namespace_labels
        .and_then(|labels| labels.get(MODE_LABEL))
        .map(AsRef::as_ref);
    match (pod.host_network, on_pod) {
        (true, _) | (_, Some(MODE_NONE)) => false,
        // Another mesh's mode on the pod itself is the pod's last word.
        (false, Some(mode)) => mode == MODE_TRAMLINE,
        (false, None) => on_namespace == Some(MODE_TRAMLINE),
    }
}

fn exclusions(pod: &Pod, errors: &mut Vec<ObjectError>) -> CaptureExclusions {
    let port = |text: &str| crate::authz::Operation::port(text).map_err(|error| error.to_string());
    let range = |text: &str| {
        let range = IpNet::from_str(text)
            .map(crate::authz::unmapped)
            .map_err(|_| format!("`{text}` is not a CIDR range such as 10.0.0.0/8"))?;
        if range.trunc() == range {
            Ok(range)
        } else {
            Err(format!(
                "`{text}`: bits outside the prefix are set; did you mean `{}`?",
                range.trunc()
            ))
        }
    };
    CaptureExclusions {
        outbound_ports: annotation_list(pod, EXCLUDE_OUTBOUND_PORTS, port, errors),
        inbound_ports: annotation_list(pod, EXCLUDE_INBOUND_PORTS, port, errors),
        outbound_ranges: annotation_list(pod, EXCLUDE_OUTBOUND_CIDRS, range, errors),
    }
}

fn annotation_list<T>(
    pod: &Pod,
    key: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    errors: &mut Vec<ObjectError>,
) -> Vec<T> {
    let Some(text) = pod
        .meta
        .annotations
        .get(key)
        .filter(|text| !text.trim().is_empty())
    else {
        return Vec::new();
    };
    let field = format!("metadata.annotations.{key}");
    if text.split(',').count() > MAX_EXCLUSIONS {
        let problem = format!("has more than {MAX_EXCLUSIONS} entries");
        errors.push(ObjectError::new(&pod.meta.object, field, problem));
        return Vec::new();
    }
    let mut list = Vec::new();
    for entry in text.split(',') {
        match parse(entry.trim()) {
            Ok(value) => list.push(value),
            Err(problem) => errors.push(ObjectError::new(&pod.meta.object, field.clone(), problem)),
        }
    }
    list
}

fn netns(pod: &Pod, errors: &mut Vec<ObjectError>) -> Option<Arc<str>> {
    let path = pod.meta.annotations.get(NETNS)?;
    let clean = path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..");
    if !clean {
        let problem = format!("`{path}` is not an absolute path such as /run/netns/NAME");
        errors.push(ObjectError::new(
            &pod.meta.object,
            format!("metadata.annotations.{NETNS}"),
            problem,
        ));
        return None;
    }
    // No agent would enrol the pod: each would take it for another node's.
    if pod.node.is_empty() {
        let problem = format!("is required beside {NETNS}: the path is one on the pod's own node");
        errors.push(ObjectError::new(&pod.meta.object, "spec.nodeName", problem));
        return None;
    }
    Some(path.clone())
}

fn first_label(labels: &Labels, keys: &[&str]) -> Option<Arc<str>> {
    keys.iter()
        .find_map(|key| labels.get(*key))
        .filter(|value| !value.is_empty())
        .cloned()
}

/// The owner as Istio names it: a Deployment through its ReplicaSet, a CronJob through its Job.
fn owner(pod: &Pod) -> (Arc<str>, WorkloadType) {
    let Some(owner) = &pod.owner else {
        return (pod.meta.object.name.clone(), WorkloadType::Pod);
    };
    let name = owner.name.clone();
    match &*owner.kind {
        "ReplicaSet" => {
            let hash = pod.meta.labels.get("pod-template-hash");
            let deployment = hash.and_then(|hash| name.strip_suffix(&**hash)?.strip_suffix('-'));
            match deployment {
                Some(deployment) => (deployment.into(), WorkloadType::Deployment),
                None => (name, WorkloadType::ReplicaSet),
            }
        }
        "StatefulSet" => (name, WorkloadType::StatefulSet),
        "DaemonSet" => (name, WorkloadType::DaemonSet),
        "Job" => match cron_job(&name) {
            Some(cron_job) => (cron_job.into(), WorkloadType::CronJob),
            None => (name, WorkloadType::Job),
        },
        _ => (pod.meta.object.name.clone(), WorkloadType::Pod),
    }
}

/// A CronJob's Jobs are called NAME-MINUTES, with the scheduled time in minutes since 1970 (8 digits until 2160).
fn cron_job(job: &str) -> Option<&str> {
    let (name, minutes) = job.rsplit_once('-')?;
    (minutes.len() == 8 && minutes.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}
