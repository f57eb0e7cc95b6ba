//! Follows the configuration source: a good snapshot replaces the one in force, a bad one is reported and changes
//! nothing.

use crate::{
    context::Context,
    discover::{ConfigErrors, files::Update},
    observe::checks::Check,
    pods,
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{runtime::Handle, sync::mpsc};
use tramline_core::mesh::Mesh;

/// How often pods that could not be enrolled are tried again, and pods looked at whose namespace may have been
/// replaced.
const RETRY: Duration = Duration::from_secs(2);

/// What is wrong with the latest configuration, for `tramline status` and the metrics.
#[derive(Default)]
pub(super) struct Report {
    errors: Mutex<Vec<String>>,
    generation: AtomicU64,
    /// For the metrics.
    pub(super) counts: Counts,
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

    /// The snapshot that both the agent and the kernel's rows follow: what is refused by it is refused everywhere.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn set(&self, errors: Vec<String>) {
        *self.lock() = errors;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies updates until the source ends.
pub(super) async fn follow(
    context: Arc<Context>,
    mut updates: mpsc::Receiver<Update>,
    report: Arc<Report>,
    configured: Check,
    enrolled: Check,
    data: Handle,
) {
    let mut first = true;
    let mut retry = tokio::time::interval(RETRY);
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                None => return,
                Some(Err(errors)) => refuse(&errors, &report, &configured, first),
                Some(Ok(mesh)) => {
                    first = false;
                    report.set(Vec::new());
                    let generation = mesh.generation();
                    if apply(&context, mesh, &data).await {
                        report.generation.store(generation, Ordering::Release);
                        report.counts.applied();
                        configured.ok();
                    }
                    tell(&context, &enrolled);
                }
            },
            _ = retry.tick() => {
                if context.pods.failed() == 0 && !pods::any_replaced(&context) {
                    continue;
                }
                let mesh = context.mesh.load_full();
                reconcile(&context, mesh, &data).await;
                tell(&context, &enrolled);
            }
        }
    }
}

/// Whether the kernel follows the snapshot too.
async fn apply(context: &Arc<Context>, mesh: Arc<Mesh>, data: &Handle) -> bool {
    let generation = mesh.generation();
    // Decisions first, then the kernel's rows: whatever the kernel still passes by old rows was allowed until now,
    // and what it hands to the agent is decided by the new snapshot.
    context.mesh.store(mesh.clone());
    context.generations.send_replace(generation);
    context.pool.retain_destinations(|address, identity| {
        mesh.workload_by_address(address.ip())
            .is_some_and(|workload| workload.identity == *identity)
    });
    if !reconcile(context, mesh, data).await {
        return false;
    }
    tracing::info!(
        generation,
        pods = context.pods.all().len(),
        "configuration in force"
    );
    true
}

/// False if it broke off: then the kernel's rows may be those of an older snapshot.
pub(super) async fn reconcile(context: &Arc<Context>, mesh: Arc<Mesh>, data: &Handle) -> bool {
    let context = context.clone();
    // On the data plane's runtime: the accept loops of a pod run where it was enrolled.
    let done = data
        .spawn(async move { pods::reconcile(&context, &mesh).await })
        .await;
    if let Err(error) = &done {
        tracing::error!(%error, "enrolling pods failed");
    }
    done.is_ok()
}

fn refuse(errors: &ConfigErrors, report: &Report, configured: &Check, first: bool) {
    let lines: Vec<String> = errors.errors().iter().map(ToString::to_string).collect();
    for line in &lines {
        tracing::error!("configuration refused: {line}");
    }
    if first {
        configured.failed(format!(
            "{} errors, and no good configuration before: {}",
            lines.len(),
            lines.join("; ")
        ));
    }
    report.counts.refused.fetch_add(1, Ordering::Relaxed);
    report.set(lines);
}

fn tell(context: &Context, enrolled: &Check) {
    match context.pods.failed() {
        0 => enrolled.ok(),
        failed => enrolled.failed(format!(
            "{failed} pods of this node cannot be enrolled; see `tramline workloads`"
        )),
    }
}
