//! From what a directory holds to a snapshot, or to everything that is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::object::{ObjectError, ObjectRef};
use tramline_core::workload::WorkloadUid;

use super::parsed::Parsed;
use super::read::Contents;
use crate::discover::manifest;
use crate::discover::{ConfigError, ConfigErrors};

/// A configuration that was taken.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The objects, as they were understood.
    pub parsed: Arc<Parsed>,
    /// The snapshot they make.
    pub mesh: Arc<Mesh>,
}

/// Takes a directory as a whole or not at all; as changes of what was taken before, where that is enough.
pub(super) fn accept(
    contents: &Contents,
    settings: &MeshSettings,
    before: Option<&Accepted>,
) -> Result<Accepted, ConfigErrors> {
    let mut errors = Vec::new();
    let parsed = Parsed::of(contents, before.map(|before| &*before.parsed), &mut errors);
    // Built even if parsing failed: one run then shows what is wrong between objects too. What follows only from
    // a missing object cannot be told apart, so the core checks nothing of that kind.
    match make(&parsed, settings, before) {
        Ok(mesh) => {
            errors.extend(unbound(&mesh, &parsed).into_iter().map(ConfigError::from));
            if errors.is_empty() {
                let (mesh, parsed) = (Arc::new(mesh), Arc::new(parsed));
                return Ok(Accepted { parsed, mesh });
            }
        }
        Err(more) => errors.extend(more.into_iter().map(ConfigError::from)),
    }
    manifest::locate(&mut errors, |name| contents.get(name));
    Err(ConfigErrors::new(errors))
}

/// A whole build has the last word on what is wrong, and names where the other object of a conflict is written.
fn make(
    parsed: &Parsed,
    settings: &MeshSettings,
    before: Option<&Accepted>,
) -> Result<Mesh, Vec<ObjectError>> {
    let changed = before.and_then(|before| {
        let changes = parsed.changes_since(&before.parsed)?;
        before.mesh.apply(changes).ok()
    });
    match changed {
        Some(mesh) => Ok(mesh),
        None => Mesh::build(parsed.objects(), settings),
    }
}

/// Without a path nobody could find the network namespace of a pod: no kubelet and no container runtime says it here.
/// Without a node of its own, the agent of every pod's node is asked.
fn unbound(mesh: &Mesh, parsed: &Parsed) -> Vec<ObjectError> {
    let node = &mesh.settings().node_name;
    let asked = |at: &str| *at == **node || (node.is_empty() && !at.is_empty());
    let unbound: Vec<_> = mesh
        .workloads()
        .filter(|workload| workload.enrolled && asked(&workload.node) && workload.netns.is_none())
        .collect();
    if unbound.is_empty() {
        return Vec::new();
    }
    let objects = parsed.objects();
    let pods: HashMap<WorkloadUid, &ObjectRef> = objects
        .pods
        .iter()
        .map(|pod| (pod.uid(), &pod.meta.object))
        .collect();
    let named = unbound.iter().filter_map(|workload| pods.get(&workload.uid));
    let error = |object: &&ObjectRef| {
        let problem = "is required for an enrolled pod of this node: the path of its network namespace, \
                       such as /run/netns/NAME";
        ObjectError::new(object, "metadata.annotations.tramline.dev/netns", problem)
    };
    named.map(error).collect()
}
