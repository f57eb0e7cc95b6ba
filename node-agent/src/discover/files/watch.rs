//! Watching: inotify for speed, looking now and then for certainty.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::read::{self, Contents};
use super::{FilesSource, Update};
use crate::discover::{ConfigError, ConfigErrors};

/// How often two readings may differ before the last one is taken: a directory that never rests must not stop the
/// mesh from following it.
const MAX_UNSTABLE: usize = 20;
/// Updates that wait for a slow consumer; reading stops meanwhile.
const QUEUE: usize = 4;

pub(super) fn spawn(source: Arc<FilesSource>, cancel: CancellationToken) -> mpsc::Receiver<Update> {
    let (updates, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        cancel.run_until_cancelled(run(source, updates)).await;
    });
    receiver
}

async fn run(source: Arc<FilesSource>, updates: mpsc::Sender<Update>) {
    let (mut hints, mut watch) = Watch::start(source.dir());
    let mut last: Option<Result<Contents, ConfigErrors>> = None;
    loop {
        let read = stable(&source, last.as_ref()).await;
        if last.as_ref() != Some(&read) {
            let (read_back, update) = build(source.clone(), read).await;
            last = read_back;
            if updates.send(update).await.is_err() {
                return;
            }
        }
        let next_poll = Instant::now() + source.poll;
        tokio::select! {
            hint = hints.recv() => {
                if hint.is_none() {
                    sleep_until(next_poll).await;
                }
            }
            () = sleep_until(next_poll) => {}
        }
        if !watch.is_current(source.dir()) {
            // inotify follows the directory it was given, not whatever stands there by that name later.
            (hints, watch) = Watch::start(source.dir());
        }
    }
}

/// The contents, once two readings a moment apart agree: a file caught half written may be valid YAML with half of
/// its policies.
async fn stable(
    source: &Arc<FilesSource>,
    known: Option<&Result<Contents, ConfigErrors>>,
) -> Result<Contents, ConfigErrors> {
    let mut before = read_blocking(source.clone()).await;
    if known == Some(&before) {
        return before;
    }
    for _ in 0..MAX_UNSTABLE {
        sleep(source.debounce).await;
        let after = read_blocking(source.clone()).await;
        if after == before {
            break;
        }
        before = after;
    }
    before
}

async fn read_blocking(source: Arc<FilesSource>) -> Result<Contents, ConfigErrors> {
    let place = source.dir().display().to_string();
    let read = tokio::task::spawn_blocking(move || read::directory(source.dir())).await;
    read.unwrap_or_else(|error| Err(ConfigError::at(place, format!("cannot be read: {error}")).into()))
}

async fn build(
    source: Arc<FilesSource>,
    read: Result<Contents, ConfigErrors>,
) -> (Option<Result<Contents, ConfigErrors>>, Update) {
    let place = source.dir().display().to_string();
    let built = tokio::task::spawn_blocking(move || {
        let update = source.update(&read);
        (Some(read), update)
    });
    built.await.unwrap_or_else(|error| {
        // `None` has the next look build again.
        (
            None,
            Update::Refused {
                errors: ConfigError::at(place, format!("could not be interpreted: {error}")).into(),
                nothing_kept: None,
            },
        )
    })
}

/// An inotify watch with the directory it was given; without one, polling goes on alone.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    inode: Option<(u64, u64)>,
}

impl Watch {
    fn start(dir: &Path) -> (mpsc::Receiver<()>, Self) {
        // One pending hint says as much as many.
        let (hint, hints) = mpsc::channel(1);
        let on_event = move |event: notify::Result<notify::Event>| {
            // Our own reading shows up as access.
            if !matches!(
                event,
                Ok(notify::Event {
                    kind: EventKind::Access(_),
                    ..
                })
            ) && hint.try_send(()).is_err()
            {
                debug!("a hint about configuration is already pending");
            }
        };
        let inode = inode(dir);
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => (
                hints,
                Self {
                    watcher: Some(watcher),
                    inode,
                },
            ),
            Err(error) => {
                warn!(dir = %dir.display(), %error, "configuration is polled: no watch on its directory");
                (hints, Self { watcher: None, inode })
            }
        }
    }

    fn is_current(&self, dir: &Path) -> bool {
        let now = inode(dir);
        now == self.inode && (self.watcher.is_some() || now.is_none())
    }
}

fn inode(dir: &Path) -> Option<(u64, u64)> {
    dir.metadata()
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}
