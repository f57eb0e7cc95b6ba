//! From one snapshot to the next by what changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::build::{check_name, check_ports, in_trust_domains, unusable};
use super::policies::{Shared, check_peer_authentication, closed_by_targets, prepare};
use super::sources::{Name, set_by_name};
use super::{Mesh, workloads};
use crate::authz::{AuthorizationPolicy, PolicyName};
use crate::object::{ObjectError, Pod, ServiceObject};
use crate::peer_authentication::PeerAuthentication;
use crate::workload::Workload;

/// One changed object. Removals are done first, so that an address may move within one batch. Changes of Namespaces,
/// Nodes and EndpointSlices, which may concern anything, need a whole build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A Pod that is new or other than before.
    SetPod(Box<Pod>),
    /// The Pod of this namespace and name is gone; one that was never there is gone too.
    RemovePod(Arc<str>, Arc<str>),
    /// A Service that is new or other than before.
    SetService(Box<ServiceObject>),
    /// The Service of this namespace and name is gone.
    RemoveService(Arc<str>, Arc<str>),
    /// An AuthorizationPolicy that is new or other than before.
    SetAuthorizationPolicy(Box<AuthorizationPolicy>),
    /// An AuthorizationPolicy is gone.
    RemoveAuthorizationPolicy(PolicyName),
    /// A PeerAuthentication that is new or other than before.
    SetPeerAuthentication(Box<PeerAuthentication>),
    /// A PeerAuthentication is gone.
    RemovePeerAuthentication(PolicyName),
}

pub(super) fn apply(mesh: &Mesh, changes: Vec<Change>) -> Result<Mesh, Vec<ObjectError>> {
    let mut step = Step {
        next: mesh.clone(),
        errors: Vec::new(),
        authorization: BTreeSet::new(),
        authentication: BTreeSet::new(),
        workloads: Vec::new(),
        services: BTreeSet::new(),
    };
    for change in &changes {
        match change {
            Change::SetPod(pod) => step.remove_pod(&name_of(&pod.meta.object)),
            Change::RemovePod(namespace, name) => step.remove_pod(&(namespace.clone(), name.clone())),
            Change::SetService(service) => step.remove_service(&name_of(&service.meta.object)),
            Change::RemoveService(namespace, name) => {
                step.remove_service(&(namespace.clone(), name.clone()));
            }
            _ => {}
        }
    }
    for change in changes {
        step.change(change);
    }
    step.finish(mesh)
}

/// A snapshot on its way, and what of it is still to be brought up to the changes.
struct Step {
    next: Mesh,
    errors: Vec<ObjectError>,
    /// Namespaces whose policies changed.
    authorization: BTreeSet<Arc<str>>,
    authentication: BTreeSet<Arc<str>>,
    /// Workloads as they were and as they are.
    workloads: Vec<Arc<Workload>>,
    /// Services whose objects changed.
    services: BTreeSet<Name>,
}

impl Step {
    fn change(&mut self, change: Change) {
        let next = &mut self.next;
        match change {
            Change::SetPod(pod) => self.set_pod(&pod),
            Change::RemovePod(namespace, name) => self.remove_pod(&(namespace, name)),
            Change::SetService(service) => self.set_service(*service),
            Change::RemoveService(namespace, name) => self.remove_service(&(namespace, name)),
            Change::SetAuthorizationPolicy(policy) => {
                check_name(&policy.meta.object, &mut self.errors);
                self.authorization.insert(policy.name.namespace.clone());
                let policy = Arc::new(in_trust_domains(*policy, &next.settings));
                let name = policy.name.clone();
                set(
                    &mut next.policies,
                    &name,
                    |policy| PolicyName::clone(&policy.name),
                    Some(policy),
                );
            }
            Change::RemoveAuthorizationPolicy(name) => {
                self.authorization.insert(name.namespace.clone());
                set(
                    &mut next.policies,
                    &name,
                    |policy| PolicyName::clone(&policy.name),
                    None,
                );
            }
            Change::SetPeerAuthentication(policy) => {
                check_name(&policy.meta.object, &mut self.errors);
                check_peer_authentication(&policy, &next.settings, &mut self.errors);
                self.authentication.insert(policy.meta.object.namespace.clone());
                let name = PolicyName::of(&policy.meta);
                let of = |policy: &PeerAuthentication| PolicyName::of(&policy.meta);
                set(&mut next.peer_authentications, &name, of, Some(Arc::new(*policy)));
            }
            Change::RemovePeerAuthentication(name) => {
                self.authentication.insert(name.namespace.clone());
                let of = |policy: &PeerAuthentication| PolicyName::of(&policy.meta);
                set(&mut next.peer_authentications, &name, of, None);
            }
        }
    }

