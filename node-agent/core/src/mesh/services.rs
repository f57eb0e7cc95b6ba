//! Service objects become routable Services: endpoints from slices, or from the selector where no slice exists.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::sharded::Sharded;
use crate::labels::Selector;
use crate::object::{EndpointSlice, ServiceObject, TargetPort};
use crate::service::{Endpoint, Hints, Readiness, Service, ServicePort};
use crate::workload::Workload;

/// Cluster domain of Service host names; nothing resolves by it, it names Services in telemetry.
const CLUSTER_DOMAIN: &str = "svc.cluster.local";

/// What endpoints are made from.
pub(super) struct Backends<'a> {
    pub(super) by_namespace: HashMap<Arc<str>, Vec<Arc<Workload>>>,
    pub(super) by_address: &'a Sharded<IpAddr, Arc<Workload>>,
    pub(super) zones: &'a HashMap<Arc<str>, Arc<str>>,
    pub(super) slices: HashMap<(Arc<str>, Arc<str>), Vec<&'a EndpointSlice>>,
}

impl Backends<'_> {
    /// The Service with its endpoints.
    pub(super) fn service(&self, object: &ServiceObject) -> Service {
        let (namespace, name) = (&object.meta.object.namespace, &object.meta.object.name);
        let endpoints = match self.slices.get(&(namespace.clone(), name.clone())) {
            Some(slices) => self.endpoints_by_slices(object, slices),
            None => self.endpoints_by_selector(object),
        };
        Service {
            name: name.clone(),
            namespace: namespace.clone(),
            hostname: format!("{name}.{namespace}.{CLUSTER_DOMAIN}").into(),
            vips: object.vips.iter().map(IpAddr::to_canonical).collect(),
            ports: object
                .ports
                .iter()
                .map(|port| ServicePort {
                    name: port.name.clone(),
                    port: port.port,
                    app_protocol: port.app_protocol.clone(),
                })
                .collect(),
            node_local: object.node_local,
            session_affinity: object.session_affinity,
            distribution: object.distribution,
            endpoints,
        }
    }

    fn endpoints_by_slices(&self, object: &ServiceObject, slices: &[&EndpointSlice]) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut index: HashMap<IpAddr, usize> = HashMap::new();
        for slice in slices {
            let ports: Vec<(u16, u16)> = object
                .ports
                .iter()
                .filter_map(|port| {
                    let target = slice.ports.iter().find(|target| target.name == port.name)?;
                    Some((port.port, target.port))
                })
                .collect();
            // Kubernetes: consumers use the first address, the others are deprecated alternatives.
            for (endpoint, address) in slice
                .endpoints
                .iter()
                .filter_map(|e| Some((e, e.addresses.first()?)))
            {
                let address = address.to_canonical();
                let workload = self.by_address.get(&address);
                let node = endpoint
                    .node
                    .clone()
                    .or_else(|| workload.map(|workload| workload.node.clone()));
                let made = Endpoint {
                    address,
                    workload: workload.map(|workload| workload.uid.clone()),
                    zone: endpoint.zone.clone().or_else(|| self.zone(node.as_ref())),
                    node,
                    hints: endpoint.hints.clone(),
                    readiness: published(endpoint.readiness, object),
                    ports: ports.clone(),
                };
                // While slices are rearranged an endpoint may stand in two of them; ready in one is ready.
                match index.get(&address).and_then(|at| endpoints.get_mut(*at)) {
                    Some(known) => {
                        known.readiness = known.readiness.max(made.readiness);
                        known.hints.zones.extend(made.hints.zones);
                        known.hints.nodes.extend(made.hints.nodes);
                        let new = made
                            .ports
                            .into_iter()
                            .filter(|(port, _)| known.target_port(*port).is_none());
                        let new: Vec<_> = new.collect();
                        known.ports.extend(new);
                    }
                    None => {
                        index.insert(address, endpoints.len());
                        endpoints.push(made);
                    }
                }
            }
        }
        endpoints
    }

    fn endpoints_by_selector(&self, object: &ServiceObject) -> Vec<Endpoint> {
        let Some(selector) = Selector::new(object.selector.clone()) else {
            return Vec::new();
        };
        let workloads = self
            .by_namespace
            .get(&object.meta.object.namespace)
            .into_iter()
            .flatten();
        let mut endpoints = Vec::new();
        for workload in workloads.filter(|workload| selector.matches(&workload.labels)) {
            let ports: Vec<(u16, u16)> = object
                .ports
                .iter()
                .filter_map(|port| {
                    let target = match &port.target {
                        TargetPort::Number(number) => Some(*number),
                        TargetPort::Name(name) => workload.named_port(name),
                    };
                    Some((port.port, target?))
                })
                .collect();
            endpoints.extend(workload.addresses.iter().map(|address| Endpoint {
                address: *address,
                // A pod in the node's network namespace shares its address with others: no workload to speak of.
                workload: (!workload.host_network).then(|| workload.uid.clone()),
                node: Some(workload.node.clone()),
                zone: self.zone(Some(&workload.node)),
                hints: Hints::default(),
                // As the control plane writes a pod into a slice.
                readiness: published(
                    Readiness::of_conditions(
                        Some(workload.ready),
                        Some(workload.serving),
                        Some(workload.terminating),
                    ),
                    object,
                ),
                ports: ports.clone(),
            }));
        }
        endpoints
    }

    fn zone(&self, node: Option<&Arc<str>>) -> Option<Arc<str>> {
        self.zones.get(node?).cloned()
    }
}

fn published(readiness: Readiness, object: &ServiceObject) -> Readiness {
    if object.publish_not_ready {
        Readiness::Ready
    } else {
        readiness
    }
}
