//! Where programs' links and maps are pinned, so that capture outlives the agent: without an agent the pods'
//! connections fail, they do not bypass the mesh.
//!
//! `<bpffs>/tramline/<instance>/v<layout>/{maps/NAME, links/HOOK, pods/COOKIE}`

use super::KernelError;
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tramline_common::{LAYOUT_VERSION, PodId};

/// The directory of one agent's pins.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Makes the directories, readable by root only.
    pub(crate) fn create(bpffs: &Path, instance: &str) -> Result<Self, KernelError> {
        let root = bpffs
            .join("tramline")
            .join(instance)
            .join(format!("v{LAYOUT_VERSION}"));
        for dir in ["maps", "links", "pods"] {
            let path = root.join(dir);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| KernelError::Pins { path, source })?;
        }
        Ok(Self { root })
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(crate) fn link(&self, hook: &str) -> PathBuf {
        self.root.join("links").join(hook)
    }

    pub(crate) fn pod(&self, pod: PodId) -> PathBuf {
        self.root.join("pods").join(format!("{pod:016x}"))
    }

    /// Pods whose namespace an agent steered, this one or one before it.
    pub(crate) fn pods(&self) -> Result<Vec<PodId>, KernelError> {
        let path = self.root.join("pods");
        let read = || -> io::Result<Vec<PodId>> {
            fs::read_dir(&path)?
                .map(|entry| Ok(entry?.file_name()))
                .filter_map(|name: io::Result<_>| match name {
                    Ok(name) => PodId::from_str_radix(&name.to_string_lossy(), 16).ok().map(Ok),
                    Err(error) => Some(Err(error)),
                })
                .collect()
        };
        read().map_err(|source| KernelError::Pins {
            path: path.clone(),
            source,
        })
    }

    /// Removes a pin; none there is fine.
    pub(crate) fn remove(path: &Path) -> Result<(), KernelError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KernelError::Pins {
                path: path.to_owned(),
                source: error,
            }),
            _ => Ok(()),
        }
    }
}
