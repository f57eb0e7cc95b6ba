//! The files source: one directory of manifests, taken as a whole or not at all.

mod read;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::object::{ObjectError, ObjectRef, Objects};
use tramline_core::workload::WorkloadUid;

use self::read::Contents;
use super::manifest::{self, Format};
use super::{ConfigError, ConfigErrors};

/// How long the directory has to stay the same before it is read: writers take a moment.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often the directory is looked at without being told: inotify says nothing of symbolic links' targets.
const POLL: Duration = Duration::from_secs(5);

/// One reading of the directory.
pub type Update = Result<Arc<Mesh>, ConfigErrors>;

/// A directory of manifests (`*.yaml`, `*.yml`, `*.json`; subdirectories and hidden files are not read).
#[derive(Debug)]
pub struct FilesSource {
    dir: PathBuf,
    settings: MeshSettings,
    generation: AtomicU64,
    debounce: Duration,
    poll: Duration,
}

impl FilesSource {
    /// A source that has read nothing yet.
    pub fn new(dir: impl Into<PathBuf>, settings: MeshSettings) -> Self {
        let (debounce, poll) = (DEBOUNCE, POLL);
        Self {
            dir: dir.into(),
            settings,
            generation: AtomicU64::new(0),
            debounce,
            poll,
        }
    }

    /// Sets how long the directory has to be quiet, and how often it is looked at without being told.
    #[must_use]
    pub fn with_timing(self, debounce: Duration, poll: Duration) -> Self {
        Self {
            debounce,
            poll,
            ..self
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the directory once. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// Everything that is wrong with any file or object.
    pub fn load_once(&self) -> Result<Mesh, ConfigErrors> {
        self.build(&read::directory(&self.dir)?)
    }

    /// Watches the directory until `cancel`. The first update is its present state; after that one for each change of
    /// contents. An error leaves the snapshot before it in force: the consumer keeps what it has.
    ///
    /// Must be called within a tokio runtime.
    pub fn watch(self, cancel: CancellationToken) -> mpsc::Receiver<Update> {
        watch::spawn(Arc::new(self), cancel)
    }

    fn build(&self, contents: &Contents) -> Result<Mesh, ConfigErrors> {
        let (mut objects, mut errors) = (Objects::default(), Vec::new());
        for (name, bytes) in contents.files() {
            if let Some(format) = Format::of(name) {
                manifest::parse(bytes, name, format, &mut objects, &mut errors);
            }
        }
        let pods = pods(&objects);
        // Built even if parsing failed: one run then shows what is wrong between objects too. What follows only from
        // a missing object cannot be told apart, so the core checks nothing of that kind.
        let built = Mesh::build(objects, &self.settings);
        match built {
            Ok(mesh) => {
                errors.extend(unbound(&mesh, &pods).map(ConfigError::from));
                if errors.is_empty() {
                    let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
                    return Ok(mesh.with_generation(generation));
                }
            }
            Err(more) => errors.extend(more.into_iter().map(ConfigError::from)),
        }
        Err(ConfigErrors::new(errors))
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
fn unbound<'a>(
    mesh: &'a Mesh,
    pods: &'a HashMap<WorkloadUid, ObjectRef>,
) -> impl Iterator<Item = ObjectError> + 'a {
    mesh.local_workloads()
        .filter(|workload| workload.netns.is_none())
        .filter_map(|workload| pods.get(&workload.uid))
        .map(|object| {
            let problem = "is required for an enrolled pod of this node: the path of its network namespace, \
                           such as /run/netns/NAME";
            ObjectError::new(object, "metadata.annotations.tramline.dev/netns", problem)
        })
}

#[cfg(test)]
mod tests;
