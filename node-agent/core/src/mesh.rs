//! One immutable snapshot of everything the mesh knows.

mod build;
mod change;
mod places;
mod policies;
mod services;
mod sharded;
mod sources;
mod workloads;

pub use workloads::{MODE_LABEL, MODE_NONE, MODE_TRAMLINE, NETNS};

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use change::Change;

use self::policies::{Scopes, Shared};
use self::sharded::Sharded;
use self::sources::Sources;

use crate::authz::{AuthorizationPolicy, PolicyStatus, RuleSet};
use crate::identity::TrustDomains;
use crate::object::{ObjectError, Objects};
use crate::peer_authentication::{EffectiveMtls, PeerAuthentication};
use crate::service::Service;
use crate::workload::{Workload, WorkloadUid};

/// What the whole mesh shares, given by flags or environment and never changed while the agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// The trust domain of every workload, and those that count as it.
    pub trust_domains: TrustDomains,
    /// The node this agent serves, as `spec.nodeName` calls it.
    pub node_name: Arc<str>,
    /// The namespace whose policies hold for the whole mesh.
    pub root_namespace: Arc<str>,
}

impl MeshSettings {
    /// Istio's root namespace unless told otherwise.
    pub const DEFAULT_ROOT_NAMESPACE: &'static str = "istio-system";

    /// Settings with the default root namespace.
    pub fn new(trust_domains: impl Into<TrustDomains>, node_name: &str) -> Self {
        Self {
            trust_domains: trust_domains.into(),
            node_name: node_name.into(),
            root_namespace: Self::DEFAULT_ROOT_NAMESPACE.into(),
        }
    }

    /// The same with another root namespace (`meshConfig.rootNamespace`).
    #[must_use]
    pub fn with_root_namespace(mut self, name: &str) -> Self {
        self.root_namespace = name.into();
        self
    }
}

/// The policies that select one workload.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadPolicies {
    pub(crate) mtls: EffectiveMtls,
    /// Of its namespace, then of the root namespace. Workloads that the same policies of a namespace select share them.
    pub(crate) scopes: [Arc<ScopePolicies>; 2],
}

/// The AuthorizationPolicies of one namespace that select a workload.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScopePolicies {
    /// Those that are enforced.
    pub(crate) enforced: Tiers,
    /// The same with the dry-run policies among them, where there are any.
    pub(crate) trial: Option<Box<Tiers>>,
    /// AUDIT.
    pub(crate) audit: Vec<Arc<AuthorizationPolicy>>,
    /// Where these policies are in memory, in order; they are all held above, so nothing else can be there.
    key: Vec<usize>,
}

/// Policies by action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tiers {
    pub(crate) custom: RuleSet,
    pub(crate) deny: RuleSet,
    pub(crate) allow: RuleSet,
}

impl WorkloadPolicies {
    /// What is enforced.
    pub(crate) fn enforced(&self) -> [&Tiers; 2] {
        self.scopes.each_ref().map(|scope| &scope.enforced)
    }

    /// What would be enforced if dry-run policies were; `None` without any.
    pub(crate) fn trial(&self) -> Option<[&Tiers; 2]> {
        let any = self.scopes.iter().any(|scope| scope.trial.is_some());
        any.then(|| {
            self.scopes
                .each_ref()
                .map(|scope| scope.trial.as_deref().unwrap_or(&scope.enforced))
        })
    }
}

/// What protects one workload.
#[derive(Debug, Clone)]
pub(crate) struct Protection<'a> {
    pub(crate) policies: Arc<WorkloadPolicies>,
    /// A policy for a Service that the workload is behind; it cannot be enforced, so nothing passes.
    pub(crate) closed_by: Option<&'a Arc<AuthorizationPolicy>>,
}

/// Everything that decisions about one workload rest on. Two are equal only if nothing of it was made anew between
/// their snapshots, which is seldom wrong and then on the safe side.
#[derive(Debug, Clone)]
pub struct Basis {
    workload: Arc<Workload>,
    policies: Arc<WorkloadPolicies>,
    closed_by: Option<Arc<AuthorizationPolicy>>,
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        let same_closer = match (&self.closed_by, &other.closed_by) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_closer
            && Arc::ptr_eq(&self.workload, &other.workload)
            && Arc::ptr_eq(&self.policies, &other.policies)
    }
}

