//! What later changes need of the objects that a snapshot was made of: enough to make one Service anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Mesh;
use super::services::Backends;
use super::sharded::Sharded;
use crate::labels::{Labels, Selector};
use crate::object::{EndpointSlice, Objects, ServiceObject};
use crate::service::Service;
use crate::workload::Workload;

/// Namespace and name.
pub(super) type Name = (Arc<str>, Arc<str>);

type ByName<T> = Sharded<Arc<str>, Arc<BTreeMap<Arc<str>, Arc<T>>>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    pub(super) namespace_labels: Arc<HashMap<Arc<str>, Labels>>,
    /// By namespace, then by name of the pod.
    pub(super) workloads: ByName<Workload>,
    pub(super) services: ByName<ServiceObject>,
    /// By the Service they are of.
    slices: Sharded<Name, Arc<Vec<EndpointSlice>>>,
    /// The Services with such slices by the addresses in them.
    sliced: Sharded<IpAddr, Arc<BTreeSet<Name>>>,
}

impl Sources {
    pub(super) fn new(objects: Objects, workloads: &[Arc<Workload>]) -> Self {
        let namespace_labels = objects
            .namespaces
            .into_iter()
            .map(|namespace| (namespace.meta.object.name.clone(), namespace.meta.labels));
        let mut slices: HashMap<Name, Vec<EndpointSlice>> = HashMap::new();
        let mut sliced: HashMap<IpAddr, BTreeSet<Name>> = HashMap::new();
        for slice in objects.endpoint_slices {
            let name = (slice.meta.object.namespace.clone(), slice.service.clone());
            for address in slice.endpoints.iter().filter_map(|e| e.addresses.first()) {
                sliced
                    .entry(address.to_canonical())
                    .or_default()
                    .insert(name.clone());
            }
            slices.entry(name).or_default().push(slice);
        }
        let pods = workloads
            .iter()
            .map(|w| (w.namespace.clone(), w.name.clone(), w.clone()));
        let services = objects.services.into_iter().map(|service| {
            let object = service.meta.object.clone();
            (object.namespace, object.name, Arc::new(service))
        });
        Self {
            namespace_labels: Arc::new(namespace_labels.collect()),
            workloads: by_name(pods),
            services: by_name(services),
            slices: slices
                .into_iter()
                .map(|(name, slices)| (name, Arc::new(slices)))
                .collect(),
            sliced: sliced
                .into_iter()
                .map(|(address, names)| (address, Arc::new(names)))
                .collect(),
        }
    }

    pub(super) fn workload(&self, (namespace, name): &Name) -> Option<&Arc<Workload>> {
        self.workloads.get(namespace)?.get(name)
    }

    /// The Services whose endpoints depend on a workload, as it is or was.
    pub(super) fn services_of<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = Name> + 'a {
        let selects = |service: &ServiceObject| {
            Selector::new(service.selector.clone()).is_some_and(|selector| selector.matches(&workload.labels))
        };
        let selecting = self
            .services
            .get(&workload.namespace)
            .into_iter()
            .flat_map(|services| services.iter())
            .filter(move |(_, service)| selects(service))
            .map(|(name, _)| (workload.namespace.clone(), name.clone()));
        let sliced = workload
            .addresses
            .iter()
            .filter_map(|address| self.sliced.get(address))
            .flat_map(|names| names.iter().cloned());
        selecting.chain(sliced)
    }
}

fn by_name<T>(items: impl Iterator<Item = (Arc<str>, Arc<str>, Arc<T>)>) -> ByName<T> {
    let mut namespaces: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<T>>> = HashMap::new();
    for (namespace, name, item) in items {
        namespaces.entry(namespace).or_default().insert(name, item);
    }
    namespaces
        .into_iter()
        .map(|(namespace, items)| (namespace, Arc::new(items)))
        .collect()
}

/// Puts an item under its name, or takes it out.
pub(super) fn set_by_name<T>(map: &mut ByName<T>, (namespace, name): &Name, item: Option<Arc<T>>) {
    let mut items = map.get(namespace).cloned().unwrap_or_default();
    match item {
        Some(item) => Arc::make_mut(&mut items).insert(name.clone(), item),
        None => Arc::make_mut(&mut items).remove(name),
    };
    map.insert(namespace.clone(), items);
}

impl Mesh {
    /// A Service as its object and the workloads of this snapshot make it; `None` where there is no such object.
    pub(super) fn made_service(&self, name: &Name) -> Option<Service> {
        let object = self.sources.services.get(&name.0)?.get(&name.1)?;
        let workloads = self.sources.workloads.get(&name.0);
        let workloads = workloads.map(|workloads| workloads.values().cloned().collect());
        let slices = self.sources.slices.get(name);
        let backends = Backends {
            by_namespace: workloads
                .map(|workloads| (name.0.clone(), workloads))
                .into_iter()
                .collect(),
            by_address: &self.by_address,
            zones: &self.zones,
            slices: slices
                .map(|slices| (name.clone(), slices.iter().collect()))
                .into_iter()
                .collect(),
        };
        Some(backends.service(object))
    }
}
