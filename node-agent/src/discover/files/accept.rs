//! From what a directory holds to a snapshot, or to everything that is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::object::{ObjectError, ObjectRef, Objects};
use tramline_core::workload::WorkloadUid;

use super::difference;
use super::read::Contents;
use crate::discover::manifest::{self, Format};
use crate::discover::{ConfigError, ConfigErrors};

/// A configuration that was taken.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The objects, as they were understood.
    pub objects: Arc<Objects>,
    /// The snapshot they make.
    pub mesh: Arc<Mesh>,
}

/// Takes a directory as a whole or not at all; as changes of what was taken before, where that is enough.
pub(super) fn accept(
    contents: &Contents,
    settings: &MeshSettings,
    before: Option<&Accepted>,
) -> Result<Accepted, ConfigErrors> {
    let (mut objects, mut errors) = (Objects::default(), Vec::new());
    for (name, bytes) in contents.files() {
        if let Some(format) = Format::of(name) {
            manifest::parse(bytes, name, format, &mut objects, &mut errors);
        }
    }
    let pods = pods(&objects);
    let objects = Arc::new(objects);
    // Built even if parsing failed: one run then shows what is wrong between objects too. What follows only from
    // a missing object cannot be told apart, so the core checks nothing of that kind.
    match make(&objects, settings, before) {
        Ok(mesh) => {
            errors.extend(unbound(&mesh, &pods).map(ConfigError::from));
            if errors.is_empty() {
                let mesh = Arc::new(mesh);
                return Ok(Accepted { objects, mesh });
            }
        }
        Err(more) => errors.extend(more.into_iter().map(ConfigError::from)),
    }
    manifest::locate(&mut errors, |name| contents.get(name));
    Err(ConfigErrors::new(errors))
}

/// A whole build has the last word on what is wrong, and names where the other object of a conflict is written.
fn make(
    objects: &Objects,
    settings: &MeshSettings,
    before: Option<&Accepted>,
) -> Result<Mesh, Vec<ObjectError>> {
    let changed = before.and_then(|before| {
        let changes = difference::changes(&before.objects, objects)?;
        before.mesh.apply(changes).ok()
    });
    match changed {
        Some(mesh) => Ok(mesh),
        None => Mesh::build(objects.clone(), settings),
    }
}

fn pods(objects: &Objects) -> HashMap<WorkloadUid, ObjectRef> {
    objects
        .pods
        .iter()
        .map(|pod| (pod.uid(), pod.meta.object.clone()))
        .collect()
}

/// Without a path nobody could find the network namespace of a pod: no kubelet and no container runtime says it here.
/// Without a node of its own, the agent of every pod's node is asked.
fn unbound<'a>(
    mesh: &'a Mesh,
    pods: &'a HashMap<WorkloadUid, ObjectRef>,
) -> impl Iterator<Item = ObjectError> + 'a {
    let node = &mesh.settings().node_name;
    let asked = move |at: &str| *at == **node || (node.is_empty() && !at.is_empty());
    mesh.workloads()
        .filter(move |workload| workload.enrolled && asked(&workload.node))
        .filter(|workload| workload.netns.is_none())
        .filter_map(|workload| pods.get(&workload.uid))
        .map(|object| {
            let problem = "is required for an enrolled pod of this node: the path of its network namespace, \
                           such as /run/netns/NAME";
            ObjectError::new(object, "metadata.annotations.tramline.dev/netns", problem)
        })
}