    fn remove_pod(&mut self, name: &Name) {
        let next = &mut self.next;
        let Some(workload) = next.sources.workload(name).cloned() else {
            return;
        };
        set_by_name(&mut next.sources.workloads, name, None);
        next.workloads.remove(&workload.uid);
        next.prepared.remove(&workload.uid);
        for address in &workload.addresses {
            if next
                .by_address
                .get(address)
                .is_some_and(|other| other.uid == workload.uid)
            {
                next.by_address.remove(address);
            }
        }
        self.workloads.push(workload);
    }

    fn set_pod(&mut self, pod: &Pod) {
        let object = &pod.meta.object;
        let name = name_of(object);
        // A later change of one pod within a batch.
        self.remove_pod(&name);
        check_name(object, &mut self.errors);
        if pod.ended {
            return;
        }
        let labels = self.next.sources.namespace_labels.get(&object.namespace).cloned();
        let settings = self.next.settings.clone();
        let Some(workload) = workloads::workload(pod, labels.as_ref(), &settings, &mut self.errors) else {
            return;
        };
        let workload = Arc::new(workload);
        self.check_conflicts(pod, &workload);
        let next = &mut self.next;
        if !workload.host_network {
            for address in &workload.addresses {
                next.by_address.insert(*address, workload.clone());
            }
        }
        next.workloads.insert(workload.uid.clone(), workload.clone());
        set_by_name(&mut next.sources.workloads, &name, Some(workload.clone()));
        self.workloads.push(workload);
    }

    /// What two objects cannot both have.
    fn check_conflicts(&mut self, pod: &Pod, workload: &Workload) {
        let (next, object) = (&self.next, &pod.meta.object);
        let pod_name = |other: &Workload| format!("Pod {}/{}", other.namespace, other.name);
        if let Some(other) = next.workloads.get(&workload.uid) {
            self.errors.push(workloads::same_uid(pod, &pod_name(other)));
        }
        let mut refuse = |field: &str, problem: String| {
            self.errors.push(ObjectError::new(object, field, problem));
        };
        let local = next.prepared.keys().filter_map(|uid| next.workloads.get(uid));
        let added = self.workloads.iter().filter(|added| {
            next.workloads
                .get(&added.uid)
                .is_some_and(|present| Arc::ptr_eq(present, added))
        });
        if let Some(other) = local.chain(added).find(|other| {
            other.netns.is_some() && other.netns == workload.netns && other.node == workload.node
        }) {
            refuse(
                "metadata.annotations.tramline.dev/netns",
                format!("{} has the same network namespace", pod_name(other)),
            );
        }
        if workload.host_network {
            return;
        }
        for address in &workload.addresses {
            let other = next.by_address.get(address).map(|other| pod_name(other));
            let service = next
                .by_vip
                .get(address)
                .map(|service| format!("Service {}/{}", service.namespace, service.name));
            match (unusable(*address), other, service) {
                (Some(problem), ..) => refuse("status.podIPs", format!("{address} {problem}")),
                (None, Some(other), _) | (None, None, Some(other)) => {
                    refuse(
                        "status.podIPs",
                        format!("{address} is also an address of {other}"),
                    );
                }
                (None, None, None) => {}
            }
        }
    }

    fn remove_service(&mut self, name: &Name) {
        set_by_name(&mut self.next.sources.services, name, None);
        if let Some(service) = self.next.service(&name.0, &name.1).cloned() {
            for vip in &service.vips {
                self.next.by_vip.remove(vip);
            }
        }
        self.services.insert(name.clone());
    }

    fn set_service(&mut self, service: ServiceObject) {
        let object = &service.meta.object;
        let name = name_of(object);
        check_name(object, &mut self.errors);
        check_ports(std::slice::from_ref(&service), &mut self.errors);
        set_by_name(&mut self.next.sources.services, &name, Some(Arc::new(service)));
        self.services.insert(name);
    }

    fn finish(mut self, before: &Mesh) -> Result<Mesh, Vec<ObjectError>> {
        self.make_services();
        if !self.errors.is_empty() {
            self.errors.sort();
            self.errors.dedup();
            return Err(self.errors);
        }
        self.scope_policies();
        self.prepare(before);
        let mut next = self.next;
        let targets =
            |policies: &[Arc<AuthorizationPolicy>]| policies.iter().any(|policy| !policy.targets.is_empty());
        if targets(&before.policies) || targets(&next.policies) {
            next.closed = closed_by_targets(&next.policies, &next.services);
        }
        Ok(next)
    }

