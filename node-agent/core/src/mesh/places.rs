//! Which zone a node is in.

use std::collections::HashMap;
use std::sync::Arc;

use crate::object::Objects;

/// The label the cloud's controller puts on a Node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Node → zone. A Node's label has the last word; without a Node object the zone that EndpointSlices give for their
/// endpoints on that node does, the first of them by name where they differ.
pub(super) fn zones(objects: &Objects) -> HashMap<Arc<str>, Arc<str>> {
    let mut zones: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    for endpoint in objects.endpoint_slices.iter().flat_map(|slice| &slice.endpoints) {
        let (Some(node), Some(zone)) = (&endpoint.node, &endpoint.zone) else {
            continue;
        };
        zones
            .entry(node.clone())
            .and_modify(|known| {
                if zone < known {
                    known.clone_from(zone);
                }
            })
            .or_insert_with(|| zone.clone());
    }
    for node in &objects.nodes {
        let name = &node.meta.object.name;
        match node.meta.labels.get(ZONE_LABEL).filter(|zone| !zone.is_empty()) {
            Some(zone) => zones.insert(name.clone(), zone.clone()),
            None => None,
        };
    }
    zones
}
