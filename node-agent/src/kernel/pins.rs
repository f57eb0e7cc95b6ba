//! Where programs' links and maps are pinned, so that capture outlives the agent: without an agent the pods'
//! connections fail, they do not bypass the mesh.
//!
//! `<bpffs>/tramline/<instance>/v<layout>/{maps/NAME, links/HOOK-CGROUP, pods/COOKIE}`

use super::KernelError;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tramline_common::{LAYOUT_VERSION, PodId};

/// The directory of one agent's pins, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    of_instance: PathBuf,
    instance: String,
    /// None while a successor has the pins.
    lock: Mutex<Option<Flock<File>>>,
}

impl Pins {
    /// Makes the directories, readable by root only; fails if another process has them.
    pub(crate) fn create(bpffs: &Path, instance: &str) -> Result<Self, KernelError> {
        let of_instance = bpffs.join("tramline").join(instance);
        let root = of_instance.join(format!("v{LAYOUT_VERSION}"));
        for dir in ["maps", "links", "pods"] {
            let path = root.join(dir);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| KernelError::Pins { path, source })?;
        }
        let lock = lock(&of_instance, instance)?;
        Ok(Self {
            root,
            of_instance,
            instance: instance.to_owned(),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Leaves the pins to another process.
    pub(crate) fn unlock(&self) {
        self.held().take();
    }

    /// Takes the pins back.
    ///
    /// # Errors
    /// [`KernelError::InUse`] while another process has them.
    pub(crate) fn relock(&self) -> Result<(), KernelError> {
        let mut held = self.held();
        if held.is_none() {
            *held = Some(lock(&self.of_instance, &self.instance)?);
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Option<Flock<File>>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Named by the cgroup too: an agent that is given another cgroup must not go on with the link to the first.
    pub(crate) fn link(&self, hook: &str, cgroup: u64) -> PathBuf {
        self.root.join("links").join(format!("{hook}-{cgroup}"))
    }

    /// Removes, and by that detaches, what is attached for `hook` at any cgroup but `keep`.
    pub(crate) fn remove_links(&self, hook: &str, keep: Option<u64>) -> Result<(), KernelError> {
        let directory = self.root.join("links");
        let keep = keep.map(|cgroup| self.link(hook, cgroup));
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let of = name.split_once('-').map_or(&*name, |(of, _)| of);
                if of == hook && Some(&path) != keep.as_ref() {
                    fs::remove_file(&path)?;
                }
            }
            Ok(())
        };
        remove().map_err(|source| KernelError::Pins {
            path: directory.clone(),
            source,
        })
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

/// Two agents on the same pins would replace each other's programs and listeners. The lock ends with its process,
/// however that ends.
fn lock(directory: &Path, instance: &str) -> Result<Flock<File>, KernelError> {
    let failed = |source| KernelError::Pins {
        path: directory.to_owned(),
        source,
    };
    let directory = File::open(directory).map_err(failed)?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => KernelError::InUse(instance.to_owned()),
        errno => failed(errno.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::{KernelError, Pins};

    #[test]
    fn two_agents_cannot_share_an_instance() {
        let bpffs = std::env::temp_dir().join(format!("tramline-pins-{}", std::process::id()));
        let first = Pins::create(&bpffs, "a").unwrap();
        assert!(matches!(Pins::create(&bpffs, "a"), Err(KernelError::InUse(_))));
        Pins::create(&bpffs, "b").unwrap();
        first.unlock();
        let second = Pins::create(&bpffs, "a").unwrap();
        assert!(matches!(first.relock(), Err(KernelError::InUse(_))));
        drop(second);
        first.relock().unwrap();
        drop(first);
        Pins::create(&bpffs, "a").unwrap();
        std::fs::remove_dir_all(&bpffs).unwrap();
    }
}
