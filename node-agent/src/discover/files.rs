//! The files source: one directory of manifests, taken as a whole or not at all.

mod accept;
#[cfg(test)]
mod bad_tests;
mod difference;
#[cfg(test)]
mod difference_tests;
mod last_good;
pub mod offline;
mod parsed;
mod read;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tramline_core::mesh::{Mesh, MeshSettings};

pub use self::accept::Accepted;
pub use self::last_good::LastGood;
pub use self::parsed::Parsed;
use self::read::Contents;
use super::ConfigErrors;

/// How long the directory has to stay the same before it is read: writers take a moment.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often the directory is looked at without being told: inotify says nothing of symbolic links' targets.
const POLL: Duration = Duration::from_secs(5);

/// What became of one reading of the directory.
#[derive(Debug, Clone)]
pub enum Update {
    /// It is to come into force.
    Accepted {
        /// What it makes.
        accepted: Accepted,
        /// Why it would not survive a restart.
        unkept: Option<String>,
    },
    /// It changes nothing: what was in force before stays.
    Refused {
        /// Everything that is wrong.
        errors: ConfigErrors,
        /// Where nothing was in force before: why there is nothing to fall back on.
        nothing_kept: Option<String>,
    },
    /// It is refused, nothing was in force, and what an agent before this one had in force is to come back.
    Restored {
        /// What it makes.
        accepted: Accepted,
        /// When it was accepted.
        since: SystemTime,
        /// What is wrong with the directory.
        errors: ConfigErrors,
    },
}

/// A directory of manifests (`*.yaml`, `*.yml`, `*.json`; subdirectories and hidden files are not read).
#[derive(Debug)]
pub struct FilesSource {
    dir: PathBuf,
    settings: MeshSettings,
    /// What was taken last.
    last: Mutex<Option<Accepted>>,
    last_good: Option<LastGood>,
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
            last: Mutex::default(),
            last_good: None,
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

    /// Has what is accepted outlive the agent.
    #[must_use]
    pub fn with_last_good(self, last_good: LastGood) -> Self {
        Self {
            last_good: Some(last_good),
            ..self
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was taken last.
    pub fn last(&self) -> Option<Accepted> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the directory once. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// Everything that is wrong with any file or object.
    pub fn load_once(&self) -> Result<Arc<Mesh>, ConfigErrors> {
        Ok(self.take(&read::directory(&self.dir)?)?.mesh)
    }

    /// Watches the directory until `cancel`. The first update is its present state; after that one for each change of
    /// contents. An error leaves the snapshot before it in force: the consumer keeps what it has.
    ///
    /// Must be called within a tokio runtime.
    pub fn watch(self, cancel: CancellationToken) -> mpsc::Receiver<Update> {
        watch::spawn(Arc::new(self), cancel)
    }

    /// What a reading leads to.
    fn update(&self, read: &Result<Contents, ConfigErrors>) -> Update {
        let taken = read
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|contents| Ok((self.take(contents)?, contents)));
        match taken {
            Ok((accepted, contents)) => {
                let kept = self.last_good.as_ref().map_or(Ok(()), |kept| kept.keep(contents));
                let unkept = kept.err().map(|error| error.to_string());
                Update::Accepted { accepted, unkept }
            }
            Err(errors) if self.last().is_some() => Update::Refused {
                errors,
                nothing_kept: None,
            },
            Err(errors) => match self.restore() {
                Ok((accepted, since)) => Update::Restored {
                    accepted,
                    since,
                    errors,
                },
                Err(why) => Update::Refused {
                    errors,
                    nothing_kept: Some(why),
                },
            },
        }
    }

    /// Takes what was kept.
    fn restore(&self) -> Result<(Accepted, SystemTime), String> {
        let kept = self.last_good.as_ref().ok_or("none is kept")?;
        let kept = kept.load().map_err(|error| error.to_string())?;
        let accepted = self
            .take(&kept.contents)
            .map_err(|errors| format!("it is refused now: {errors}"))?;
        Ok((accepted, kept.since))
    }

    /// Takes what was read, as the next generation.
    fn take(&self, contents: &Contents) -> Result<Accepted, ConfigErrors> {
        let before = self.last();
        let mut accepted = accept::accept(contents, &self.settings, before.as_ref())?;
        let generation = before.map_or(0, |before| before.mesh.generation()) + 1;
        accepted.mesh = Arc::new(Mesh::clone(&accepted.mesh).with_generation(generation));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted.clone());
        Ok(accepted)
    }
}

#[cfg(test)]
mod tests;
