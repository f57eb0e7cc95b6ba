//! Workloads: what a pod is to the mesh.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::SpiffeId;
use crate::labels::Labels;

/// The UID of a pod: what identity is bound to, since addresses and names come back with other pods behind them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadUid(Arc<str>);

impl WorkloadUid {
    /// Takes `metadata.uid`, or `NAMESPACE/NAME` where files give none.
    pub fn new(uid: impl Into<Arc<str>>) -> Self {
        Self(uid.into())
    }

    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a workload is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Through an mTLS tunnel on port 15008: an agent stands before it.
    Hbone,
    /// As it is: not in the mesh.
    Plaintext,
}

/// The kind of object that manages a pod, as Istio's telemetry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadType {
    /// Deployment, found through the ReplicaSet that owns the pod.
    Deployment,
    /// StatefulSet.
    StatefulSet,
    /// DaemonSet.
    DaemonSet,
    /// ReplicaSet of no Deployment.
    ReplicaSet,
    /// Job.
    Job,
    /// CronJob, found through the Job that owns the pod.
    CronJob,
    /// A pod that nothing known manages.
    Pod,
}

impl WorkloadType {
    /// Lower case, as in `k8s.deployment.name` of the HBONE baggage.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
        }
    }
}

/// One TCP port that a container declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// What a Service's named `targetPort` refers to.
    pub name: Option<Arc<str>>,
    /// The port number.
    pub port: u16,
}

/// What capture leaves alone at this workload's own request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptureExclusions {
    /// `tramline.dev/exclude-outbound-ports`: destination ports the pod dials past the mesh.
    pub outbound_ports: Vec<u16>,
    /// `tramline.dev/exclude-inbound-ports`: ports of the pod that are reached past the mesh and its policies.
    pub inbound_ports: Vec<u16>,
    /// `tramline.dev/exclude-outbound-cidrs`: destinations the pod dials past the mesh.
    pub outbound_ranges: Vec<IpNet>,
}

/// One pod, enrolled or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What everything else refers to it by.
    pub uid: WorkloadUid,
    /// Name of the pod.
    pub name: Arc<str>,
    /// Namespace of the pod.
    pub namespace: Arc<str>,
    /// Service account of the pod; `default` where the manifest names none.
    pub service_account: Arc<str>,
    /// The identity made of trust domain, namespace and service account.
    pub identity: SpiffeId,
    /// `spec.nodeName`; empty while the pod is not scheduled.
    pub node: Arc<str>,
    /// Every address of the pod, in the order of its status, IPv4-mapped ones unwrapped.
    pub addresses: Vec<IpAddr>,
    /// Labels of the pod.
    pub labels: Labels,
    /// How others reach it.
    pub protocol: Protocol,
    /// Whether Services may send to it.
    pub ready: bool,
    /// Whether it has been asked to stop.
    pub terminating: bool,
    /// Whether its probes say that it serves, asked to stop or not.
    pub serving: bool,
    /// Whether it lives in the node's network namespace; such pods are never enrolled.
    pub host_network: bool,
    /// Name of the application for telemetry (`service.istio.io/canonical-name` and its fallbacks).
    pub canonical_name: Arc<str>,
    /// Version of the application for telemetry (`service.istio.io/canonical-revision` and its fallbacks).
    pub canonical_revision: Arc<str>,
    /// Name of the owner, or of the pod itself.
    pub workload_name: Arc<str>,
    /// Kind of the owner.
    pub workload_type: WorkloadType,
    /// Declared TCP ports.
    pub ports: Vec<ContainerPort>,
    /// What capture leaves alone.
    pub capture: CaptureExclusions,
    /// Path of the network namespace (`tramline.dev/netns`); only for pods on this node, or of all where there is none.
    pub netns: Option<Arc<str>>,
    /// Whether the mesh handles this pod's traffic.
    pub enrolled: bool,
}

impl Workload {
    /// The number of the declared port of that name.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.ports
            .iter()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.port)
    }
}
