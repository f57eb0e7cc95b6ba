//! One immutable snapshot of everything the mesh knows.

mod build;
mod policies;
mod services;
mod workloads;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::authz::AuthorizationPolicy;
use crate::identity::TrustDomain;
use crate::object::{ObjectError, Objects};
use crate::peer_authentication::{EffectiveMtls, PeerAuthentication};
use crate::service::Service;
use crate::workload::{Workload, WorkloadUid};

/// What the whole mesh shares, given by flags or environment and never changed while the agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// The trust domain of every workload.
    pub trust_domain: TrustDomain,
    /// The node this agent serves, as `spec.nodeName` calls it.
    pub node_name: Arc<str>,
    /// The namespace whose policies hold for the whole mesh.
    pub root_namespace: Arc<str>,
}

impl MeshSettings {
    /// Istio's root namespace unless told otherwise.
    pub const DEFAULT_ROOT_NAMESPACE: &'static str = "istio-system";

    /// Settings with the default root namespace.
    pub fn new(trust_domain: TrustDomain, node_name: &str) -> Self {
        Self {
            trust_domain,
            node_name: node_name.into(),
            root_namespace: Self::DEFAULT_ROOT_NAMESPACE.into(),
        }
    }
}

/// The policies that protect one workload, chosen when the snapshot is built.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkloadPolicies {
    pub(crate) mtls: EffectiveMtls,
    pub(crate) deny: Vec<Arc<AuthorizationPolicy>>,
    pub(crate) allow: Vec<Arc<AuthorizationPolicy>>,
}

#[derive(Debug)]
struct Entry {
    workload: Arc<Workload>,
    policies: WorkloadPolicies,
}

/// One immutable snapshot: workloads, Services and policies with the indexes that connections need.
#[derive(Debug)]
pub struct Mesh {
    generation: u64,
    settings: MeshSettings,
    entries: HashMap<WorkloadUid, Entry>,
    by_address: HashMap<IpAddr, Arc<Workload>>,
    services: Vec<Arc<Service>>,
    by_vip: HashMap<IpAddr, Arc<Service>>,
    policies: Vec<Arc<AuthorizationPolicy>>,
    peer_authentications: Vec<Arc<PeerAuthentication>>,
}

impl Mesh {
    /// Checks a whole set of objects and indexes it.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first thing; sorted, so that two runs read the same.
    pub fn build(objects: Objects, settings: &MeshSettings) -> Result<Self, Vec<ObjectError>> {
        build::build(objects, settings)
    }

    /// A snapshot without any object: nothing is enrolled, every destination passes through, nobody is let in.
    pub fn empty(settings: &MeshSettings) -> Self {
        Self {
            generation: 0,
            settings: settings.clone(),
            entries: HashMap::new(),
            by_address: HashMap::new(),
            services: Vec::new(),
            by_vip: HashMap::new(),
            policies: Vec::new(),
            peer_authentications: Vec::new(),
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
        self.entries.get(uid).map(|entry| &entry.workload)
    }

    /// The workload with an address (not IPv4-mapped); pods in the node's network namespace have none of their own.
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// Every workload, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.entries.values().map(|entry| &entry.workload)
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

    /// Every AuthorizationPolicy, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.policies.iter()
    }

    /// Every PeerAuthentication, by namespace and name.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.peer_authentications.iter()
    }

    /// The policies that protect a workload.
    pub(crate) fn policies_of(&self, uid: &WorkloadUid) -> Option<&WorkloadPolicies> {
        self.entries.get(uid).map(|entry| &entry.policies)
    }
}
