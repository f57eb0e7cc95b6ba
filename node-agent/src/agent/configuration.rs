//! Follows the configuration source: a good snapshot replaces the one in force, a bad one is reported and changes
//! nothing.

use crate::{
    context::Context,
    discover::{
        ConfigErrors,
        files::{Accepted, Parsed, Update},
    },
    observe::checks::Check,
    pods,
    verdicts::Verdicts,
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{runtime::Handle, sync::mpsc};

/// How often pods that could not be enrolled are tried again, and pods looked at whose namespace may have been
/// replaced.
const RETRY: Duration = Duration::from_secs(2);
/// Errors of one configuration that are logged.
const MAX_LOGGED: usize = 100;

/// What is in force, and what is wrong with the latest configuration; for `tramline status` and the metrics.
#[derive(Default)]
pub(super) struct Report {
    errors: Mutex<Vec<String>>,
    in_force: Mutex<InForce>,
    /// For the metrics.
    pub(super) counts: Counts,
}

/// What is in force.
#[derive(Clone, Default)]
pub(super) struct InForce {
    /// Its objects, for `tramline config print`.
    pub(super) objects: Arc<Parsed>,
    pub(super) from: Origin,
}

/// Where it comes from.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing is in force yet.
    #[default]
    Nothing,
    /// The directory, as this agent read it.
    Directory,
    /// The state directory: an agent before this one had it in force.
    LastGood,
}

impl Origin {
    /// As `tramline status` says it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Directory => "directory",
            Self::LastGood => "last_good",
        }
    }
}

/// What became of the configurations read since start.
#[derive(Default)]
pub(super) struct Counts {
    /// Those that came into force.
    pub(super) applied: AtomicU64,
    /// Those that changed nothing.
    pub(super) refused: AtomicU64,
    /// Seconds since 1970 when one last came into force; zero before the first.
    pub(super) last_applied: AtomicU64,
}

impl Counts {
    fn applied(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_applied.store(now.as_secs(), Ordering::Relaxed);
        self.applied.fetch_add(1, Ordering::Relaxed);
    }
}

