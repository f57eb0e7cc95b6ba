//! Where programs' links and maps are pinned, so that capture outlives the agent: without an agent the pods'
//! connections fail, they do not bypass the mesh.
//!
//! `<bpffs>/tramline/<instance>/v<contract>/{maps/NAME[-LAYOUT], links/HOOK-CGROUP, pods/COOKIE}`
//!
//! Links have one path whatever reads which maps, so that they are always found and replaced in place. A map of the first
//! layout has no number in its name.

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
use tramline_common::{
    PodId,
    layout::{CONTRACT_VERSION, Pinned},
};

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
        let root = of_instance.join(format!("v{CONTRACT_VERSION}"));
        refuse_other_contracts(&of_instance, &root)?;
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

    /// Of a map in its layout.
    pub(crate) fn map(&self, map: &Pinned) -> PathBuf {
        match map.layout() {
            1 => self.unnumbered(map.name),
            layout => self.unnumbered(&format!("{}-{layout}", map.name)),
        }
    }

    /// Of a map that has the same layout for ever.
    pub(crate) fn unnumbered(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Every pin of a map, of whatever layout.
    pub(crate) fn maps(&self) -> Result<Vec<PathBuf>, KernelError> {
        self.list("maps")
    }

    /// Every pin of a link: the node's and the pods'.
    pub(crate) fn links(&self) -> Result<Vec<PathBuf>, KernelError> {
        let mut links = self.list("links")?;
        links.extend(self.list("pods")?);
        Ok(links)
    }

    fn list(&self, directory: &str) -> Result<Vec<PathBuf>, KernelError> {
        let path = self.root.join(directory);
        entries(&path).map_err(|source| KernelError::Pins { path, source })
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
        let names = self.list("pods")?.into_iter();
        let id = |path: PathBuf| PodId::from_str_radix(&path.file_name()?.to_string_lossy(), 16).ok();
        Ok(names.filter_map(id).collect())
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

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// Programs of another contract would run beside this agent's: each would capture, and neither know what the other does.
fn refuse_other_contracts(of_instance: &Path, own: &Path) -> Result<(), KernelError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KernelError::Pins { path, source }
    };
    let others = match entries(of_instance) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed(of_instance))?,
    };
    for other in others.into_iter().filter(|other| other != own) {
        for links in ["links", "pods"] {
            match entries(&other.join(links)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(none) if none.is_empty() => {}
                Ok(_) => return Err(KernelError::OtherContract { path: other }),
                Err(error) => return Err(failed(&other)(error)),
            }
        }
    }
    Ok(())
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
    fn programs_of_another_contract_are_not_run_beside() {
        let bpffs = tempfile::tempdir().unwrap();
        let other = bpffs.path().join("tramline/a/v999");
        std::fs::create_dir_all(other.join("links")).unwrap();
        // What was attached is gone: nothing to run beside.
        drop(Pins::create(bpffs.path(), "a").unwrap());
        std::fs::write(other.join("links/connect4-7"), "").unwrap();
        let refused = Pins::create(bpffs.path(), "a").unwrap_err();
        assert!(matches!(refused, KernelError::OtherContract { .. }));
        assert!(refused.to_string().contains("v999"), "{refused}");
        drop(Pins::create(bpffs.path(), "b").unwrap());
    }

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
