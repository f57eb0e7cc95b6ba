//! What a source of configuration hands to the core: Kubernetes objects reduced to the fields the mesh reads.
//!
//! A source has checked syntax and types; meaning (names, scopes, references between objects) is checked in
//! [`crate::mesh::Mesh::build`], the same for every source.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::authz::AuthorizationPolicy;
use crate::labels::Labels;
use crate::peer_authentication::PeerAuthentication;
use crate::service::{Distribution, Hints, Readiness};
use crate::workload::{ContainerPort, WorkloadUid};

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Pod.
    Pod,
    /// core/v1 Service.
    Service,
    /// core/v1 Node.
    Node,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// core/v1 ServiceAccount.
    ServiceAccount,
    /// security.istio.io/v1 PeerAuthentication.
    PeerAuthentication,
    /// security.istio.io/v1 AuthorizationPolicy.
    AuthorizationPolicy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which object, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for a Namespace and a Node.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// File and line, or whatever lets an operator find it.
    pub origin: Option<Arc<str>>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One thing that is wrong with one object: which, where in it, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("{object}: {field}: {problem}")]
pub struct ObjectError {
    /// The object.
    pub object: ObjectRef,
    /// Path of the field, such as `spec.rules[0].from[1].source.principals[0]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl ObjectError {
    /// An error at a field of an object.
    pub fn new(object: &ObjectRef, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            object: object.clone(),
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// `metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Kind, namespace, name and origin.
    pub object: ObjectRef,
    /// `metadata.uid`.
    pub uid: Option<Arc<str>>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// `metadata.creationTimestamp`.
    pub created: Created,
}

impl Meta {
    /// Metadata with nothing but a name.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            object: ObjectRef {
                kind,
                namespace: namespace.into(),
                name: name.into(),
                origin: None,
            },
            uid: None,
            labels: Labels::new(),
            annotations: Labels::new(),
            created: Created::default(),
        }
    }
}

/// `metadata.creationTimestamp`, ordered oldest first. Files rarely have one; no age sorts after every known age,
/// so that adding a file does not displace a policy whose age is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created(Option<Arc<str>>);

impl Created {
    /// Takes RFC 3339 exactly as the Kubernetes API writes it, `YYYY-MM-DDTHH:MM:SSZ`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        // Fixed width and UTC: the order of the texts is the order of the times.
        let fits = text.len() == 20
            && text
                .bytes()
                .zip(b"0000-00-00T00:00:00Z")
                .all(|(byte, shape)| match shape {
                    b'0' => byte.is_ascii_digit(),
                    other => byte == *other,
                });
        fits.then(|| Self(Some(text.into())))
    }

    /// As it was written.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl PartialOrd for Created {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Created {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.is_none(), &self.0).cmp(&(other.0.is_none(), &other.0))
    }
}

/// core/v1 Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Metadata; its labels may enrol every pod of the namespace.
    pub meta: Meta,
}

/// core/v1 Node: only its labels are read, of them `topology.kubernetes.io/zone`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Metadata.
    pub meta: Meta,
}

/// core/v1 ServiceAccount: accepted so that whole sets of manifests can be given; pods name theirs themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Metadata.
    pub meta: Meta,
}

/// The object that manages a pod (`metadata.ownerReferences`, the one with `controller: true`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Kind, such as `ReplicaSet`.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// core/v1 Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The managing owner.
    pub owner: Option<Owner>,
    /// `spec.nodeName`.
    pub node: Arc<str>,
    /// `spec.serviceAccountName`.
    pub service_account: Option<Arc<str>>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// TCP ports of every container.
    pub ports: Vec<ContainerPort>,
    /// `status.podIPs`, else `status.podIP`.
    pub addresses: Vec<IpAddr>,
    /// `status.phase` is Succeeded or Failed: its addresses may already be another pod's.
    pub ended: bool,
    /// Condition `Ready`; a source without conditions says true.
    pub ready: bool,
}

impl Pod {
    /// `metadata.uid`, or `NAMESPACE/NAME` where a file gives none.
    pub fn uid(&self) -> WorkloadUid {
        let object = &self.meta.object;
        WorkloadUid::new(match &self.meta.uid {
            Some(uid) => uid.clone(),
            None => format!("{}/{}", object.namespace, object.name).into(),
        })
    }
}

/// `targetPort` of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port; each pod may give it another number.
    Name(Arc<str>),
}

/// One TCP port of a Service object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceObjectPort {
    /// Name; empty where a single port has none.
    pub name: Arc<str>,
    /// What clients dial.
    pub port: u16,
    /// Where pods listen.
    pub target: TargetPort,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// core/v1 Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceObject {
    /// Metadata.
    pub meta: Meta,
    /// `spec.clusterIPs`, else `spec.clusterIP`; none for a headless Service.
    pub vips: Vec<IpAddr>,
    /// TCP ports.
    pub ports: Vec<ServiceObjectPort>,
    /// `spec.selector`; without one only EndpointSlices give endpoints.
    pub selector: Labels,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.internalTrafficPolicy` is `Local`.
    pub node_local: bool,
    /// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` where `spec.sessionAffinity` is `ClientIP`.
    pub session_affinity: Option<Duration>,
    /// `spec.trafficDistribution`.
    pub distribution: Distribution,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port that it serves.
    pub name: Arc<str>,
    /// Number at the endpoint.
    pub port: u16,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses; all but the first are alternatives that Kubernetes tells consumers to ignore.
    pub addresses: Vec<IpAddr>,
    /// `conditions`.
    pub readiness: Readiness,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `hints`.
    pub hints: Hints,
}

/// discovery.k8s.io/v1 EndpointSlice of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Metadata.
    pub meta: Meta,
    /// Label `kubernetes.io/service-name`.
    pub service: Arc<str>,
    /// TCP ports.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A whole set of objects: what one snapshot is built from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Namespaces; one that no object describes has no labels.
    pub namespaces: Vec<Namespace>,
    /// Nodes; one that no object describes has no zone, unless an EndpointSlice names it.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Services.
    pub services: Vec<ServiceObject>,
    /// EndpointSlices.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// ServiceAccounts.
    pub service_accounts: Vec<ServiceAccount>,
    /// PeerAuthentications.
    pub peer_authentications: Vec<PeerAuthentication>,
    /// AuthorizationPolicies.
    pub authorization_policies: Vec<AuthorizationPolicy>,
}