    /// Makes the Services anew whose objects or endpoints changed.
    fn make_services(&mut self) {
        let by_workloads = self
            .workloads
            .iter()
            .flat_map(|workload| self.next.sources.services_of(workload));
        let touched: BTreeSet<Name> = by_workloads.chain(self.services.iter().cloned()).collect();
        for name in touched {
            let made = self.next.made_service(&name).map(Arc::new);
            if let Some(service) = &made {
                self.set_vips(service, self.services.contains(&name));
            }
            let services = Arc::make_mut(&mut self.next.services);
            let place = services
                .binary_search_by(|service| (&service.namespace, &service.name).cmp(&(&name.0, &name.1)));
            match (place, made) {
                (Ok(index), Some(made)) => {
                    if let Some(slot) = services.get_mut(index) {
                        *slot = made;
                    }
                }
                (Ok(index), None) => {
                    services.remove(index);
                }
                (Err(index), Some(made)) => services.insert(index, made),
                (Err(_), None) => {}
            }
        }
    }

    fn set_vips(&mut self, service: &Arc<crate::service::Service>, is_new: bool) {
        for vip in &service.vips {
            if is_new {
                let next = &self.next;
                let pod = next.by_address.get(vip);
                let other = next.by_vip.get(vip);
                let other = other
                    .filter(|other| (&other.namespace, &other.name) != (&service.namespace, &service.name));
                let problem = match (unusable(*vip), other, pod) {
                    (Some(problem), ..) => Some(format!("{vip} {problem}")),
                    (None, Some(other), _) => Some(format!(
                        "{vip} is also the address of Service {}/{}",
                        other.namespace, other.name
                    )),
                    (None, None, Some(pod)) => Some(format!(
                        "{vip} is also an address of Pod {}/{}",
                        pod.namespace, pod.name
                    )),
                    (None, None, None) => None,
                };
                let object = next
                    .sources
                    .services
                    .get(&service.namespace)
                    .and_then(|services| services.get(&service.name));
                if let (Some(problem), Some(object)) = (problem, object) {
                    self.errors
                        .push(ObjectError::new(&object.meta.object, "spec.clusterIPs", problem));
                    continue;
                }
            }
            self.next.by_vip.insert(*vip, service.clone());
        }
    }

    fn scope_policies(&mut self) {
        let next = &mut self.next;
        for namespace in &self.authorization {
            let policies = of_namespace(&next.policies, |policy| (*policy.name.namespace).cmp(namespace));
            next.scopes.set_authorization(namespace, policies);
        }
        for namespace in &self.authentication {
            let policies = of_namespace(&next.peer_authentications, |policy| {
                (*policy.meta.object.namespace).cmp(namespace)
            });
            next.scopes.set_authentication(namespace, policies);
        }
    }

    /// Finds the policies anew of this node's workloads that changed, or whose policies did.
    fn prepare(&mut self, before: &Mesh) {
        let next = &mut self.next;
        let changed =
            |namespace| self.authorization.contains(namespace) || self.authentication.contains(namespace);
        let touches_all = changed(&next.settings.root_namespace);
        let by_policy = next
            .prepared
            .keys()
            .filter_map(|uid| next.workloads.get(uid))
            .filter(|workload| touches_all || changed(&workload.namespace));
        let new = self
            .workloads
            .iter()
            .filter_map(|workload| next.workloads.get(&workload.uid))
            .filter(|workload| workload.node == next.settings.node_name);
        let shared = Shared::of(before.prepared.values());
        let prepared = prepare(&next.scopes, by_policy.chain(new), shared);
        next.prepared.extend(prepared);
    }
}

fn name_of(object: &crate::object::ObjectRef) -> Name {
    (object.namespace.clone(), object.name.clone())
}

/// Puts an item in its place in a list that is sorted by name, or takes it out.
fn set<T>(list: &mut Vec<Arc<T>>, name: &PolicyName, of: impl Fn(&T) -> PolicyName, item: Option<Arc<T>>) {
    match (list.binary_search_by(|other| of(other).cmp(name)), item) {
        (Ok(index), Some(item)) => {
            if let Some(slot) = list.get_mut(index) {
                *slot = item;
            }
        }
        (Ok(index), None) => {
            list.remove(index);
        }
        (Err(index), Some(item)) => list.insert(index, item),
        (Err(_), None) => {}
    }
}

/// The part of a list, sorted by namespace, that is of one namespace.
fn of_namespace<T>(list: &[Arc<T>], compare: impl Fn(&T) -> std::cmp::Ordering) -> &[Arc<T>] {
    let start = list.partition_point(|item| compare(item).is_lt());
    let end = list.partition_point(|item| compare(item).is_le());
    list.get(start..end).unwrap_or_default()
}
