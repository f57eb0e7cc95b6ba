//! From objects to a snapshot, with every error on the way.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::net::IpAddr;
use std::sync::Arc;

use super::policies::{Scopes, Shared, check_peer_authentication, closed_by_targets, prepare};
use super::services::Backends;
use super::sharded::Sharded;
use super::sources::Sources;
use super::{Mesh, MeshSettings, places, workloads};
use crate::authz::{AuthorizationPolicy, ConditionMatch, MatchList, PolicyName, StringMatch};
use crate::identity::{is_label, is_subdomain};
use crate::object::{Kind, Meta, ObjectError, ObjectRef, Objects, Pod, ServiceObject};
use crate::service::Service;
use crate::workload::{Workload, WorkloadUid};

type Errors = Vec<ObjectError>;

pub(super) fn build(mut objects: Objects, settings: &MeshSettings) -> Result<Mesh, Errors> {
    let mut errors = Errors::new();
    check_names(&objects, &mut errors);
    check_ports(&objects.services, &mut errors);

    let workloads = build_workloads(&objects, settings, &mut errors);
    let by_address = index_addresses(&workloads, &mut errors);
    let zones = places::zones(&objects);
    let services = build_services(&objects, &workloads, &by_address, &zones);
    let by_vip = index_vips(&services, &by_address, &objects, &mut errors);

    for policy in &objects.peer_authentications {
        check_peer_authentication(policy, settings, &mut errors);
    }
    let mut policies: Vec<_> = std::mem::take(&mut objects.authorization_policies)
        .into_iter()
        .map(|policy| Arc::new(in_trust_domains(policy, settings)))
        .collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    let mut peer_authentications: Vec<_> = std::mem::take(&mut objects.peer_authentications)
        .into_iter()
        .map(Arc::new)
        .collect();
    peer_authentications.sort_by_cached_key(|policy| PolicyName::of(&policy.meta));

    if !errors.is_empty() {
        errors.sort();
        errors.dedup();
        return Err(errors);
    }
    let by_address = workloads_by_address(&by_address);
    let scopes = Scopes::new(&policies, &peer_authentications, settings);
    let list: Vec<_> = workloads.into_iter().map(|(_, workload)| workload).collect();
    let local = list.iter().filter(|workload| workload.node == settings.node_name);
    let prepared = prepare(&scopes, local, Shared::default());
    let sources = Sources::new(objects, &list);
    let closed = closed_by_targets(&policies, &services);
    Ok(Mesh {
        generation: 0,
        settings: settings.clone(),
        workloads: list.iter().map(|w| (w.uid.clone(), w.clone())).collect(),
        by_address,
        services: Arc::new(services),
        by_vip: by_vip.into_iter().collect(),
        zones: Arc::new(zones),
        policies,
        peer_authentications,
        scopes,
        prepared,
        closed,
        sources,
    })
}

fn metas(objects: &Objects) -> impl Iterator<Item = &Meta> {
    let Objects {
        namespaces,
        nodes,
        pods,
        services,
        endpoint_slices,
        service_accounts,
        peer_authentications,
        authorization_policies,
    } = objects;
    namespaces
        .iter()
        .map(|o| &o.meta)
        .chain(nodes.iter().map(|o| &o.meta))
        .chain(pods.iter().map(|o| &o.meta))
        .chain(services.iter().map(|o| &o.meta))
        .chain(endpoint_slices.iter().map(|o| &o.meta))
        .chain(service_accounts.iter().map(|o| &o.meta))
        .chain(peer_authentications.iter().map(|o| &o.meta))
        .chain(authorization_policies.iter().map(|o| &o.meta))
}

fn check_names(objects: &Objects, errors: &mut Errors) {
    let mut seen: HashMap<(Kind, &str, &str), &ObjectRef> = HashMap::new();
    for object in metas(objects).map(|meta| &meta.object) {
        check_name(object, errors);
        match seen.entry((object.kind, &object.namespace, &object.name)) {
            Slot::Occupied(first) => {
                let problem = format!("defined twice; the other one is {}", first.get());
                errors.push(ObjectError::new(object, "metadata.name", problem));
            }
            Slot::Vacant(slot) => {
                slot.insert(object);
            }
        }
    }
}