/// One immutable snapshot: workloads, Services and policies with the indexes that connections need.
///
/// Cheap to clone: what a change leaves alone, the snapshots before and after it share.
#[derive(Debug, Clone)]
pub struct Mesh {
    generation: u64,
    settings: MeshSettings,
    workloads: Sharded<WorkloadUid, Arc<Workload>>,
    by_address: Sharded<IpAddr, Arc<Workload>>,
    services: Arc<Vec<Arc<Service>>>,
    by_vip: Sharded<IpAddr, Arc<Service>>,
    /// Node → zone, where known.
    zones: Arc<HashMap<Arc<str>, Arc<str>>>,
    policies: Vec<Arc<AuthorizationPolicy>>,
    peer_authentications: Vec<Arc<PeerAuthentication>>,
    /// The same policies by namespace.
    scopes: Scopes,
    /// For the workloads of this node: nobody else asks often, or in a hurry.
    prepared: HashMap<WorkloadUid, Arc<WorkloadPolicies>>,
    sources: Sources,
    /// Workloads behind the Service of a policy that only a waypoint could enforce.
    closed: HashMap<WorkloadUid, Arc<AuthorizationPolicy>>,
}

impl Mesh {
    /// Checks a whole set of objects and indexes it.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first thing; sorted, so that two runs read the same.
    pub fn build(objects: Objects, settings: &MeshSettings) -> Result<Self, Vec<ObjectError>> {
        build::build(objects, settings)
    }

    /// The snapshot after changes of pods, Services and policies, which can come at any moment and often. It costs what
    /// the changes touch, and shares the rest with this snapshot; the result is what [`Self::build`] would make of all
    /// objects, but for the order of a Service's endpoints.
    ///
    /// # Errors
    /// What is wrong with the changed objects, alone or together with the others; sorted.
    pub fn apply(&self, changes: Vec<Change>) -> Result<Self, Vec<ObjectError>> {
        change::apply(self, changes)
    }

    /// A snapshot without any object: nothing is enrolled, every destination passes through, nobody is let in.
    pub fn empty(settings: &MeshSettings) -> Self {
        Self {
            generation: 0,
            settings: settings.clone(),
            workloads: Sharded::default(),
            by_address: Sharded::default(),
            services: Arc::default(),
            by_vip: Sharded::default(),
            zones: Arc::default(),
            policies: Vec::new(),
            peer_authentications: Vec::new(),
            scopes: Scopes::new(&[], &[], settings),
            prepared: HashMap::new(),
            sources: Sources::default(),
            closed: HashMap::new(),
        }
    }

    /// Numbers the snapshot; a source counts its snapshots up from one.
    #[must_use]
    pub fn with_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The number of this snapshot.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What it was built with.
    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// The workload of a UID.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload with an address (not IPv4-mapped); pods in the node's network namespace have none of their own.
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// Every workload, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The enrolled workloads of this agent's node, in no order.
    pub fn local_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads()
            .filter(|workload| workload.enrolled && workload.node == self.settings.node_name)
    }

    /// Every Service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The Service with an address (not IPv4-mapped).
    pub fn service_by_vip(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.by_vip.get(&address)
    }

    /// The Service with a host name, as telemetry writes it.
    pub fn service_by_hostname(&self, hostname: &str) -> Option<&Arc<Service>> {
        let (name, rest) = hostname.split_once('.')?;
        let (namespace, _) = rest.split_once('.')?;
        let key = (namespace, name);
        let at = self
            .services
            .binary_search_by(|service| (&*service.namespace, &*service.name).cmp(&key))
            .ok()?;
        self.services
            .get(at)
            .filter(|service| *service.hostname == *hostname)
    }

    /// The zone of a node, where a Node object or an EndpointSlice tells it.
    pub fn zone_of(&self, node: &str) -> Option<&Arc<str>> {
        self.zones.get(node)
    }

    /// Every AuthorizationPolicy, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.policies.iter()
    }

    /// What becomes of every AuthorizationPolicy, by namespace and name: whether it is enforced as written, and if
    /// not, why and how it counts.
    pub fn policy_statuses(&self) -> impl Iterator<Item = PolicyStatus> {
        self.policies.iter().map(|policy| {
            PolicyStatus::of(policy, |name| {
                self.service(&policy.name.namespace, name).is_some()
            })
        })
    }

    /// The Service of a name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        let key = |service: &Arc<Service>| (&*service.namespace, &*service.name).cmp(&(namespace, name));
        let index = self.services.binary_search_by(key).ok()?;
        self.services.get(index)
    }

    /// Every PeerAuthentication, by namespace and name.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.peer_authentications.iter()
    }

    /// Everything that decisions about a workload rest on, but for who asks.
    pub fn basis(&self, uid: &WorkloadUid) -> Option<Basis> {
        let protection = self.policies_of(uid)?;
        Some(Basis {
            workload: self.workload(uid)?.clone(),
            policies: protection.policies,
            closed_by: protection.closed_by.cloned(),
        })
    }

    /// The policies that protect a workload.
    pub(crate) fn policies_of(&self, uid: &WorkloadUid) -> Option<Protection<'_>> {
        let policies = match self.prepared.get(uid) {
            Some(policies) => policies.clone(),
            None => {
                let selection = self.scopes.select(self.workloads.get(uid)?);
                Arc::new(selection.resolve(&mut Shared::default()))
            }
        };
        Some(Protection {
            policies,
            closed_by: self.closed.get(uid),
        })
    }
}
