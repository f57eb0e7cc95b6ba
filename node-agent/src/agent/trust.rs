//! Follows the files that say who signs and whom to trust: the authority's own, the trust bundle, the revocation lists.

use crate::identify::CertStore;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long the files have to stay the same before they are read: half a bundle may look like a whole one.
const SETTLE: Duration = Duration::from_millis(100);
/// Files that never rest are read all the same after this many looks.
const MAX_UNSETTLED: usize = 20;
/// How often the files are looked at without being told: inotify says nothing of links' targets.
const POLL: Duration = Duration::from_secs(2);

/// Reads the files again whenever they change, until `stop`.
pub(super) async fn follow(certificates: Arc<CertStore>, stop: CancellationToken) {
    stop.run_until_cancelled(watch(certificates)).await;
}

async fn watch(certificates: Arc<CertStore>) {
    let files = certificates.authority().watched();
    let (mut hints, watcher) = hints(&files);
    // Before the first change the agent has read them at its start; a change since then is found here.
    let mut seen = None;
    let mut said = Vec::new();
    loop {
        let now = settled(&files).await;
        if seen.as_ref() != Some(&now) {
            seen = Some(now);
            let store = certificates.clone();
            let read = tokio::task::spawn_blocking(move || {
                let errors = store.authority().reload();
                errors.iter().map(ToString::to_string).collect::<Vec<_>>()
            });
            match read.await {
                Ok(errors) => {
                    for error in errors.iter().filter(|error| !said.contains(*error)) {
                        tracing::error!("trust files: {error}; what was read last stays in force");
                    }
                    said = errors;
                }
                Err(error) => {
                    tracing::error!(%error, "reading the trust files failed");
                    seen = None;
                }
            }
        }
        tokio::select! {
            Some(()) = hints.recv(), if watcher.is_some() => {}
            () = sleep(POLL) => {}
        }
    }
}

/// What tells one version of a file from another; links are followed.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

async fn settled(files: &[PathBuf]) -> Vec<Stamp> {
    let look = || files.iter().map(|file| stamp(file)).collect::<Vec<_>>();
    let mut before = look();
    for _ in 0..MAX_UNSETTLED {
        sleep(SETTLE).await;
        let after = look();
        if after == before {
            break;
        }
        before = after;
    }
    before
}

fn stamp(file: &Path) -> Stamp {
    file.metadata().ok().map(|it| {
        // The time of the last change of mode or owner, too: a file may have been refused for them.
        (it.dev(), it.ino(), it.ctime(), it.ctime_nsec(), it.size())
    })
}

/// Watches the directories, since files are replaced by renaming; without inotify, polling goes on alone.
fn hints(files: &[PathBuf]) -> (mpsc::Receiver<()>, Option<RecommendedWatcher>) {
    let (hint, hints) = mpsc::channel(1);
    let on_event = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            // One pending hint says as much as many.
            let _ = hint.try_send(());
        }
    };
    let watched = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        let parents: BTreeSet<_> = files.iter().filter_map(|file| file.parent()).collect();
        for parent in parents {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    match watched {
        Ok(watcher) => (hints, Some(watcher)),
        Err(error) => {
            tracing::warn!(%error, "trust files are polled: no watch on their directories");
            (hints, None)
        }
    }
}

#[cfg(test)]
mod tests;