pub(super) fn check_name(object: &ObjectRef, errors: &mut Errors) {
    let label = |text: &str| is_label(text);
    if !matches!(object.kind, Kind::Namespace | Kind::Node) && !label(&object.namespace) {
        let problem = format!(
            "`{}` is not a namespace name (a-z, 0-9, `-`, at most 63 characters)",
            object.namespace
        );
        errors.push(ObjectError::new(object, "metadata.namespace", problem));
    }
    let fits = if object.kind == Kind::Namespace {
        label(&object.name)
    } else {
        is_subdomain(&object.name)
    };
    if !fits {
        errors.push(ObjectError::new(
            object,
            "metadata.name",
            format!(
                "`{}` is not a name (a-z, 0-9, `-`, `.`, not at the ends)",
                object.name
            ),
        ));
    }
}

/// Two ports of one number would be two answers; slices find a port by its name.
pub(super) fn check_ports(services: &[ServiceObject], errors: &mut Errors) {
    for service in services {
        for (index, port) in service.ports.iter().enumerate() {
            let earlier = service.ports.get(..index).unwrap_or_default();
            let mut refuse = |field: &str, problem: String| {
                let field = format!("spec.ports[{index}].{field}");
                errors.push(ObjectError::new(&service.meta.object, field, problem));
            };
            if earlier.iter().any(|other| other.port == port.port) {
                refuse("port", format!("{} is given twice", port.port));
            }
            if earlier.iter().any(|other| other.name == port.name) {
                refuse(
                    "name",
                    format!(
                        "`{}` is given twice; each of several ports needs a name of its own",
                        port.name
                    ),
                );
            }
        }
    }
}

type Located<'a> = (&'a ObjectRef, Arc<Workload>);

fn build_workloads<'a>(
    objects: &'a Objects,
    settings: &MeshSettings,
    errors: &mut Errors,
) -> Vec<(ObjectRef, Arc<Workload>)> {
    let labels = workloads::namespace_labels(&objects.namespaces);
    let mut by_uid: HashMap<WorkloadUid, &'a Pod> = HashMap::new();
    let mut by_netns: HashMap<(Arc<str>, Arc<str>), &'a Pod> = HashMap::new();
    let mut built = Vec::new();
    for pod in objects.pods.iter().filter(|pod| !pod.ended) {
        let labels = labels.get(&pod.meta.object.namespace).copied();
        let Some(workload) = workloads::workload(pod, labels, settings, errors) else {
            continue;
        };
        if let Some(first) = by_uid.insert(workload.uid.clone(), pod)
            // That a pod without a UID of its own is defined twice is said already.
            && (pod.meta.uid.is_some() || !is_named_as(&first.meta.object, &pod.meta.object))
        {
            errors.push(workloads::same_uid(pod, &first.meta.object.to_string()));
        }
        if let Some(netns) = &workload.netns
            && let Some(first) = by_netns.insert((pod.node.clone(), netns.clone()), pod)
        {
            let problem = format!("{} has the same network namespace", first.meta.object);
            errors.push(ObjectError::new(
                &pod.meta.object,
                "metadata.annotations.tramline.dev/netns",
                problem,
            ));
        }
        built.push((pod.meta.object.clone(), Arc::new(workload)));
    }
    built
}

fn is_named_as(one: &ObjectRef, other: &ObjectRef) -> bool {
    (&one.namespace, &one.name) == (&other.namespace, &other.name)
}

