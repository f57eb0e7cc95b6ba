//! A directory looked at without an agent: what is wrong with it, or what it says.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Serialize;
use tramline_core::mesh::{MODE_LABEL, MODE_NONE, MODE_TRAMLINE, Mesh, MeshSettings, NETNS};
use tramline_core::object::{ObjectError, Objects};
use tramline_core::workload::WorkloadUid;

use super::accept::{Accepted, accept};
use super::read::{self, Contents};
use crate::discover::manifest::{self, print};
use crate::discover::{ConfigError, ConfigErrors};

/// What `tramline config validate` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// Whether an agent would take the directory.
    pub valid: bool,
    /// How many files were read.
    pub files: usize,
    /// How many objects there are of each kind; none where something is wrong.
    pub objects: BTreeMap<String, usize>,
    /// Everything that is wrong.
    pub errors: Vec<ConfigError>,
    /// What is taken and may not be what its author meant: policies that are not enforced as they are written, pods that are said to be
    /// on a node's path and that nothing enrols.
    pub warnings: Vec<ConfigError>,
}

/// What an agent of the node would say to a directory; with an empty node name, what any of the nodes' agents would.
pub fn validate(dir: &Path, settings: &MeshSettings) -> Validation {
    let mut validation = Validation {
        valid: false,
        files: 0,
        objects: BTreeMap::new(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let read = read::directory(dir).and_then(|contents| {
        validation.files = contents.files().count();
        let accepted = accept(&contents, settings, None)?;
        Ok((accepted, contents))
    });
    match read {
        Ok((Accepted { parsed, mesh }, contents)) => {
            validation.valid = true;
            let objects = parsed.objects();
            validation.objects = counted(&objects);
            validation.warnings = warnings(&mesh, &objects, &contents);
        }
        Err(errors) => validation.errors = errors.errors().to_vec(),
    }
    validation
}

/// A directory's objects as one `List`.
///
/// # Errors
/// Everything that is wrong with the directory.
pub fn print(dir: &Path, settings: &MeshSettings) -> Result<serde_json::Value, ConfigErrors> {
    let accepted = accept(&read::directory(dir)?, settings, None)?;
    Ok(print::list(&accepted.parsed.objects()))
}

fn counted(objects: &Objects) -> BTreeMap<String, usize> {
    let counts = [
        ("Namespace", objects.namespaces.len()),
        ("Node", objects.nodes.len()),
        ("Pod", objects.pods.len()),
        ("Service", objects.services.len()),
        ("EndpointSlice", objects.endpoint_slices.len()),
        ("ServiceAccount", objects.service_accounts.len()),
        ("PeerAuthentication", objects.peer_authentications.len()),
        ("AuthorizationPolicy", objects.authorization_policies.len()),
    ];
    let there = counts.into_iter().filter(|(_, count)| *count > 0);
    there.map(|(kind, count)| (kind.to_owned(), count)).collect()
}

fn warnings(mesh: &Mesh, objects: &Objects, contents: &Contents) -> Vec<ConfigError> {
    let mut warnings: Vec<ConfigError> = outside(mesh, objects).map(ConfigError::from).collect();
    for (policy, status) in mesh.policies().zip(mesh.policy_statuses()) {
        if status.accepted {
            continue;
        }
        for condition in status.conditions {
            let said = format!("{} ({})", condition.message, condition.reason.as_str());
            warnings.push(ObjectError::new(&policy.meta.object, condition.field, said).into());
        }
    }
    manifest::locate(&mut warnings, |name| contents.get(name));
    warnings.sort();
    warnings
}

/// Pods that say where their network namespace is, and that nothing enrols. A label of their own, whatever it says, is their last word.
fn outside(mesh: &Mesh, objects: &Objects) -> impl Iterator<Item = ObjectError> {
    let enrolled: HashSet<&WorkloadUid> = mesh
        .workloads()
        .filter(|workload| workload.enrolled)
        .map(|workload| &workload.uid)
        .collect();
    let outside = objects.pods.iter().filter(move |pod| {
        pod.meta.annotations.contains_key(NETNS)
            && !pod.meta.labels.contains_key(MODE_LABEL)
            && !pod.ended
            && !enrolled.contains(&pod.uid())
    });
    outside.map(|pod| {
        let problem = if pod.host_network {
            "has no effect: a pod with hostNetwork is never enrolled".to_owned()
        } else {
            format!(
                "has no effect: nothing enrols this pod; label it or its namespace {MODE_LABEL}: {MODE_TRAMLINE}, or the pod \
                 {MODE_LABEL}: {MODE_NONE} if it is to stay out"
            )
        };
        ObjectError::new(&pod.meta.object, format!("metadata.annotations.{NETNS}"), problem)
    })
}