impl Report {
    /// One line per error; empty when the latest configuration is in force.
    pub(super) fn errors(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// What is in force.
    pub(super) fn in_force(&self) -> InForce {
        self.in_force
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_in_force(&self, objects: Arc<Parsed>, from: Origin) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = InForce { objects, from };
    }

    fn set(&self, errors: Vec<String>) {
        *self.lock() = errors;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who follows the configuration source.
pub(super) struct Follower {
    pub(super) context: Arc<Context>,
    pub(super) report: Arc<Report>,
    /// The checks of `/readyz`.
    pub(super) captured: Check,
    pub(super) configured: Check,
    pub(super) enrolled: Check,
    pub(super) data: Handle,
    /// What the agent decides by and the kernel could not be brought up to: not acknowledged, and tried again.
    pub(super) behind: Option<Behind>,
}

/// A configuration that the kernel does not follow yet.
pub(super) struct Behind {
    accepted: Accepted,
    from: Origin,
    remark: Option<String>,
}

impl Follower {
    /// Applies updates until the source ends.
    pub(super) async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        let mut retry = tokio::time::interval(RETRY);
        loop {
            tokio::select! {
                update = updates.recv() => match update {
                    None => return,
                    Some(update) => self.update(update).await,
                },
                _ = retry.tick() => {
                    if let Some(behind) = self.behind.take() {
                        self.put_in_force(behind).await;
                        continue;
                    }
                    if self.context.pods.failed() == 0 && !pods::any_replaced(&self.context) && !self.is_to_take_over() {
                        continue;
                    }
                    reconcile(&self.context, &self.data).await;
                    self.tell();
                }
            }
        }
    }

    /// The programs could not be attached when there was a configuration first, or what another agent left could not be closed.
    fn is_to_take_over(&self) -> bool {
        let broker = &self.context.broker;
        self.report.in_force().from != Origin::Nothing && (broker.waits_for_pods() || broker.is_unsettled())
    }

    fn tell(&self) {
        if self.context.broker.waits_for_pods() {
            self.captured
                .failed("the node's programs are still those of an agent with another layout of maps");
        } else {
            self.captured.ok();
        }
        match self.context.pods.failed() {
            0 => self.enrolled.ok(),
            failed => self.enrolled.failed(format!(
                "{failed} pods of this node cannot be enrolled; see `tramline workloads`"
            )),
        }
    }

    async fn update(&mut self, update: Update) {
        match update {
            Update::Accepted { accepted, unkept } => {
                self.report.set(Vec::new());
                if let Some(why) = &unkept {
                    tracing::error!(
                        "this configuration would not survive a restart, it cannot be kept: {why}"
                    );
                }
                let remark = unkept.map(|why| format!("but cannot be kept for a restart: {why}"));
                let from = Origin::Directory;
                self.put_in_force(Behind {
                    accepted,
                    from,
                    remark,
                })
                .await;
            }
            Update::Restored {
                accepted,
                since,
                errors,
            } => {
                let count = self.refuse(&errors);
                let since = OffsetDateTime::from(since).format(&Rfc3339).unwrap_or_default();
                tracing::warn!(
                    accepted = since,
                    "the directory is refused; the last good configuration is in force"
                );
                let remark = format!("the last good one, accepted {since}; {count}");
                let from = Origin::LastGood;
                self.put_in_force(Behind {
                    accepted,
                    from,
                    remark: Some(remark),
                })
                .await;
            }
            Update::Refused { errors, nothing_kept } => {
                let count = self.refuse(&errors);
                let stays = format!("the last good one stays in force; {count}");
                if let Some(behind) = &mut self.behind {
                    // What the agent decides by already, and the kernel soon.
                    if self.report.in_force().from == Origin::Nothing {
                        self.configured
                            .failed(format!("{count}; the one before it is not acknowledged yet"));
                    }
                    behind.remark = Some(stays);
                } else if self.report.in_force().from == Origin::Nothing {
                    let kept = nothing_kept.unwrap_or_else(|| "none is kept".into());
                    // What an agent before this one let the kernel do by itself rests on a configuration that nobody has.
                    Verdicts::void_all(&self.context).await;
                    tracing::error!(
                        "no configuration is in force, and no last good one: {kept}; pods stay as the agent before \
                         left them, closed to whatever it had to decide"
                    );
                    self.configured
                        .failed(format!("{count}; no last good one: {kept}"));
                } else {
                    self.configured.ok_but(stays);
                }
            }
        }
    }

    async fn put_in_force(&mut self, next: Behind) {
        let mesh = next.accepted.mesh.clone();
        let generation = mesh.generation();
        let follow = async {
            self.context.pool.retain_destinations(|address, identity| {
                mesh.workload_by_address(address.ip())
                    .is_some_and(|workload| workload.identity == *identity)
            });
            let done = reconcile(&self.context, &self.data).await;
            if done {
                self.report.set_in_force(next.accepted.parsed.clone(), next.from);
            }
            done
        };
        if self.context.mesh.put(mesh.clone(), follow).await {
            self.behind = None;
            self.report.counts.applied();
            let pods = self.context.pods.all().len();
            tracing::info!(generation, pods, "configuration in force");
            match next.remark {
                Some(remark) => self.configured.ok_but(remark),
                None => self.configured.ok(),
            }
        } else {
            tracing::error!(
                generation,
                "the configuration is not acknowledged: the agent decides by it, the kernel may not everywhere; it is tried again"
            );
            self.behind = Some(next);
        }
        self.tell();
    }

    /// Logs and keeps what is wrong with the directory, and says how much in a few words.
    fn refuse(&self, errors: &ConfigErrors) -> String {
        let lines: Vec<String> = errors.errors().iter().map(ToString::to_string).collect();
        for line in lines.iter().take(MAX_LOGGED) {
            tracing::error!("configuration refused: {line}");
        }
        if lines.len() > MAX_LOGGED {
            let more = lines.len() - MAX_LOGGED;
            tracing::error!(
                "configuration refused: {more} more errors; `tramline config validate` prints all"
            );
        }
        self.report.counts.refused.fetch_add(1, Ordering::Relaxed);
        let count = match lines.as_slice() {
            [only] => format!("the directory is refused: {only}"),
            [first, ..] => format!("the directory is refused, {} errors: {first}", lines.len()),
            [] => "the directory is refused".to_owned(),
        };
        self.report.set(lines);
        count
    }
}

/// Brings the kernel up to the snapshot in force. False if it broke off, or the kernel does not follow: then it may decide by an
/// older one.
pub(super) async fn reconcile(context: &Arc<Context>, data: &Handle) -> bool {
    let context = context.clone();
    // On the data plane's runtime: the accept loops of a pod run where it was enrolled.
    let done = data.spawn(async move { pods::reconcile(&context).await }).await;
    if let Err(error) = &done {
        tracing::error!(%error, "enrolling pods failed");
    }
    done.unwrap_or(false)
}