fn index_addresses<'a>(
    workloads: &'a [(ObjectRef, Arc<Workload>)],
    errors: &mut Errors,
) -> HashMap<IpAddr, Located<'a>> {
    let mut index: HashMap<IpAddr, Located<'a>> = HashMap::new();
    for (object, workload) in workloads.iter().filter(|(_, workload)| !workload.host_network) {
        for address in &workload.addresses {
            if let Some(problem) = unusable(*address) {
                errors.push(ObjectError::new(
                    object,
                    "status.podIPs",
                    format!("{address} {problem}"),
                ));
                continue;
            }
            match index.get(address) {
                Some((other, _)) if *other == object => {}
                Some((other, _)) => {
                    let problem = format!("{address} is also an address of {other}");
                    errors.push(ObjectError::new(object, "status.podIPs", problem));
                }
                None => {
                    index.insert(*address, (object, workload.clone()));
                }
            }
        }
    }
    index
}

fn workloads_by_address(index: &HashMap<IpAddr, Located<'_>>) -> Sharded<IpAddr, Arc<Workload>> {
    index
        .iter()
        .map(|(address, (_, workload))| (*address, workload.clone()))
        .collect()
}

/// Capture never touches these, and a policy by address would lie about them.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_loopback() {
        Some("is a loopback address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else {
        None
    }
}

fn build_services(
    objects: &Objects,
    workloads: &[(ObjectRef, Arc<Workload>)],
    by_address: &HashMap<IpAddr, Located<'_>>,
    zones: &HashMap<Arc<str>, Arc<str>>,
) -> Vec<Arc<Service>> {
    let by_address = workloads_by_address(by_address);
    let mut backends = Backends {
        by_namespace: HashMap::new(),
        by_address: &by_address,
        zones,
        slices: HashMap::new(),
    };
    for (_, workload) in workloads {
        backends
            .by_namespace
            .entry(workload.namespace.clone())
            .or_default()
            .push(workload.clone());
    }
    for slice in &objects.endpoint_slices {
        let key = (slice.meta.object.namespace.clone(), slice.service.clone());
        backends.slices.entry(key).or_default().push(slice);
    }
    let mut services: Vec<_> = objects
        .services
        .iter()
        .map(|object| Arc::new(backends.service(object)))
        .collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    services
}

fn index_vips(
    services: &[Arc<Service>],
    by_address: &HashMap<IpAddr, Located<'_>>,
    objects: &Objects,
    errors: &mut Errors,
) -> HashMap<IpAddr, Arc<Service>> {
    let object_of = |service: &Service| {
        objects
            .services
            .iter()
            .map(|object| &object.meta.object)
            .find(|object| object.namespace == service.namespace && object.name == service.name)
    };
    let mut index: HashMap<IpAddr, Arc<Service>> = HashMap::new();
    for service in services {
        for vip in &service.vips {
            let problem = match (index.get(vip), by_address.get(vip)) {
                _ if unusable(*vip).is_some() => unusable(*vip).map(|problem| format!("{vip} {problem}")),
                (Some(other), _) if other.namespace == service.namespace && other.name == service.name => {
                    None
                }
                (Some(other), _) => Some(format!(
                    "{vip} is also the address of Service {}/{}",
                    other.namespace, other.name
                )),
                (None, Some((pod, _))) => Some(format!("{vip} is also an address of {pod}")),
                (None, None) => None,
            };
            match problem.and_then(|problem| Some((object_of(service)?, problem))) {
                Some((object, problem)) => errors.push(ObjectError::new(object, "spec.clusterIPs", problem)),
                None => {
                    index.insert(*vip, service.clone());
                }
            }
        }
    }
    index
}

/// A policy with the names that it stands for in this mesh.
pub(super) fn in_trust_domains(
    mut policy: AuthorizationPolicy,
    settings: &MeshSettings,
) -> AuthorizationPolicy {
    let replace = |list: &mut MatchList<StringMatch>| {
        for patterns in [&mut list.any, &mut list.none] {
            StringMatch::expand(patterns, &settings.trust_domains);
        }
    };
    for rule in &mut policy.rules {
        for source in &mut rule.from {
            replace(&mut source.principals);
            replace(&mut source.trust_domains);
        }
        for condition in &mut rule.when {
            if let ConditionMatch::SourcePrincipal(list) | ConditionMatch::SourceTrustDomain(list) =
                &mut condition.matches
            {
                replace(list);
            }
        }
    }
    policy
}
